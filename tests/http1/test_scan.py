"""Heads: what is accepted, what is refused and why, without any socket."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from proxy.errors import Fault, Kind
from proxy.http1.scan import scan_request, scan_response
from proxy.http1.strict import check_partial

LINE, FIELDS = 8192, 100


def request(*fields: bytes, first: bytes = b"GET / HTTP/1.1") -> bytes:
    return b"\r\n".join([first, *fields])


def kind_of(head: bytes, **options: bool) -> Kind:
    with pytest.raises(Fault) as caught:
        scan_request(head, LINE, FIELDS, **options)
    return caught.value.kind


def test_parts() -> None:
    head = scan_request(
        request(b"Host: a.example", b"Accept: text/html", b"X-Own:  kept  as is ", b"TE: trailers"), LINE, FIELDS
    )
    assert (head.method, head.target, head.minor) == (b"GET", b"/", 1)
    assert head.lines == [b"Accept: text/html", b"X-Own:  kept  as is "]
    assert head.noted == {b"host": b"a.example", b"accept": b"text/html", b"te": b"trailers"}


@pytest.mark.parametrize("name", [b"host", b"HOST", b"Host", b"hOsT"])
def test_names_ignore_case(name: bytes) -> None:
    assert scan_request(request(name + b": x"), LINE, FIELDS).noted == {b"host": b"x"}


@pytest.mark.parametrize(
    ("first", "kind"),
    [
        (b"GET /", Kind.BAD_REQUEST),
        (b"GET  / HTTP/1.1", Kind.BAD_REQUEST),
        (b"GET / HTTP/1.1 ", Kind.BAD_REQUEST),
        (b" GET / HTTP/1.1", Kind.BAD_REQUEST),
        (b"GET\t/ HTTP/1.1", Kind.BAD_REQUEST),
        (b"G(T / HTTP/1.1", Kind.BAD_REQUEST),
        (b"GET / http/1.1", Kind.BAD_REQUEST),
        (b"GET / HTTP/1.01", Kind.BAD_REQUEST),
        (b"GET / HTTP/0.9", Kind.BAD_REQUEST),
        (b"GET / HTTP/9.9", Kind.VERSION_NOT_SUPPORTED),
        (b"GET / HTTP/2.0", Kind.VERSION_NOT_SUPPORTED),
        (b"GET /# HTTP/1.1", Kind.BAD_TARGET),
        (b"GET /\xff HTTP/1.1", Kind.BAD_TARGET),
        (b"GET /\x7f HTTP/1.1", Kind.BAD_REQUEST),
        (b"GET /" + b"a" * LINE + b" HTTP/1.1", Kind.TARGET_TOO_LONG),
    ],
)
def test_request_lines_refused(first: bytes, kind: Kind) -> None:
    assert kind_of(request(b"Host: x", first=first)) is kind


def test_http_1_0_and_own_methods_pass() -> None:
    assert scan_request(request(first=b"GET / HTTP/1.0"), LINE, FIELDS).minor == 0
    assert scan_request(request(first=b"brew /pot HTTP/1.1"), LINE, FIELDS).method == b"brew"


@pytest.mark.parametrize(
    ("field", "kind"),
    [
        (b"Name : v", Kind.BAD_REQUEST),
        (b" folded", Kind.BAD_REQUEST),
        (b"\tfolded", Kind.BAD_REQUEST),
        (b"no colon", Kind.BAD_REQUEST),
        (b"Host", Kind.BAD_REQUEST),
        (b": empty", Kind.BAD_REQUEST),
        (b"N(me: v", Kind.BAD_REQUEST),
        (b"N\xe9me: v", Kind.BAD_REQUEST),
        *((b"Name: a" + bytes([code]) + b"b", Kind.BAD_REQUEST) for code in (*range(9), *range(10, 32), 127)),
    ],
)
def test_fields_refused(field: bytes, kind: Kind) -> None:
    assert kind_of(request(b"Host: x", field)) is kind


@pytest.mark.parametrize(
    ("name", "kind"),
    [
        (b"Host", Kind.BAD_HOST),
        (b"Content-Length", Kind.BAD_FRAMING),
        (b"Transfer-Encoding", Kind.BAD_FRAMING),
        (b"transfer-encoding", Kind.BAD_FRAMING),
    ],
)
def test_framing_and_host_come_once(name: bytes, kind: Kind) -> None:
    assert kind_of(request(name + b": 5", name.lower() + b": 5")) is kind


def test_lists_join() -> None:
    head = scan_request(request(b"Host: x", b"X-Forwarded-For: a", b"x-forwarded-for: b"), LINE, FIELDS)
    assert head.noted[b"x-forwarded-for"] == b"a, b"


def test_underscores_are_dropped_unless_kept() -> None:
    head = request(b"Host: x", b"Content_Length: 5", b"ok: 1")
    assert scan_request(head, LINE, FIELDS).lines == [b"ok: 1"]
    assert scan_request(head, LINE, FIELDS, underscores=True).lines == [b"Content_Length: 5", b"ok: 1"]


def test_hop_by_hop_and_httpoxy_go() -> None:
    head = scan_request(request(b"Host: x", b"Keep-Alive: 5", b"Proxy: evil", b"Proxy-Authorization: x"), LINE, FIELDS)
    assert head.lines == []


def test_field_count() -> None:
    fields = [b"A: 1"] * FIELDS
    assert len(scan_request(request(*fields), LINE, FIELDS).lines) == FIELDS
    assert kind_of(request(*fields, b"A: 1")) is Kind.HEAD_TOO_LARGE


@given(st.binary(max_size=200))
def test_any_bytes_are_parsed_or_refused(data: bytes) -> None:
    for head in (data, request(data), request(b"Host: x", b"a: " + data)):
        try:
            parsed = scan_request(head, LINE, FIELDS)
        except Fault:
            continue
        # Nothing that could end a line early, or start another, gets into what is forwarded.
        assert not any(set(line) & {0, 10, 13} for line in parsed.lines)
        assert all(b":" in line for line in parsed.lines)


def test_response() -> None:
    head = scan_response(b"HTTP/1.1 404 Not Found\r\nContent-Length: 3\r\nSet-Cookie: a\r\nSet-Cookie: b", FIELDS)
    assert (head.status, head.reason, head.minor) == (404, b"404 Not Found", 1)
    assert head.lines == [b"Set-Cookie: a", b"Set-Cookie: b"]
    assert head.noted == {b"content-length": b"3"}


@pytest.mark.parametrize("first", [b"HTTP/1.1 200", b"HTTP/1.0 200 OK", b"HTTP/1.1 200 ", b"HTTP/1.1 299 \xe9t\xe9"])
def test_status_lines_accepted(first: bytes) -> None:
    assert scan_response(first, FIELDS).status in (200, 299)


@pytest.mark.parametrize(
    "head",
    [
        b"HTTP/2 200",
        b"HTTP/1.1 20 OK",
        b"HTTP/1.1 0200 OK",
        b"HTTP/1.1  200 OK",
        b"HTTP/1.1 200 OK\nA: b",
        b"HTTP/1.1 200 OK\r\nA b",
        b"HTTP/1.1 200 OK\r\nA : b",
        b"HTTP/1.1 200 OK\r\nContent-Length: 1\r\nContent-Length: 1",
        b"ICY 200 OK",
    ],
)
def test_responses_refused(head: bytes) -> None:
    with pytest.raises(Fault) as caught:
        scan_response(head, FIELDS)
    assert caught.value.kind is Kind.BAD_RESPONSE


@pytest.mark.parametrize(
    ("data", "kind"),
    [
        (b"GET / HTTP/1.1\nHost: x\n\n", Kind.BAD_REQUEST),
        (b"GET / HTTP/1.1\r\nA: b\rc", Kind.BAD_REQUEST),
        (b"GET / HTTP/1.1\r\nA: b\0c", Kind.BAD_REQUEST),
        (b"GET /" + b"a" * LINE, Kind.TARGET_TOO_LONG),
        (b"GET / HTTP/1.1\r\nA: " + b"b" * 40000, Kind.HEAD_TOO_LARGE),
    ],
)
def test_hopeless_beginnings_are_refused_at_once(data: bytes, kind: Kind) -> None:
    with pytest.raises(Fault) as caught:
        check_partial(data, 0, LINE, 32768)
    assert caught.value.kind is kind


@pytest.mark.parametrize("length", range(len(b"GET / HTTP/1.1\r\nHost: x\r\n\r")))
def test_every_beginning_of_a_good_head_may_go_on(length: int) -> None:
    data = b"GET / HTTP/1.1\r\nHost: x\r\n\r"[:length]
    for since in range(length + 1):
        check_partial(data, since, LINE, 32768)


@given(st.lists(st.sampled_from([b"\r", b"\n", b"\r\n", b"a", b"\0", b": "]), max_size=12))
def test_piece_by_piece_is_judged_like_the_whole(pieces: list[bytes]) -> None:
    def refused(data: bytes, since: int) -> bool:
        try:
            check_partial(data, since, LINE, 32768)
        except Fault:
            return True
        return False

    whole, seen = b"GET / HTTP/1.1\r\n" + b"".join(pieces), b"GET / HTTP/1.1\r\n"
    in_pieces = False
    for piece in pieces:
        in_pieces = in_pieces or refused(seen + piece, len(seen))
        seen += piece
    assert in_pieces == any(
        refused(whole[:end], 0)
        for end in range(16, len(whole) + 1)
        if whole[:end] in {b"GET / HTTP/1.1\r\n" + b"".join(pieces[:n]) for n in range(1, len(pieces) + 1)}
    )
