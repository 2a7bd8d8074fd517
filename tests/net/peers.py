"""Both ends of a TLS connection for tests: an application on our transport, and independent clients."""

from __future__ import annotations

import asyncio
import contextlib
import ssl
from collections.abc import AsyncIterator, Callable, Coroutine
from typing import Any, cast

from proxy.net.records import Records
from proxy.net.tls import TlsTransport
from tests.harness.certificates import any_server

MIB = 1024 * 1024

Run = Callable[[Coroutine[Any, Any, None]], None]


def client_context(version: ssl.TLSVersion = ssl.TLSVersion.TLSv1_3) -> ssl.SSLContext:
    context = any_server()
    context.maximum_version = version
    context.set_alpn_protocols(["h2", "http/1.1"])
    return context


class Inner(asyncio.Protocol):
    """An application that remembers what it was told."""

    def __init__(self, *, keep_open: bool = False) -> None:
        self.events: list[str] = []
        self.data = bytearray()
        self.reads: list[int] = []
        self.keep_open = keep_open
        self.lost_with: Exception | None = None
        self.transport: TlsTransport
        self._changed = asyncio.Event()
        self.on_data: Callable[[bytes], None] | None = None

    def note(self, event: str) -> None:
        self.events.append(event)
        self._changed.set()

    async def until(self, true: Callable[[], bool]) -> None:
        while not true():
            self._changed.clear()
            await self._changed.wait()

    async def after(self, event: str) -> None:
        await self.until(lambda: event in self.events)

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        assert isinstance(transport, TlsTransport)
        self.transport = transport
        self.note("made")

    def data_received(self, data: bytes) -> None:
        assert data
        self.data += data
        self.reads.append(len(data))
        self._changed.set()
        if self.on_data is not None:
            self.on_data(data)

    def eof_received(self) -> bool:
        self.note("eof")
        return self.keep_open

    def connection_lost(self, exc: Exception | None) -> None:
        self.lost_with = exc
        self.note("lost")

    def pause_writing(self) -> None:
        self.note("pause")

    def resume_writing(self) -> None:
        self.note("resume")


class Listener:
    """A loopback listener whose next connection is served by ``inner`` over TLS."""

    def __init__(self, inner: Inner, port: int) -> None:
        self.inner = inner
        self.port = port
        self.failures: list[str] = []
        self.accepted: asyncio.Queue[TlsTransport] = asyncio.Queue()


@contextlib.asynccontextmanager
async def listening(context: ssl.SSLContext, inner: Inner) -> AsyncIterator[Listener]:
    class Outer(asyncio.Protocol):
        def connection_made(self, transport: asyncio.BaseTransport) -> None:
            tls = TlsTransport(context, inner, server_side=True, on_failure=listener.failures.append)
            tls.start(cast("asyncio.Transport", transport))  # uvloop's are no instances of it
            listener.accepted.put_nowait(tls)

    made = await asyncio.get_running_loop().create_server(Outer, "127.0.0.1", 0)
    listener = Listener(inner, made.sockets[0].getsockname()[1])
    async with made:
        yield listener
        while not listener.accepted.empty():
            listener.accepted.get_nowait().abort()
        await asyncio.sleep(0.01)


async def connected(
    port: int, context: ssl.SSLContext | None = None
) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
    """An independent client: the loop's own TLS."""
    return await asyncio.open_connection(
        "127.0.0.1", port, ssl=context or client_context(), server_hostname="shop.test", limit=64 * 1024
    )


async def gone(writer: asyncio.StreamWriter) -> None:
    writer.close()
    with contextlib.suppress(OSError):
        await writer.wait_closed()


class Shaken:
    """A client over plain sockets after its handshake, so that a test has every byte in its hand.

    ``flight`` is its last flight, not sent yet; ``sent`` and ``received`` count what went over the socket.
    """

    def __init__(self, context: ssl.SSLContext | None = None) -> None:
        self.records = Records(context or client_context(), server_side=False, server_hostname="shop.test")
        self.sent = self.received = 0
        self.flight = b""
        self.reader: asyncio.StreamReader
        self.writer: asyncio.StreamWriter

    async def dial(self, port: int) -> Shaken:
        self.reader, self.writer = await asyncio.open_connection("127.0.0.1", port)
        self.flight = self.records.shake(b"")
        while not self.records.done:
            self.send(b"")
            self.flight = self.records.shake(await self.read())
        return self

    def send(self, data: bytes) -> None:
        data, self.flight = self.flight + data, b""
        self.writer.write(data)
        self.sent += len(data)

    async def read(self) -> bytes:
        data = await self.reader.read(MIB)
        self.received += len(data)
        return data

    async def rest(self) -> bytes:
        """All plaintext up to the end of the stream."""
        got = bytearray()
        while piece := await self.read():
            got += self.records.decrypt(piece)
        return bytes(got)
