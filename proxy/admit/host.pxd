cpdef tuple parse_host(bytes value)
