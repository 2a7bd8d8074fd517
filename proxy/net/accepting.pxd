from proxy.net.reactor cimport Member


cdef class Acceptor(Member):
    cdef object _factory
    cdef object _sockname
    cdef bint _resting

    cdef int rest(self, object error) except -1
    cpdef void close(self) except *
