"""Rows 32 to 35: what the upstream answers, well-formed and not, fed to the proxy in the same three ways."""

from __future__ import annotations

import threading

import pytest

from tests.harness.edge import Edge, request, sized
from tests.harness.feed import Feed
from tests.harness.upstream import Exchange, answer, in_turn

OK = b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok"
EVIL = b"HTTP/1.1 200 OK\r\nContent-Length: 4\r\n\r\nevil"

# Row 32: 1xx.


@pytest.mark.parametrize(
    "interim",
    [
        b"HTTP/1.1 103 Early Hints\r\nLink: </x>; rel=preload\r\n\r\n",
        b"HTTP/1.1 102 Processing\r\n\r\n",
        b"HTTP/1.1 100 Continue\r\n\r\n",
        b"HTTP/1.1 199 What\r\n\r\n",
    ],
)
def test_row_32_interim_is_forwarded(edge: Edge, interim: bytes, how: Feed) -> None:
    edge.a.script = answer(interim + OK, how)
    with edge.client() as client:
        response = client.ask(request())
        assert (response.status, response.body) == (200, b"ok")
        # RFC 9110 section 15.2: a 1xx MUST be forwarded unless the proxy asked for it itself; an unexpected 100 too.
        assert [item.status for item in response.interim] == [int(interim[9:12])]
        if b"103" in interim:
            assert response.interim[0].fields.one("Link") == "</x>; rel=preload"
        edge.probe(client, "b.test")


def test_row_32_several(edge: Edge, how: Feed) -> None:
    edge.a.script = answer(b"HTTP/1.1 103 A\r\nLink: </a>\r\n\r\nHTTP/1.1 103 B\r\nLink: </b>\r\n\r\n" + OK, how)
    with edge.client() as client:
        response = client.ask(request())
        assert [item.fields.one("Link") for item in response.interim] == ["</a>", "</b>"]
        assert response.status == 200


def test_row_32_interim_arrives_before_the_end(edge: Edge) -> None:
    release = threading.Event()

    def script(exchange: Exchange) -> None:
        exchange.send(b"HTTP/1.1 103 Early Hints\r\nLink: </a>\r\n\r\n")
        exchange.hold(release)
        exchange.send(OK)

    edge.a.script = script
    with edge.client() as client:
        client.send(request())
        assert client.stream.line().startswith(b"HTTP/1.1 103 ")
        release.set()
        while client.stream.line():
            pass
        assert client.response().status == 200


def test_row_32_not_to_http_1_0(edge: Edge, how: Feed) -> None:
    edge.a.script = answer(b"HTTP/1.1 103 Early Hints\r\nLink: </a>\r\n\r\n" + OK, how)
    with edge.client() as client:
        response = client.ask(request(version="1.0"))
        assert (response.status, response.interim, response.body) == (200, [], b"ok")


def test_row_32_then_nothing(edge: Edge, how: Feed) -> None:
    edge.a.script = answer(b"HTTP/1.1 103 Early Hints\r\n\r\n", how, close=True)
    with edge.client() as client:
        response = client.ask(sized(b"hello"))
        assert response.status == 502


def test_row_32_endless_interim(edge: Edge) -> None:
    # Bounded: an upstream that says 1xx for ever is broken.
    edge.a.script = answer(b"HTTP/1.1 100 Continue\r\n\r\n" * 5000 + OK)
    with edge.client() as client:
        assert client.ask(request("Connection: close")).status in (200, 502)


# Row 33: no body where there can be none, whatever the upstream sends.

BODILESS = {
    "head": ("HEAD", b"HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\n"),
    "head-chunked": ("HEAD", b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n"),
    "head-no-framing": ("HEAD", b"HTTP/1.1 200 OK\r\n\r\n"),
    "204": ("GET", b"HTTP/1.1 204 No Content\r\n\r\n"),
    "204-post": ("POST", b"HTTP/1.1 204 No Content\r\n\r\n"),
    "304": ("GET", b'HTTP/1.1 304 Not Modified\r\nETag: "x"\r\n\r\n'),
    "304-length": ("GET", b"HTTP/1.1 304 Not Modified\r\nContent-Length: 5\r\n\r\n"),
}
EXTRA = {
    "body": b"hello",
    "response": EVIL,
    "chunks": b"5\r\nhello\r\n0\r\n\r\n",
}


@pytest.mark.parametrize(("method", "raw"), BODILESS.values(), ids=BODILESS)
def test_row_33_no_body(edge: Edge, method: str, raw: bytes, how: Feed) -> None:
    edge.a.script = in_turn(answer(raw, how), answer())
    with edge.client() as client:
        response = client.ask(request(method=method), method=method)
        assert response.status == int(raw[9:12])
        assert response.body == b""
        edge.probe(client)
    assert len(edge.a.connections) == 1, "the upstream connection was not reused"


@pytest.mark.parametrize("extra", EXTRA.values(), ids=EXTRA)
@pytest.mark.parametrize(("method", "raw"), BODILESS.values(), ids=BODILESS)
def test_row_33_a_body_all_the_same(edge: Edge, method: str, raw: bytes, extra: bytes, how: Feed) -> None:
    edge.a.script = in_turn(answer(raw + extra, how), answer())
    with edge.client() as client:
        response = client.ask(request(method=method), method=method)
        assert response.status == int(raw[9:12])
        edge.probe(client, "b.test")  # fails if anything of the extra was passed on
    edge.a.wait_closed()
    edge.probe()
    assert len(edge.a.connections) == 2, "the upstream connection was reused"


@pytest.mark.parametrize("extra", EXTRA.values(), ids=EXTRA)
@pytest.mark.parametrize("raw", [OK, b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n2\r\nok\r\n0\r\n\r\n"])
def test_row_33_bytes_behind_a_response(edge: Edge, raw: bytes, extra: bytes, how: Feed) -> None:
    # A poisoned pool: the next client would get it (response queue poisoning).
    edge.a.script = in_turn(answer(raw + extra, how), answer())
    with edge.client() as client:
        assert client.ask(request()).body == b"ok"
        edge.probe(client, "b.test")
    edge.a.wait_closed()
    edge.probe()
    assert len(edge.a.connections) == 2


# Row 34: framing nobody can trust.

BAD_RESPONSES = {
    "length-and-coding": b"HTTP/1.1 200 OK\r\nContent-Length: 5\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
    "coding-and-length": b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\nContent-Length: 5\r\n\r\n0\r\n\r\n",
    "two-lengths": b"HTTP/1.1 200 OK\r\nContent-Length: 5\r\nContent-Length: 6\r\n\r\nhello!",
    "same-length-twice": b"HTTP/1.1 200 OK\r\nContent-Length: 5\r\nContent-Length: 5\r\n\r\nhello",
    "length-list": b"HTTP/1.1 200 OK\r\nContent-Length: 5, 5\r\n\r\nhello",
    "length-plus": b"HTTP/1.1 200 OK\r\nContent-Length: +5\r\n\r\nhello",
    "length-minus": b"HTTP/1.1 200 OK\r\nContent-Length: -5\r\n\r\nhello",
    "length-empty": b"HTTP/1.1 200 OK\r\nContent-Length:\r\n\r\nhello",
    "length-hex": b"HTTP/1.1 200 OK\r\nContent-Length: 0x5\r\n\r\nhello",
    "length-overflow": b"HTTP/1.1 200 OK\r\nContent-Length: 18446744073709551621\r\n\r\nhello",
    "two-codings": b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
    "chunked-twice": b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked, chunked\r\n\r\n0\r\n\r\n",
    "gzip": b"HTTP/1.1 200 OK\r\nTransfer-Encoding: gzip\r\n\r\nhello",
    "gzip-chunked": b"HTTP/1.1 200 OK\r\nTransfer-Encoding: gzip, chunked\r\n\r\n0\r\n\r\n",
    "identity": b"HTTP/1.1 200 OK\r\nTransfer-Encoding: identity\r\n\r\nhello",
    "empty-coding": b"HTTP/1.1 200 OK\r\nTransfer-Encoding:\r\n\r\nhello",
    "vertical-tab-coding": b"HTTP/1.1 200 OK\r\nTransfer-Encoding: \x0bchunked\r\n\r\n0\r\n\r\n",
    "obs-fold": b"HTTP/1.1 200 OK\r\nX-A: 1\r\n 2\r\nContent-Length: 0\r\n\r\n",
    "space-before-colon": b"HTTP/1.1 200 OK\r\nContent-Length : 5\r\n\r\nhello",
    "bare-lf": b"HTTP/1.1 200 OK\nContent-Length: 0\n\n",
    "bare-lf-field": b"HTTP/1.1 200 OK\r\nX-A: 1\nX-B: 2\r\nContent-Length: 0\r\n\r\n",
    "null": b"HTTP/1.1 200 OK\r\nX-A: \x00\r\nContent-Length: 0\r\n\r\n",
    "bare-cr": b"HTTP/1.1 200 OK\r\nX-A: a\rb\r\nContent-Length: 0\r\n\r\n",
    "no-colon": b"HTTP/1.1 200 OK\r\nfoobar\r\nContent-Length: 0\r\n\r\n",
    "empty-name": b"HTTP/1.1 200 OK\r\n: 1\r\nContent-Length: 0\r\n\r\n",
    "no-http": b"hello world\r\n\r\n",
    "http-2": b"HTTP/2.0 200 OK\r\nContent-Length: 0\r\n\r\n",
    "http-0.9": b"<html>hello</html>",
    "lower-case": b"http/1.1 200 OK\r\nContent-Length: 0\r\n\r\n",
    "status-word": b"HTTP/1.1 abc OK\r\nContent-Length: 0\r\n\r\n",
    "status-two-digits": b"HTTP/1.1 20 OK\r\nContent-Length: 0\r\n\r\n",
    "status-four-digits": b"HTTP/1.1 2000 OK\r\nContent-Length: 0\r\n\r\n",
    "status-zero": b"HTTP/1.1 000 OK\r\nContent-Length: 0\r\n\r\n",
    "status-plus": b"HTTP/1.1 +20 OK\r\nContent-Length: 0\r\n\r\n",
    "reason-control": b"HTTP/1.1 200 O\x00K\r\nContent-Length: 0\r\n\r\n",
    "nothing": b"",
    "half-a-head": b"HTTP/1.1 200 OK\r\nContent-Le",
    "head-too-large": b"HTTP/1.1 200 OK\r\nX-A: " + b"a" * 40_000 + b"\r\nContent-Length: 0\r\n\r\n",
    "too-many-fields": b"HTTP/1.1 200 OK\r\n" + b"X-A: 1\r\n" * 2_000 + b"Content-Length: 0\r\n\r\n",
}


@pytest.mark.parametrize("raw", BAD_RESPONSES.values(), ids=BAD_RESPONSES)
def test_row_34_bad_response(edge: Edge, raw: bytes, how: Feed) -> None:
    if len(raw) > 1_000 and how is not Feed.WHOLE:
        how = Feed.WHOLE
    edge.a.script = answer(raw, how, close=True)
    with edge.client() as client:
        response = client.ask(sized(b"hello"))  # not idempotent: no second try hides it
        assert response.status == 502
        edge.probe(client, "b.test")
    assert len(edge.a.requests) == 1


@pytest.mark.parametrize(
    "raw",
    [
        b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok",
        b"HTTP/1.1 200 \r\nContent-Length: 2\r\n\r\nok",  # RFC 9112 section 4: the reason may be empty
        b"HTTP/1.1 200\r\nContent-Length: 2\r\n\r\nok",  # and some servers forget its SP too
        b"HTTP/1.1 200 Alles \xe9 gut\r\nContent-Length: 2\r\n\r\nok",
        b"HTTP/1.1 200 OK\r\ncontent-length:002\r\n\r\nok",
        b"HTTP/1.1 200 OK\r\nTransfer-Encoding: Chunked\r\n\r\n2\r\nok\r\n0\r\n\r\n",
        b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n2;ext=1\r\nok\r\n0\r\n\r\n",
        b"HTTP/1.1 200 OK\r\nX_Y: 1\r\nContent-Length: 2\r\n\r\nok",
        b"HTTP/1.1 200 OK\r\nX-A: \xe9\r\nContent-Length: 2\r\n\r\nok",
    ],
    ids=[
        "plain",
        "no-reason",
        "no-reason-no-space",
        "reason-latin-1",
        "tight",
        "chunked-case",
        "extension",
        "underscore",
        "latin-1",
    ],
)
def test_row_34_good_response(edge: Edge, raw: bytes, how: Feed) -> None:
    edge.a.script = in_turn(answer(raw, how), answer())
    with edge.client() as client:
        response = client.ask(request())
        if raw.startswith(b"HTTP/1.1 200\r\n"):
            assert response.status in (200, 502)
            return
        assert (response.status, response.body) == (200, b"ok")
        edge.probe(client)


BAD_CHUNKS = {
    "size": b"0x2\r\nok\r\n0\r\n\r\n",
    "negative": b"-1\r\nok\r\n0\r\n\r\n",
    "empty": b"\r\nok\r\n0\r\n\r\n",
    "overflow": b"10000000000000002\r\nok\r\n0\r\n\r\n",
    "too-long": b"2\r\nokX\r\n0\r\n\r\n",
    "lf": b"2\nok\n0\n\n",
    "extension": b"2;\x00\r\nok\r\n0\r\n\r\n",
    "trailer": b"2\r\nok\r\n0\r\nfoo bar\r\n\r\n",
}


@pytest.mark.parametrize("chunks", BAD_CHUNKS.values(), ids=BAD_CHUNKS)
def test_row_34_bad_chunks(edge: Edge, chunks: bytes, how: Feed) -> None:
    # Found in the body: too late for 502, unless nothing was sent yet. Never a complete response.
    edge.a.script = answer(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n" + chunks, how)
    with edge.client() as client:
        response = client.ask(sized(b"hello"))
        assert response.status == 502 or not response.complete
        if response.status == 200:
            assert client.closed()
    edge.a.wait_closed()


# Row 35: cut short.

CUT = {
    "sized": b"HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\nhel",
    "sized-nothing": b"HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\n",
    "in-chunk": b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nhel",
    "after-chunk": b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n3\r\nhel\r\n",
    "in-size": b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n3\r\nhel\r\n1",
    "before-trailers": b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n3\r\nhel\r\n0\r\n",
    "no-chunk": b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n",
}


@pytest.mark.parametrize("reset", [False, True], ids=["fin", "rst"])
@pytest.mark.parametrize("raw", CUT.values(), ids=CUT)
def test_row_35_cut_short(edge: Edge, raw: bytes, reset: bool, how: Feed) -> None:
    def script(exchange: Exchange) -> None:
        exchange.read_body()
        exchange.send(raw, how)
        if reset:
            exchange.reset()
        else:
            exchange.close()

    edge.a.script = script
    with edge.client() as client:
        response = client.ask(sized(b"hello"))
        if response.status == 502:  # nothing of the body had come, so that it could still be said
            assert b"hel" not in raw or reset
            return
        assert response.status == 200
        assert not response.complete, "a cut response looks whole"
        assert client.closed()
    assert len(edge.a.requests) == 1


def test_row_35_cut_short_for_http_1_0(edge: Edge, how: Feed) -> None:
    # Without a length the end is the close: RFC 9112 section 8 leaves only a reset to tell. We cannot ask for more
    # than that nothing is invented.
    edge.a.script = answer(CUT["in-chunk"], how, close=True)
    with edge.client() as client:
        response = client.ask(request(version="1.0"))
        assert response.status in (200, 502)
        assert b"0\r\n" not in response.body


def test_row_35_end_by_close_is_complete(edge: Edge, how: Feed) -> None:
    edge.a.script = answer(b"HTTP/1.1 200 OK\r\n\r\nhello", how, close=True)
    with edge.client() as client:
        response = client.ask(request())
        assert (response.status, response.body, response.complete) == (200, b"hello", True)
