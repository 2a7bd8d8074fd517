from libc.stdint cimport uint32_t


cdef extern from "sys/epoll.h":
    ctypedef union epoll_data_t:
        int fd

    cdef struct epoll_event:
        uint32_t events
        epoll_data_t data


cdef class Reactor:
    cdef object __weakref__
    cdef object _loop
    cdef int _epoll
    cdef list _table
    cdef Py_ssize_t _members
    cdef list _again
    cdef bint _called
    cdef char* _scratch
    cdef epoll_event* _events

    cdef int add(self, Member member, uint32_t events) except -1
    cdef void change(self, Member member, uint32_t events) noexcept
    cdef int remove(self, Member member) except -1
    cdef int again(self, Transport transport) except -1
    cdef object soon(self, object call, object argument)
    cpdef void ready(self) except *
    cpdef void go_on(self) except *


cdef class Member:
    cdef int _descriptor
    cdef Reactor _reactor

    cdef int happened(self, uint32_t events) except -1


cdef class Transport(Member):
    cdef object _protocol
    cdef object _socket
    cdef object _sockname
    cdef object _peername
    cdef list _waiting
    cdef Py_ssize_t _offset
    cdef Py_ssize_t _size
    cdef Py_ssize_t _high
    cdef Py_ssize_t _low
    cdef bint _unread
    cdef bint _urgent
    cdef bint _hung_up
    cdef bint _queued
    cdef bint _paused
    cdef bint _full
    cdef bint _watched
    cdef bint _ended
    cdef bint _finishing
    cdef bint _closing
    cdef bint _losing

    cdef int read(self) except -1
    cdef int flush(self) except -1
    cdef int lose(self, object error) except -1
    cdef int fill(self) except -1
    cdef int failed(self, int code) except -1
    cdef int end(self) except -1
    cdef int broken(self, object error, str where) except -1
    cpdef void write(self, object data) except *
    cpdef void close(self) except *
    cpdef void abort(self) except *
    cpdef bint is_closing(self) except? 1
    cpdef void pause_reading(self) except *
    cpdef void resume_reading(self) except *
    cpdef Py_ssize_t get_write_buffer_size(self) except? -1


cdef class Acceptor(Member):
    cdef object _factory
    cdef object _sockname
    cdef bint _resting

    cdef int rest(self, object error) except -1
    cpdef void close(self) except *
