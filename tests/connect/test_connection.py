"""The connection on a real loop, where sockets decide in which order things happen."""

from __future__ import annotations

import asyncio
import socket
import ssl
import struct
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from typing import Any

import pytest
import uvloop

from proxy.connect.connection import Upstream
from proxy.connect.pool import Connector, Pool
from proxy.net.clock import Clock
from tests.rig import free_port


class Borrower:
    """Asks for a connection, and writes down what it hears."""

    def __init__(self) -> None:
        self.queue_ns = self.dns_ns = self.connect_ns = self.tls_ns = 0
        self.abandoned = False
        self.stays_open = False
        self.events: asyncio.Queue[Any] = asyncio.Queue()

    def connected(self, upstream: Upstream) -> None:
        upstream.borrower = self
        self.events.put_nowait(upstream)

    def not_connected(self, fault: Exception) -> None:
        self.events.put_nowait(fault)

    def received(self, data: bytes) -> None:
        self.events.put_nowait(data)

    def upstream_ended(self) -> bool:
        self.events.put_nowait("end")
        return self.stays_open

    def upstream_lost(self, error: Exception | None) -> None:
        self.events.put_nowait(("lost", error is not None))

    def upstream_paused(self) -> None:
        self.events.put_nowait("paused")

    def upstream_resumed(self) -> None:
        self.events.put_nowait("resumed")

    def overdue(self) -> None:
        self.events.put_nowait("overdue")

    async def next(self) -> Any:
        return await asyncio.wait_for(self.events.get(), 20)


def make_pool(host: str, port: int) -> Pool:
    loop = asyncio.get_running_loop()
    connector = Connector(
        loop, Clock(loop.time()), ssl.create_default_context(), most=10, most_idle=10, idle_timeout=60.0
    )
    return Pool(connector, host, port, tls=False, server_name="")


@asynccontextmanager
async def connection(host: str = "127.0.0.1") -> AsyncIterator[tuple[Borrower, Upstream, socket.socket]]:
    """A lent connection, and the other end of it as a plain socket."""
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        listener.listen()
        listener.setblocking(False)
        borrower = Borrower()
        pool = make_pool(host, listener.getsockname()[1])
        pool.connect(borrower, 10.0)
        far, _ = await asyncio.get_running_loop().sock_accept(listener)
        with far:
            far.setblocking(False)
            upstream = await borrower.next()
            assert isinstance(upstream, Upstream), upstream
            yield borrower, upstream, far
            upstream.abort()
            while upstream.pool.open:
                await asyncio.sleep(0.001)
    assert not pool.connector.upstreams


@pytest.fixture(params=["uvloop", "asyncio"])
def run(request: pytest.FixtureRequest) -> Callable[[Any], None]:
    factory = uvloop.new_event_loop if request.param == "uvloop" else asyncio.new_event_loop

    def runner(main: Any) -> None:
        with asyncio.Runner(loop_factory=factory) as made:
            made.run(main)

    return runner


def test_addresses_are_those_of_the_sockets(run: Any) -> None:
    async def main() -> None:
        async with connection() as (_, upstream, far):
            assert (upstream.local_address, upstream.local_port) == far.getpeername()
            assert (upstream.peer_address, upstream.peer_port) == far.getsockname()

    run(main())


def test_a_name_is_resolved(run: Any) -> None:
    """``localhost`` has two addresses on most hosts, of which only one listens."""

    async def main() -> None:
        async with connection("localhost") as (borrower, upstream, _):
            assert upstream.peer_address == "127.0.0.1"
            assert borrower.dns_ns > 0

    run(main())


def test_nobody_listens(run: Any) -> None:
    async def main() -> None:
        borrower = Borrower()
        pool = make_pool("127.0.0.1", free_port())
        pool.connect(borrower, 10.0)
        fault = await borrower.next()
        assert str(fault).startswith("connect_failed: 127.0.0.1:")
        assert pool.open == 0

    run(main())


def test_bytes_are_counted_and_handed_on(run: Any) -> None:
    async def main() -> None:
        async with connection() as (borrower, upstream, far):
            far.send(b"hello")
            assert await borrower.next() == b"hello"
            assert upstream.seen() == 5
            upstream.transport.write(b"abc")
            upstream.bytes_out += 3
            assert upstream.sent() == 3
            assert await asyncio.get_running_loop().sock_recv(far, 10) == b"abc"

    run(main())


def test_the_end_is_told_once(run: Any) -> None:
    async def main() -> None:
        async with connection() as (borrower, upstream, far):
            far.shutdown(socket.SHUT_WR)
            assert await borrower.next() == "end"
            assert await borrower.next() == ("lost", False)
            assert upstream.closed
            assert upstream.borrower is None

    run(main())


def test_a_tunnel_outlives_one_end(run: Any) -> None:
    async def main() -> None:
        async with connection() as (borrower, upstream, far):
            borrower.stays_open = True
            far.shutdown(socket.SHUT_WR)
            assert await borrower.next() == "end"
            upstream.transport.write(b"still here")
            assert await asyncio.get_running_loop().sock_recv(far, 20) == b"still here"

    run(main())


def test_a_reset_is_told_as_one(run: Any) -> None:
    async def main() -> None:
        async with connection() as (borrower, _, far):
            far.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
            far.close()
            assert await borrower.next() == ("lost", True)

    run(main())


def test_a_full_socket_pauses_and_an_emptied_one_resumes(run: Any) -> None:
    async def main() -> None:
        async with connection() as (borrower, upstream, far):
            size = 16 * 1024 * 1024
            upstream.transport.write(b"x" * size)
            assert await borrower.next() == "paused"
            got = 0
            while got < size:
                got += len(await asyncio.get_running_loop().sock_recv(far, 1 << 20))
            assert await borrower.next() == "resumed"

    run(main())


def test_an_answer_that_came_before_our_write_failed_is_not_lost(run: Any) -> None:
    """A server that refuses an upload answers, closes, and resets what still comes."""

    async def main() -> None:
        async with connection() as (borrower, upstream, far):
            upstream.transport.pause_reading()
            far.send(b"HTTP/1.1 413 Content Too Large\r\n\r\n")
            far.shutdown(socket.SHUT_RDWR)
            far.close()
            for _ in range(200):
                if upstream.transport.is_closing():
                    break
                upstream.transport.write(b"x" * 65536)
                await asyncio.sleep(0.001)
            heard = [await borrower.next()]
            while not isinstance(heard[-1], tuple):
                heard.append(await borrower.next())
            assert b"HTTP/1.1 413" in b"".join(each for each in heard if isinstance(each, bytes))

    run(main())


def test_an_idle_connection_that_speaks_is_closed(run: Any) -> None:
    async def main() -> None:
        async with connection() as (_, upstream, far):
            upstream.pool.give(upstream)
            far.send(b"surprise")
            while upstream.pool.open:
                await asyncio.sleep(0.001)
            assert upstream.pool.take() is None

    run(main())


class Probe:
    closed = False

    def close(self) -> None:
        self.closed = True


def test_what_fails_at_the_end_leaves_no_descriptor_open() -> None:
    """A probe holds a duplicate of the connection's socket."""
    with asyncio.Runner() as runner:
        loop = runner.get_loop()
        connector = Connector(loop, Clock(0.0), ssl.create_default_context(), most=1, most_idle=1, idle_timeout=60.0)
        upstream = Upstream(Pool(connector, "127.0.0.1", 9, tls=False, server_name=""))
    probe = Probe()
    upstream.probe = probe  # type: ignore[assignment] # closes, as a real one does

    class Failing(Borrower):
        def upstream_lost(self, error: Exception | None) -> None:
            raise RuntimeError("not thought of")

    upstream.borrower = Failing()
    with pytest.raises(RuntimeError, match="not thought of"):
        upstream.connection_lost(None)
    assert probe.closed


@pytest.mark.parametrize("state", ["idle", "lent", "closed"])
def test_repr_shows_the_state(state: str, run: Any) -> None:
    async def main() -> None:
        async with connection() as (borrower, upstream, _):
            if state == "idle":
                upstream.borrower = None
            elif state == "closed":
                upstream.abort()
            assert f", {state}, served 0)" in repr(upstream)
            upstream.borrower = borrower

    run(main())
