"""Rows 19 to 21, 27 and 31: the chunked coding, body limits and trailers of requests (RFC 9112 section 7.1).

A body is streamed, so the upstream may have seen the head and the good beginning when the fault is found; what it
must never see is a complete request, and its connection is closed.
"""

from __future__ import annotations

import pytest

from tests.harness.edge import SMALL, Edge, chunked, request, sized
from tests.harness.feed import Feed

SMUGGLED = b"GET /smuggled HTTP/1.1\r\nHost: a.test\r\n\r\n"


def raw_chunks(body: bytes, host: str = "a.test") -> bytes:
    return request("Transfer-Encoding: chunked", method="POST", body=body, host=host)


# Row 19: chunk-size = 1*HEXDIG.
BAD_SIZES = {
    "hex-prefix": b"0x5",
    "underscore": b"5_",
    "underscore-inside": b"0_5",
    "plus": b"+5",
    "minus": b"-1",
    "minus-zero": b"-0",
    "leading-space": b" 5",
    "leading-tab": b"\t5",
    "trailing-space": b"5 ",
    "trailing-tab": b"5\t",
    "empty": b"",
    "not-hex": b"g",
    "fraction": b"5.0",
    "two-to-the-64": b"10000000000000000",
    "two-to-the-64-plus-5": b"10000000000000005",
    "endless": b"1" * 60,
    "null": b"5\x00",
    "vertical-tab": b"5\x0b",
    "quoted": b'"5"',
    "obs-text": b"\xb5",
    "comma": b"5,",
}

# Row 20: chunk-ext = *( BWS ";" BWS name [ BWS "=" BWS ( token / quoted-string ) ] ).
BAD_EXTENSIONS = {
    "bare": b"5;",
    "bare-space": b"5; ",
    "bare-twice": b"5;;",
    "second-bare": b"5;a;",
    "null": b"5;a=\x00",
    "null-in-name": b"5;a\x00",
    "control": b"5;a=\x01",
    "delete": b"5;a\x7f",
    "bare-cr": b"5;a\rb",
    "bare-lf": b"5;a\nb",
    "no-name": b"5;=b",
    "no-value": b"5;a=",
    "open-quote": b'5;a="b',
    "behind-quote": b'5;a="b"c',
    "control-in-quote": b'5;a="\x01"',
    "cr-in-quote": b'5;a="\rb"',
    "lf-in-quote": b'5;a="\nb"',
    "backslash-outside": b"5;a=\\b",
    "space-in-value": b"5;a=b c",
    "parenthesis": b"5;a=(b)",
    "obs-text-in-name": b"5;\xe9",
}

GOOD_EXTENSIONS = {
    "name": b"5;ext",
    "value": b"5;ext=val",
    "two": b"5;ext=1;ext2=2",
    "quoted": b'5;ext="a b;c=\\"d\\""',
    "empty-quoted": b'5;ext=""',
}

# Row 21.
BAD_ENDINGS = {
    "too-long": b"5\r\nhelloX\r\n0\r\n\r\n",
    "missing": b"5\r\nhello0\r\n\r\n",
    "lf": b"5\r\nhello\n0\r\n\r\n",
    "cr-only": b"5\r\nhello\rX0\r\n\r\n",
    "lf-cr": b"5\r\nhello\n\r0\r\n\r\n",
    "spaces": b"5\r\nhello  \r\n0\r\n\r\n",
    "smuggled": b"5\r\nhello" + SMUGGLED,
    "last-chunk-lf": b"5\r\nhello\r\n0\n\r\n",
    "last-chunk-end-lf": b"5\r\nhello\r\n0\r\n\n",
    "size-lf": b"5\nhello\r\n0\r\n\r\n",
    "after-last": b"5\r\nhello\r\n0\r\nGET /smuggled HTTP/1.1\r\n\r\n",
}


@pytest.mark.parametrize("size", BAD_SIZES.values(), ids=BAD_SIZES)
def test_row_19_first_size(edge: Edge, size: bytes, how: Feed) -> None:
    edge.refused(raw_chunks(size + b"\r\nhello\r\n0\r\n\r\n"), 400, how, begun=1)


@pytest.mark.parametrize("size", BAD_SIZES.values(), ids=BAD_SIZES)
def test_row_19_second_size(edge: Edge, size: bytes, how: Feed) -> None:
    edge.refused(raw_chunks(b"2\r\nxy\r\n" + size + b"\r\nhello\r\n0\r\n\r\n"), 400, how, begun=1)


@pytest.mark.parametrize("size", [b"00x", b"+0", b"-0", b"0 ", b" 0", b"0_", b"0x0", b"0;"])
def test_row_19_last_size(edge: Edge, size: bytes, how: Feed) -> None:
    edge.refused(raw_chunks(b"2\r\nxy\r\n" + size + b"\r\n\r\n"), 400, how, begun=1)


@pytest.mark.parametrize("size", [b"ffffffffffffffff", b"7fffffffffffffff", b"fffffffffffffff"])
def test_row_19_enormous_size(edge: Edge, size: bytes, how: Feed) -> None:
    # Well-formed (or too large for 63 bits): either way more than this route takes.
    edge.refused(raw_chunks(size + b"\r\nhello"), {400, 413}, how, begun=1)


@pytest.mark.parametrize("size", [b"5", b"05", b"0005"])
def test_row_19_good_sizes(edge: Edge, size: bytes, how: Feed) -> None:
    edge.passed(raw_chunks(size + b"\r\nhello\r\n0\r\n\r\n"), how, body=b"hello")


@pytest.mark.parametrize("size", [b"a", b"A", b"0A"])
def test_row_19_good_hex(edge: Edge, size: bytes, how: Feed) -> None:
    edge.passed(raw_chunks(size + b"\r\n0123456789\r\n00\r\n\r\n"), how, body=b"0123456789")


@pytest.mark.parametrize("line", BAD_EXTENSIONS.values(), ids=BAD_EXTENSIONS)
def test_row_20_malformed_extension(edge: Edge, line: bytes, how: Feed) -> None:
    edge.refused(raw_chunks(line + b"\r\nhello\r\n0\r\n\r\n"), 400, how, begun=1)


@pytest.mark.parametrize("line", BAD_EXTENSIONS.values(), ids=BAD_EXTENSIONS)
def test_row_20_malformed_extension_of_the_last_chunk(edge: Edge, line: bytes, how: Feed) -> None:
    edge.refused(raw_chunks(b"5\r\nhello\r\n" + b"0" + line[1:] + b"\r\n\r\n"), 400, how, begun=1)


@pytest.mark.parametrize("line", GOOD_EXTENSIONS.values(), ids=GOOD_EXTENSIONS)
def test_row_20_extensions_are_never_forwarded(edge: Edge, line: bytes, how: Feed) -> None:
    # RFC 9112 section 7.1.1: a recipient MUST ignore unrecognized ones; they are hop-by-hop by nature.
    edge.passed(raw_chunks(line + b"\r\nhello\r\n0" + line[1:] + b"\r\n\r\n"), how, body=b"hello")
    assert b"ext" not in edge.a.raw


def test_row_20_huge_extension(edge: Edge) -> None:
    edge.refused(raw_chunks(b"5;a=" + b"b" * 5000 + b"\r\nhello\r\n0\r\n\r\n"), {400, 413}, begun=1)


def test_row_20_endless_extension(edge: Edge) -> None:
    edge.refused(raw_chunks(b"5;a=" + b"b" * 5000), {400, 413}, begun=1)


def test_row_20_many_extensions(edge: Edge) -> None:
    # CVE-2023-39326: one byte of data per kilobyte of extension. The cap is for the message, not the chunk.
    edge.refused(raw_chunks((b"1;a=" + b"b" * 900 + b"\r\nx\r\n") * 6 + b"0\r\n\r\n"), {400, 413}, begun=1)


@pytest.mark.parametrize("body", BAD_ENDINGS.values(), ids=BAD_ENDINGS)
def test_row_21_data_without_its_crlf(edge: Edge, body: bytes, how: Feed) -> None:
    edge.refused(raw_chunks(body), 400, how, begun=1)


# Row 27: larger than the route takes.


def test_row_27_length(edge: Edge, how: Feed) -> None:
    edge.refused(sized(b"x" * (SMALL + 1), host="small.test"), 413, how)


def test_row_27_length_before_any_body(edge: Edge, how: Feed) -> None:
    edge.refused(request("Content-Length: 17", method="POST", host="small.test"), 413, how)


def test_row_27_enormous_length(edge: Edge, how: Feed) -> None:
    edge.refused(request("Content-Length: 999999999999999999", method="POST"), 413, how)


def test_row_27_length_with_expectation(edge: Edge, how: Feed) -> None:
    # RFC 9110 section 10.1.1: a final status instead of 100 saves the client the upload.
    edge.refused(request("Content-Length: 17", "Expect: 100-continue", method="POST", host="small.test"), 413, how)


@pytest.mark.parametrize("sizes", [(17,), (16, 1), (10, 10), (1,) * 17])
def test_row_27_chunked(edge: Edge, sizes: tuple[int, ...], how: Feed) -> None:
    edge.refused(chunked(*[b"x" * size for size in sizes], host="small.test"), 413, how, begun=1)


def test_row_27_chunked_known_from_the_size(edge: Edge, how: Feed) -> None:
    edge.refused(raw_chunks(b"ffff\r\n", host="small.test"), 413, how, begun=1)


@pytest.mark.parametrize("size", [0, 1, SMALL])
def test_row_27_within_the_limit(edge: Edge, size: int, how: Feed) -> None:
    edge.passed(sized(b"x" * size, host="small.test"), how, body=b"x" * size)


@pytest.mark.parametrize("sizes", [(SMALL,), (8, 8), (1,) * SMALL])
def test_row_27_chunked_within_the_limit(edge: Edge, sizes: tuple[int, ...], how: Feed) -> None:
    edge.passed(chunked(*[b"x" * size for size in sizes], host="small.test"), how, body=b"x" * SMALL)


def test_row_27_default_is_one_mebibyte(edge: Edge) -> None:
    edge.refused(request(f"Content-Length: {1024 * 1024 + 1}", method="POST"), 413)
    edge.reset()
    edge.passed(sized(b"x" * 1024 * 1024), body=b"x" * 1024 * 1024)


def test_row_27_zero_is_no_limit(edge: Edge) -> None:
    edge.passed(sized(b"x" * (1024 * 1024 + 1), host="open.test"), body=b"x" * (1024 * 1024 + 1))


# Row 31: trailers of a request.

BAD_TRAILERS = {
    "no-colon": b"foobar\r\n",
    "space-before-colon": b"X-A : 1\r\n",
    "obs-fold": b"X-A: 1\r\n 2\r\n",
    "fold-first": b" X-A: 1\r\n",
    "null": b"X-A: \x00\r\n",
    "control": b"X-A: \x01\r\n",
    "lf": b"X-A: 1\n",
    "bare-cr": b"X-A: 1\rX-B: 2\r\n",
    "empty-name": b": 1\r\n",
    "bad-name": b"X A: 1\r\n",
}


@pytest.mark.parametrize("trailers", BAD_TRAILERS.values(), ids=BAD_TRAILERS)
def test_row_31_malformed_trailers(edge: Edge, trailers: bytes, how: Feed) -> None:
    edge.refused(chunked(b"hello", trailers=trailers), 400, how, begun=1)


def test_row_31_endless_trailers(edge: Edge) -> None:
    # A trailer section is as bounded as a head.
    edge.refused(chunked(b"hello", trailers=b"X-A: 1\r\n" * 10_000), {400, 431}, begun=1)


@pytest.mark.parametrize(
    "name",
    [
        "Content-Length",
        "Transfer-Encoding",
        "Host",
        "Authorization",
        "Cookie",
        "Content-Type",
        "Trailer",
        "Connection",
        "TE",
        "X-Forwarded-For",
        "traceparent",
        "Content-Encoding",
        "Content-Range",
        "Expect",
        "Proxy-Authorization",
    ],
)
def test_row_31_trailers_that_never_pass(edge: Edge, name: str, how: Feed) -> None:
    # RFC 9110 section 6.5.1: framing, routing, authentication, controls and content format. Dropped or refused.
    raw = chunked(b"hello", trailers=f"{name}: 777\r\n".encode())
    with edge.client() as client:
        client.send(raw, how)
        status = client.response().status
    assert status in (200, 400)
    if status == 200:
        seen = edge.a.one()
        assert seen.body == b"hello"
        assert name not in seen.trailers
        assert "777" not in seen.fields.all(name)


def test_row_31_trailers_may_pass_or_be_dropped(edge: Edge, how: Feed) -> None:
    # RFC 9110 section 6.5.2: an intermediary may discard them; it never merges them into the head.
    seen = edge.passed(
        chunked(b"hello", trailers=b"X-Checksum: 1\r\n", lines=["Trailer: X-Checksum"]), how, body=b"hello"
    )
    assert "X-Checksum" not in seen.fields
    assert seen.trailers.all("X-Checksum") in ([], ["1"])


def test_trailers_do_not_confuse_the_next_request(edge: Edge, how: Feed) -> None:
    with edge.client() as client:
        client.send(chunked(b"hello", trailers=b"X-A: 1\r\nX-B: 2\r\n") + request(target="/next"), how)
        assert [client.response().status, client.response().status] == [200, 200]
    assert [seen.target for seen in edge.a.complete] == ["/", "/next"]
