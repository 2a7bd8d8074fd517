cdef class Bounds:
    cdef public double body
    cdef public long long chunk_extensions
    cdef public long long fields
    cdef public bint forwarded
    cdef public long long head
    cdef public double idle
    cdef public long long pipelined
    cdef public long long request_line
    cdef public long long retry_tries
    cdef public double send
    cdef public bint underscores
    cdef public bint via
