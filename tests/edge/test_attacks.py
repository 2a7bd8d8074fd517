"""What an attacker tries: desynchronisation, poisoning, injection, exhaustion. Kept because it was tried.

The oracle is nearly always the same. Behind every attack hides a request for /smuggled; no upstream may ever see it as
a request of its own, no client may ever get an answer that belongs to another, and the proxy lives on.
"""

from __future__ import annotations

import threading
from collections.abc import Callable

import pytest

from tests.harness.edge import Edge, chunked, request, sized
from tests.harness.feed import Feed
from tests.harness.upstream import Exchange, answer, in_turn

SMUGGLED = b"GET /smuggled HTTP/1.1\r\nHost: a.test\r\n\r\n"
EVIL = b"HTTP/1.1 200 OK\r\nContent-Length: 4\r\n\r\nevil"


def attack(edge: Edge, raw: bytes, how: Feed = Feed.WHOLE) -> list[int]:
    """Send ``raw``, read every answer until the proxy closes or is silent; the statuses. Nothing was smuggled."""
    statuses: list[int] = []
    with edge.client() as client:
        client.send(raw, how)
        client.finish_writing()
        while not client.ended():
            statuses.append(client.response().status)
    edge.probe()
    for recorder in (edge.a, edge.b):
        assert not recorder.malformed
        assert "/smuggled" not in [seen.target for seen in recorder.requests], raw
    return statuses


# Request smuggling.

# A body that is 'empty chunked, then a request' to the one and nothing but bytes to the other.
BOTH_WAYS = b"0\r\n\r\n" + SMUGGLED

POSITIONS = {
    "before-name": b"%bTransfer-Encoding: chunked",
    "in-name": b"Transfer%b-Encoding: chunked",
    "after-name": b"Transfer-Encoding%b: chunked",
    "after-colon": b"Transfer-Encoding:%bchunked",
    "after-space": b"Transfer-Encoding: %bchunked",
    "in-value": b"Transfer-Encoding: chun%bked",
    "after-value": b"Transfer-Encoding: chunked%b",
    "before-host": b"X: 1%bTransfer-Encoding: chunked",
}


@pytest.mark.parametrize("template", POSITIONS.values(), ids=POSITIONS)
def test_transfer_encoding_hidden_by_any_octet(edge: Edge, template: bytes) -> None:
    """CL.TE and TE.CL: whatever octet dresses the coding, the two sides of us agree or the request is refused."""
    for octet in range(256):
        line = template % bytes([octet])
        raw = b"POST / HTTP/1.1\r\nHost: a.test\r\nContent-Length: %d\r\n%b\r\n\r\n%b" % (
            len(BOTH_WAYS),
            line,
            BOTH_WAYS,
        )
        with edge.client() as client:
            client.send(raw)
            status = client.response().status
            assert status in (200, 400, 501), (octet, status)
            if status != 200:
                assert client.closed(), octet
        if status == 200:
            seen = edge.a.requests[-1]
            # Then it was some other field, and the length is what counts, here and there.
            assert seen.body == BOTH_WAYS, octet
            assert "Transfer-Encoding" not in seen.fields, octet
    assert "/smuggled" not in [seen.target for seen in edge.a.requests]


@pytest.mark.parametrize("name", [b"Content-Length", b"Host"])
def test_other_fields_hidden_by_any_octet(edge: Edge, name: bytes) -> None:
    """Either the octet makes it another field, or it is no field at all; there is nothing between."""
    templates = (b"%b" + name + b": 5", name + b"%b: 5", name + b":%b5", name + b": 5%b")
    for octet in set(range(256)) - set(b"0123456789"):  # "15" is a length of its own
        for template in templates:
            line = template % bytes([octet])
            raw = b"POST / HTTP/1.1\r\nHost: a.test\r\n" + line + b"\r\nX-A: 1\r\n\r\nhello" + SMUGGLED
            with edge.client() as client:
                client.send(raw)
                status = client.response().status
            assert status in (200, 400), (line, status)
            if status == 200:
                seen = next(item for item in reversed(edge.a.requests) if item.target == "/")
                assert seen.host == "a.test"
                assert seen.body == (b"hello" if "Content-Length" in seen.fields else b""), line


@pytest.mark.parametrize(
    "lines",
    [
        ["Transfer-Encoding: chunked", "Connection: Transfer-Encoding"],
        ["Transfer-Encoding: chunked", "Connection: close, Transfer-Encoding"],
        ["Transfer-Encoding: chunked", "TE: chunked"],
        ["Transfer-Encoding: chunked", "Upgrade: chunked", "Connection: upgrade"],
        ["transfer-encoding: chunked", "X-Transfer-Encoding: identity"],
    ],
)
def test_coding_cannot_be_talked_away(edge: Edge, lines: list[str], how: Feed) -> None:
    raw = request(*lines, method="POST", body=b"%x\r\n%b\r\n0\r\n\r\n" % (len(SMUGGLED), SMUGGLED))
    statuses = attack(edge, raw, how)
    assert statuses in ([200], [400])
    if statuses == [200]:
        assert edge.a.requests[0].body == SMUGGLED


@pytest.mark.parametrize("case", [str, str.lower, str.upper], ids=["as-is", "lower", "upper"])
def test_length_cannot_be_talked_away(edge: Edge, case: Callable[[str], str], how: Feed) -> None:
    """Connection: Content-Length, the oldest hop-by-hop abuse: the body would become a request at the upstream."""
    statuses = attack(edge, sized(SMUGGLED, f"Connection: {case('Content-Length')}"), how)
    assert statuses in ([200], [400])
    if statuses == [200]:
        assert edge.a.requests[0].body == SMUGGLED


CHUNKS = {
    # "Funky chunks" (J. Bonde Weikop, 2025) and their older relatives: what ends a chunk line, and what follows data.
    "term-ext": b"2;\nxx\r\n%x\r\n" % len(SMUGGLED) + b"0\r\n\r\n" + SMUGGLED,
    "ext-term": b"2;a\nxx\r\n0\r\n\r\n" + SMUGGLED,
    "term-spill": b"5\r\nAAAAA\n0\r\n\r\n" + SMUGGLED,
    "spill-two": b"5\r\nAAAAAXX0\r\n\r\n" + SMUGGLED,
    "one-two": b"5\r\nAAAAA\r0\r\n\r\n" + SMUGGLED,
    "zero-two": b"5\r\nAAAAA0\r\n\r\n" + SMUGGLED,
    "cr-in-size": b"5\r\r\nAAAAA\r\n0\r\n\r\n" + SMUGGLED,
    "truncated-size": b"100000005\r\nAAAAA\r\n0\r\n\r\n" + SMUGGLED,
    "size-wraps-32": b"100000005\r\nAAAAA\r\n0\r\n\r\n" + SMUGGLED,
    "size-wraps-64": b"10000000000000005\r\nAAAAA\r\n0\r\n\r\n" + SMUGGLED,
    "quoted-crlf": b'5;a="\r\nAAAAA\r\n0\r\n\r\n' + SMUGGLED + b'"',
    "last-chunk-ext-lf": b"0;\n\r\n\r\n" + SMUGGLED,
    "zero-x": b"0x\r\n\r\n" + SMUGGLED,
    "trailer-request": b"0\r\nGET /smuggled HTTP/1.1\r\nHost: a.test\r\n\r\n",
    "trailer-lf": b"0\r\nX: 1\n\r\n" + SMUGGLED,
    "missing-end": b"0\r\n" + SMUGGLED,
    "data-after-zero": b"0\r\nX\r\n" + SMUGGLED,
}


@pytest.mark.parametrize("body", CHUNKS.values(), ids=CHUNKS)
def test_funky_chunks(edge: Edge, body: bytes, how: Feed) -> None:
    statuses = attack(edge, request("Transfer-Encoding: chunked", method="POST", body=body), how)
    assert statuses in ([400], [413])
    assert not [seen for seen in edge.a.complete if seen.target != "/probe"]


@pytest.mark.parametrize("method", ["GET", "HEAD", "DELETE", "OPTIONS", "POST", "get"])
def test_body_where_none_is_expected(edge: Edge, method: str, how: Feed) -> None:
    """CL.0 and 0.CL: a body is a body with every method."""
    edge.a.script = lambda exchange: exchange.send(
        b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n" if exchange.read_body() is not None else b""
    )
    assert attack(edge, sized(SMUGGLED, method=method), how) == [200]
    assert edge.a.requests[0].body == SMUGGLED
    edge.reset()
    assert attack(edge, chunked(SMUGGLED, method=method), how) == [200]


@pytest.mark.parametrize("lines", [["Expect: 100-continue"], ["Expect: 100-Continue", "X: 1"]])
@pytest.mark.parametrize("status", [200, 204, 302, 400, 401, 404, 417, 500])
def test_expect_then_a_final_answer(edge: Edge, lines: list[str], status: int) -> None:
    """Expect desync (Kettle 2025): the upstream answers without reading; the body comes all the same, as a request."""
    length = b"" if status == 204 else b"Content-Length: 0\r\n"
    edge.a.script = in_turn(
        lambda exchange: exchange.send(b"HTTP/1.1 %d X\r\n%b\r\n" % (status, length)),
        answer(),
    )
    with edge.client() as client:
        client.send(request(f"Content-Length: {len(SMUGGLED)}", *lines, method="POST"))
        assert client.response().status == status
        client.send(SMUGGLED)
        rest = client.stream.rest() if client.closed(0.5) else b""
        assert rest == b"", "the body was answered as a request"
    edge.probe()
    assert [seen.target for seen in edge.a.requests] == ["/", "/probe"]
    assert edge.a.connections[0].raw.count(b" HTTP/1.1\r\n") == 1, "the upstream connection was reused with a body owed"


def test_answer_before_the_body_does_not_poison_the_pool(edge: Edge) -> None:
    """The upstream connection still owes a body: the next client's request must not be taken for it."""
    edge.a.script = in_turn(
        lambda exchange: exchange.send(b"HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\nearly"), answer()
    )
    with edge.client() as client:
        client.send(request("Content-Length: 100", method="POST", body=b"x" * 10))
        assert client.response("POST").body == b"early"
        for _ in range(3):
            edge.probe()
    assert edge.a.connections[0].raw.count(b" HTTP/1.1\r\n") == 1


# Upgrades.


def test_failed_upgrade_is_no_tunnel(edge: Edge, how: Feed) -> None:
    """WebSocket smuggling: after 426 the bytes that follow are HTTP, judged and routed like any other."""
    edge.a.script = answer(b"HTTP/1.1 426 Upgrade Required\r\nSec-WebSocket-Version: 13\r\nContent-Length: 0\r\n\r\n")
    with edge.client() as client:
        client.send(request("Upgrade: websocket", "Connection: Upgrade", "Sec-WebSocket-Version: 777"), how)
        assert client.response().status == 426
        client.send(request(target="/admin", host="paths.test"), how)
        assert client.response().status == 200
    assert [seen.target for seen in edge.a.requests] == ["/"]
    assert [seen.target for seen in edge.b.requests] == ["/admin"]


def test_nothing_is_tunnelled_before_the_101(edge: Edge) -> None:
    release = threading.Event()

    def script(exchange: Exchange) -> None:
        exchange.hold(release)
        exchange.send(b"HTTP/1.1 400 Bad Request\r\nContent-Length: 0\r\n\r\n")

    edge.a.script = in_turn(script, answer())
    with edge.client() as client:
        client.send(request("Upgrade: websocket", "Connection: Upgrade") + SMUGGLED)
        edge.a.wait(1)
        assert b"smuggled" not in edge.a.raw
        release.set()
        assert client.response().status == 400
        # It was a pipelined request all along.
        assert client.response().status == 200


@pytest.mark.parametrize(
    "lines",
    [
        ["Upgrade: websocket", "Upgrade: h2c", "Connection: Upgrade"],
        ["Upgrade: h2c", "Upgrade: websocket", "Connection: Upgrade"],
        ["Upgrade: websocket", "Connection: Upgrade, HTTP2-Settings", "HTTP2-Settings: AAMAAABkAAQAAP__"],
        ["Upgrade:\th2c", "Connection:upgrade"],
        ["Upgrade: H2c", "Connection: UPGRADE"],
        ["upgrade: ,h2c,", "connection: ,upgrade,"],
    ],
)
def test_h2c_smuggling(edge: Edge, lines: list[str], how: Feed) -> None:
    with edge.client() as client:
        client.send(request(*lines), how)
        assert client.response().status in (200, 400)
    for seen in edge.a.requests:
        assert "h2c" not in ",".join(seen.fields.all("Upgrade")).lower()
        assert "HTTP2-Settings" not in seen.fields
        assert "http2-settings" not in ",".join(seen.fields.all("Connection")).lower()


def test_upgrade_with_a_body_is_no_upgrade(edge: Edge, how: Feed) -> None:
    """A GET with a body and Upgrade: after a 101 nobody could say where the body ends."""
    edge.a.script = answer()
    statuses = attack(edge, sized(SMUGGLED, "Upgrade: websocket", "Connection: Upgrade", method="GET"), how)
    assert statuses in ([200], [400])
