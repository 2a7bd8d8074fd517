cdef class Allowance:
    cdef long long _asked
    cdef double _credit
    cdef double _left
    cdef double _rate
    cdef double _share
    cdef double _since
    cdef public long long spared

    cpdef bint take(self) except *
    cpdef void refill(self, double now) except *
    cpdef void close(self) except *
