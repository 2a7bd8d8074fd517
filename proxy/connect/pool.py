"""The connections of one endpoint: idle ones on a stack, new ones on demand, a bound on both.

The most recently used connection is lent first, so that those beyond what the load needs grow idle and close.
"""

from __future__ import annotations

import asyncio
import ipaddress
import logging
import ssl
from collections import deque
from typing import TYPE_CHECKING, Final, Protocol, cast

from proxy.connect.connection import Borrower, Upstream
from proxy.errors import Fault, Kind
from proxy.net.now import time_ns
from proxy.net.tls import TlsTransport

if TYPE_CHECKING:
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

    __slots__ = ("clock", "idle_timeout", "loop", "most", "most_idle", "opened", "tasks", "tls", "upstreams")

    def __init__(
        self,
        loop: asyncio.AbstractEventLoop,
        clock: Clock,
        tls: ssl.SSLContext,
        *,
        most: int,
        most_idle: int,
        idle_timeout: float,
    ) -> None:
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


class Pool:
    """One endpoint's connections in one worker."""

    __slots__ = ("_name", "connector", "host", "idle", "open", "port", "retired", "server_name", "tls", "waiting")

    def __init__(self, connector: Connector, host: str, port: int, *, tls: bool, server_name: str) -> None:
        self.connector = connector
        self.host = host
        self.port = port
        self.tls = tls
        self.server_name = server_name
        self.idle: list[Upstream] = []
        self.open = 0  # including those being opened
        self.waiting: deque[tuple[Caller, int, float]] = deque()
        self.retired = False
        self._name = not _is_address(host)

    def __repr__(self) -> str:
        return f"Pool({self.host}:{self.port}, {len(self.idle)} idle of {self.open}, {len(self.waiting)} waiting)"

    def take(self) -> Upstream | None:
        """An idle connection, or None."""
        idle = self.idle
        while idle:
            upstream = idle.pop()
            if not upstream.closed and not upstream.transport.is_closing():
                return upstream
        return None

    def give(self, upstream: Upstream, used: bool = True) -> None:
        """Take back a connection in a clean state: to the next waiting caller, else to the stack."""
        upstream.borrower = None
        if upstream.closed:
            return  # it is being lost just now
        upstream.served += used
        while self.waiting:
            caller, since, _ = self.waiting.popleft()
            if not caller.abandoned:
                caller.queue_ns = time_ns() - since
                self._lend(caller, upstream)
                return
        if self.retired or len(self.idle) >= self.connector.most_idle:
            self.discard(upstream)
        else:
            upstream.deadline = self.connector.clock.now + self.connector.idle_timeout
            self.idle.append(upstream)

    def discard(self, upstream: Upstream) -> None:
        """Close a connection, idle or lent, that must not be used again."""
        upstream.borrower = None
        upstream.closed = True
        if upstream in self.idle:
            self.idle.remove(upstream)
        # What is unsent may still go, but a peer that does not read must not hold the slot.
        upstream.deadline = self.connector.clock.now + _LAST_WORDS
        upstream.transport.close()

    def lost(self, upstream: Upstream) -> None:
        """A connection is gone; whoever waits may open another."""
        if upstream not in self.connector.upstreams:
            return  # lost before it was ever open: `_open` gives the slot back
        self.connector.upstreams.discard(upstream)
        if upstream in self.idle:
            self.idle.remove(upstream)
        self._free()

    def connect(self, caller: Caller, timeout: float) -> None:
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
            self.waiting.append((caller, time_ns(), self.connector.clock.now + timeout))
            return
        self.open += 1
        task = self.connector.loop.create_task(self._open(caller, timeout))
        self.connector.tasks.add(task)
        task.add_done_callback(self.connector.tasks.discard)

    def retire(self) -> None:
        """The endpoint is no longer in the table: close what is idle, and the rest when it comes back."""
        self.retired = True
        for upstream in self.idle[:]:
            self.discard(upstream)

    def sweep(self, loop_time: float) -> None:
        """Refuse callers that have waited too long for a connection."""
        late = [each for each in self.waiting if each[2] <= loop_time and not each[0].abandoned]
        self.waiting = deque(each for each in self.waiting if each[2] > loop_time and not each[0].abandoned)
        for caller, since, _ in late:
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
            caller, since, due = self.waiting.popleft()
            if not caller.abandoned:
                caller.queue_ns = time_ns() - since
                self.connect(caller, max(due - self.connector.clock.now, 0.1))

    async def _open(self, caller: Caller, timeout: float) -> None:  # noqa: ASYNC109 - reported as a fault
        upstream = Upstream(self)
        try:
            async with asyncio.timeout(timeout):
                await self._establish(upstream, caller)
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

    async def _establish(self, upstream: Upstream, caller: Caller) -> None:
        loop = self.connector.loop
        hosts = [self.host]
        if self._name:
            start = time_ns()
            try:
                found = await loop.getaddrinfo(self.host, self.port, type=1)
            except OSError as error:
                raise Fault(Kind.DNS_FAILED, f"{self.host}: {error.strerror or error}") from None
            finally:
                caller.dns_ns = time_ns() - start
            hosts = list(dict.fromkeys(str(info[4][0]) for info in found))
        start = time_ns()
        try:
            if not self.tls:
                await self._first(hosts, cast("asyncio.Protocol", upstream))
                return
            raw = await self._first(hosts, asyncio.Protocol())
        finally:
            caller.connect_ns = time_ns() - start
        start = time_ns()
        try:
            await self._handshake(raw, upstream)
        finally:
            caller.tls_ns = time_ns() - start

    async def _first(self, hosts: list[str], protocol: asyncio.Protocol) -> asyncio.Transport:
        """Connect to the first address that accepts."""
        for host in hosts[:-1]:
            try:
                transport, _ = await self.connector.loop.create_connection(lambda: protocol, host, self.port)
            except OSError:
                continue
            return transport
        transport, _ = await self.connector.loop.create_connection(lambda: protocol, hosts[-1], self.port)
        return transport

    async def _handshake(self, raw: asyncio.Transport, upstream: Upstream) -> None:
        opened: asyncio.Future[None] = self.connector.loop.create_future()
        upstream.opened = opened
        # Never the client's Host: connections are shared by clients, and no client may choose what is verified. An
        # address is no SNI (RFC 6066 section 3), but is checked against the certificate where that is asked for.
        name = self.server_name or self.host
        tls = TlsTransport(
            self.connector.tls,
            cast("asyncio.Protocol", upstream),
            server_side=False,
            server_hostname=name,
            on_failure=upstream.not_opened,
        )
        try:
            tls.start(raw)
            await opened
        except BaseException:
            raw.abort()
            raise
        finally:
            upstream.opened = None
            del opened  # a failure's traceback holds this frame, and the future the failure: a cycle


def _is_address(host: str) -> bool:
    try:
        ipaddress.ip_address(host)
    except ValueError:
        return False
    return True
