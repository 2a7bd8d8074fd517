"""Rows 28 and 36 to 39: time, order and ends of what is well-formed. Row 30 is test_forward.py."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator

import pytest

from tests.edge.conftest import clean
from tests.harness import poll
from tests.harness.edge import Edge, chunked, nothing_more, request, sized
from tests.harness.feed import Feed
from tests.harness.upstream import Exchange, answer, hang_up, in_turn

SWITCH = b"HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\r\n"
SMUGGLED = b"GET /smuggled HTTP/1.1\r\nHost: a.test\r\n\r\n"

# Row 28: slow. One second where the default is sixty.


@pytest.fixture(scope="module")
def impatient(launch: Callable[..., Edge]) -> Edge:
    return launch(settings={"timeouts.head": 1, "timeouts.body": 1, "timeouts.idle": 1})


@pytest.fixture
def hasty(impatient: Edge) -> Iterator[Edge]:
    yield from clean(impatient)


@pytest.mark.parametrize("part", [b"G", b"GET / HTTP/1.1\r\n", b"GET / HTTP/1.1\r\nHost: a.test\r\n", request()[:-2]])
def test_row_28_slow_head(hasty: Edge, part: bytes) -> None:
    hasty.refused(part, 408)


def test_row_28_trickled_head(hasty: Edge) -> None:
    # Slowloris: every byte is in time, the head is not.
    with hasty.client() as client:
        client.send(b"GET / HTTP/1.1\r\nX-A: ")
        deadline = time.monotonic() + 8
        while client.send(b"a") and time.monotonic() < deadline and not client.stream.buffer:
            try:
                client.stream.fill(0.1)
            except TimeoutError:
                continue
        assert client.response().status == 408
        assert client.closed()


@pytest.mark.parametrize(
    "raw",
    [
        request("Content-Length: 5", method="POST", body=b"hel"),
        request("Content-Length: 5", method="POST"),
        request("Transfer-Encoding: chunked", method="POST", body=b"5\r\nhel"),
        request("Transfer-Encoding: chunked", method="POST", body=b"5\r\nhello\r\n0\r\n"),
    ],
    ids=["sized", "nothing", "chunked", "trailers"],
)
def test_row_28_slow_body(hasty: Edge, raw: bytes) -> None:
    hasty.refused(raw, 408, begun=1)


def test_row_28_silent_connection(hasty: Edge) -> None:
    # No request was begun: nothing to answer (RFC 9112 section 9.5 asks for a close, not for 408).
    with hasty.client() as client:
        assert client.closed()


def test_row_28_idle_keep_alive(hasty: Edge) -> None:
    with hasty.client() as client:
        assert client.ask(request()).status == 200
        assert client.closed()


def test_row_28_a_slow_body_that_moves_is_fine(hasty: Edge) -> None:
    # The limit is between two reads, not for the whole body.
    with hasty.client() as client:
        client.send(request("Content-Length: 8", method="POST"))
        for octet in b"12345678":
            assert not client.closed(0.25)  # a quarter of a second of nothing
            client.send(bytes([octet]))
        assert client.response().status == 200
    assert hasty.a.one().body == b"12345678"


# Row 36: pipelining (RFC 9112 section 9.3.2).


def test_row_36_in_order(edge: Edge, how: Feed) -> None:
    def numbered(exchange: Exchange) -> None:
        body = exchange.request.target.encode()
        exchange.send(b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n%b" % (len(body), body))

    edge.a.script = numbered
    with edge.client() as client:
        client.send(b"".join(request(target=f"/{number}") for number in range(10)), how)
        assert [client.response().text for _ in range(10)] == [f"/{number}" for number in range(10)]
    assert sorted(seen.target for seen in edge.a.complete) == sorted(f"/{number}" for number in range(10))


@pytest.mark.parametrize(
    "bad",
    [b"GARBAGE\r\n\r\n", request(host=None), request("Content-Length: x"), b"GET / HTTP/1.1\nHost: a.test\r\n\r\n"],
    ids=["garbage", "no-host", "bad-length", "bare-lf"],
)
def test_row_36_an_error_closes(edge: Edge, bad: bytes, how: Feed) -> None:
    with edge.client() as client:
        client.send(request(target="/first") + bad + SMUGGLED, how)
        assert client.response().status == 200
        assert client.response().status == 400
        assert nothing_more(client)
    edge.probe()
    assert [seen.target for seen in edge.a.requests] == ["/first", "/probe"]


@pytest.mark.parametrize(
    "first",
    [
        request("Connection: close"),
        request(version="1.0"),
        request("Connection: x, CLOSE"),
        sized(b"hello", "Connection: close"),
    ],
    ids=["close", "http-1.0", "list", "post"],
)
def test_row_36_nothing_after_close(edge: Edge, first: bytes, how: Feed) -> None:
    with edge.client() as client:
        client.send(first + SMUGGLED, how)
        assert client.response().status == 200
        assert nothing_more(client)
    edge.probe()
    assert [seen.target for seen in edge.a.requests] == ["/", "/probe"]


def test_row_36_behind_an_upload(edge: Edge, how: Feed) -> None:
    with edge.client() as client:
        client.send(sized(b"hello", target="/1") + chunked(b"wor", b"ld", target="/2") + request(target="/3"), how)
        assert [client.response().status for _ in range(3)] == [200] * 3
    assert [(seen.target, seen.body) for seen in edge.a.complete] == [("/1", b"hello"), ("/2", b"world"), ("/3", b"")]


def test_row_36_the_second_waits_for_the_first(edge: Edge) -> None:
    # In order also when the second could be answered sooner: it belongs to the other upstream.
    release = threading.Event()

    def held(exchange: Exchange) -> None:
        exchange.hold(release)
        exchange.send(b"HTTP/1.1 200 OK\r\nContent-Length: 1\r\n\r\na")

    edge.a.script = held
    edge.b.script = answer(b"HTTP/1.1 200 OK\r\nContent-Length: 1\r\n\r\nb")
    with edge.client() as client:
        client.send(request() + request(host="b.test"))
        edge.a.wait(1)
        assert not client.closed(0.05)
        release.set()
        assert [client.response().body, client.response().body] == [b"a", b"b"]


# Row 37: a client that has finished writing may still read.


@pytest.mark.parametrize("raw", [request(), sized(b"hello"), chunked(b"hello"), request() + request()])
def test_row_37_half_close_after_the_request(edge: Edge, raw: bytes, how: Feed) -> None:
    release = threading.Event()

    def held(exchange: Exchange) -> None:
        exchange.read_body()
        exchange.hold(release)
        exchange.send(b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok")

    edge.a.script = held
    count = raw.count(b"HTTP/1.1\r\n")
    with edge.client() as client:
        client.send(raw, how)
        client.finish_writing()
        edge.a.wait(1)
        release.set()
        assert [client.response().status for _ in range(count)] == [200] * count
        assert client.closed()


@pytest.mark.parametrize(
    "raw",
    [
        request("Content-Length: 5", method="POST", body=b"hel"),
        request("Transfer-Encoding: chunked", method="POST", body=b"5\r\nhel"),
        request("Transfer-Encoding: chunked", method="POST", body=b"5\r\nhello\r\n"),
        request("Transfer-Encoding: chunked", method="POST", body=b"5\r\nhello\r\n0\r\n"),
    ],
    ids=["sized", "in-chunk", "between-chunks", "before-the-end"],
)
def test_row_37_half_close_inside_a_body(edge: Edge, raw: bytes, how: Feed) -> None:
    # RFC 9112 section 8: an incomplete request; the upstream must not take it for a whole one.
    with edge.client() as client:
        client.send(raw, how)
        edge.a.wait(1)
        client.finish_writing()
        heard = client.stream.rest()
        assert heard == b"" or heard.startswith(b"HTTP/1.1 4")
    edge.a.wait_closed()
    assert not edge.a.complete


@pytest.mark.parametrize("raw", [b"", b"GET", b"GET / HTTP/1.1\r\nHost: a.te", request()[:-2]])
def test_row_37_half_close_inside_a_head(edge: Edge, raw: bytes, how: Feed) -> None:
    with edge.client() as client:
        client.send(raw, how)
        client.finish_writing()
        heard = client.stream.rest()
        assert heard == b"" or heard.startswith(b"HTTP/1.1 4")
        assert raw or not heard
    edge.probe()
    assert [seen.target for seen in edge.a.requests] == ["/probe"]


# Row 38: answered before the body was read: what remains of it is drained or the connection closes; never a request.


def early(exchange: Exchange) -> None:
    exchange.send(b"HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\nearly")
    exchange.read_body()  # should the proxy send all of it after all, it may well reuse the connection


@pytest.mark.parametrize("size", [len(SMUGGLED), 200])
def test_row_38_early_answer(edge: Edge, size: int, how: Feed) -> None:
    # CL.0: the body is a request; it must not become one.
    edge.a.script = in_turn(early, answer())
    body = SMUGGLED.ljust(size, b"x")
    with edge.client() as client:
        client.send(sized(body), how)
        assert client.response("POST").body == b"early"
        if client.send(request(target="/second")):
            try:
                assert client.response().status == 200
            except AssertionError:
                assert client.stream.eof
    edge.probe()
    assert "/smuggled" not in [seen.target for seen in edge.a.requests]


def test_row_38_early_answer_in_the_middle(edge: Edge) -> None:
    def script(exchange: Exchange) -> None:
        exchange.stream.exactly(10)
        exchange.request.length -= 10
        early(exchange)

    edge.a.script = in_turn(script, answer())
    with edge.client() as client:
        client.send(request("Content-Length: 1000", method="POST", body=b"0123456789"))
        assert client.response("POST").body == b"early"
        client.send(SMUGGLED * 5)
        rest = client.stream.rest() if client.closed(0.2) else b""
        assert rest == b""
    edge.probe()
    assert "/smuggled" not in [seen.target for seen in edge.a.requests]


@pytest.mark.parametrize("host", ["a.test", "nowhere.test", "none.test"])
def test_row_38_early_answer_to_chunks(edge: Edge, host: str) -> None:
    # Where the end of the body is not known, nothing behind it is either: the connection closes.
    edge.a.script = in_turn(early, answer())
    with edge.client() as client:
        client.send(request("Transfer-Encoding: chunked", method="POST", host=host, body=b"5\r\nhello\r\n"))
        assert client.response("POST").status in (200, 404, 503)
        client.send(b"%x\r\n%b\r\n0\r\n\r\n" % (len(SMUGGLED), SMUGGLED) + SMUGGLED)
        assert nothing_more(client)
    edge.probe()
    assert "/smuggled" not in [seen.target for seen in edge.a.requests]


def test_row_38_refused_upload_can_read_the_reason(edge: Edge) -> None:
    # A close with unread bytes is a RST that may take the answer away; so the proxy lingers (RFC 9112 section 9.6).
    with edge.client() as client:
        client.send(request(f"Content-Length: {4 << 20}", method="POST"))
        for _ in range(64):
            if not client.send(b"x" * (64 << 10)):
                break
        assert client.response("POST").status == 413
        assert nothing_more(client)


def test_row_38_unread_body_of_a_404(edge: Edge, how: Feed) -> None:
    with edge.client() as client:
        client.send(sized(SMUGGLED, host="nowhere.test"), how)
        assert client.response("POST").status == 404
        if client.send(request(target="/second")):
            try:
                assert client.response().status == 200
            except AssertionError:
                assert client.stream.eof
    edge.probe()
    assert "/smuggled" not in [seen.target for seen in edge.a.requests]


# Row 39: retries, in short; test_upstreams.py has more.


@pytest.mark.parametrize("method", ["GET", "HEAD", "PUT", "DELETE", "OPTIONS"])
def test_row_39_idempotent_on_a_dead_reused_connection(edge: Edge, method: str, how: Feed) -> None:
    edge.probe()  # leaves a connection in the pool
    edge.a.script = _die_once()
    with edge.client() as client:
        assert client.ask(request(target="/again", method=method), how, method).status == 200
    assert [seen.target for seen in edge.a.requests] == ["/probe", "/again", "/again"]


@pytest.mark.parametrize("method", ["POST", "PATCH", "FOO"])
def test_row_39_not_idempotent(edge: Edge, method: str, how: Feed) -> None:
    edge.probe()
    edge.a.script = _die_once()
    with edge.client() as client:
        assert client.ask(sized(b"hello", target="/once", method=method), how, method).status == 502
    assert [seen.target for seen in edge.a.requests] == ["/probe", "/once"]


def _die_once() -> Callable[[Exchange], None]:
    died = threading.Event()

    def script(exchange: Exchange) -> None:
        if died.is_set():
            answer()(exchange)
        else:
            died.set()
            hang_up(exchange)

    return script


def test_the_standard_proxy_is_alive(edge: Edge) -> None:
    poll.until(lambda: edge.proxy.admin("/healthz")[0] == 200, "/healthz")
