"""How a TLS stream flows and ends: backpressure, half-close, truncation, errors."""

from __future__ import annotations

import asyncio
import os
import socket
import ssl
import struct

import pytest

from tests.net.peers import MIB, Inner, Run, Shaken, client_context, connected, gone, listening

# Backpressure.


def test_paused_reading_stops_the_peer_and_loses_nothing(run: Run, server: ssl.SSLContext) -> None:
    async def scenario() -> None:
        inner = Inner()
        body = os.urandom(16 * MIB)
        async with listening(server, inner) as listener:
            _, writer = await connected(listener.port)
            await inner.after("made")
            tls = inner.transport
            tls.pause_reading()
            tls.pause_reading()
            assert not tls.is_reading()
            stalled = tls.bytes_in
            writer.write(body)
            await asyncio.sleep(0.05)
            assert tls.bytes_in == stalled
            assert not inner.data

            def stutter(_: bytes) -> None:
                tls.pause_reading()
                asyncio.get_running_loop().call_later(0.0001, tls.resume_reading)

            inner.on_data = stutter
            tls.resume_reading()
            assert tls.is_reading()
            await inner.until(lambda: len(inner.data) >= len(body))
            assert inner.data == body
            # One call per raw read: never a call per record.
            assert sum(inner.reads) / len(inner.reads) > 16 * 1024
            inner.on_data = None
            await gone(writer)
            await inner.after("lost")
            assert not tls.truncated

    run(scenario())


def test_a_peer_that_does_not_read_pauses_the_writer(run: Run, server: ssl.SSLContext) -> None:
    async def scenario() -> None:
        inner = Inner()
        async with listening(server, inner) as listener:
            reader, writer = await connected(listener.port)
            await inner.after("made")
            tls = inner.transport
            tls.set_write_buffer_limits(high=0)
            assert tls.get_write_buffer_limits() == (0, 0)
            piece = os.urandom(MIB)
            written = 0
            while "pause" not in inner.events:
                tls.write(piece)
                written += len(piece)
                assert written < 64 * MIB
                await asyncio.sleep(0)
            assert tls.get_write_buffer_size() > 0
            assert await reader.readexactly(written) == piece * (written // MIB)
            await inner.after("resume")
            assert tls.get_write_buffer_size() == 0
            await gone(writer)
            await inner.after("lost")

    run(scenario())


# Ends.


@pytest.mark.parametrize("paused", [False, True])
@pytest.mark.parametrize("how", ["close_notify", "fin", "both"])
def test_how_a_stream_ends(run: Run, server: ssl.SSLContext, how: str, paused: bool) -> None:
    async def scenario() -> None:
        inner = Inner()
        async with listening(server, inner) as listener:
            client = await Shaken().dial(listener.port)
            client.send(b"")
            await inner.after("made")
            if paused:
                inner.transport.pause_reading()
            client.send(client.records.encrypt(b"last words"))
            if how != "fin":
                client.send(client.records.close())
            if how != "close_notify":
                client.writer.write_eof()
            if paused:
                await asyncio.sleep(0.02)
                assert inner.events == ["made"]
                assert not inner.data
                inner.transport.resume_reading()
            await inner.after("eof")
            assert inner.data == b"last words"
            assert inner.transport.truncated is (how == "fin")
            await inner.after("lost")
            assert inner.events == ["made", "eof", "lost"]
            assert inner.lost_with is None
            assert inner.transport.truncated is (how == "fin")
            await gone(client.writer)

    run(scenario())


def test_a_reset_is_lost_and_truncated(run: Run, server: ssl.SSLContext) -> None:
    async def scenario() -> None:
        inner = Inner()
        async with listening(server, inner) as listener:
            _, writer = await connected(listener.port)
            await inner.after("made")
            writer.get_extra_info("socket").setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
            writer.transport.abort()
            await inner.after("lost")
            assert isinstance(inner.lost_with, ConnectionResetError)
            assert inner.transport.truncated
            await gone(writer)

    run(scenario())


def test_a_forged_record_is_lost_with_the_tls_error(run: Run, server: ssl.SSLContext) -> None:
    async def scenario() -> None:
        inner = Inner()
        async with listening(server, inner) as listener:
            client = await Shaken().dial(listener.port)
            stream = bytearray(client.records.encrypt(b"good") + client.records.encrypt(b"bad"))
            stream[-1] ^= 1
            client.send(bytes(stream))
            await inner.after("lost")
            assert inner.data == b"good"
            assert inner.events == ["made", "lost"]
            assert isinstance(inner.lost_with, ssl.SSLError)
            assert inner.transport.truncated
            assert await client.rest() == b""
            assert client.records.error is not None  # the alert came before the end
            await gone(client.writer)

    run(scenario())


@pytest.mark.parametrize("version", [ssl.TLSVersion.TLSv1_2, ssl.TLSVersion.TLSv1_3])
def test_half_close(run: Run, server: ssl.SSLContext, version: ssl.TLSVersion) -> None:
    async def scenario() -> None:
        inner = Inner(keep_open=True)
        async with listening(server, inner) as listener:
            client = await Shaken(client_context(version)).dial(listener.port)
            client.send(client.records.encrypt(b"question") + client.records.close())
            await inner.after("eof")
            inner.transport.write(b"answer")
            if version is ssl.TLSVersion.TLSv1_3:
                assert client.records.decrypt(await client.read()) == b"answer"
                inner.transport.close()
            assert await client.rest() == b""
            assert client.records.close_notify
            await inner.after("lost")
            await gone(client.writer)

    run(scenario())


def test_close_delivers_everything_then_close_notify(run: Run, server: ssl.SSLContext) -> None:
    async def scenario() -> None:
        inner = Inner()
        async with listening(server, inner) as listener:
            client = await Shaken().dial(listener.port)
            client.send(b"")
            await inner.after("made")
            body = os.urandom(4 * MIB)
            inner.transport.write(body)
            inner.transport.close()
            assert await client.rest() == body
            assert client.records.close_notify
            await inner.after("lost")
            await gone(client.writer)

    run(scenario())


def test_another_inner_protocol_takes_over(run: Run, server: ssl.SSLContext) -> None:
    async def scenario() -> None:
        inner, tunnel = Inner(), Inner()
        async with listening(server, inner) as listener:
            _, writer = await connected(listener.port)
            await inner.after("made")
            inner.transport.set_protocol(tunnel)
            assert inner.transport.get_protocol() is tunnel
            assert not inner.transport.can_write_eof()
            with pytest.raises(NotImplementedError):
                inner.transport.write_eof()
            writer.write(b"frames")
            await tunnel.until(lambda: tunnel.data == b"frames")
            await gone(writer)
            await tunnel.after("lost")
            assert inner.events == ["made"]
            assert not inner.data

    run(scenario())
