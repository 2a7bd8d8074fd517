from libc.stdint cimport uint32_t

from proxy.net.stage cimport Stage


cdef extern from "sys/epoll.h":
    enum:
        EPOLLIN
        EPOLLOUT
        EPOLLERR
        EPOLLHUP
        EPOLLPRI
        EPOLLRDHUP
        EPOLLET
    ctypedef union epoll_data_t:
        int fd
    cdef struct epoll_event:
        uint32_t events
        epoll_data_t data

# The system calls of each message, as they are. The C library makes each a point of cancellation (pthreads(7)), which in a
# process of several threads, as one that exports is, takes two locked instructions; nobody cancels threads here.
cdef extern from *:
    """
    #include <sys/epoll.h>
    #include <sys/socket.h>
    #include <sys/syscall.h>
    #include <unistd.h>
    static inline ssize_t receive(int descriptor, void *data, size_t size) {
        return syscall(SYS_recvfrom, descriptor, data, size, 0, NULL, NULL);
    }
    static inline ssize_t send_off(int descriptor, const void *data, size_t size) {
        return syscall(SYS_sendto, descriptor, data, size, MSG_NOSIGNAL, NULL, 0);
    }
    static inline int happened_by_now(int epoll, struct epoll_event *events, int most) {
        return syscall(SYS_epoll_pwait, epoll, events, most, 0, NULL, 8);
    }
    """
    ssize_t receive(int descriptor, void* data, size_t size)
    ssize_t send_off(int descriptor, const void* data, size_t size)
    int happened_by_now(int epoll, epoll_event* events, int most)


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
    # Of a client that is alone: the last two descriptors, when the loop had its turn (0: not known), and what speaks for
    # awaiting the next without sleeping.
    cdef int _before
    cdef int _last
    cdef long long _left_ns
    cdef int _credit
    cdef int _fine

    cdef int add(self, Member member, uint32_t events) except -1
    cdef void change(self, Member member, uint32_t events) noexcept
    cdef int remove(self, Member member) except -1
    cdef int again(self, Member member) except -1
    cdef object soon(self, object call, object argument)
    cpdef void ready(self) except *
    cdef object tell(self, int count)
    cdef int more(self, int count, int taken) noexcept
    cdef bint alone(self, int count) noexcept
    cpdef void go_on(self) except *


cdef class Member(Stage):
    cdef int _descriptor
    cdef bint _queued
    cdef Reactor _reactor

    cdef int happened(self, uint32_t events) except -1
    cdef int read(self) except -1


cdef Reactor reactor_of(object loop)
cdef object error_by(int code)

cdef enum:
    READ = 122880  # bytes of one read at most: 1.9 times as many bodies of 1 MiB a second as with uvloop's 256 KiB
