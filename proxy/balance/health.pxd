cdef class Health:
    cdef public double _ejected_at
    cdef public double _ejected_for
    cdef public double _recovered_at
    cdef public object _rules
    cdef public bint _trial
    cdef public double ejected_until
    cdef public long long ejections
    cdef public long long errors
    cdef public long long failures
    cdef public long long requests
    cdef public list watchers

    cpdef void succeeded(self, long long latency_ns, double now) except *
