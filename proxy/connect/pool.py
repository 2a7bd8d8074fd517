"""The connections of one endpoint: idle ones on a stack, new ones on demand, a bound on both.

The most recently used connection is lent first, so that those beyond what the load needs grow idle and close.

While `spanway wire` listens, requests that are recorded have a stack of their own, of connections whose local port is
one that it taps (`net.ports`). Bounds hold over both together, and whoever waits takes what comes.
"""

from __future__ import annotations

import asyncio
import logging
from collections import deque
from typing import TYPE_CHECKING, Final, Protocol

from proxy.connect.connection import Borrower, Upstream
from proxy.connect.dial import establish, is_address
from proxy.errors import Fault, Kind
from proxy.net.now import time_ns
from proxy.net.ports import Ports
from proxy.settings_wire import PORTS, PortRange

if TYPE_CHECKING:
    import ssl

    from proxy.net.clock import Clock

_log = logging.getLogger(__name__)

_LAST_WORDS: Final = 2.0  # seconds for a closing connection's unsent bytes
_MOST_WAITING: Final = 1024  # requests waiting for a connection per endpoint (Envoy: max_pending_requests 1024)


class Caller(Borrower, Protocol):
    """Who asks for a connection, and where the times of getting it are written, in nanoseconds."""

    queue_ns: int
    dns_ns: int
    connect_ns: int
    tls_ns: int
    abandoned: bool  # set by the caller when it no longer wants the connection

    def connected(self, upstream: Upstream) -> None:
        """A new or freed connection is lent to the caller."""

    def not_connected(self, fault: Fault) -> None:
        """There is no connection, and why."""


class Connector:
    """What all pools of one worker share: the loop, the clock, TLS, bounds, and every upstream connection."""

    __slots__ = (
        "clock",
        "divided",  # bool: recorded requests have connections of their own
        "idle_timeout",
        "loop",
        "most",
        "most_idle",
        "opened",
        "ports",
        "tasks",
        "tls",
        "upstreams",
    )

    def __init__(
        self,
        loop: asyncio.AbstractEventLoop,
        clock: Clock,
        tls: ssl.SSLContext,
        *,
        most: int,
        most_idle: int,
        idle_timeout: float,
        ports: PortRange = PORTS,
    ) -> None:
        self.ports = Ports(ports)
        self.divided = False
        self.loop = loop
        self.clock = clock
        self.tls = tls
        self.most = most
        self.most_idle = most_idle
        self.idle_timeout = idle_timeout
        self.opened = 0  # connections made so far
        self.upstreams: set[Upstream] = set()
        self.tasks: set[asyncio.Task[None]] = set()

    def __repr__(self) -> str:
        return f"Connector({len(self.upstreams)} open, {len(self.tasks)} opening)"

    def sweep(self, loop_time: float) -> None:
        """Close idle connections that are overdue, and tell the borrowers of lent ones."""
        for upstream in [each for each in self.upstreams if each.deadline <= loop_time]:
            borrower = upstream.borrower
            if upstream.closed:
                upstream.abort()
            elif borrower is None:
                upstream.pool.discard(upstream)
            else:
                borrower.overdue()

    def divide(self, wanted: bool) -> None:
        """Have recorded requests take connections of their own from now on, or no longer."""
        divided = wanted and self.ports.usable()
        if divided != self.divided:
            self.divided = divided
            for pool in {upstream.pool for upstream in self.upstreams}:
                pool.sort()


class Pool:
    """One endpoint's connections in one worker. ``tapped`` are idle ones for recorded requests, ``idle`` all others."""

    __slots__ = (
        "by_name",
        "connector",
        "host",
        "idle",
        "open",
        "port",
        "retired",
        "server_name",
        "tapped",
        "tls",
        "waiting",
    )

    def __init__(self, connector: Connector, host: str, port: int, *, tls: bool, server_name: str) -> None:
        self.connector = connector
        self.host = host
        self.port = port
        self.tls = tls
        self.server_name = server_name
        self.idle: list[Upstream] = []
        self.tapped: list[Upstream] = []
        self.open = 0  # including those being opened
        self.waiting: deque[tuple[Caller, int, float, bool]] = deque()
        self.retired = False
        self.by_name = not is_address(host)

    def __repr__(self) -> str:
        idle = len(self.idle) + len(self.tapped)
        return f"Pool({self.host}:{self.port}, {idle} idle of {self.open}, {len(self.waiting)} waiting)"

    def take(self, recorded: bool = False) -> Upstream | None:
        """An idle connection for a request, or None."""
        return _living(self.tapped if recorded and self.connector.divided else self.idle)

    def give(self, upstream: Upstream, used: bool = True) -> None:
        """Take back a connection in a clean state: to the next waiting caller, else to the stack."""
        upstream.borrower = None
        if upstream.closed or upstream.transport.is_closing():
            return  # it is being lost just now
        upstream.served += used
        while self.waiting:
            caller, since, _, _ = self.waiting.popleft()
            if not caller.abandoned:
                caller.queue_ns = time_ns() - since
                self._lend(caller, upstream)
                return
        idle, others = self.idle, self.tapped
        if upstream.tapped and self.connector.divided:
            idle, others = others, idle
        if len(idle) + len(others) >= self.connector.most_idle and len(others) > len(idle):
            self.discard(others[0])
        if self.retired or len(idle) + len(others) >= self.connector.most_idle:
            self.discard(upstream)
        else:
            upstream.deadline = self.connector.clock.now + self.connector.idle_timeout
            idle.append(upstream)

    def sort(self) -> None:
        """Put idle connections where they belong, as recorded requests have their own from now on, or no longer."""
        every = sorted(self.idle + self.tapped, key=_deadline)
        divided = self.connector.divided
        self.idle = [upstream for upstream in every if not (divided and upstream.tapped)]
        self.tapped = [upstream for upstream in every if divided and upstream.tapped]

    def discard(self, upstream: Upstream) -> None:
        """Close a connection, idle or lent, that must not be used again."""
        upstream.borrower = None
        upstream.closed = True
        self._forget(upstream)
        # What is unsent may still go, but a peer that does not read must not hold the slot.
        upstream.deadline = self.connector.clock.now + _LAST_WORDS
        upstream.transport.close()

    def lost(self, upstream: Upstream) -> None:
        """A connection is gone; whoever waits may open another."""
        if upstream not in self.connector.upstreams:
            return  # lost before it was ever open: `_open` gives the slot back
        self.connector.upstreams.discard(upstream)
        self._forget(upstream)
        self._free()

    def _forget(self, upstream: Upstream) -> None:
        for idle in (self.idle, self.tapped):
            if upstream in idle:
                idle.remove(upstream)

    def connect(self, caller: Caller, timeout: float, recorded: bool = False) -> None:
        """Open a connection for ``caller``, or queue it while all are lent; ``timeout`` in seconds covers both.

        The answer comes by `Caller.connected` or `Caller.not_connected`, never
        before this returns.
        """
        if self.open >= self.connector.most:
            if len(self.waiting) >= _MOST_WAITING:
                self.waiting = deque(each for each in self.waiting if not each[0].abandoned)
            if len(self.waiting) >= _MOST_WAITING:
                fault = Fault(Kind.OVERLOADED, f"{len(self.waiting)} requests wait for {self.host}:{self.port}")
                self.connector.loop.call_soon(caller.not_connected, fault)
                return
            self.waiting.append((caller, time_ns(), self.connector.clock.now + timeout, recorded))
            # Idle ones are of the other kind. What is not recorded may go over one that is tapped: the wire looks at
            # its packets for nothing. What is recorded would not be seen on one that is not: its place is wanted.
            other = None if recorded else _living(self.tapped)
            if other is not None:
                self.connector.loop.call_soon(self.give, other, False)
            elif self.idle or self.tapped:
                self.discard((self.idle or self.tapped)[0])
            return
        self.open += 1
        task = self.connector.loop.create_task(self._open(caller, timeout, recorded))
        self.connector.tasks.add(task)
        task.add_done_callback(self.connector.tasks.discard)

    def retire(self) -> None:
        """The endpoint is no longer in the table: close what is idle, and the rest when it comes back."""
        self.retired = True
        for upstream in self.idle + self.tapped:
            self.discard(upstream)

    def sweep(self, loop_time: float) -> None:
        """Refuse callers that have waited too long for a connection."""
        late = [each for each in self.waiting if each[2] <= loop_time and not each[0].abandoned]
        self.waiting = deque(each for each in self.waiting if each[2] > loop_time and not each[0].abandoned)
        for caller, since, _, _ in late:
            caller.queue_ns = time_ns() - since
            caller.not_connected(Fault(Kind.OVERLOADED, f"no free connection to {self.host}:{self.port} in time"))

    def _lend(self, caller: Caller, upstream: Upstream) -> None:
        try:
            caller.connected(upstream)
        except Exception:
            _log.exception("a request could not be sent")
            self.discard(upstream)
            caller.not_connected(Fault(Kind.INTERNAL, "see the log"))

    def _free(self) -> None:
        self.open -= 1
        while self.waiting and self.open < self.connector.most:
            caller, since, due, recorded = self.waiting.popleft()
            if not caller.abandoned:
                caller.queue_ns = time_ns() - since
                self.connect(caller, max(due - self.connector.clock.now, 0.1), recorded)

    async def _open(self, caller: Caller, timeout: float, recorded: bool) -> None:  # noqa: ASYNC109 - reported as a fault
        upstream = Upstream(self)
        try:
            async with asyncio.timeout(timeout):
                await establish(upstream, caller, recorded)
        except TimeoutError:
            fault = Fault(Kind.CONNECT_TIMEOUT, f"{self.host}:{self.port} within {timeout:g} s")
        except Fault as caught:
            fault = Fault(caught.kind, caught.detail)  # without the traceback, which would hold this frame: a cycle
        except OSError as error:
            fault = Fault(Kind.CONNECT_FAILED, f"{self.host}:{self.port}: {error.strerror or error}")
        except Exception:
            _log.exception("a connection to %s:%d could not be opened", self.host, self.port)
            fault = Fault(Kind.INTERNAL, "see the log")
        else:
            self.connector.upstreams.add(upstream)
            self.connector.opened += 1
            if upstream.closed:  # it died between being open and being registered
                self.lost(upstream)
                fault = Fault(Kind.CONNECT_FAILED, f"{self.host}:{self.port} closed the connection at once")
            elif caller.abandoned:
                self.give(upstream, used=False)
                return
            else:
                self._lend(caller, upstream)
                return
            if not caller.abandoned:
                caller.not_connected(fault)
            return
        if upstream.transport is not None:
            upstream.abort()
        self._free()
        if not caller.abandoned:
            caller.not_connected(fault)


def _living(idle: list[Upstream]) -> Upstream | None:
    """The most recently used of a stack that is open still, taken off it."""
    while idle:
        upstream = idle.pop()
        if not upstream.closed and not upstream.transport.is_closing():
            return upstream
    return None


def _deadline(upstream: Upstream) -> float:
    return upstream.deadline
