"""How a client's connection ends under TLS: as without it, and close_notify costs no write of its own."""

from __future__ import annotations

import asyncio
from typing import cast

import pytest

from proxy.accept.certificates import Certificates
from proxy.accept.downstream import Downstream
from proxy.net.contexts import upstream_context
from proxy.net.records import Records
from proxy.net.tls import TlsTransport
from tests.rig import OK, Rig, Wire, rig, table

CLOSE = b"GET / HTTP/1.1\r\nHost: a.test\r\nConnection: close\r\n\r\n"
CHUNKED = b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n"
UPLOAD = b"POST / HTTP/1.1\r\nHost: a.test\r\nContent-Length: 2000000\r\n\r\n"


def connect(r: Rig) -> tuple[Wire, Records]:
    """A client after its handshake: its wire, and its side of the TLS connection."""
    certificates = Certificates()
    certificates.update(table())
    wire = Wire(r.loop, ("127.0.0.1", 8443), ("127.0.0.1", 40_000))
    downstream = cast("asyncio.Protocol", Downstream(r.worker, "https"))
    tls = TlsTransport(certificates.context, downstream, server_side=True)
    client = Records(upstream_context(), server_side=False)
    wire.protocol = tls
    tls.start(cast("asyncio.Transport", wire), client.shake(b""))
    r.send(wire, client.shake(wire.take()))
    assert client.decrypt(wire.take()) == b""  # the tickets
    return wire, client


@pytest.mark.parametrize(
    ("pieces", "body"),
    [
        ([OK], b"ok"),
        ([OK[:-1], OK[-1:]], b"ok"),
        ([CHUNKED + b"2\r\nok\r\n0\r\n\r\n"], b"2\r\nok\r\n0\r\n\r\n"),
        ([CHUNKED + b"2\r\nok\r\n", b"0\r\n\r\n"], b"2\r\nok\r\n0\r\n\r\n"),
    ],
    ids=["at once", "in two pieces", "chunks at once", "chunks in two pieces"],
)
def test_the_last_response_and_the_end_are_one_write(pieces: list[bytes], body: bytes) -> None:
    with rig() as r:
        wire, client = connect(r)
        r.send(wire, client.encrypt(CLOSE))
        upstream, writes, got = r.upstream(), wire.writes, b""
        for piece in pieces:
            assert not client.close_notify
            r.send(upstream, piece)
            got += client.decrypt(wire.take())
        assert got.endswith(b"\r\n\r\n" + body)
        assert client.close_notify
        assert wire.writes - writes == len(pieces)
        assert wire.gone


def test_a_connection_that_is_kept_is_not_ended() -> None:
    with rig() as r:
        wire, client = connect(r)
        ask = CLOSE.replace(b"close", b"keep-alive")
        r.send(wire, client.encrypt(ask))
        upstream = r.upstream()
        for _ in range(2):
            r.send(upstream, OK)
            assert client.decrypt(wire.take()) == OK
            assert not client.close_notify
            assert not wire.closing
            r.send(wire, client.encrypt(ask))


def test_a_client_that_does_not_read_gets_all_before_the_end() -> None:
    with rig() as r:
        wire, client = connect(r)
        wire.full = True
        r.send(wire, client.encrypt(CLOSE))
        r.send(r.upstream(), OK)
        assert not wire.closing
        wire.full = False
        wire.flush()
        r.settle()
        assert client.decrypt(wire.take()).endswith(b"ok")
        assert client.close_notify
        assert wire.gone


@pytest.mark.parametrize("how", ["ends", "sends on", "waits"])
def test_an_early_answer_is_closed_gently(how: str) -> None:
    """As in `test_downstream.test_a_gentle_close_ends`."""
    with rig() as r:
        wire, client = connect(r)
        r.send(wire, client.encrypt(UPLOAD + bytes(1000)))
        answer = client.decrypt(wire.take())
        assert answer.startswith(b"HTTP/1.1 413 ")
        assert client.close_notify
        assert wire.eof
        assert not wire.closing
        r.send(wire, bytes(1000))  # no more records are opened
        assert not wire.closing
        if how == "ends":
            wire.end()
            r.settle()
        elif how == "sends on":
            r.send(wire, bytes(1024 * 1024))
            assert wire.aborted
        else:
            r.pass_time(3)
        assert wire.gone
        assert not wire.late
        assert not r.worker.downstreams
