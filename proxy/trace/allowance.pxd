import cython


@cython.locals(number="long long", start_ns="long long")
cpdef long long next_row(long long now_ns)

@cython.locals(hashed="long long")
cdef long long _start(long long number)

cdef class Allowance:
    cdef long long _left
    cdef bint _listening
    cdef long long _open
    cdef long long _rate
    cdef long long _rest_ns
    cdef long long _since_ns
    cdef long long _taken_ns
    cdef bint _told
    cdef long long _untold
    cdef public long long spared

    cpdef bint take(self, long long now_ns) except *
    cdef void _grant(self, long long now_ns) except *
    cdef void _renew(self, long long now_ns) except *
    cpdef bint busy(self, long long now_ns) except *
    cpdef void ended(self) except *
    cpdef long long resting(self) except -1
    cpdef void listen(self, long long now_ns) except *
    cpdef void close(self) except *
