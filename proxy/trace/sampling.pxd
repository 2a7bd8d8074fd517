cdef class Sampler:
    cdef public bint _parent_decides
    cdef public object _threshold
    cdef public bint _always
    cdef public dict _by_ratio
    cdef public str name

    cpdef bint decide(self, bytes trace_id, object parent_flags=*, object ratio=*, bytes tracestate=*) except -1
    cpdef bytes state(self, bytes trace_id, object parent_flags=*, object ratio=*, bytes tracestate=*)
    cdef object _of(self, object ratio)
