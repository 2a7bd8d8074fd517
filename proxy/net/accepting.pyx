"""The compiled twin of ``accepting.py``: listening sockets on the reactor's epoll."""

import asyncio
import logging
import socket

from libc.errno cimport EAGAIN, EBADF, ECONNABORTED, EINTR, EINVAL, ENOTSOCK, EPERM, EPROTO, errno as failure
from libc.stdint cimport uint32_t
from posix.unistd cimport close as close_descriptor

from proxy.net.reactor cimport EPOLLET, EPOLLIN, Member, Reactor, error_by, reactor_of
from proxy.net.transport cimport address, made, sockaddr, sockaddr_storage, socklen_t

cdef extern from "sys/socket.h":
    enum:
        SOCK_CLOEXEC
        SOCK_NONBLOCK
    int accept4(int listening, sockaddr* peer, socklen_t* size, int flags)

_log = logging.getLogger(__name__)

BACKLOG = 4096

cdef enum:
    ACCEPTED = 64  # connections taken in a row

cdef double REST = 0.5  # seconds without accepting when descriptors run out (nginx: accept_mutex_delay)


cdef class Acceptor(Member):
    """See `asyncio.Server`, as far as it is needed: closing it."""

    def __repr__(self):
        return f"<Acceptor fd={self._descriptor} of {self._sockname}>"

    cdef int happened(self, uint32_t events) except -1:
        cdef sockaddr_storage peer
        cdef socklen_t size
        cdef int descriptor, code
        for _ in range(ACCEPTED):
            if self._descriptor < 0:
                return 0
            size = sizeof(peer)
            descriptor = accept4(self._descriptor, <sockaddr*>&peer, &size, SOCK_NONBLOCK | SOCK_CLOEXEC)
            if descriptor >= 0:
                taken(self, descriptor, &peer)
                continue
            code = failure
            if code == EAGAIN:
                return 0
            if code == EINVAL or code == EBADF or code == ENOTSOCK:
                self.close()  # shut down by another holder
            elif code != EINTR and code != ECONNABORTED and code != EPROTO and code != EPERM:
                return self.rest(error_by(code))  # out of descriptors or memory, most likely
        return 0

    cdef int rest(self, object error) except -1:
        if not self._resting:
            self._resting = True
            _log.error("cannot accept connections: %s; trying again in %g s", error, REST)
            # By edge: that it was shut down would be told again and again.
            self._reactor.change(self, EPOLLET)
            self._reactor._loop.call_later(REST, self._go_on)
        return 0

    def _go_on(self):
        self._resting = False
        if self._descriptor >= 0:
            self._reactor.change(self, EPOLLIN)

    cpdef void close(self) except *:
        """Accept no more; the connections stay."""
        if self._descriptor >= 0:
            self._reactor.remove(self)


cdef int taken(Acceptor acceptor, int descriptor, sockaddr_storage* peer) except -1:
    """Make a connection of what was accepted, or close it."""
    cdef object protocol, name
    try:
        protocol, name = acceptor._factory(), address(peer)
    except BaseException as error:
        close_descriptor(descriptor)
        if isinstance(error, (KeyboardInterrupt, SystemExit)):
            raise
        acceptor._reactor._loop.call_exception_handler(
            {"message": "Error on transport creation for incoming connection", "exception": error}
        )
        return 0
    try:
        made(acceptor._reactor, descriptor, protocol, name, acceptor._sockname)
    except OSError as error:
        acceptor.rest(error)
    return 0


async def accept(sock, factory):
    """See ``accepting.py``."""
    loop = asyncio.get_running_loop()
    reactor = reactor_of(loop)
    sock.listen(BACKLOG)
    # Inherited by what is accepted, which saves a call for each.
    sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    cdef Acceptor acceptor = Acceptor.__new__(Acceptor)
    name = sock.getsockname()
    # A socket for all addresses does not know on which of them a connection is.
    acceptor._sockname = None if name[0] in ("0.0.0.0", "::", "::ffff:0.0.0.0") else name
    acceptor._factory = factory
    acceptor._reactor = reactor
    own = sock.dup()
    own.setblocking(False)
    acceptor._descriptor = own.detach()
    (<Reactor>reactor).add(acceptor, EPOLLIN)
    return acceptor
