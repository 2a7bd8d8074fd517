"""Rows 1 to 7: Content-Length and Transfer-Encoding (RFC 9112 section 6).

Whatever two recipients could read differently is refused with the connection closed (RFC 9112 section 6.3), so that
the bytes behind the head are never taken for a request.
"""

from __future__ import annotations

import pytest

from tests.harness.edge import Edge, chunked, request, sized
from tests.harness.feed import Feed

CHUNKS = b"5\r\nhello\r\n0\r\n\r\n"
SMUGGLED = b"GET /smuggled HTTP/1.1\r\nHost: a.test\r\n\r\n"


def post(*lines: str, body: bytes = b"", version: str = "1.1") -> bytes:
    return request(*lines, method="POST", body=body, version=version)


# Row 1: both is an attack or a mistake (RFC 9112 section 6.1: "ought to be handled as an error"), and MUST close.
BOTH = {
    "cl-te": post("Content-Length: 5", "Transfer-Encoding: chunked", body=CHUNKS),
    "te-cl": post("Transfer-Encoding: chunked", "Content-Length: 5", body=CHUNKS),
    "cl0-te": post("Content-Length: 0", "Transfer-Encoding: chunked", body=CHUNKS),
    "cl-exact-te": post(f"Content-Length: {len(CHUNKS)}", "Transfer-Encoding: chunked", body=CHUNKS),
    "te-smuggle": post("Content-Length: 4", "Transfer-Encoding: chunked", body=b"0\r\n\r\n" + SMUGGLED),
    "cl-smuggle": post(
        f"Content-Length: {5 + len(SMUGGLED)}", "Transfer-Encoding: chunked", body=b"0\r\n\r\n" + SMUGGLED
    ),
    "get": request("Content-Length: 0", "Transfer-Encoding: chunked", body=b"0\r\n\r\n"),
    "apart": post("Content-Length: 5", "X-Between: 1", "Transfer-Encoding: chunked", body=CHUNKS),
    "mixed-case": post("cOnTeNt-LeNgTh: 5", "tRaNsFeR-eNcOdInG: cHuNkEd", body=CHUNKS),
    "bad-cl": post("Content-Length: x", "Transfer-Encoding: chunked", body=CHUNKS),
}

# Row 2: several lengths, identical or not, as lines or as a list (nginx refuses both; RFC 9112 section 6.3 allows it).
SEVERAL = {
    "identical": post("Content-Length: 5", "Content-Length: 5", body=b"hello"),
    "different": post("Content-Length: 5", "Content-Length: 6", body=b"hello!"),
    "zero-and-five": post("Content-Length: 0", "Content-Length: 5", body=b"hello"),
    "three": post("Content-Length: 5", "Content-Length: 5", "Content-Length: 5", body=b"hello"),
    "apart": post("Content-Length: 5", "X-Between: 1", "content-length: 5", body=b"hello"),
    "list-identical": post("Content-Length: 5, 5", body=b"hello"),
    "list-different": post("Content-Length: 5, 6", body=b"hello!"),
    "list-tight": post("Content-Length: 5,5", body=b"hello"),
    "list-trailing": post("Content-Length: 5,", body=b"hello"),
    "list-leading": post("Content-Length: ,5", body=b"hello"),
    "and-empty": post("Content-Length: 5", "Content-Length:", body=b"hello"),
    "get-zero-twice": request("Content-Length: 0", "Content-Length: 0"),
}

# Row 3: Content-Length = 1*DIGIT (RFC 9110 section 8.6), nothing Python's int() would be glad to take.
BAD_LENGTH = {
    "plus": "+5",
    "minus-zero": "-0",
    "minus": "-1",
    "underscore": "1_0",
    "hex": "0x5",
    "empty": "",
    "blank": "   ",
    "space-inside": "1 0",
    "tab-inside": "1\t0",
    "fraction": "5.0",
    "exponent": "5e0",
    "suffix": "5a",
    "semicolon": "5;",
    "quoted": '"5"',
    "vertical-tab": "\x0b5",
    "form-feed": "5\x0c",
    "no-break-space": "\xa05",
    "superscript": "\xb2",
    "overflow-64": "18446744073709551616",
    "overflow-64-by-5": "18446744073709551621",
    "overflow-128": "340282366920938463463374607431768211461",
    "endless": "5" * 400,
}

# Row 3b: 1*DIGIT allows leading zeros; what goes on is canonical, so that no recipient reads octal.
ZEROS = {"003": (b"abc", "3"), "0000000005": (b"hello", "5"), "08": (b"12345678", "8"), "00": (b"", "0")}

# Row 4: a coding we do not know: 501 (RFC 9112 section 6.1); together with a length it is row 1.
UNKNOWN = [
    "gzip",
    "identity",
    "gzip, chunked",
    "xchunked",
    "chunkedx",
    "deflate",
    "compress",
    "x-gzip",
    "chunke",
    "cow",
]

# Row 5: chunked twice (MUST NOT), chunked not last, and several lines: nobody sends them but attackers.
DOUBLED = {
    "list": ["chunked, chunked"],
    "lines": ["chunked", "chunked"],
    "not-last": ["chunked, gzip"],
    "not-last-identity": ["chunked, identity"],
    "identity-then-chunked": ["identity", "chunked"],
    "chunked-then-identity": ["chunked", "identity"],
    "gzip-then-chunked": ["gzip", "chunked"],
    "mixed-case": ["CHUNKED", "chunked"],
    "chunked-and-empty": ["chunked", ""],
}

# Row 7: what some parsers trim or skip to find "chunked".
DRESSED = {
    "empty": "",
    "blank": " ",
    "leading-comma": ",chunked",
    "trailing-comma": "chunked,",
    "comma": ",",
    "vertical-tab": "\x0bchunked",
    "form-feed": "chunked\x0c",
    "null": "chunked\x00",
    "obs-fold": "\r\n chunked",
    "obs-fold-behind": "chunked\r\n ",
    "obs-fold-tab": "\r\n\tchunked",
}


@pytest.mark.parametrize("raw", BOTH.values(), ids=BOTH)
def test_row_1_length_and_coding(edge: Edge, raw: bytes, how: Feed) -> None:
    edge.refused(raw, 400, how)


@pytest.mark.parametrize("raw", SEVERAL.values(), ids=SEVERAL)
def test_row_2_several_lengths(edge: Edge, raw: bytes, how: Feed) -> None:
    edge.refused(raw, 400, how)


@pytest.mark.parametrize("value", BAD_LENGTH.values(), ids=BAD_LENGTH)
def test_row_3_malformed_length(edge: Edge, value: str, how: Feed) -> None:
    how = Feed.LINES if len(value) > 100 and how is Feed.BYTES else how
    edge.refused(post(f"Content-Length: {value}", body=b"hello"), 400, how)


def test_row_3_malformed_length_without_a_body(edge: Edge, how: Feed) -> None:
    edge.refused(request("Content-Length: +0"), 400, how)


@pytest.mark.parametrize("value", ZEROS)
def test_row_3b_leading_zeros(edge: Edge, value: str, how: Feed) -> None:
    body, canonical = ZEROS[value]
    seen = edge.passed(post(f"Content-Length: {value}", body=body), how, body=body)
    assert seen.fields.one("Content-Length") == canonical


@pytest.mark.parametrize("value", ["5", " 5", "5 ", "\t5\t ", ""], ids=["plain", "sp", "sp-behind", "tabs", "tight"])
def test_row_3_whitespace_around_a_length_is_ows(edge: Edge, value: str, how: Feed) -> None:
    # RFC 9112 section 5: OWS around the value is not part of it.
    line = f"Content-Length:{value or '5'}"
    seen = edge.passed(post(line, body=b"hello"), how, body=b"hello")
    assert seen.fields.one("Content-Length") == "5"


@pytest.mark.parametrize("value", UNKNOWN)
def test_row_4_unknown_coding(edge: Edge, value: str, how: Feed) -> None:
    edge.refused(post(f"Transfer-Encoding: {value}", body=CHUNKS), 501, how)


@pytest.mark.parametrize("value", ["gzip", "identity", "gzip, chunked", "xchunked"])
def test_row_4_unknown_coding_with_a_length(edge: Edge, value: str, how: Feed) -> None:
    edge.refused(post(f"Transfer-Encoding: {value}", "Content-Length: 15", body=CHUNKS), 400, how)


@pytest.mark.parametrize(
    "value", ['"chunked"', "chunked;q=1", "chunked chunked", "chunked/1", "[chunked]", "chun\tked", "\xa0chunked"]
)
def test_row_4_no_coding_at_all(edge: Edge, value: str, how: Feed) -> None:
    # Not a transfer-coding token, or chunked with a parameter, which it has none of (RFC 9112 section 7.1): malformed
    # or unknown are both true.
    edge.refused(post(f"Transfer-Encoding: {value}", body=CHUNKS), {400, 501}, how)


@pytest.mark.parametrize("values", DOUBLED.values(), ids=DOUBLED)
def test_row_5_chunked_twice_or_not_last(edge: Edge, values: list[str], how: Feed) -> None:
    edge.refused(post(*[f"Transfer-Encoding: {value}" for value in values], body=CHUNKS), 400, how)


@pytest.mark.parametrize("value", ["chunked", "gzip", "identity", ""])
def test_row_6_coding_in_http_1_0(edge: Edge, value: str, how: Feed) -> None:
    # RFC 9112 section 6.1: framing in HTTP/1.0 with Transfer-Encoding is faulty.
    edge.refused(post(f"Transfer-Encoding: {value}", body=CHUNKS, version="1.0"), 400, how)


def test_row_6_kept_alive_http_1_0_closes(edge: Edge, how: Feed) -> None:
    raw = post("Connection: keep-alive", "Transfer-Encoding: chunked", body=b"0\r\n\r\n" + SMUGGLED, version="1.0")
    edge.refused(raw, 400, how)


@pytest.mark.parametrize("value", DRESSED.values(), ids=DRESSED)
def test_row_7_dressed_up_chunked(edge: Edge, value: str, how: Feed) -> None:
    edge.refused(post(f"Transfer-Encoding: {value}", body=CHUNKS), 400, how)


@pytest.mark.parametrize("value", DRESSED.values(), ids=DRESSED)
def test_row_7_dressed_up_chunked_with_a_length(edge: Edge, value: str, how: Feed) -> None:
    edge.refused(post("Content-Length: 5", f"Transfer-Encoding: {value}", body=CHUNKS), 400, how)


# What must pass.


@pytest.mark.parametrize("value", ["chunked", "Chunked", "CHUNKED", "chunked ", "\tchunked"])
def test_chunked_is_read_whatever_its_case(edge: Edge, value: str, how: Feed) -> None:
    # Coding names are case-insensitive (RFC 9112 section 7), OWS includes HTAB (RFC 9110 section 5.6.3).
    edge.passed(post(f"Transfer-Encoding: {value}", body=CHUNKS), how, body=b"hello")


@pytest.mark.parametrize(
    "body", [b"", b"x", b"hello", b"GET / HTTP/1.1\r\n\r\n"], ids=["empty", "one", "five", "request"]
)
def test_sized_body_arrives(edge: Edge, body: bytes, how: Feed) -> None:
    seen = edge.passed(sized(body), how, body=body)
    assert seen.fields.one("Content-Length") == str(len(body))


@pytest.mark.parametrize("chunks", [(), (b"hello",), (b"he", b"l", b"lo"), (b"0\r\n\r\n" + SMUGGLED,)])
def test_chunked_body_arrives(edge: Edge, chunks: tuple[bytes, ...], how: Feed) -> None:
    edge.passed(chunked(*chunks), how, body=b"".join(chunks))


@pytest.mark.parametrize("method", ["GET", "DELETE", "OPTIONS", "POST", "REPORT"])
def test_body_with_any_method(edge: Edge, method: str, how: Feed) -> None:
    # RFC 9112 section 6: the presence of a body is signalled by its framing, not by the method.
    edge.passed(sized(b"hello", method=method), how, body=b"hello")


def test_no_framing_is_no_body(edge: Edge, how: Feed) -> None:
    # RFC 9112 section 6.3: a request with neither has no body; the bytes behind it are the next request.
    with edge.client() as client:
        client.send(post() + SMUGGLED, how)
        assert [client.response().status, client.response().status] == [200, 200]
    assert [seen.target for seen in edge.a.complete] == ["/", "/smuggled"]
