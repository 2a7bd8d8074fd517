"""What a connection leaves behind: the memory of OpenSSL, tens of KiB, goes with it, not when garbage is collected."""

from __future__ import annotations

import asyncio
import gc
import ssl
import weakref
from collections.abc import Iterator
from typing import cast

import pytest

from proxy.net.tls import TlsTransport
from tests.net.peers import Inner, Run, Shaken, connected, gone


class Taken(asyncio.Protocol):
    """A connection taken over for an application of its own; the three know each other, as in the proxy."""

    def __init__(self, context: ssl.SSLContext, kept: list[weakref.ref[Inner]]) -> None:
        inner = Inner()
        kept.append(weakref.ref(inner))
        self.failures: list[str] = []
        self.tls = TlsTransport(context, inner, server_side=True, on_failure=self.failed)

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self.tls.start(cast("asyncio.Transport", transport))

    def failed(self, reason: str) -> None:
        self.failures.append(reason)


@pytest.fixture
def _no_collector() -> Iterator[None]:
    gc.collect()
    gc.disable()
    yield
    gc.enable()


@pytest.mark.usefixtures("_no_collector")
@pytest.mark.parametrize("how", ["served", "a broken record", "no handshake", "a broken handshake"])
def test_a_lost_connection_is_let_go_at_once(run: Run, server: ssl.SSLContext, how: str) -> None:
    async def scenario() -> None:
        kept: list[weakref.ref[Inner]] = []
        made = await asyncio.get_running_loop().create_server(lambda: Taken(server, kept), "127.0.0.1", 0)
        port = made.sockets[0].getsockname()[1]
        async with made:
            if how == "served":
                _, writer = await connected(port)
                writer.write(b"ping")
            elif how == "a broken record":
                client = await Shaken().dial(port)
                client.send(b"")
                writer = client.writer
                writer.write(b"\x17\x03\x03\x00\x20" + bytes(32))
            else:
                _, writer = await asyncio.open_connection("127.0.0.1", port)
                if how == "a broken handshake":
                    writer.write(b"\x16\x03\x01\x00\x10" + bytes(16))
            await gone(writer)
            for _ in range(200):
                if kept and kept[0]() is None:
                    break
                await asyncio.sleep(0.01)
            assert [each() for each in kept] == [None]

    run(scenario())
