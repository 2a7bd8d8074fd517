"""A worker without sockets: transports that do what tests tell them, and a loop whose time stands still until moved.

`Rig.client` is a connection from a client, `Rig.dials` are the connections that the worker opens to its upstreams;
both ends are `Wire`s. Nothing happens in the background: `Rig.settle` runs what is due.
"""

from __future__ import annotations

import asyncio
import random
import socket
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, NoReturn, cast

import pytest

from proxy.accept.downstream import Downstream
from proxy.accept.listener import Opening
from proxy.balance.registry import Registry
from proxy.connect import dial
from proxy.connect.connection import Upstream
from proxy.connect.pool import Pool
from proxy.exchange import Exchange
from proxy.net.ports import Ports
from proxy.net.stage import Stage
from proxy.route.spec import BackendSpec, EndpointSpec, RouteSpec, TableSpec
from proxy.settings import Settings
from proxy.settings_wire import PORTS
from proxy.trace.encoder import Encoder
from proxy.trace.export import Exporter
from proxy.trace.record import RequestRecord
from proxy.worker import Worker

OK = b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok"
GET = b"GET / HTTP/1.1\r\nHost: a.test\r\n\r\n"
KEY = "default/web:80"


class _NoSocket:
    def fileno(self) -> NoReturn:
        raise OSError("a wire has no socket")

    def setsockopt(self, *_: object) -> None:
        """A reset and an end are the same to a wire."""

    def getsockopt(self, *_: object) -> bytes:
        return b"\x01"  # established


class Wire(Stage):
    """One connection as its protocol sees it. ``sent`` is what reached the other side, ``late`` what was written after
    the end. While ``full``, writes stay in the proxy."""

    def __init__(self, loop: asyncio.AbstractEventLoop, sockname: tuple[str, int], peername: tuple[str, int]) -> None:
        self._extra: dict[str, Any] = {"sockname": sockname, "peername": peername, "socket": _NoSocket()}
        self.loop = loop
        self.protocol: Any = None
        self.sent = bytearray()
        self.writes = 0
        self.late = bytearray()
        self.full = False
        self.reading = True
        self.eof = False  # the protocol has ended its way
        self.ended = False  # the other side has ended its way
        self.closing = False
        self.aborted = False
        self.gone = False  # connection_lost has been called
        self._waiting = bytearray()  # written, not yet sent
        self._inbox: list[bytes | None] = []  # fed while reading was paused; None is the end of stream
        self._high = 65536

    def __repr__(self) -> str:
        return f"Wire(sent {len(self.sent)}, {'gone' if self.gone else 'closing' if self.closing else 'open'})"

    # What the protocol calls.

    def get_extra_info(self, name: str, default: Any = None) -> Any:
        return self._extra.get(name, default)

    def set_write_buffer_limits(self, high: int | None = None, low: int | None = None) -> None:
        self._high = 65536 if high is None else high

    def get_write_buffer_size(self) -> int:
        return len(self._waiting)

    def set_protocol(self, protocol: asyncio.BaseProtocol) -> None:
        self.protocol = protocol

    def get_protocol(self) -> asyncio.BaseProtocol:
        return cast("asyncio.BaseProtocol", self.protocol)

    def is_closing(self) -> bool:
        return self.closing

    def is_reading(self) -> bool:
        return self.reading

    def pause_reading(self) -> None:
        if not self.closing:
            self.reading = False

    def resume_reading(self) -> None:
        if not self.closing and not self.reading:
            self.reading = True
            self.loop.call_soon(self._deliver)

    def write(self, data: bytes | bytearray | memoryview) -> None:
        if self.eof:
            raise RuntimeError("write after write_eof")
        if self.closing:
            self.late += data
            return
        self.writes += 1
        if not self.full:
            self.sent += data
            return
        before = len(self._waiting)
        self._waiting += data
        if before <= self._high < len(self._waiting):
            self.protocol.pause_writing()

    def can_write_eof(self) -> bool:
        return True

    def write_eof(self) -> None:
        self.eof = True

    def close(self) -> None:
        if not self.closing:
            self.closing = True
            if not self._waiting:
                self.loop.call_soon(self._lose, None)

    def abort(self) -> None:
        if not self.aborted:
            self.aborted = self.closing = True
            self._waiting.clear()
            self.loop.call_soon(self._lose, None)

    # What the test does.

    def feed(self, data: bytes) -> None:
        """The other side sends."""
        self._inbox.append(data)
        self._deliver()

    def end(self) -> None:
        """The other side ends its way."""
        self.ended = True
        self._inbox.append(None)
        self._deliver()

    def lose(self, error: Exception | None = None) -> None:
        """The connection breaks."""
        self.closing = self.aborted = True
        self._waiting.clear()
        self._lose(error)

    def flush(self) -> None:
        """The other side reads what waits, and goes on reading."""
        self.full = False
        waited = len(self._waiting) > self._high
        self.sent += self._waiting
        self._waiting.clear()
        if self.gone:
            return
        if self.closing:
            self._lose(None)
        elif waited:
            self.protocol.resume_writing()

    def take(self) -> bytes:
        """What was sent since the last call."""
        data = bytes(self.sent)
        self.sent.clear()
        return data

    def _deliver(self) -> None:
        while self._inbox and self.reading and not self.closing:
            item = self._inbox.pop(0)
            if item is not None:
                self.protocol.data_received(item)
            elif not self.protocol.eof_received():
                self.close()

    def _lose(self, error: Exception | None) -> None:
        if not self.gone:
            self.gone = True
            self.protocol.connection_lost(error)


class Dial:
    """A connection the worker is opening: `accept` or `fail` it."""

    def __init__(self, loop: Loop, protocol: asyncio.BaseProtocol, host: str, port: int, tapped: bool) -> None:
        self.host = host
        self.port = port
        self.tapped = tapped
        self._loop = loop
        self.protocol: Any = protocol
        self.future: asyncio.Future[Wire | None] = loop.create_future()
        self.error: OSError = ConnectionRefusedError(111, "Connection refused")

    @property
    def pending(self) -> bool:
        return not self.future.done()

    def accept(self) -> Wire:
        local = (PORTS.low if self.tapped else 40_000) + len(self._loop.wires)
        wire = Wire(self._loop, ("127.0.0.1", local), (self.host, self.port))
        wire.protocol = self.protocol
        self._loop.wires.append(wire)
        wire.protocol.connection_made(wire)
        self.future.set_result(wire)
        self._loop.settle()
        return wire

    def fail(self, error: OSError | None = None) -> None:
        self.error = error or self.error
        self.future.set_result(None)
        self._loop.settle()


Address = tuple[str, int, bool]  # stands for a socket: where it is connected to, and whether from a tapped port


async def connect(_loop: Any, host: str, port: int, _ports: None) -> Address:
    """In place of `proxy.net.ports.connect`."""
    return host, port, False


async def adopt(address: Address, protocol: asyncio.BaseProtocol) -> Wire:
    """In place of `proxy.net.transport.adopt`: waits for what the test does with the dial."""
    loop = asyncio.get_running_loop()
    assert isinstance(loop, Loop)
    made = Dial(loop, protocol, *address)
    loop.dials.append(made)
    wire = await made.future
    if wire is None:  # a new exception each time: a traceback keeps frames alive
        raise type(made.error)(*made.error.args)
    return wire


class NoPorts(Ports):
    """Ports that are told apart without sockets: what "connects" says so to the loop."""

    def usable(self) -> bool:
        return True

    async def connect(self, loop: Any, host: str, port: int, tapped: bool) -> Any:
        return host, port, tapped


class Loop(asyncio.SelectorEventLoop):
    """An event loop that connects to nothing, and whose clock the test turns."""

    def __init__(self) -> None:
        self.now = 1000.0
        self.dials: list[Dial] = []
        self.wires: list[Wire] = []
        self.names: dict[str, list[str]] = {}
        self.problems: list[dict[str, Any]] = []
        self._patch = pytest.MonkeyPatch()
        self._patch.setattr(dial, "connect", connect)
        self._patch.setattr(dial, "adopt", adopt)
        super().__init__()
        self.set_exception_handler(lambda _, context: self.problems.append(context))

    def close(self) -> None:
        self._patch.undo()
        super().close()

    def time(self) -> float:
        return self.now

    async def getaddrinfo(self, host: Any, port: Any, **_: Any) -> Any:
        await asyncio.sleep(0)
        if host not in self.names:
            raise socket.gaierror(socket.EAI_NONAME, "Name or service not known")
        return [(socket.AF_INET, socket.SOCK_STREAM, 6, "", (address, port)) for address in self.names[host]]

    def settle(self) -> None:
        """Run what is due."""
        for _ in range(6):
            self.call_soon(self.stop)
            self.run_forever()


class Recorded:
    """What `Worker.record` was told, copied, as the exchange goes on to forget."""

    def __init__(self, exchange: Exchange) -> None:
        self.method = exchange.method
        self.path = exchange.path
        self.status = exchange.status
        self.error_type = exchange.error_type
        self.outcome = exchange.outcome
        self.attempts = [(each.status, each.error_type, each.resend, each.reused) for each in exchange.attempts]
        self.sizes = (exchange.request_body_size, exchange.response_body_size)
        self.stamps = (exchange.start_ns, exchange.end_ns)
        self.trace_id = exchange.trace_id
        self.span_id = exchange.span_id

    def __repr__(self) -> str:
        return f"Recorded({self.method!r} {self.path!r} {self.status} {self.error_type or self.outcome})"


class CountingWorker(Worker):
    """A worker that remembers what it recorded. ``keep`` also keeps the exchanges themselves."""

    def __init__(self, *arguments: Any, keep: bool) -> None:
        super().__init__(*arguments)
        self.recorded: list[Recorded] = []
        self.kept: list[Exchange] = []
        self._keep = keep

    def record(self, exchange: Exchange) -> None:
        self.recorded.append(Recorded(exchange))
        if self._keep:
            self.kept.append(exchange)
        super().record(exchange)


class Collector(Exporter):
    """An exporter that collects: one encoded blob per request."""

    def __init__(self) -> None:
        self.blobs: list[tuple[bytes, int]] = []

    def record(self, encoder: Encoder, record: RequestRecord) -> None:
        self.blobs.append((encoder.encode(record), 1 + len(record.attempts)))

    def tick(self, now: float) -> None:
        """Nothing waits."""


def table(
    generation: int = 1,
    *,
    ports: tuple[int, ...] = (9001,),
    host: str = "a.test",
    scheme: Any = "http",
    address: str = "10.9.9.9",
    **route: Any,
) -> TableSpec:
    """One route for ``host`` to a backend with an endpoint per port of ``address``."""
    values: dict[str, Any] = {"path": "/", "path_type": "Prefix", "backend": KEY, **route}
    endpoints = tuple(EndpointSpec(address, port) for port in ports)
    return TableSpec(
        generation,
        (RouteSpec("default", "web", "uid", "1", host, **values),),
        (BackendSpec(KEY, "default", "web", "80", endpoints, scheme=scheme),),
    )


class Ordered(dict[Any, None]):
    """A set in the order of arrival, so that a run can be repeated."""

    def add(self, item: Any) -> None:
        self[item] = None

    def discard(self, item: Any) -> None:
        self.pop(item, None)


class Rig:
    """See the module."""

    def __init__(self, settings: Settings | None = None, spec: TableSpec | None = None, *, keep: bool = False) -> None:
        self.loop = Loop()
        self.exporter = Collector()
        self.worker = CountingWorker(settings or Settings(), self.loop, self.exporter, None, keep=keep)
        worker = self.worker
        worker.downstreams, worker.openings = cast("set[Downstream]", Ordered()), cast("set[Opening]", Ordered())
        worker.connector.upstreams = cast("set[Upstream]", Ordered())
        worker.registry = Registry(
            worker.settings.eject_after, worker.settings.eject_time, rng=random.Random(1), clock=self.loop.time
        )
        worker.apply(spec or table())
        self.clients: list[Wire] = []

    def close(self) -> None:
        self.settle()
        for task in asyncio.all_tasks(self.loop):
            task.cancel()
        self.settle()
        self.loop.close()

    @property
    def dials(self) -> list[Dial]:
        """The connections being opened."""
        return [dial for dial in self.loop.dials if dial.pending]

    @property
    def recorded(self) -> list[Recorded]:
        return self.worker.recorded

    @property
    def endpoints(self) -> list[Any]:
        return [endpoint for backend in self.worker.registry.current() for endpoint in backend.endpoints]

    def settle(self) -> None:
        """Run what is due, and have the finished requests written."""
        self.loop.settle()
        self.worker.settle()

    def client(self, data: bytes = b"", peer: str = "127.0.0.1", scheme: str = "http") -> Wire:
        """A new client, which sends ``data``."""
        wire = Wire(self.loop, ("127.0.0.1", 8080), (peer, 40_000 + len(self.clients)))
        wire.protocol = Downstream(self.worker, scheme)
        self.clients.append(wire)
        wire.protocol.connection_made(wire)
        if data:
            self.send(wire, data)
        return wire

    def send(self, wire: Wire, data: bytes) -> None:
        """The other side of ``wire`` sends."""
        wire.feed(data)
        self.settle()

    def upstream(self) -> Wire:
        """Accept the one connection that is being opened."""
        (dial,) = self.dials
        return dial.accept()

    def exchange(self, request: bytes, response: bytes = OK) -> tuple[Wire, Wire]:
        """A new client's request, answered by a new upstream connection."""
        client = self.client(request)
        upstream = self.upstream()
        self.send(upstream, response)
        return client, upstream

    def pass_time(self, seconds: float) -> None:
        """Let time pass, as the worker's sweep sees it."""
        self.loop.now += seconds
        self.settle()
        self.worker.sweep(self.loop.now)
        self.settle()

    def check(self, *, at_rest: bool = False) -> None:
        """What must hold at any time; ``at_rest`` when no request is under way."""
        worker = self.worker
        worker.settle()
        assert not self.loop.problems, self.loop.problems
        for pool in worker.pools:
            check_pool(pool, self.dials)
        for upstream in worker.connector.upstreams:
            borrower: Any = upstream.borrower
            if borrower is not None:
                exchange = borrower.exchange
                assert exchange.downstream.exchange is exchange, "lent to an exchange that is over"
                assert not upstream.closed
        for endpoint in self.endpoints:
            assert endpoint.in_flight >= 0, endpoint
        if at_rest:
            assert not [each for each in worker.connector.upstreams if each.borrower is not None], "a borrower is left"
            assert [endpoint.in_flight for endpoint in self.endpoints] == [0] * len(self.endpoints)
            assert not [each for each in worker.downstreams if each.exchange is not None]
            assert not worker.connector.tasks
            assert len(self.exporter.blobs) == len(self.recorded)


def check_pool(pool: Pool, dials: list[Dial]) -> None:
    """A pool's bookkeeping against what is really open."""
    mine: list[Upstream] = [each for each in pool.connector.upstreams if each.pool is pool]
    opening = [dial for dial in dials if getattr(dial.protocol, "pool", None) is pool]
    assert pool.open == len(mine) + len(opening), (pool, mine, opening)
    assert 0 <= pool.open <= pool.connector.most, pool
    idle = pool.idle + pool.tapped
    assert len(set(idle)) == len(idle) <= pool.connector.most_idle, pool
    assert not (pool.tapped and not pool.connector.divided), pool
    for upstream in idle:
        assert upstream.borrower is None, "idle and lent"
        assert upstream in mine, "idle, but not open"
    assert not (pool.retired and idle), pool


@contextmanager
def rig(settings: Settings | None = None, spec: TableSpec | None = None, *, keep: bool = False) -> Iterator[Rig]:
    """A rig for one test, checked at its end."""
    made = Rig(settings, spec, keep=keep)
    try:
        yield made
        made.settle()
        made.check()
    finally:
        made.close()


def free_port() -> int:
    """A port of the loopback on which nothing listens."""
    with socket.socket() as sock:
        sock.bind(("127.0.0.1", 0))
        return int(sock.getsockname()[1])
