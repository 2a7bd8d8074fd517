"""Records of requests as the data path leaves them: single ones by hand, and a strategy for all of them."""

from __future__ import annotations

import socket
from dataclasses import dataclass
from typing import Any
from zlib import crc32

from hypothesis import strategies as st

from proxy.errors import Kind
from proxy.trace.handover import Record, read
from proxy.trace.record import AttemptRecord, Link, RequestRecord

START = 1_764_000_000_123_456_789  # ns, November 2025
US = 1_000  # ns


@dataclass
class Route:
    index: int = 3
    generation: int = 7
    namespace: str = "shop"
    name: str = "storefront"
    uid: str = "5e2f9f0c-8b1b-4a57-9f0e-1d2c3b4a5968"
    resource_version: str = "123456"
    path: str = "/api/cart"
    span_name: str = ""
    host: str = "shop.example"
    span_parts: bytes | None = None


@dataclass
class Upstream:
    local_address: str = "10.0.0.7"
    local_port: int = 51234
    peer_address: str = "10.0.1.9"
    peer_port: int = 8080
    span_attributes: bytes | None = None
    wire_ends: bytes | None = None
    tapped: bool = True


@dataclass
class Reading:
    rtt_us: int = 120
    min_rtt_us: int = 80
    retransmitted: int = 1
    segments: int = 12
    rwnd_limited_us: int = 4_000
    sndbuf_limited_us: int = 8_000
    delivery_rate: int = 11_776_000_000


_COUNTS = st.sampled_from([0, 1, 16_383, 16_384, 1 << 28, 1 << 42, (1 << 62) - 1, -1])
readings = st.none() | st.builds(Reading, *[_COUNTS] * 7)


def attempt(**changes: Any) -> AttemptRecord:
    """An attempt on a reused connection that was answered with 200."""
    made = AttemptRecord()
    values: dict[str, Any] = {
        "span_id": b"attempt1",
        "start_ns": START + 11 * US,
        "write_ns": START + 12 * US,
        "sent_ns": START + 15 * US,
        "first_byte_ns": START + 220 * US,
        "end_ns": START + 230 * US,
        "queue_ns": 0,
        "dns_ns": 0,
        "connect_ns": 0,
        "tls_ns": 0,
        "status": 200,
        "error_type": "",
        "abandoned": False,
        "until_close": False,
        "resend": 0,
        "reused": True,
        "scheme": "http",
        "host": "10.0.1.9",
        "port": 8080,
        "connection": Upstream(),
        "request_start": 40_000,
        "request_end": 40_321,
        "response_start": 90_000,
        "response_end": 90_555,
        "tcp": None,
        **changes,
    }
    for name, value in values.items():
        setattr(made, name, value)
    return made


def record(**changes: Any) -> RequestRecord:
    """A request that was routed, sent to one upstream and answered with 200."""
    made = RequestRecord()
    values: dict[str, Any] = {
        "trace_id": b"0123456789abcdef",
        "span_id": b"server01",
        "parent_id": b"",
        "flags": 1,
        "tracestate": b"",
        "link": None,
        "recorded": True,
        "method": b"GET",
        "scheme": "http",
        "host": b"shop.example.org",
        "server_port": 80,
        "path": b"/api/cart/items/42",
        "sent_path": b"",
        "query": b"",
        "version": 1,
        "user_agent": b"curl/8.9.1",
        "client_address": "192.0.2.44",
        "client_port": 0,
        "peer_address": "10.0.0.1",
        "peer_port": 40404,
        "route": Route(),
        "generation": 7,
        "status": 200,
        "error_type": "",
        "outcome": "",
        "start_ns": START,
        "admit_ns": START + 9 * US,
        "route_ns": START + 10 * US,
        "end_ns": START + 250 * US,
        "self_ns": 31 * US,
        "loop_lag_us": 12,
        "request_body_size": 0,
        "response_body_size": 430,
        "attempts": [attempt()],
        "tcp": None,
        **changes,
    }
    for name, value in values.items():
        setattr(made, name, value)
    return made


_LABELS = [kind.label for kind in Kind]
# From nothing to what no packed row holds.
_SIZES = st.sampled_from([0, 1, 127, 128, 16_383, 16_384, (1 << 28) - 1, 1 << 28, (1 << 42) - 1, 1 << 42, 1 << 62])
_TEXT = st.text(st.characters(exclude_categories=["Cs"], exclude_characters="\0"), min_size=1, max_size=20)
_DURATIONS = st.one_of(st.integers(0, 100_000), st.integers(0, 500_000_000_000))
_METHODS = st.sampled_from([b"GET", b"POST", b"QUERY", b"get", b"PURGE", b"M-SEARCH", b"X" * 100, b""])
_HOSTS = st.sampled_from(
    [b"", b"a", b"shop.example.org", b"[::1]", b"u:secret@h", b"\xff\xfe.example", b"h" * 200, b"h" * 300]
)
_STATUSES = st.sampled_from([0, 101, 200, 204, 302, 400, 404, 413, 499, 500, 502, 503, 504, 599])
_ADDRESSES = st.sampled_from(["", "192.0.2.44", "2001:db8::1", "x" * 70])


@st.composite
def attempts(draw: st.DrawFn, start: int) -> AttemptRecord:
    """An attempt that may have failed in any phase; its clock may have been set back."""
    at = start + draw(st.integers(-5_000, 50_000))
    phases = {name: draw(st.sampled_from([0, 0, 1, 999, 1_000, 250_000, 40_000_000]))
              for name in ("queue_ns", "dns_ns", "connect_ns", "tls_ns")}  # fmt: skip
    stage = draw(st.sampled_from(["unconnected", "unsent", "sending", "sent", "answered"]))
    values: dict[str, Any] = {"write_ns": 0, "sent_ns": 0, "first_byte_ns": 0, "status": 0, "connection": None}
    values |= {"request_start": 0, "request_end": 0, "response_start": 0, "response_end": 0}
    if stage != "unconnected":
        values["connection"] = Upstream(draw(_ADDRESSES), draw(st.integers(0, 65_535)), draw(_ADDRESSES), 8080)
    if stage in ("sending", "sent", "answered"):
        values["write_ns"] = at = at + draw(_DURATIONS)
        values["request_start"] = draw(_SIZES)
        values["request_end"] = values["request_start"] + draw(st.integers(1, 1 << 20))
    if stage in ("sent", "answered") and draw(st.booleans()):
        values["sent_ns"] = at = at + draw(_DURATIONS)
    if stage == "answered":
        values["first_byte_ns"] = at = at + draw(st.one_of(_DURATIONS, st.integers(-2_000, -1)))
        values["response_start"] = draw(_SIZES)
        values["response_end"] = values["response_start"] + draw(st.integers(1, 1 << 20))
        values["status"] = draw(_STATUSES)
    return attempt(
        span_id=draw(st.binary(min_size=8, max_size=8)),
        start_ns=start + draw(st.integers(-5_000, 50_000)),
        end_ns=at + draw(st.one_of(_DURATIONS, st.integers(-2_000, -1))),
        error_type=draw(st.sampled_from(["", "", "", *_LABELS])),
        resend=draw(st.integers(0, 3)),
        reused=draw(st.booleans()),
        scheme=draw(st.sampled_from(["http", "https"])),
        host=draw(st.sampled_from(["10.0.1.9", "2001:db8::9", "shop.svc", "b\u00fccher.example"])),
        port=draw(st.integers(1, 65_535)),
        tcp=draw(readings),
        **phases,
        **values,
    )


_links = st.builds(
    Link,
    st.binary(min_size=16, max_size=16),
    st.binary(min_size=8, max_size=8),
    st.sampled_from([0, 1, 3, 0x101]),
    st.sampled_from([b"", b"foo=1,bar=2"]),
)


@st.composite
def records(draw: st.DrawFn) -> RequestRecord:
    """Any request that may reach the encoder, also one that was refused before it had a path."""
    start = draw(st.integers(START, START + 10**15))
    admitted = draw(st.booleans())
    routed = admitted and draw(st.booleans())
    at = start
    stamps = {"admit_ns": 0, "route_ns": 0}
    if admitted:
        stamps["admit_ns"] = at = at + draw(st.one_of(_DURATIONS, st.integers(-2_000, -1)))
    if routed:
        stamps["route_ns"] = at = at + draw(st.one_of(_DURATIONS, st.integers(-2_000, -1)))
    route = None
    if routed and draw(st.booleans()):
        path = draw(st.sampled_from(["", "/", "/api/{x}", "/caf\u00e9", "/" + "p" * 300]))
        identity = (
            draw(_TEXT),
            draw(_TEXT),
            draw(st.sampled_from(["", "uid"])),
            draw(st.sampled_from(["", "1"])),
            path,
            draw(st.sampled_from(["", "", "checkout", "$request_method shop"])),
        )
        route = Route(crc32(repr(identity).encode()), 7, *identity)
    return record(
        trace_id=draw(st.binary(min_size=16, max_size=16)),
        span_id=draw(st.binary(min_size=8, max_size=8)),
        parent_id=draw(st.one_of(st.just(b""), st.binary(min_size=8, max_size=8))),
        flags=draw(st.sampled_from([1, 3, 0x101])),
        tracestate=draw(st.sampled_from([b"", b"ot=th:8", b"foo=1," + b"bar=" + b"x" * 250])),
        link=draw(st.none() | _links),
        method=draw(_METHODS),
        scheme=draw(st.sampled_from(["http", "https"])),
        host=draw(_HOSTS),
        server_port=draw(st.sampled_from([0, 80, 443, 65_535])),
        path=draw(st.sampled_from([b"", b"/", b"*", b"/a/b%20c", b"/\xff\xc3", b"/" + b"p" * 300, b"/" + b"p" * 9000])),
        sent_path=draw(st.sampled_from([b"", b"", b"/", b"/other/%2F", b"/" + b"q" * 9000])),
        query=draw(st.sampled_from([b"", b"a=1", b"sig=s3cret&a=1", b"a=\xff", b"q=" + b"x" * 9000])),
        version=draw(st.integers(0, 1)),
        user_agent=draw(st.one_of(st.just(b""), st.binary(max_size=40), st.just(b"\xf0\x9f\x90\x8d" * 300))),
        client_address=draw(_ADDRESSES),
        peer_address=draw(_ADDRESSES),
        peer_port=draw(st.sampled_from([0, 1, 16_383, 16_384, 65_535])),
        route=route,
        generation=draw(st.sampled_from([0, 1, 7])),
        status=draw(_STATUSES),
        error_type=draw(st.sampled_from(["", "", "", *_LABELS])),
        outcome=draw(st.sampled_from(["", "", "client_gone", "upgraded"])),
        start_ns=start,
        end_ns=at + draw(st.one_of(_DURATIONS, st.integers(-2_000, -1))),
        self_ns=draw(_DURATIONS),
        loop_lag_us=draw(st.sampled_from([0, 5, 16_383, 16_384, 2_000_000])),
        request_body_size=draw(_SIZES),
        response_body_size=draw(_SIZES),
        tcp=draw(readings),
        attempts=[draw(attempts(start)) for _ in range(draw(st.integers(0, 3)))],
        **stamps,
    )


def handed(wire: socket.socket) -> list[Record]:
    """The records of the next datagram that has some; others only say that a worker is there."""
    while True:
        _, rows = read(wire.recv(65536))
        if rows:
            return rows
