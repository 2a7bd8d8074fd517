"""Bodies both ways: streamed, sized, chunked, until close; trailers; which connections persist."""

from __future__ import annotations

import hashlib
import threading

import pytest

from tests.harness import poll
from tests.harness.edge import Edge, chunked, nothing_more, request, sized
from tests.harness.feed import Feed
from tests.harness.upstream import Exchange, answer, echo, in_turn

MIB = 1024 * 1024


# Streaming.


def test_request_body_streams(edge: Edge) -> None:
    """The upstream has each piece before the client sends the next."""
    seen: list[bytes] = []

    def script(exchange: Exchange) -> None:
        seen.extend(exchange.stream.exactly(3) for _ in range(3))
        exchange.send(b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n")

    edge.a.script = script
    with edge.client() as client:
        client.send(request("Content-Length: 9", method="POST"))
        for number, piece in enumerate((b"one", b"two", b"six"), 1):
            client.send(piece)
            poll.until(lambda: len(seen) >= number, f"piece {number}")  # noqa: B023 - used up within this turn
        assert client.response().status == 200
    assert seen == [b"one", b"two", b"six"]


def test_chunked_request_body_streams(edge: Edge) -> None:
    arrived = threading.Event()

    def script(exchange: Exchange) -> None:
        assert exchange.request.framing == "chunked"
        assert exchange.stream.line() == b"3"
        assert exchange.stream.exactly(5) == b"one\r\n"
        arrived.set()
        exchange.request.body = b""
        echo(exchange)

    edge.a.script = script
    with edge.client() as client:
        client.send(request("Transfer-Encoding: chunked", method="POST", body=b"3\r\none\r\n"))
        assert arrived.wait(5)
        client.send(b"3\r\ntwo\r\n0\r\n\r\n")
        assert client.response().body == b"two"


@pytest.mark.parametrize("coding", ["sized", "chunked", "close"])
def test_response_body_streams(edge: Edge, coding: str) -> None:
    """The client has each piece before the upstream sends the next."""
    heads = {
        "sized": b"HTTP/1.1 200 OK\r\nContent-Length: 9\r\n\r\n",
        "chunked": b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n",
        "close": b"HTTP/1.1 200 OK\r\n\r\n",
    }
    steps = [threading.Event() for _ in range(3)]

    def script(exchange: Exchange) -> None:
        exchange.send(heads[coding])
        for step, piece in zip(steps, (b"one", b"two", b"six"), strict=True):
            exchange.hold(step)
            exchange.send(b"3\r\n%b\r\n" % piece if coding == "chunked" else piece)
        if coding == "chunked":
            exchange.send(b"0\r\n\r\n")
        elif coding == "close":
            exchange.close()

    edge.a.script = script
    with edge.client() as client:
        client.send(request())
        while b"\r\n\r\n" not in client.stream.raw:
            assert client.stream.fill()
        for step, piece in zip(steps, (b"one", b"two", b"six"), strict=True):
            assert piece not in client.stream.raw
            step.set()
            while piece not in client.stream.raw:
                assert client.stream.fill()
        response = client.response()
        assert (response.status, response.body, response.complete) == (200, b"onetwosix", True)


def test_response_head_alone_is_not_held_back(edge: Edge) -> None:
    # Server-sent events: nothing but a head for a long while.
    release = threading.Event()

    def script(exchange: Exchange) -> None:
        exchange.send(b"HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\nTransfer-Encoding: chunked\r\n\r\n")
        exchange.hold(release)
        exchange.send(b"0\r\n\r\n")

    edge.a.script = script
    with edge.client() as client:
        client.send(request())
        assert client.stream.fill()
        assert client.stream.raw.startswith(b"HTTP/1.1 200 OK")
        release.set()
        assert client.response().complete


@pytest.mark.parametrize(
    "raw",
    [
        b"HTTP/1.1 200 OK\r\nContent-Length: 11\r\n\r\nhello world",
        b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nhello\r\n6\r\n world\r\n0\r\n\r\n",
        b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n1;x=y\r\nh\r\na\r\nello world\r\n000\r\n\r\n",
        b"HTTP/1.1 200 OK\r\n\r\nhello world",
        b"HTTP/1.0 200 OK\r\nContent-Length: 11\r\n\r\nhello world",
        b"HTTP/1.0 200 OK\r\n\r\nhello world",
        b"HTTP/1.0 200 OK\r\nConnection: keep-alive\r\nContent-Length: 11\r\n\r\nhello world",
    ],
    ids=["sized", "chunked", "chunk-forms", "close", "1.0-sized", "1.0-close", "1.0-keep-alive"],
)
@pytest.mark.parametrize("version", ["1.0", "1.1"])
def test_every_framing_to_every_client(edge: Edge, raw: bytes, version: str, how: Feed) -> None:
    # The proxy always closes for the upstream where the end of its stream is the end of the body.
    edge.a.script = in_turn(answer(raw, how, close=b"keep-alive" not in raw), answer())
    with edge.client() as client:
        response = client.ask(request(version=version))
        assert (response.status, response.body, response.complete) == (200, b"hello world", True)
        assert response.minor == 1  # RFC 9110 section 2.5: the server's own version
        if version == "1.0":
            assert response.framing != "chunked"
            assert client.closed()
        elif b"1.1 200 OK\r\nContent" in raw or b"chunked" in raw:
            edge.probe(client)


@pytest.mark.parametrize("size", [1, 16 * 1024, 65536, 65537, 3 * MIB])
def test_sizes_up(edge: Edge, size: int) -> None:
    body = bytes(range(256)) * (size // 256 + 1)
    body = body[:size]
    seen = edge.passed(sized(body, host="open.test"), body=body)
    assert seen.fields.one("Content-Length") == str(size)


@pytest.mark.parametrize("chunk", [1000, 65536, MIB])
def test_chunked_sizes_up(edge: Edge, chunk: int) -> None:
    body = bytes(range(256)) * (2 * MIB // 256)
    pieces = [body[at : at + chunk] for at in range(0, len(body), chunk)]
    edge.passed(chunked(*pieces, host="open.test"), body=body)


@pytest.mark.parametrize("coding", ["sized", "chunked", "close"])
@pytest.mark.parametrize("size", [1, 65536, 3 * MIB])
def test_sizes_down(edge: Edge, coding: str, size: int) -> None:
    body = (bytes(range(256)) * (size // 256 + 1))[:size]
    raw = {
        "sized": b"Content-Length: %d\r\n\r\n%b" % (size, body),
        "chunked": b"Transfer-Encoding: chunked\r\n\r\n%x\r\n%b\r\n0\r\n\r\n" % (size, body),
        "close": b"\r\n" + body,
    }[coding]
    edge.a.script = answer(b"HTTP/1.1 200 OK\r\n" + raw, close=coding == "close")
    with edge.client() as client:
        response = client.ask(request())
        assert response.complete
        assert hashlib.sha256(response.body).digest() == hashlib.sha256(body).digest()


def test_upload_and_download_at_once(edge: Edge) -> None:
    """Full duplex: the response begins, and goes on, while the request is still coming."""

    def script(exchange: Exchange) -> None:
        exchange.send(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n")
        for _ in range(5):
            exchange.send(b"3\r\n%b\r\n" % exchange.stream.exactly(3))
        exchange.send(b"0\r\n\r\n")

    edge.a.script = script
    with edge.client() as client:
        client.send(request("Content-Length: 15", method="POST"))
        for piece in (b"aaa", b"bbb", b"ccc", b"ddd", b"eee"):
            client.send(piece)
            while piece not in client.stream.raw:
                assert client.stream.fill()
        assert client.response().body == b"aaabbbcccdddeee"


def test_answer_before_the_upload_is_done(edge: Edge) -> None:
    """A 4xx while the body is still coming reaches a client that goes on sending."""

    def script(exchange: Exchange) -> None:
        exchange.send(b"HTTP/1.1 403 Forbidden\r\nContent-Length: 2\r\nConnection: close\r\n\r\nno")
        exchange.close()

    edge.a.script = script
    with edge.client() as client:
        client.send(request(f"Content-Length: {64 * MIB}", method="POST", host="open.test"))
        for _ in range(128):
            if not client.send(b"x" * 65536):
                break
        response = client.response("POST")
        assert (response.status, response.body) == (403, b"no")
        assert nothing_more(client)


# Trailers.


def test_response_trailers_with_te(edge: Edge, how: Feed) -> None:
    trailers = b"X-Checksum: 1\r\nX-Other: 2\r\n"
    edge.a.script = answer(
        b"HTTP/1.1 200 OK\r\nTrailer: X-Checksum\r\nTransfer-Encoding: chunked\r\n\r\n2\r\nok\r\n0\r\n"
        + trailers
        + b"\r\n",
        how,
    )
    with edge.client() as client:
        response = client.ask(request("TE: trailers", "Connection: TE"))
        assert response.body == b"ok"
        assert response.trailers.one("X-Checksum") == "1"
        assert response.trailers.one("X-Other") == "2"
        edge.probe(client, "b.test")


@pytest.mark.parametrize("lines", [[], ["TE: gzip"], ["TE: gzip;q=0.5"]])
def test_response_trailers_without_te(edge: Edge, lines: list[str], how: Feed) -> None:
    edge.a.script = answer(
        b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n2\r\nok\r\n0\r\nX-Checksum: 1\r\n\r\n", how
    )
    with edge.client() as client:
        response = client.ask(request(*lines))
        assert (response.body, response.complete) == (b"ok", True)
        assert "X-Checksum" not in response.trailers
        edge.probe(client, "b.test")


@pytest.mark.parametrize("name", [b"Content-Length", b"Transfer-Encoding", b"Host", b"Authorization", b"Set-Cookie"])
def test_response_trailers_that_never_pass(edge: Edge, name: bytes, how: Feed) -> None:
    edge.a.script = answer(
        b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n2\r\nok\r\n0\r\nX-Fine: 1\r\n" + name + b": 5\r\n\r\n",
        how,
    )
    with edge.client() as client:
        response = client.ask(request("TE: trailers", "Connection: TE"))
        assert response.body == b"ok"
        if name == b"Set-Cookie":  # nobody lists it, nobody should be able to rely on it either way
            return
        assert name.decode() not in response.trailers


def test_trailers_are_nothing_for_http_1_0(edge: Edge) -> None:
    edge.a.script = answer(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n2\r\nok\r\n0\r\nX-A: 1\r\n\r\n")
    with edge.client() as client:
        assert client.ask(request("TE: trailers", "Connection: TE", version="1.0")).body == b"ok"


# Persistence.


def test_keep_alive(edge: Edge) -> None:
    with edge.client() as client:
        for number in range(20):
            assert client.ask(request(target=f"/{number}")).status == 200
    assert [seen.target for seen in edge.a.complete] == [f"/{number}" for number in range(20)]
    assert len(edge.a.connections) == 1


def test_http_1_0_closes(edge: Edge) -> None:
    with edge.client() as client:
        response = client.ask(request(version="1.0"))
        assert response.status == 200
        assert client.closed()


@pytest.mark.parametrize("value", ["keep-alive", "Keep-Alive"])
def test_http_1_0_keep_alive(edge: Edge, value: str) -> None:
    with edge.client() as client:
        for _ in range(3):
            response = client.ask(request(f"Connection: {value}", version="1.0"))
            assert response.status == 200
            assert "keep-alive" in response.fields.one("Connection").lower()


def test_http_1_0_keep_alive_ends_where_the_length_is_unknown(edge: Edge, how: Feed) -> None:
    edge.a.script = answer(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n2\r\nok\r\n0\r\n\r\n", how)
    with edge.client() as client:
        response = client.ask(request("Connection: keep-alive", version="1.0"))
        assert (response.body, response.framing) == (b"ok", "close")
        assert "keep-alive" not in (response.fields.get("Connection") or "")


def test_http_1_0_upload(edge: Edge, how: Feed) -> None:
    edge.passed(sized(b"hello", version="1.0"), how, body=b"hello", closes=True)


def test_http_1_0_upstream_is_not_reused(edge: Edge) -> None:
    edge.a.script = answer(b"HTTP/1.0 200 OK\r\nContent-Length: 2\r\n\r\nok", close=True)
    with edge.client() as client:
        assert [client.ask(request()).body for _ in range(3)] == [b"ok"] * 3
    assert len(edge.a.connections) == 3


def test_client_closes_between_requests(edge: Edge) -> None:
    with edge.client() as client:
        assert client.ask(request()).status == 200
    edge.probe()
    assert len(edge.a.connections) == 1, "the upstream connection went with the client's"
