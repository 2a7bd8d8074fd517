"""`TlsTransport` on real sockets, under asyncio's loop and uvloop's, against independent peers."""

from __future__ import annotations

import asyncio
import contextlib
import os
import socket
import ssl
import struct
from functools import partial
from typing import cast

import pytest

from proxy.net.contexts import upstream_context
from proxy.net.records import Records
from proxy.net.tls import TlsTransport
from tests.net.peers import MIB, Inner, Run, Shaken, client_context, connected, gone, listening


@pytest.mark.parametrize("version", [ssl.TLSVersion.TLSv1_2, ssl.TLSVersion.TLSv1_3])
def test_facts_of_a_connection(run: Run, server: ssl.SSLContext, version: ssl.TLSVersion) -> None:
    async def scenario() -> None:
        inner = Inner()
        async with listening(server, inner) as listener:
            reader, writer = await connected(listener.port, client_context(version))
            await inner.after("made")
            tls = inner.transport
            assert not tls.handshaking
            assert tls.version == version.name.replace("_", ".")
            assert tls.server_name == "shop.test"
            assert tls.alpn == "http/1.1"
            assert tls.cipher == writer.get_extra_info("cipher")[0]
            assert tls.handshake_ns > 0
            assert not tls.resumed
            assert tls.get_extra_info("peername") == writer.get_extra_info("sockname")
            assert tls.get_extra_info("ssl_object").version() == tls.version
            assert tls.get_extra_info("sslcontext") is server
            assert tls.get_extra_info("cipher")[0] == tls.cipher
            assert tls.get_extra_info("peercert") is None
            assert tls.get_extra_info("no such thing", 7) == 7
            assert f"server open {tls.version}" in repr(tls)
            writer.write(b"ping")
            await inner.until(lambda: inner.data == b"ping")
            tls.writelines([b"po", b"ng"])
            assert await reader.readexactly(4) == b"pong"
            await gone(writer)
            await inner.after("lost")
            assert inner.events == ["made", "eof", "lost"]
            assert inner.lost_with is None
            assert listener.failures == []

    run(scenario())


def test_ciphertext_is_counted_to_the_byte(run: Run, server: ssl.SSLContext) -> None:
    async def scenario() -> None:
        inner = Inner()
        async with listening(server, inner) as listener:
            client = await Shaken().dial(listener.port)
            body = os.urandom(300_000)
            client.send(client.records.encrypt(body))
            await inner.until(lambda: len(inner.data) == len(body))
            assert inner.transport.bytes_in == client.sent
            before = inner.transport.bytes_out
            inner.transport.write(body)
            assert inner.transport.bytes_out - before > len(body)
            got = bytearray()
            while len(got) < len(body):
                got += client.records.decrypt(await client.read())
            assert got == inner.data == body
            assert inner.transport.bytes_out == client.received
            await gone(client.writer)
            await inner.after("lost")
            assert inner.transport.truncated

    run(scenario())


def test_both_sides_are_ours(run: Run, server: ssl.SSLContext) -> None:
    async def scenario() -> None:
        inner, client = Inner(), Inner()
        async with listening(server, inner) as listener:
            raw, _ = await asyncio.get_running_loop().create_connection(asyncio.Protocol, "127.0.0.1", listener.port)
            tls = TlsTransport(upstream_context(), client, server_side=False, server_hostname="shop.test")
            tls.start(raw)
            assert tls.handshaking
            assert tls.version == tls.cipher == tls.alpn == ""
            assert tls.session is None
            await client.after("made")
            assert client.transport is tls
            await inner.after("made")
            assert tls.server_name == inner.transport.server_name == "shop.test"
            body = os.urandom(3 * MIB)
            tls.write(body)
            await inner.until(lambda: len(inner.data) == len(body))
            inner.transport.write(body)
            await client.until(lambda: len(client.data) == len(body))
            assert client.data == inner.data == body
            assert tls.bytes_out == inner.transport.bytes_in
            assert tls.bytes_in == inner.transport.bytes_out
            tls.close()
            tls.close()
            tls.write(b"dropped")
            assert tls.is_closing()
            await client.after("lost")
            await inner.after("lost")
            assert inner.events == ["made", "eof", "lost"]
            assert client.events[-1] == "lost"
            assert not inner.transport.truncated

    run(scenario())


def test_the_proxy_header_may_come_with_the_first_bytes(run: Run, server: ssl.SSLContext) -> None:
    async def scenario() -> None:
        inner = Inner()

        class Outer(asyncio.Protocol):
            def connection_made(self, transport: asyncio.BaseTransport) -> None:
                self.transport = cast("asyncio.Transport", transport)

            def data_received(self, data: bytes) -> None:
                header, _, rest = data.partition(b"\r\n")
                assert header == b"PROXY UNKNOWN"
                assert rest
                TlsTransport(server, inner, server_side=True).start(self.transport, rest)

        async with await asyncio.get_running_loop().create_server(Outer, "127.0.0.1", 0) as made:
            reader, writer = await asyncio.open_connection(*made.sockets[0].getsockname())
            records = Records(client_context(), server_side=False)
            writer.write(b"PROXY UNKNOWN\r\n" + records.shake(b""))
            while not records.done:
                writer.write(records.shake(await reader.read(MIB)))
            writer.write(records.encrypt(b"hello"))
            await inner.until(lambda: inner.data == b"hello")
            inner.transport.abort()
            await inner.after("lost")
            await gone(writer)

    run(scenario())


# Failing handshakes.


@pytest.mark.parametrize("side", ["garbage", "http", "leaves", "resets"])
def test_failed_handshakes_are_told_once(run: Run, server: ssl.SSLContext, side: str) -> None:
    async def scenario() -> None:
        inner = Inner()
        async with listening(server, inner) as listener:
            reader, writer = await asyncio.open_connection("127.0.0.1", listener.port)
            tls = await listener.accepted.get()
            if side == "garbage":
                writer.write(b"\x16\x03\x01\x00\x05hello")
                assert (await reader.read())[:1] == b"\x15"  # an alert, then the end
            elif side == "http":
                writer.write(b"GET / HTTP/1.1\r\n\r\n")
                await reader.read()
            else:
                flight = Records(client_context(), server_side=False).shake(b"")
                writer.write(flight[:50])
                if side == "resets":
                    while tls.bytes_in < 50:
                        await asyncio.sleep(0.001)
                    reset = struct.pack("ii", 1, 0)
                    writer.get_extra_info("socket").setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, reset)
                    writer.transport.abort()
                else:
                    writer.write_eof()
                    assert await reader.read() == b""
            await gone(writer)
            while not listener.failures:
                await asyncio.sleep(0.001)
            await asyncio.sleep(0.01)
            assert len(listener.failures) == 1
            assert {
                "garbage": "unexpected message",
                "http": "http request",
                "leaves": "the peer closed the connection during the handshake",
                "resets": "the connection was lost during the handshake",
            }[side] in listener.failures[0]
            assert inner.events == []
            assert tls.is_closing()
            assert tls.handshake_ns == 0

    run(scenario())


def test_an_owner_that_gives_up_is_told_nothing(run: Run, server: ssl.SSLContext) -> None:
    async def scenario() -> None:
        inner = Inner()
        async with listening(server, inner) as listener:
            reader, writer = await asyncio.open_connection("127.0.0.1", listener.port)
            tls = await listener.accepted.get()
            assert tls.handshaking
            tls.abort()
            with contextlib.suppress(ConnectionResetError):
                assert await reader.read() == b""
            await gone(writer)
            assert not tls.handshaking
            assert listener.failures == []
            assert inner.events == []

    run(scenario())


@pytest.mark.parametrize("name", ["a..b", "x" * 64 + ".test", ".test"])
def test_a_name_that_cannot_be_asked_for_is_a_failure(run: Run, name: str) -> None:
    async def scenario() -> None:
        failures: list[str] = []
        near, far = socket.socketpair()
        raw, _ = await asyncio.get_running_loop().create_connection(asyncio.Protocol, sock=near)
        client = Inner()
        tls = TlsTransport(
            upstream_context(), client, server_side=False, server_hostname=name, on_failure=failures.append
        )
        tls.start(raw)
        assert len(failures) == 1
        assert name in failures[0]
        assert raw.is_closing()
        await asyncio.sleep(0)
        far.close()
        assert client.events == []

    run(scenario())


@pytest.mark.parametrize("version", [ssl.TLSVersion.TLSv1_2, ssl.TLSVersion.TLSv1_3])
def test_a_session_is_resumed(run: Run, server: ssl.SSLContext, version: ssl.TLSVersion) -> None:
    async def scenario() -> None:
        context = upstream_context()
        context.maximum_version = version
        session: ssl.SSLSession | None = None
        for turn in range(2):
            inner, client = Inner(), Inner()
            async with listening(server, inner) as listener:
                raw, _ = await asyncio.get_running_loop().create_connection(
                    asyncio.Protocol, "127.0.0.1", listener.port
                )
                tls = TlsTransport(context, client, server_side=False, server_hostname="shop.test", session=session)
                tls.start(raw)
                await inner.after("made")
                inner.transport.write(b"x")  # with TLS 1.3 the tickets come before it
                await client.until(partial(client.data.startswith, b"x"))
                assert tls.resumed is inner.transport.resumed is bool(turn)
                session = tls.session
                tls.close()
                await inner.after("lost")

    run(scenario())
