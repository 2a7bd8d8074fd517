"""The exact calls between `TlsTransport` and the transport below it."""

from __future__ import annotations

import asyncio
import os
import ssl

import pytest

from proxy.net.contexts import upstream_context
from proxy.net.records import Records
from proxy.net.tls import TlsTransport
from tests.net.peers import MIB, Inner


class Wire(asyncio.Transport):
    """A raw transport that only remembers."""

    def __init__(self) -> None:
        super().__init__()
        self.writes: list[bytes] = []
        self.calls: list[str] = []

    def set_protocol(self, protocol: asyncio.BaseProtocol) -> None:
        self.calls.append("set_protocol")

    def write(self, data: bytes | bytearray | memoryview) -> None:
        self.writes.append(bytes(data))

    def is_closing(self) -> bool:
        return bool({"close", "abort"} & set(self.calls))

    def write_eof(self) -> None:
        self.calls.append("write_eof")

    def pause_reading(self) -> None:
        self.calls.append("pause_reading")

    def resume_reading(self) -> None:
        self.calls.append("resume_reading")

    def close(self) -> None:
        self.calls.append("close")

    def abort(self) -> None:
        self.calls.append("abort")


class Pausing(Inner):
    """Pauses reading before it has seen anything."""

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        super().connection_made(transport)
        self.transport.pause_reading()


def opened(server: ssl.SSLContext, inner: Inner, early: bytes = b"") -> tuple[TlsTransport, Wire, Records]:
    """A connection after its handshake, whose last flight came together with ``early``."""
    wire, peer = Wire(), Records(upstream_context(), server_side=False)
    tls = TlsTransport(server, inner, server_side=True)
    tls.start(wire, peer.shake(b""))
    flight = peer.shake(wire.writes.pop())
    tls.data_received(flight + (peer.encrypt(early) if early else b""))
    assert peer.decrypt(b"".join(wire.writes)) == b""  # the tickets
    wire.writes.clear()
    assert wire.calls.pop(0) == "set_protocol"
    return tls, wire, peer


async def test_one_raw_write_for_each_write(server: ssl.SSLContext) -> None:
    tls, wire, peer = opened(server, Inner())
    before = tls.bytes_out
    for number, size in enumerate((1, 16 * 1024, 100_000, MIB), start=1):
        body = os.urandom(size)
        tls.write(body)
        assert len(wire.writes) == number
        assert peer.decrypt(wire.writes[-1]) == body
    tls.write(b"")
    tls.writelines([b"a", b"b"])
    assert peer.decrypt(wire.writes[-1]) == b"ab"
    assert len(wire.writes) == 5
    assert tls.bytes_out - before == sum(map(len, wire.writes))


@pytest.mark.parametrize("size", [1, 100_000])
async def test_the_last_write_ends_the_stream(server: ssl.SSLContext, size: int) -> None:
    inner = Inner()
    tls, wire, peer = opened(server, inner)
    before = tls.bytes_out
    tls.write_last(bytes(size))
    assert len(wire.writes) == 1
    assert tls.bytes_out - before == len(wire.writes[0])
    assert peer.decrypt(wire.writes.pop()) == bytes(size)
    assert peer.close_notify
    tls.write(b"late")
    tls.write_last(b"late")
    tls.data_received(peer.encrypt(b"what the peer still says"))
    assert inner.data == b"what the peer still says"
    tls.close()
    assert not wire.writes
    assert wire.calls == ["close"]


@pytest.mark.parametrize("last", [False, True], ids=["written", "written as the last"])
async def test_what_a_lingering_connection_gets_is_passed_on_unopened(server: ssl.SSLContext, last: bool) -> None:
    inner = Inner()
    tls, wire, peer = opened(server, inner)
    tls.pause_reading()
    (tls.write_last if last else tls.write)(b"413")
    tls.linger()
    assert peer.decrypt(b"".join(wire.writes)) == b"413"
    assert peer.close_notify
    assert wire.calls == ["pause_reading", "resume_reading", "write_eof"]
    records = peer.encrypt(b"more of the upload")
    tls.data_received(records)
    tls.data_received(b"no record at all")
    assert inner.data == records + b"no record at all"
    assert not tls.eof_received()
    tls.abort()
    assert wire.calls[3:] == ["abort"]
    tls.connection_lost(None)
    assert inner.events == ["made", "lost"]
    assert not tls.truncated


async def test_one_delivery_for_each_raw_read(server: ssl.SSLContext) -> None:
    inner = Inner()
    tls, _, peer = opened(server, inner)
    tls.data_received(b"".join(peer.encrypt(bytes(size)) for size in (1, 20_000, 200_000)))
    assert inner.reads == [220_001]
    stream = peer.encrypt(bytes(100))
    for index in range(len(stream)):
        assert inner.reads == [220_001]
        tls.data_received(stream[index : index + 1])
    assert inner.reads == [220_001, 100]


async def test_data_with_the_last_flight_is_delivered(server: ssl.SSLContext) -> None:
    inner = Inner()
    opened(server, inner, b"GET /")
    assert inner.events == ["made"]
    assert inner.data == b"GET /"


async def test_data_with_the_last_flight_waits_for_a_paused_reader(server: ssl.SSLContext) -> None:
    inner = Pausing()
    tls, wire, peer = opened(server, inner, b"GET /")
    assert wire.calls == ["pause_reading"]
    tls.data_received(peer.encrypt(b" HTTP/1.1"))  # a read that was already on its way
    tls.data_received(peer.close())
    assert tls.eof_received()
    assert not inner.data
    tls.resume_reading()
    assert not inner.data  # never from within the call
    assert "resume_reading" not in wire.calls  # there is nothing left to read
    await asyncio.sleep(0)
    assert inner.data == b"GET / HTTP/1.1"
    assert inner.events == ["made", "eof"]
    assert not tls.truncated
    assert wire.calls == ["pause_reading", "close"]


async def test_what_comes_after_the_resume_stays_behind_what_was_held(server: ssl.SSLContext) -> None:
    inner = Pausing()
    tls, wire, peer = opened(server, inner, b"1")
    tls.resume_reading()
    tls.data_received(peer.encrypt(b"2"))
    assert inner.data == b"12"
    await asyncio.sleep(0)
    assert inner.data == b"12"
    assert wire.calls == ["pause_reading", "resume_reading"]


async def test_a_reader_that_pauses_again_holds_the_end_back(server: ssl.SSLContext) -> None:
    inner = Inner()
    tls, wire, peer = opened(server, inner)
    inner.on_data = lambda _: tls.pause_reading()
    tls.data_received(peer.encrypt(b"last") + peer.close())
    assert inner.data == b"last"
    assert inner.events == ["made"]
    tls.resume_reading()
    await asyncio.sleep(0)
    assert inner.events == ["made", "eof"]
    assert wire.calls == ["pause_reading", "resume_reading", "close"]


async def test_nothing_is_told_or_written_after_close(server: ssl.SSLContext) -> None:
    inner = Inner()
    tls, wire, peer = opened(server, inner)
    tls.close()
    assert peer.decrypt(wire.writes.pop()) == b""
    assert peer.close_notify
    tls.data_received(peer.encrypt(b"late"))
    assert not tls.eof_received()
    tls.write(b"late")
    tls.pause_reading()
    tls.resume_reading()
    assert not inner.data
    assert not wire.writes
    assert wire.calls == ["close"]
    tls.connection_lost(None)
    assert inner.events == ["made", "lost"]
    assert not tls.truncated
    tls.abort()
    tls.close()
    assert wire.calls == ["close"]


async def test_pressure_from_before_the_end_of_the_handshake_is_passed_on(server: ssl.SSLContext) -> None:
    wire, peer, inner = Wire(), Records(upstream_context(), server_side=False), Inner()
    tls = TlsTransport(server, inner, server_side=True)
    tls.start(wire, peer.shake(b""))
    tls.pause_writing()
    assert inner.events == []
    tls.data_received(peer.shake(wire.writes.pop()))
    assert inner.events == ["made", "pause"]
    tls.resume_writing()
    assert inner.events == ["made", "pause", "resume"]
    answered(tls)
    assert wire.calls == ["set_protocol"]


async def test_answers_for_a_peer_that_does_not_read_end_the_connection(server: ssl.SSLContext) -> None:
    inner = Inner()
    tls, wire, peer = opened(server, inner)
    tls.pause_writing()
    answered(tls, peer.encrypt(b"never delivered"))
    assert wire.calls == ["abort"]
    assert not inner.data


def answered(tls: TlsTransport, data: bytes = b"") -> None:
    """As if OpenSSL had an answer of its own to ``data``."""
    tls._records._outgoing.write(b"answer")
    tls.data_received(data)


async def test_pausing_twice_is_pausing_once(server: ssl.SSLContext) -> None:
    tls, wire, _ = opened(server, Inner())
    tls.pause_reading()
    tls.pause_reading()
    assert not tls.is_reading()
    tls.resume_reading()
    tls.resume_reading()
    assert tls.is_reading()
    assert wire.calls == ["pause_reading", "resume_reading"]


async def test_a_broken_stream_ends_also_while_paused(server: ssl.SSLContext) -> None:
    inner = Inner()
    tls, wire, peer = opened(server, inner)
    inner.on_data = lambda _: tls.pause_reading()
    stream = bytearray(peer.encrypt(b"good") + peer.encrypt(b"bad"))
    stream[-1] ^= 1
    tls.data_received(bytes(stream))
    assert inner.data == b"good"
    assert wire.calls == ["pause_reading", "close"]
    tls.connection_lost(None)
    assert isinstance(inner.lost_with, ssl.SSLError)
    assert tls.truncated


@pytest.mark.parametrize(
    "name", ["a\0b", "", ".", "a..b", "x" * 300, "x" * 64 + ".y", "sh\u00f6p.test", "a b", "::1", "1.2.3.4"]
)
async def test_any_server_name_starts_a_handshake_or_fails_it(name: str) -> None:
    """The name may be a client's Host field, so nothing in it may raise."""
    wire, inner = Wire(), Inner()
    failures: list[str] = []
    tls = TlsTransport(upstream_context(), inner, server_side=False, server_hostname=name, on_failure=failures.append)
    tls.start(wire)
    assert len(wire.writes) + len(failures) == 1
    assert wire.is_closing() is bool(failures)
    assert tls.handshaking is not bool(failures)


async def test_a_session_of_another_context_is_a_failure(server: ssl.SSLContext) -> None:
    _, _, peer = opened(server, Inner())
    failures: list[str] = []
    tls = TlsTransport(
        upstream_context(), Inner(), server_side=False, on_failure=failures.append, session=peer.tls.session
    )
    tls.start(Wire())
    assert len(failures) == 1
    assert "different SSLContext" in failures[0]
