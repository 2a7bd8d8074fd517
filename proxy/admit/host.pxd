cdef dict _cache

cpdef tuple parse_host(bytes value)
