from libc.stdint cimport uint16_t

from proxy.net.reactor cimport Member, Reactor
from proxy.net.stage cimport Stage


cdef extern from "sys/socket.h":
    ctypedef unsigned int socklen_t
    cdef struct sockaddr:
        uint16_t sa_family
    cdef struct sockaddr_storage:
        uint16_t ss_family


cdef class Transport(Member):
    cdef object _protocol
    cdef Stage _stage
    cdef object _socket
    cdef object _sockname
    cdef object _peername
    cdef list _waiting
    cdef Py_ssize_t _offset
    cdef Py_ssize_t _size
    cdef Py_ssize_t _high
    cdef Py_ssize_t _low
    cdef bint _large
    cdef bint _unread
    cdef bint _urgent
    cdef bint _hung_up
    cdef bint _paused
    cdef bint _full
    cdef bint _watched
    cdef bint _ended
    cdef bint _finishing
    cdef bint _closing
    cdef bint _losing

    cdef int flush(self) except -1
    cdef int lose(self, object error) except -1
    cdef int fill(self) except -1
    cdef int failed(self, int code) except -1
    cdef int end(self) except -1
    cdef int broken(self, object error, str where) except -1
    cpdef void close(self) except *
    cpdef void abort(self) except *
    cpdef void pause_reading(self) except *
    cpdef void resume_reading(self) except *
    cpdef Py_ssize_t get_write_buffer_size(self) except? -1


cdef object address(sockaddr_storage* of)
cdef Transport made(Reactor reactor, int descriptor, object protocol, object peername, object sockname)
