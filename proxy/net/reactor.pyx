"""An epoll of its own below the loop's, for the connections of compiled ``transport.py`` and ``accepting.py``.

uvloop serves a connection well, but for a proxy that answers in microseconds its machinery is a quarter of all user time:
each event takes the interpreter's lock anew, each read goes through three layers, and a level-triggered epoll asks every
socket twice. Here one descriptor, the epoll's, is the loop's reader; a round takes all that happened by one system call and
hands it on by calls of C. Edge-triggered, as in nginx: a read that comes back short has emptied the socket, pausing and
resuming cost no system call, and nobody watches for room to write but who waits for it.

Everything else, timers, names, signals, TLS, the admin pages, stays the loop's.
"""

import os
import weakref

from libc.errno cimport errno as failure
from libc.stdlib cimport free, malloc
from posix.time cimport CLOCK_MONOTONIC, clock_gettime, timespec
from posix.unistd cimport close as close_descriptor

cdef extern from "sys/epoll.h":
    enum:
        EPOLL_CLOEXEC
        EPOLL_CTL_ADD
        EPOLL_CTL_DEL
        EPOLL_CTL_MOD
    int epoll_create1(int flags)
    int epoll_ctl(int epoll, int operation, int descriptor, epoll_event* event)

cdef enum:
    EVENTS = 256  # taken in one of the loop's rounds, more or less
    WORTH = 4  # events, after which it is worth asking again at once: more have come meanwhile
    # Of a client that is alone (`Reactor.alone`):
    SOON_NS = 100000  # in which what comes next is awaited without sleeping; mostly 20 us (Linux: guest_halt_poll_ns, 200 us)
    SHORT_NS = 150000  # a sleep, with being woken, that need not have been one
    WORTH_TRYING = 8  # of credit: what was awaited in vain costs as much, and twice that each further time
    MOST_CREDIT = 64
    MOST_FINE = 1024  # so that what it costs in vain is next to nothing
    IN_A_ROW = 64  # events, some 2 ms; then timers and all else of the loop have their turn

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
        self._before = self._last = -1
        self._fine = WORTH_TRYING
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

    cdef int again(self, Member member) except -1:
        """Have it read on in the loop's next round: others come first."""
        if not member._queued:
            member._queued = True
            self._again.append(member)
            if not self._called:
                self._called = True
                self._loop.call_soon(self.go_on)
        return 0

    cdef object soon(self, object call, object argument):
        return self._loop.call_soon(call, argument)

    cpdef void ready(self) except *:
        """Something has happened: take it all, and tell each."""
        cdef int count
        cdef int taken = 0
        cdef object error = None
        count = happened_by_now(self._epoll, self._events, EVENTS)
        while count > 0 and error is None:
            error = self.tell(count)
            taken += count
            count = self.more(count, taken) if self._epoll >= 0 and error is None else 0
        self._left_ns = monotonic_ns() if self._before >= 0 and self._last >= 0 else 0
        if error is not None:
            raise error

    cdef object tell(self, int count):
        """Tell members what has happened; what the last of them raised that did."""
        cdef int index
        cdef Member member
        cdef object error = None
        for index in range(count):
            # A descriptor that was closed in this round may be another connection's by now: that finds nothing to read.
            member = <Member>self._table[self._events[index].data.fd]
            if member is not None:
                try:
                    member.happened(self._events[index].events)
                except BaseException as raised:  # what is left of this round is told once, so that it is told now
                    error = raised
        return error

    cdef int more(self, int count, int taken) noexcept:
        """What has happened meanwhile, or is about to, after ``count`` events; 0: the loop has its turn."""
        cdef long long limit_ns
        if count >= WORTH:
            return happened_by_now(self._epoll, self._events, EVENTS) if taken <= EVENTS else 0
        if not self.alone(count) or taken >= IN_A_ROW or self._called:
            return 0
        limit_ns = monotonic_ns() + SOON_NS
        while True:
            count = happened_by_now(self._epoll, self._events, EVENTS)
            if count:
                self._left_ns = 0
                self._credit = min(self._credit + 1, MOST_CREDIT)
                # Little by little: where something else has to happen first, as a task's turn, every other wait is in vain.
                self._fine = max(self._fine - self._fine // WORTH_TRYING, WORTH_TRYING)
                return count
            if monotonic_ns() > limit_ns:
                self._credit -= self._fine
                self._fine = min(2 * self._fine, MOST_FINE)
                return 0

    cdef bint alone(self, int count) noexcept:
        """Whether one client and its upstream are all there is, by turns and quickly, and have been for a while.

        Then most of a request's time goes into falling asleep and being woken: some 35 us on a virtual machine, and twice
        in this process alone. What is awaited comes sooner, and to look for it in the meantime takes less than sleeping.
        """
        cdef int descriptor = self._events[0].data.fd if count == 1 else -1
        cdef bint turn = descriptor >= 0 and (descriptor == self._before or descriptor == self._last)
        if descriptor != self._last:
            self._before, self._last = self._last, descriptor
        if not turn:
            self._credit = min(self._credit, 0)
        elif self._left_ns:
            if monotonic_ns() - self._left_ns < SHORT_NS:
                self._credit = min(self._credit + 1, MOST_CREDIT)
            elif self._credit > 0:
                self._credit -= 1
        return turn and self._credit >= WORTH_TRYING

    cpdef void go_on(self) except *:
        """Read those that had more than one read."""
        cdef Member member
        cdef list again = self._again
        cdef object error = None
        self._again = []
        self._called = False
        for member in again:
            member._queued = False
        for member in again:
            try:
                member.read()
            except BaseException as raised:  # as above: nothing else would have the others read
                error = raised
        if error is not None:
            raise error


cdef class Member:
    """A descriptor in the epoll: a connection, or a socket that listens."""

    def __cinit__(self):
        self._descriptor = -1

    def __dealloc__(self):
        if self._descriptor >= 0:
            close_descriptor(self._descriptor)

    cdef int happened(self, uint32_t events) except -1:
        """What epoll says of it."""
        return 0

    cdef int read(self) except -1:
        """The turn that it asked for by `Reactor.again`."""
        return 0


cdef inline long long monotonic_ns() noexcept:
    cdef timespec now
    clock_gettime(CLOCK_MONOTONIC, &now)
    return <long long>now.tv_sec * 1000000000 + now.tv_nsec


cdef object error_by(int code):
    return OSError(code, os.strerror(code))
