import cython

cdef tuple _DURATION_NS
cdef tuple _SELF_NS


cdef class RouteStats:
    cdef public list _buckets
    cdef public long long _duration_ns
    cdef public list _exemplars
    cdef public dict _faults
    cdef public list _self_buckets
    cdef public long long _self_ns
    cdef public dict _statuses
    cdef public str host
    cdef public str name
    cdef public str namespace
    cdef public str path

    @cython.locals(statuses=dict, bucket=Py_ssize_t, own=Py_ssize_t, bound="long long")
    cpdef void observe(
        self,
        int status,
        long long duration_ns,
        long long self_ns,
        str error_type,
        bytes trace_id,
        bint recorded,
        long long end_ns,
    ) except *
