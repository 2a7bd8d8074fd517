"""The compiled twin of ``transport.py``: connections on the reactor's epoll."""

import asyncio
import socket

from cpython.bytes cimport PyBytes_AS_STRING, PyBytes_FromStringAndSize, PyBytes_GET_SIZE
from cpython.object cimport PyObject
from cpython.ref cimport Py_DECREF
from libc.errno cimport EAGAIN, EINTR, errno as failure
from libc.stdint cimport uint16_t, uint32_t

from proxy.net.reactor cimport (
    EPOLLERR, EPOLLET, EPOLLHUP, EPOLLIN, EPOLLOUT, EPOLLPRI, EPOLLRDHUP, READ, Member, Reactor, error_by, reactor_of,
    receive, send_off,
)
from proxy.net.stage cimport Stage

cdef extern from "sys/socket.h":
    enum:
        AF_INET
        AF_INET6
        SHUT_WR
        SOL_SOCKET
        SO_ERROR
    int getsockname(int descriptor, sockaddr* own, socklen_t* size)
    int getsockopt(int descriptor, int level, int name, void* value, socklen_t* size)
    int shutdown(int descriptor, int how)

cdef extern from "Python.h":
    PyObject* new_bytes "PyBytes_FromStringAndSize"(const char* data, Py_ssize_t size)
    int shrink "_PyBytes_Resize"(PyObject** made, Py_ssize_t size) except -1

cdef extern from *:
    """
    #include <stdlib.h>
    #ifdef __GLIBC__
    #include <malloc.h>
    static void keep_pages(int block, int top) { mallopt(M_MMAP_THRESHOLD, block); mallopt(M_TRIM_THRESHOLD, top); }
    #else
    static void keep_pages(int block, int top) { (void)block; (void)top; }
    #endif
    """
    void keep_pages(int block, int top)

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

cdef enum:
    LARGE = 32768  # bytes of a read after which the next is expected to be large, too
    BLOCK = 262144  # bytes from which a block of memory is the kernel's, and goes back to it
    TOP = 1048576  # bytes that may be free at the heap's end
    HIGH = 65536  # bytes, asyncio's own high-water mark
    TEXT = 64  # bytes of an address as text, with room: INET6_ADDRSTRLEN is 46
    READING = EPOLLIN | EPOLLPRI | EPOLLRDHUP | EPOLLET

# A body passes through in blocks as large as a read, made and freed thousands of times a second. With the C library's
# defaults a block that ends the heap goes back to the kernel each time, and comes as fresh pages: a third of a body's cost.
keep_pages(BLOCK, TOP)


cdef class Transport(Member):
    """See `asyncio.Transport`: the same calls and callbacks, but that every write goes out at once."""

    def __cinit__(self):
        self._high = HIGH
        self._low = HIGH // 4

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
        cdef int code
        cdef bytes data
        cdef bint on = False
        while self._unread and not self._paused and not self._closing and not self._ended:
            try:
                data = received(self._descriptor, self._reactor._scratch, self._large, &size, &code)
                if size > 0:
                    self._large = size >= LARGE
                    # Short: the socket is empty, and what comes next is a new edge (epoll(7)). The end, too, unless it
                    # was told with the bytes. Before urgent data, though, every read stops (tcp(7)).
                    on = size == READ or self._urgent
                    self._unread = on or self._hung_up
                    if self._stage is not None:
                        self._stage.data_received(data)
                    else:
                        self._protocol.data_received(data)
            except BaseException as error:
                return self.broken(error, "data_received")
            if size > 0:
                if on:
                    return self._reactor.again(self)
            elif size == 0:
                self._unread = False
                self._ended = True
                self.end()
                if not self._losing:
                    # No read tells of a reset that has followed already.
                    self.failed(error_of(self._descriptor))
            elif code == EAGAIN:
                self._unread = self._urgent = False
            elif code != EINTR:
                self._unread = False
                self.failed(code)
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
        protocol, self._protocol, self._stage = self._protocol, None, None
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
                sent = send_off(self._descriptor, PyBytes_AS_STRING(exact), size)
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
            sent = send_off(self._descriptor, PyBytes_AS_STRING(first) + self._offset, left)
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

    cpdef bint is_closing(self) except -1:
        """Whether it is closed or about to be."""
        return self._closing

    # Knowing.

    def get_protocol(self):
        """Whom it tells."""
        return self._protocol

    def set_protocol(self, protocol):
        """Tell another one from now on."""
        self._protocol = protocol
        self._stage = protocol if isinstance(protocol, Stage) else None

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


cdef inline bytes received(int descriptor, char* scratch, bint large, ssize_t* size, int* code):
    """One read, of ``size`` bytes; 0 is the end, -1 a failure ``code``.

    What is expected to be large is read to where it stays; what is small is copied in less time than a large block of
    memory takes to be made.
    """
    cdef PyObject* made
    cdef bytes data
    if not large:
        size[0] = receive(descriptor, scratch, READ)
        code[0] = failure
        return PyBytes_FromStringAndSize(scratch, size[0]) if size[0] > 0 else None
    made = new_bytes(NULL, READ)
    if made is NULL:
        raise MemoryError
    size[0] = receive(descriptor, PyBytes_AS_STRING(<object>made), READ)
    code[0] = failure
    if 0 < size[0] < READ:
        shrink(&made, size[0])
    data = <bytes>made
    Py_DECREF(data)
    return data


cdef int error_of(int descriptor) noexcept:
    """What the kernel holds against a socket, which it says once."""
    cdef int code = 0
    cdef socklen_t size = sizeof(code)
    return code if getsockopt(descriptor, SOL_SOCKET, SO_ERROR, &code, &size) == 0 else 0


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
    transport.set_protocol(protocol)
    transport._peername = peername
    transport._sockname = sockname
    reactor.add(transport, READING)
    try:
        protocol.connection_made(transport)
    except BaseException as error:
        transport.broken(error, "connection_made")
    return transport


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
