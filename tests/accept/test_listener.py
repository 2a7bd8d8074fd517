from __future__ import annotations

import asyncio
import contextlib
import functools
import socket
from collections.abc import AsyncIterator, Callable, Coroutine
from typing import Any

import pytest
import uvloop

from proxy.accept.certificates import Certificates
from proxy.accept.listener import Listener
from proxy.settings import Limits, Settings
from proxy.worker import Worker
from tests.rig import table


def on_uvloop(test: Callable[..., Coroutine[Any, Any, None]]) -> Callable[..., None]:
    """The loop that workers run on: how it takes a socket over and gives it back is part of what is tested."""

    @functools.wraps(test)
    def run(**arguments: Any) -> None:
        uvloop.run(test(**arguments))

    return run


@contextlib.asynccontextmanager
async def serving(
    settings: Settings | None = None, *, tls: bool = False
) -> AsyncIterator[tuple[Listener, Worker, int]]:
    """A listener of a worker whose one endpoint does not exist: what is asked for is refused, and that is enough."""
    loop = asyncio.get_running_loop()
    worker = Worker(settings or Settings(), loop, None, None)
    worker.apply(table())
    sock = socket.create_server(("127.0.0.1", 0))
    sock.setblocking(False)
    certificates = None
    if tls:
        certificates = Certificates()
        certificates.update(table())
    listener = Listener(worker, sock, certificates)
    await listener.start()
    try:
        yield listener, worker, sock.getsockname()[1]
    finally:
        listener.stop(refuse=True)
        for downstream in list(worker.downstreams):
            downstream.abort()
        for opening in list(worker.openings):
            opening.overdue()
        await asyncio.sleep(0.01)
        sock.close()
        assert not worker.downstreams
        assert not worker.openings


async def ask(port: int, data: bytes) -> bytes:
    """Everything that comes back until the other side ends its way."""
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    writer.write(data)
    try:
        return await asyncio.wait_for(reader.read(), 20)
    except ConnectionResetError:
        return b""
    finally:
        writer.close()


ASK = b"GET / HTTP/1.1\r\nHost: other.test\r\nConnection: close\r\n\r\n"


@on_uvloop
async def test_plain() -> None:
    async with serving() as (listener, worker, port):
        assert (await ask(port, ASK)).startswith(b"HTTP/1.1 404 ")
        assert worker.connections == 1
        assert repr(listener) == f"Listener(('127.0.0.1', {port}), http)"


@pytest.mark.parametrize("cut", [0, 1, 20, 45])
@on_uvloop
async def test_proxy_protocol_in_pieces(cut: int) -> None:
    header = b"PROXY TCP4 192.0.2.7 10.0.0.1 4711 80\r\n"
    async with serving(Settings(proxy_protocol=True)) as (_, worker, port):
        reader, writer = await asyncio.open_connection("127.0.0.1", port)
        data = header + ASK
        writer.write(data[:cut])
        while not worker.openings and not worker.downstreams:
            await asyncio.sleep(0.001)
        writer.write(data[cut:])
        assert (await asyncio.wait_for(reader.read(), 20)).startswith(b"HTTP/1.1 404 ")
        writer.close()
        assert not worker.openings


@pytest.mark.parametrize(
    "data", [ASK, b"PROXY TCP5 a b 1 2\r\n", b"PROXY TCP4 192.0.2.7 10.0.0.1 99999 80\r\n", b"\r\n\r\n\0\r\nQUIX\n"]
)
@on_uvloop
async def test_what_is_no_proxy_protocol_gets_no_answer(data: bytes) -> None:
    async with serving(Settings(proxy_protocol=True)) as (_, worker, port):
        assert await ask(port, data) == b""
        assert not worker.openings
        assert not worker.downstreams


@on_uvloop
async def test_an_opening_is_bounded_in_time() -> None:
    async with serving(Settings(proxy_protocol=True)) as (_, worker, port):
        reader, writer = await asyncio.open_connection("127.0.0.1", port)
        while not worker.openings:
            await asyncio.sleep(0.001)
        worker.sweep(asyncio.get_running_loop().time() + 11)
        assert not worker.openings
        with contextlib.suppress(ConnectionResetError):
            assert await asyncio.wait_for(reader.read(), 20) == b""
        writer.close()


@on_uvloop
async def test_a_client_that_leaves_before_its_request() -> None:
    async with serving(Settings(proxy_protocol=True)) as (_, worker, port):
        _, writer = await asyncio.open_connection("127.0.0.1", port)
        while not worker.openings:
            await asyncio.sleep(0.001)
        writer.close()
        while worker.openings:
            await asyncio.sleep(0.001)
        assert worker.handshake_failures == 0


@on_uvloop
async def test_openings_count_against_the_bound() -> None:
    async with serving(Settings(proxy_protocol=True, limits=Limits(connections=2))) as (_, worker, port):
        writers = [(await asyncio.open_connection("127.0.0.1", port))[1] for _ in range(3)]
        while not worker.refused:
            await asyncio.sleep(0.001)
        assert len(worker.openings) == 2
        for writer in writers:
            writer.close()


@on_uvloop
async def test_a_failed_handshake_is_counted() -> None:
    async with serving(tls=True) as (listener, worker, port):
        await ask(port, ASK)
        assert worker.handshake_failures == 1
        assert not worker.openings
        assert not worker.downstreams
        assert "https" in repr(listener)


@on_uvloop
async def test_a_client_that_leaves_within_its_handshake() -> None:
    async with serving(tls=True) as (_, worker, port):
        _, writer = await asyncio.open_connection("127.0.0.1", port)
        writer.write(b"\x16\x03\x01\x02\x00")
        while not worker.openings:
            await asyncio.sleep(0.001)
        writer.close()
        while worker.openings:
            await asyncio.sleep(0.001)


@on_uvloop
async def test_a_stopped_listener_leaves_its_queue_to_a_successor() -> None:
    """A connection that the kernel has accepted already is served by whoever listens on the same socket next."""
    async with serving() as (listener, worker, port):
        listener.stop(refuse=False)
        await asyncio.sleep(0.01)
        waiting = asyncio.ensure_future(ask(port, ASK))
        await asyncio.sleep(0.01)
        assert worker.connections == 0
        await listener.start()
        assert (await waiting).startswith(b"HTTP/1.1 404 ")


@on_uvloop
async def test_a_refusing_listener_sends_clients_elsewhere() -> None:
    async with serving() as (listener, _, port):
        listener.stop(refuse=True)
        await asyncio.sleep(0.01)
        with pytest.raises(ConnectionRefusedError):
            await asyncio.open_connection("127.0.0.1", port)
        listener.stop(refuse=True)  # twice is no harm
