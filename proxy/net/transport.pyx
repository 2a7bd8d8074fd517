"""The compiled twin of ``transport.py``: connections on an epoll of their own, below the loop's.

uvloop serves a connection well, but for a proxy that answers in microseconds its machinery is a third of all user time:
each event takes the interpreter's lock anew, each read goes through three layers, and a level-triggered epoll asks every
socket twice. Here one descriptor, the epoll's, is the loop's reader; a round takes all that happened by one system call and
hands it on by calls of C. Edge-triggered, as in nginx: a read that comes back short has emptied the socket, pausing and
resuming cost no system call, and nobody watches for room to write but who waits for it.

Everything else, timers, names, signals, TLS, the admin pages, stays the loop's.
"""

import asyncio
import logging
import os
import socket
import weakref

from cpython.bytes cimport PyBytes_AS_STRING, PyBytes_FromStringAndSize, PyBytes_GET_SIZE
from libc.errno cimport EAGAIN, EBADF, ECONNABORTED, EINTR, EINVAL, ENOTSOCK, EPERM, EPROTO, errno as failure
from libc.stdint cimport uint16_t, uint32_t
from libc.stdlib cimport free, malloc
from posix.unistd cimport close as close_descriptor

cdef extern from "sys/epoll.h":
    enum:
        EPOLL_CLOEXEC
        EPOLL_CTL_ADD
        EPOLL_CTL_DEL
        EPOLL_CTL_MOD
        EPOLLIN
        EPOLLOUT
        EPOLLERR
        EPOLLHUP
        EPOLLPRI
        EPOLLRDHUP
        EPOLLET
    int epoll_create1(int flags)
    int epoll_ctl(int epoll, int operation, int descriptor, epoll_event* event)
    int epoll_wait(int epoll, epoll_event* events, int most, int timeout)

cdef extern from "sys/socket.h":
    ctypedef unsigned int socklen_t
    cdef struct sockaddr:
        uint16_t sa_family
    cdef struct sockaddr_storage:
        uint16_t ss_family
    enum:
        AF_INET
        AF_INET6
        MSG_NOSIGNAL
        SHUT_WR
        SOCK_CLOEXEC
        SOCK_NONBLOCK
        SOL_SOCKET
        SO_ERROR
    int accept4(int listening, sockaddr* peer, socklen_t* size, int flags)
    int getsockname(int descriptor, sockaddr* own, socklen_t* size)
    int getsockopt(int descriptor, int level, int name, void* value, socklen_t* size)
    ssize_t recv(int descriptor, void* data, size_t size, int flags)
    ssize_t send(int descriptor, const void* data, size_t size, int flags)
    int shutdown(int descriptor, int how)

cdef extern from "netinet/in.h":
    cdef struct in_addr:
        pass
    cdef struct in6_addr:
        pass
    cdef struct sockaddr_in:
        uint16_t sin_port
        in_addr sin_addr
    cdef struct sockaddr_in6:
        uint16_t sin6_port
        uint32_t sin6_flowinfo
        in6_addr sin6_addr
        uint32_t sin6_scope_id
    uint16_t ntohs(uint16_t value)
    uint32_t ntohl(uint32_t value)

cdef extern from "arpa/inet.h":
    const char* inet_ntop(int family, const void* address, char* text, socklen_t size)

_log = logging.getLogger(__name__)

BACKLOG = 4096

cdef enum:
    EVENTS = 256  # taken by one call; more come in the loop's next round
    READ = 262144  # bytes of one read at most, as uvloop's
    ACCEPTED = 64  # connections taken in a row
    HIGH = 65536  # bytes, asyncio's own high-water mark
    TEXT = 64  # bytes of an address as text, with room: INET6_ADDRSTRLEN is 46
    READING = EPOLLIN | EPOLLPRI | EPOLLRDHUP | EPOLLET

cdef double REST = 0.5  # seconds without accepting when descriptors run out (nginx: accept_mutex_delay)

# loop -> a reference to its Reactor, which its members and the loop keep: they know the loop, which would know itself.
_reactors = weakref.WeakKeyDictionary()


cdef Reactor reactor_of(object loop):
    held = _reactors.get(loop)
    reactor = None if held is None else held()
    if reactor is None:
        reactor = Reactor(loop)
        _reactors[loop] = weakref.ref(reactor)
    return reactor


cdef class Reactor:
    """What happens on one loop's connections. It has a descriptor, and the loop's attention, while it has members."""

    def __cinit__(self, loop):
        self._epoll = -1
        self._scratch = <char*>malloc(READ)
        self._events = <epoll_event*>malloc(EVENTS * sizeof(epoll_event))
        if self._scratch is NULL or self._events is NULL:
            raise MemoryError

    def __init__(self, loop):
        self._loop = weakref.proxy(loop)
        self._table = []
        self._again = []

    def __dealloc__(self):
        if self._epoll >= 0:
            close_descriptor(self._epoll)
        free(self._scratch)
        free(self._events)

    def __repr__(self):
        return f"Reactor({self._members} members)"

    cdef int add(self, Member member, uint32_t events) except -1:
        cdef epoll_event event
        if self._epoll < 0:
            self._epoll = epoll_create1(EPOLL_CLOEXEC)
            if self._epoll < 0:
                raise error_by(failure)
            self._loop.add_reader(self._epoll, self.ready)
        event.events = events
        event.data.fd = member._descriptor
        if epoll_ctl(self._epoll, EPOLL_CTL_ADD, member._descriptor, &event):
            raise error_by(failure)
        while len(self._table) <= member._descriptor:
            self._table.append(None)
        self._table[member._descriptor] = member
        self._members += 1
        return 0

    cdef void change(self, Member member, uint32_t events) noexcept:
        cdef epoll_event event
        event.events = events
        event.data.fd = member._descriptor
        epoll_ctl(self._epoll, EPOLL_CTL_MOD, member._descriptor, &event)

    cdef int remove(self, Member member) except -1:
        """Forget a member and close its descriptor."""
        cdef epoll_event event
        cdef int descriptor = member._descriptor
        if descriptor < 0:
            return 0
        member._descriptor = -1
        # Closing it is not enough where it has duplicates: the listening socket, and a probe of TCP_INFO.
        epoll_ctl(self._epoll, EPOLL_CTL_DEL, descriptor, &event)
        self._table[descriptor] = None
        close_descriptor(descriptor)
        self._members -= 1
        if not self._members and not self._loop.is_closed():
            self._loop.remove_reader(self._epoll)
            close_descriptor(self._epoll)
            self._epoll = -1
        return 0

    cdef int again(self, Transport transport) except -1:
        """Read on in the loop's next round: others come first."""
        if not transport._queued:
            transport._queued = True
            self._again.append(transport)
            if not self._called:
                self._called = True
                self._loop.call_soon(self.go_on)
        return 0

    cdef object soon(self, object call, object argument):
        return self._loop.call_soon(call, argument)

    cpdef void ready(self) except *:
        """Something has happened: take it all, and tell each."""
        cdef int count, index
        cdef Member member
        cdef object error = None
        count = epoll_wait(self._epoll, self._events, EVENTS, 0)
        for index in range(count):
            # A descriptor that was closed in this round, and is another connection's by now: it looks, and finds nothing.
            member = <Member>self._table[self._events[index].data.fd]
            if member is not None:
                try:
                    member.happened(self._events[index].events)
                except BaseException as raised:  # what is left of this round is told once, so that it is told now
                    error = raised
        if error is not None:
            raise error

    cpdef void go_on(self) except *:
        """Read those that had more than one read."""
        cdef Transport transport
        cdef list again = self._again
        cdef object error = None
        self._again = []
        self._called = False
        for transport in again:
            transport._queued = False
        for transport in again:
            try:
                transport.read()
            except BaseException as raised:  # as above: nothing else would have the others read
                error = raised
        if error is not None:
            raise error


cdef class Member:
    """A descriptor in the epoll."""

    cdef int happened(self, uint32_t events) except -1:
        return 0


cdef class Transport(Member):
    """See `asyncio.Transport`: the same calls and callbacks, but that every write goes out at once."""

    def __cinit__(self):
        self._descriptor = -1
        self._high = HIGH
        self._low = HIGH // 4

    def __dealloc__(self):
        if self._descriptor >= 0:
            close_descriptor(self._descriptor)

    def __repr__(self):
        state = "lost" if self._descriptor < 0 else "closing" if self._closing else "paused" if self._paused else "open"
        return f"<Transport {state} fd={self._descriptor} waiting={self._size}>"

    cdef int happened(self, uint32_t events) except -1:
        if events & (EPOLLIN | EPOLLPRI | EPOLLRDHUP | EPOLLERR | EPOLLHUP):
            self._unread = True
            if events & EPOLLPRI:
                self._urgent = True
            if events & (EPOLLRDHUP | EPOLLERR | EPOLLHUP):
                self._hung_up = True
                if self._ended and events & EPOLLERR:
                    self.failed(error_of(self._descriptor))
            self.read()
        # Behind reading, as in libuv: what a peer said before it reset the connection is told before a write fails.
        if self._size and events & (EPOLLOUT | EPOLLERR | EPOLLHUP):
            self.flush()
        return 0

    cdef int read(self) except -1:
        """Take what has come, one read of it, or two where the second tells the end."""
        cdef ssize_t size
        cdef bytes data
        cdef bint on
        while self._unread and not self._paused and not self._closing and not self._ended:
            size = recv(self._descriptor, self._reactor._scratch, READ, 0)
            if size > 0:
                # Short: the socket is empty, and what comes next is a new edge (epoll(7)). The end, too, unless it was
                # told with the bytes. Before urgent data, though, every read stops (tcp(7)).
                on = size == READ or self._urgent
                self._unread = on or self._hung_up
                try:
                    data = PyBytes_FromStringAndSize(self._reactor._scratch, size)
                    self._protocol.data_received(data)
                except BaseException as error:
                    return self.broken(error, "data_received")
                if on:
                    return self._reactor.again(self)
            elif size == 0:
                self._unread = False
                self._ended = True
                self.end()
                if not self._losing:
                    # No read tells of a reset that has followed already.
                    self.failed(error_of(self._descriptor))
            elif failure == EAGAIN:
                self._unread = self._urgent = False
            elif failure != EINTR:
                self._unread = False
                self.failed(failure)
        return 0

    cdef int end(self) except -1:
        try:
            keep = self._protocol.eof_received()
        except BaseException as error:
            return self.broken(error, "eof_received")
        if not keep:
            self.close()
        return 0

    cdef int broken(self, object error, str where) except -1:
        """A callback has raised: its connection is of no use any more."""
        protocol = self._protocol
        self.lose(error)
        if isinstance(error, (KeyboardInterrupt, SystemExit)):
            raise error
        self._reactor._loop.call_exception_handler(
            {
                "message": f"Fatal error: protocol.{where}() call failed.",
                "exception": error,
                "transport": self,
                "protocol": protocol,
            }
        )
        return 0

    cdef int failed(self, int code) except -1:
        """The kernel says that the connection is gone, unless the code is 0."""
        if code:
            self.lose(error_by(code))
        return 0

    cdef int lose(self, object error) except -1:
        """The end of the connection, which its protocol hears in a later step of the loop."""
        if not self._losing and self._descriptor >= 0:
            self._losing = self._closing = True
            self._waiting = None
            self._size = self._offset = 0
            self._reactor.soon(self._lost, error)
        return 0

    def _lost(self, error):
        protocol, self._protocol = self._protocol, None
        try:
            protocol.connection_lost(error)
        finally:
            if self._socket is not None:
                self._socket.detach()
                self._socket = None
            self._reactor.remove(self)

    # Writing.

    cpdef void write(self, object data) except *:
        """Send at once; what the kernel does not take waits, and is told by `pause_writing`."""
        cdef bytes exact = data if type(data) is bytes else bytes(memoryview(data))
        cdef Py_ssize_t size = PyBytes_GET_SIZE(exact)
        cdef ssize_t sent
        if self._closing or self._finishing or not size:
            if self._finishing and not self._closing:
                raise RuntimeError("Cannot call write() after write_eof()")
            return
        if self._waiting is None:
            while True:
                sent = send(self._descriptor, PyBytes_AS_STRING(exact), size, MSG_NOSIGNAL)
                if sent == size:
                    return
                if sent >= 0:
                    break
                if failure == EAGAIN:
                    sent = 0
                    break
                if failure != EINTR:
                    self.failed(failure)
                    return
            self._waiting = [exact]
            self._offset = sent
            self._size = size - sent
            if not self._watched:
                self._watched = True
                self._reactor.change(self, READING | EPOLLOUT)
        else:
            self._waiting.append(exact)
            self._size += size
        if self._size > self._high and not self._full:
            self.fill()

    cdef int fill(self) except -1:
        self._full = True
        try:
            self._protocol.pause_writing()
        except BaseException as error:
            self.broken(error, "pause_writing")
        return 0

    def writelines(self, pieces):
        """Write the pieces as one."""
        self.write(b"".join(pieces))

    cdef int flush(self) except -1:
        """Send what waits, as far as the kernel takes it."""
        cdef bytes first
        cdef ssize_t sent
        cdef Py_ssize_t left
        while self._waiting is not None:
            first = <bytes>self._waiting[0]
            left = PyBytes_GET_SIZE(first) - self._offset
            sent = send(self._descriptor, PyBytes_AS_STRING(first) + self._offset, left, MSG_NOSIGNAL)
            if sent < 0:
                if failure == EINTR:
                    continue
                if failure != EAGAIN:
                    return self.failed(failure)
                break
            self._size -= sent
            if sent < left:
                self._offset += sent
                break
            self._offset = 0
            if len(self._waiting) == 1:
                self._waiting = None
            else:
                del self._waiting[0]
        if self._full and self._size <= self._low:
            self._full = False
            try:
                self._protocol.resume_writing()
            except BaseException as error:
                return self.broken(error, "resume_writing")
        if self._waiting is None and not self._losing:
            if self._closing:
                self.lose(None)
            elif self._finishing:
                shutdown(self._descriptor, SHUT_WR)
        return 0

    def can_write_eof(self):
        """TCP can be ended one way."""
        return True

    def write_eof(self):
        """End our way, behind what waits."""
        if not self._closing and not self._finishing:
            self._finishing = True
            if self._waiting is None:
                shutdown(self._descriptor, SHUT_WR)

    cpdef Py_ssize_t get_write_buffer_size(self) except? -1:
        """Bytes that the kernel has not taken yet."""
        return self._size

    def get_write_buffer_limits(self):
        """The low and the high mark, bytes."""
        return self._low, self._high

    def set_write_buffer_limits(self, high=None, low=None):
        """Set the marks, as asyncio does."""
        if high is None:
            high = HIGH if low is None else 4 * low
        if low is None:
            low = high // 4
        if not high >= low >= 0:
            raise ValueError(f"high ({high!r}) must be >= low ({low!r}) must be >= 0")
        self._high, self._low = high, low
        if self._size > self._high and not self._full:
            self.fill()

    # Reading.

    cpdef void pause_reading(self) except *:
        """Take nothing more from the kernel."""
        self._paused = True

    cpdef void resume_reading(self) except *:
        """Take what has come meanwhile, in a later step of the loop."""
        if self._paused:
            self._paused = False
            if self._unread and not self._closing:
                self._reactor.again(self)

    def is_reading(self):
        """Whether `data_received` may be called."""
        return not self._paused and not self._closing

    # Ending.

    cpdef void close(self) except *:
        """Close once what waits has been sent."""
        if not self._closing:
            self._closing = True
            if self._waiting is None:
                self.lose(None)

    cpdef void abort(self) except *:
        """Close now."""
        self.lose(None)

    cpdef bint is_closing(self) except? 1:
        """Whether it is closed or about to be."""
        return self._closing

    # Knowing.

    def get_protocol(self):
        """Whom it tells."""
        return self._protocol

    def set_protocol(self, protocol):
        """Tell another one from now on."""
        self._protocol = protocol

    def get_extra_info(self, name, default=None):
        """``peername``, ``sockname``, and ``socket``, which must not be closed."""
        if name == "peername":
            return default if self._peername is None else self._peername
        if name == "sockname":
            if self._sockname is None and self._descriptor >= 0:
                self._sockname = name_of(self._descriptor)
            return default if self._sockname is None else self._sockname
        if name == "socket" and self._descriptor >= 0:
            if self._socket is None:
                own = self.get_extra_info("sockname")
                family = socket.AF_INET6 if len(own) == 4 else socket.AF_INET
                self._socket = View(family, socket.SOCK_STREAM, socket.IPPROTO_TCP, fileno=self._descriptor)
            return self._socket
        return default


class View(socket.socket):
    """A socket whose descriptor is its transport's: it is not closed with it, wherever the collector begins."""

    __slots__ = ()

    def __del__(self):
        self.detach()


cdef class Acceptor(Member):
    """See `asyncio.Server`, as far as it is needed: closing it."""

    def __cinit__(self):
        self._descriptor = -1

    def __dealloc__(self):
        if self._descriptor >= 0:
            close_descriptor(self._descriptor)

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


cdef int error_of(int descriptor) noexcept:
    """What the kernel holds against a socket, which it says once."""
    cdef int code = 0
    cdef socklen_t size = sizeof(code)
    return code if getsockopt(descriptor, SOL_SOCKET, SO_ERROR, &code, &size) == 0 else 0


cdef object error_by(int code):
    return OSError(code, os.strerror(code))


cdef object address(sockaddr_storage* of):
    """As Python's sockets give it."""
    cdef char text[TEXT]
    cdef sockaddr_in* four
    cdef sockaddr_in6* six
    if of.ss_family == AF_INET:
        four = <sockaddr_in*>of
        inet_ntop(AF_INET, &four.sin_addr, text, TEXT)
        return (<bytes>text).decode("ascii"), ntohs(four.sin_port)
    if of.ss_family == AF_INET6:
        six = <sockaddr_in6*>of
        inet_ntop(AF_INET6, &six.sin6_addr, text, TEXT)
        return (<bytes>text).decode("ascii"), ntohs(six.sin6_port), ntohl(six.sin6_flowinfo), six.sin6_scope_id
    return None


cdef object name_of(int descriptor):
    """The local address of a socket."""
    cdef sockaddr_storage own
    cdef socklen_t size = sizeof(own)
    return address(&own) if getsockname(descriptor, <sockaddr*>&own, &size) == 0 else None


cdef Transport made(Reactor reactor, int descriptor, object protocol, object peername, object sockname):
    """A connected, non-blocking socket as a transport, which its protocol has heard of."""
    cdef Transport transport = Transport.__new__(Transport)
    transport._descriptor = descriptor
    transport._reactor = reactor
    transport._protocol = protocol
    transport._peername = peername
    transport._sockname = sockname
    reactor.add(transport, READING)
    try:
        protocol.connection_made(transport)
    except BaseException as error:
        transport.broken(error, "connection_made")
    return transport


async def accept(sock, factory):
    """See ``transport.py``."""
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


async def adopt(sock, protocol):
    """See ``transport.py``."""
    try:
        reactor = reactor_of(asyncio.get_running_loop())
        if sock.gettimeout() != 0:
            sock.setblocking(False)
        sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        sockname = sock.getsockname()
        try:
            peername = sock.getpeername()
        except OSError:  # reset meanwhile, which reading tells
            peername = None
    except BaseException:
        sock.close()
        raise
    return made(reactor, sock.detach(), protocol, peername, sockname)
