"""Row 30 and around it: what the upstream is told of the client, what both sides are told of each other's fields."""

from __future__ import annotations

import re
import socket
import struct
from collections.abc import Callable, Iterator

import pytest

from tests.edge.conftest import clean
from tests.harness.certificates import any_server
from tests.harness.client import Client
from tests.harness.edge import Edge, request, sized
from tests.harness.feed import Feed
from tests.harness.upstream import answer
from tests.harness.wire import Request

TRACE, PARENT = "0af7651916cd43dd8448eb211c80319c", "b7ad6b7169203331"
TRACEPARENT = re.compile(r"00-([0-9a-f]{32})-([0-9a-f]{16})-([0-9a-f]{2})\Z")
UBER = re.compile(r"([0-9a-f]{32})(?::|%3A)([0-9a-f]{16})(?::|%3A)([0-9a-f]+)(?::|%3A)([0-9a-f]+)\Z")
STRANGER = "203.0.113.7"


@pytest.fixture(scope="module")
def distrustful(launch: Callable[..., Edge]) -> Edge:
    return launch("--trust", "none")


@pytest.fixture
def wary(distrustful: Edge) -> Iterator[Edge]:
    """A proxy that trusts nobody."""
    yield from clean(distrustful)


@pytest.fixture(scope="module")
def trusting(launch: Callable[..., Edge]) -> Edge:
    return launch("--trust", "all", "--via", "--forwarded")


@pytest.fixture
def naive(trusting: Edge) -> Iterator[Edge]:
    """A proxy that trusts everybody, and sends Via and Forwarded."""
    yield from clean(trusting)


@pytest.fixture(scope="module")
def preceded(launch: Callable[..., Edge]) -> Edge:
    return launch("--proxy-protocol")


@pytest.fixture
def behind(preceded: Edge) -> Iterator[Edge]:
    """A proxy whose listener expects the PROXY protocol."""
    yield from clean(preceded)


@pytest.fixture(scope="module")
def unsampled(launch: Callable[..., Edge]) -> Edge:
    return launch(environment={"OTEL_TRACES_SAMPLER": "parentbased_always_off"})


@pytest.fixture
def quiet(unsampled: Edge) -> Iterator[Edge]:
    """A proxy that starts no trace of its own."""
    yield from clean(unsampled)


# X-Forwarded-*.


def forwarded(seen: Request) -> tuple[str, str, str, str]:
    """For, Host, Proto and Port: each of them exactly once."""
    fields = seen.fields
    return (
        fields.one("X-Forwarded-For"),
        fields.one("X-Forwarded-Host"),
        fields.one("X-Forwarded-Proto"),
        fields.one("X-Forwarded-Port"),
    )


def test_forwarded_fields_are_made(edge: Edge) -> None:
    seen = edge.passed(request())
    assert forwarded(seen) == ("127.0.0.1", "a.test", "http", str(edge.proxy.address[1]))
    assert seen.host == "a.test"


def test_forwarded_fields_over_tls(edge: Edge) -> None:
    with Client(edge.proxy.tls_address, tls=any_server(), server_name="a.test") as client:
        assert client.ask(request()).status == 200
    seen = edge.a.one()
    assert forwarded(seen)[1:] == ("a.test", "https", str(edge.proxy.tls_address[1]))


def test_forwarded_port_is_the_one_asked_for(edge: Edge) -> None:
    seen = edge.passed(request(host="a.test:8443"))
    assert forwarded(seen)[3] in ("8443", str(edge.proxy.address[1]))
    assert seen.fields.one("X-Forwarded-Host").startswith("a.test")


SUPPLIED = [
    f"X-Forwarded-For: {STRANGER}",
    "X-Forwarded-Host: shop.example",
    "X-Forwarded-Proto: https",
    "X-Forwarded-Port: 443",
]


def test_trusted_peer_is_believed(edge: Edge) -> None:
    seen = edge.passed(request(*SUPPLIED))
    assert forwarded(seen) == (f"{STRANGER}, 127.0.0.1", "shop.example", "https", "443")
    assert seen.fields.one("X-Real-IP") == STRANGER


def test_untrusted_peer_is_overwritten(wary: Edge) -> None:
    seen = wary.passed(request(*SUPPLIED, "X-Real-IP: 6.6.6.6"))
    assert forwarded(seen) == ("127.0.0.1", "a.test", "http", str(wary.proxy.address[1]))
    assert seen.fields.one("X-Real-IP") == "127.0.0.1"
    assert b"203.0.113.7" not in seen.head
    assert b"6.6.6.6" not in seen.head


@pytest.mark.parametrize("name", ["Forwarded", "X-Real-IP", "X-Forwarded-For", "X-Forwarded-Host", "X-Forwarded-Proto"])
@pytest.mark.parametrize("case", [str.lower, str.upper], ids=["lower", "upper"])
def test_untrusted_fields_do_not_pass_in_any_case(wary: Edge, name: str, case: Callable[[str], str], how: Feed) -> None:
    seen = wary.passed(request(f"{case(name)}: for=6.6.6.6", f"{name}: for=6.6.6.6"), how)
    assert b"6.6.6.6" not in seen.head


@pytest.mark.parametrize(
    ("supplied", "client"),
    [
        ("203.0.113.7", "203.0.113.7"),
        ("6.6.6.6, 203.0.113.7", "203.0.113.7"),  # the right-most stranger: left of him anybody could have written
        ("6.6.6.6, 203.0.113.7, 10.1.2.3", "203.0.113.7"),
        ("10.1.2.3", "10.1.2.3"),
        ("2001:db8::1", "2001:db8::1"),
        ("[2001:db8::1]:443", "2001:db8::1"),
        ("203.0.113.7:1234", "203.0.113.7"),
    ],
)
def test_client_address_is_the_right_most_stranger(edge: Edge, supplied: str, client: str) -> None:
    seen = edge.passed(request(f"X-Forwarded-For: {supplied}"))
    assert seen.fields.one("X-Real-IP") == client


def test_several_lines_are_one_list(edge: Edge) -> None:
    # RFC 9110 section 5.3: field lines combine in order; the last line is the nearest hop.
    seen = edge.passed(request("X-Forwarded-For: 6.6.6.6", f"X-Forwarded-For: {STRANGER}"))
    assert seen.fields.one("X-Real-IP") == STRANGER
    assert seen.fields.one("X-Forwarded-For").endswith(f"{STRANGER}, 127.0.0.1")


@pytest.mark.parametrize(
    "value", ["unknown", "", ", ,", "<script>", "1.2.3.4.5", "a" * 2000, "127.0.0.1\t", "%0d%0aX-Evil: 1", "999.1.1.1"]
)
def test_unreadable_chain_is_not_believed(edge: Edge, value: str) -> None:
    seen = edge.passed(request(f"X-Forwarded-For: {value}"))
    assert seen.fields.one("X-Real-IP") == "127.0.0.1"
    assert "X-Evil" not in seen.fields


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("X-Forwarded-Proto", "javascript"),
        ("X-Forwarded-Proto", "http\thttps"),
        ("X-Forwarded-Host", "a b"),
        ("X-Forwarded-Host", '"><script>'),
        ("X-Forwarded-Host", "evil.test/path"),
        ("X-Forwarded-Port", "-1"),
        ("X-Forwarded-Port", "99999"),
        ("X-Forwarded-Port", "http"),
    ],
)
def test_malformed_claims_count_as_absent(edge: Edge, name: str, value: str) -> None:
    seen = edge.passed(request(f"{name}: {value}"))
    assert forwarded(seen) == ("127.0.0.1", "a.test", "http", str(edge.proxy.address[1]))


def test_trust_all_believes_the_left_most(naive: Edge) -> None:
    seen = naive.passed(request("X-Forwarded-For: 6.6.6.6, 203.0.113.7"))
    assert seen.fields.one("X-Real-IP") == "6.6.6.6"


def test_forwarded_and_via_are_off(edge: Edge) -> None:
    seen = edge.passed(request())
    assert "Forwarded" not in seen.fields
    assert "Via" not in seen.fields


def test_forwarded_and_via_by_setting(naive: Edge) -> None:
    seen = naive.passed(request("Via: 1.0 before"))
    # RFC 7239 section 4; RFC 9110 section 7.6.3: appended, with the protocol version we received.
    assert "for=127.0.0.1" in seen.fields.one("Forwarded")
    assert "proto=http" in seen.fields.one("Forwarded")
    via = ", ".join(seen.fields.all("Via"))
    assert re.fullmatch(r"1\.0 before, 1\.1 \S+", via), via


# PROXY protocol.

V2 = b"\r\n\r\n\x00\r\nQUIT\n"


def v2(command: int, family: int, addresses: bytes) -> bytes:
    return V2 + struct.pack("!BBH", 0x20 | command, family, len(addresses)) + addresses


def v2_tcp4(source: str = STRANGER, port: int = 4711) -> bytes:
    return v2(1, 0x11, socket.inet_aton(source) + socket.inet_aton("192.0.2.1") + struct.pack("!HH", port, 443))


V6 = socket.inet_pton(socket.AF_INET6, "2001:db8::7") + socket.inet_pton(socket.AF_INET6, "2001:db8::1")

PREAMBLES = {
    "v1-tcp4": (f"PROXY TCP4 {STRANGER} 192.0.2.1 4711 443\r\n".encode(), STRANGER),
    "v1-tcp6": (b"PROXY TCP6 2001:db8::7 2001:db8::1 4711 443\r\n", "2001:db8::7"),
    "v1-unknown": (b"PROXY UNKNOWN\r\n", "127.0.0.1"),
    "v1-unknown-more": (b"PROXY UNKNOWN ffff::1 ffff::2 1 2\r\n", "127.0.0.1"),
    "v2-tcp4": (v2_tcp4(), STRANGER),
    "v2-tcp6": (v2(1, 0x21, V6 + struct.pack("!HH", 4711, 443)), "2001:db8::7"),
    "v2-local": (v2(0, 0x00, b""), "127.0.0.1"),
    "v2-local-more": (v2(0, 0x11, b"x" * 12), "127.0.0.1"),
    "v2-tlv": (v2(1, 0x11, v2_tcp4()[16:] + b"\x04\x00\x03abc"), STRANGER),
}

BAD_PREAMBLES = {
    "none": b"",
    "v1-lower": b"proxy TCP4 203.0.113.7 192.0.2.1 4711 443\r\n",
    "v1-lf": b"PROXY TCP4 203.0.113.7 192.0.2.1 4711 443\n",
    "v1-two-spaces": b"PROXY  TCP4 203.0.113.7 192.0.2.1 4711 443\r\n",
    "v1-missing": b"PROXY TCP4 203.0.113.7 192.0.2.1 4711\r\n",
    "v1-more": b"PROXY TCP4 203.0.113.7 192.0.2.1 4711 443 1\r\n",
    "v1-bad-address": b"PROXY TCP4 203.0.113.777 192.0.2.1 4711 443\r\n",
    "v1-wrong-family": b"PROXY TCP4 2001:db8::7 2001:db8::1 4711 443\r\n",
    "v1-bad-port": b"PROXY TCP4 203.0.113.7 192.0.2.1 65536 443\r\n",
    "v1-udp": b"PROXY UDP4 203.0.113.7 192.0.2.1 4711 443\r\n",
    "v1-endless": b"PROXY TCP4 " + b"1" * 200,
    "v2-version": V2 + b"\x11\x11\x00\x0c" + v2_tcp4()[16:],
    "v2-command": v2(2, 0x11, v2_tcp4()[16:]),
    "v2-short": v2(1, 0x11, b"x" * 4),
    "v2-huge": V2 + b"\x21\x11\xff\xff" + b"x" * 100,
}


@pytest.mark.parametrize(("preamble", "client_address"), PREAMBLES.values(), ids=PREAMBLES)
def test_proxy_protocol(behind: Edge, preamble: bytes, client_address: str, how: Feed) -> None:
    with behind.client() as client:
        assert client.ask(preamble + request(), how).status == 200
        assert client.ask(request(target="/second"), how).status == 200
    for seen in behind.a.requests:
        assert seen.fields.one("X-Real-IP") == client_address
        assert seen.fields.one("X-Forwarded-For") == client_address


@pytest.mark.parametrize("preamble", BAD_PREAMBLES.values(), ids=BAD_PREAMBLES)
def test_malformed_proxy_protocol(behind: Edge, preamble: bytes, how: Feed) -> None:
    # Nothing can be answered: the peer is a load balancer, and what it would forward is no answer to its client.
    how = Feed.WHOLE if len(preamble) > 150 else how
    with behind.client() as client:
        client.send(preamble + request(), how)
        client.finish_writing()
        assert client.stream.rest() == b""
    assert not behind.a.requests


def test_proxy_protocol_stranger_is_not_trusted(behind: Edge) -> None:
    # Trust is judged on the address the PROXY header gives: who sent the bytes is only the load balancer.
    with behind.client(preamble=v2_tcp4()) as client:
        assert client.ask(request("X-Forwarded-For: 6.6.6.6", "X-Forwarded-Proto: https")).status == 200
    assert forwarded(behind.a.one())[:3] == (STRANGER, "a.test", "http")


def test_proxy_protocol_is_not_read_without_the_setting(edge: Edge, how: Feed) -> None:
    for preamble, _ in PREAMBLES.values():
        with edge.client() as client:
            client.send(preamble + request(), how)
            heard = client.stream.rest()
            assert heard.startswith(b"HTTP/1.1 400 ") or heard == b""
    assert not edge.a.requests


# X-Request-ID.


def test_request_id_is_made(edge: Edge) -> None:
    with edge.client() as client:
        client.ask(request())
        client.ask(request())
    first, second = (seen.fields.one("X-Request-ID") for seen in edge.a.requests)
    assert re.fullmatch(r"[A-Za-z0-9-]{16,64}", first)
    assert first != second


def test_request_id_is_kept_from_the_trusted(edge: Edge) -> None:
    seen = edge.passed(request("X-Request-ID: abc-123"))
    assert seen.fields.one("X-Request-ID") == "abc-123"


def test_request_id_is_replaced_from_others(wary: Edge) -> None:
    seen = wary.passed(request("X-Request-ID: abc-123"))
    assert seen.fields.one("X-Request-ID") != "abc-123"


@pytest.mark.parametrize("value", ["", "a" * 2000, "a b", "\xe9", '"x"', "<x>"])
def test_unusable_request_id_is_replaced(edge: Edge, value: str) -> None:
    seen = edge.passed(request(f"X-Request-ID: {value}"))
    assert re.fullmatch(r"[A-Za-z0-9-]{16,64}", seen.fields.one("X-Request-ID"))


def test_several_request_ids_become_one(edge: Edge) -> None:
    seen = edge.passed(request("X-Request-ID: one", "X-Request-ID: two"))
    assert len(seen.fields.all("X-Request-ID")) == 1


# Ordinary fields, both ways.

ORDINARY = [
    ("User-Agent", "t/1"),
    ("Accept", "a/b"),
    ("Cookie", "a=1"),
    ("X-Many", "1"),
    ("Cookie", "b=2"),
    ("x-many", "2"),
    ("Authorization", "Basic eDp5"),
    ("X-Many", "3"),
    ("If-None-Match", '"x"'),
    ("Range", "bytes=0-1"),
    ("Content-Type", "text/plain"),
    ("X-Empty", ""),
]


def test_request_fields_keep_order_and_duplicates(edge: Edge, how: Feed) -> None:
    seen = edge.passed(sized(b"hello", *[f"{name}: {value}" for name, value in ORDINARY]), how, body=b"hello")
    wanted = [(name.lower().encode(), value.encode()) for name, value in ORDINARY]
    names = {name for name, _ in wanted}
    assert [pair for pair in seen.fields if pair[0] in names] == wanted


def test_field_names_keep_their_case(edge: Edge) -> None:
    # Case means nothing (RFC 9110 section 5.1), yet there are applications that look; nginx keeps it.
    assert b"\r\nX-CamelCase: v\r\n" in edge.passed(request("X-CamelCase: v")).head


def test_response_fields_keep_order_and_duplicates(edge: Edge, how: Feed) -> None:
    fields = [
        (b"Set-Cookie", b"a=1; Path=/"),
        (b"Server", b"app"),
        (b"Set-Cookie", b"b=2"),
        (b"Date", b"Thu, 01 Jan 1970 00:00:00 GMT"),
        (b"Vary", b"A"),
        (b"X-Empty", b""),
        (b"Vary", b"B"),
        (b"Content-Type", b"text/plain"),
        (b"X_Underscore", b"1"),
    ]
    lines = b"".join(b"%b: %b\r\n" % pair for pair in fields)
    edge.a.script = answer(b"HTTP/1.1 200 OK\r\n" + lines + b"Content-Length: 2\r\n\r\nok", how)
    with edge.client() as client:
        response = client.ask(request())
    wanted = [(name.lower(), value) for name, value in fields]
    names = {name for name, _ in wanted}
    assert [pair for pair in response.fields if pair[0] in names] == wanted


@pytest.mark.parametrize(
    "status",
    [
        b"200 OK",
        b"201 Created",
        b"302 Found",
        b"404 Not Found",
        b"418 I'm a teapot",
        b"500 Oops",
        b"599 Odd",
        b"299 Fine",
        b"999 Strange",
    ],
)
def test_status_and_reason_pass(edge: Edge, status: bytes) -> None:
    edge.a.script = answer(b"HTTP/1.1 " + status + b"\r\nContent-Length: 2\r\n\r\nok")
    with edge.client() as client:
        response = client.ask(request())
    assert f"{response.status} {response.reason}".encode() == status


@pytest.mark.parametrize(
    "lines",
    [
        b"Connection: keep-alive\r\nKeep-Alive: timeout=5\r\n",
        b"Connection: close\r\n",
        b"Connection: X-Hop\r\nX-Hop: 1\r\n",
        b"Connection: close, x-hop\r\nX-Hop: 1\r\n",
        b"Proxy-Connection: keep-alive\r\n",
        b"Upgrade: h2c\r\nConnection: Upgrade\r\n",
    ],
)
def test_response_hop_by_hop_fields_are_removed(edge: Edge, lines: bytes, how: Feed) -> None:
    edge.a.script = answer(
        b"HTTP/1.1 200 OK\r\n" + lines + b"X-Kept: 1\r\nContent-Length: 2\r\n\r\nok", how, close=b"close" in lines
    )
    with edge.client() as client:
        response = client.ask(request())
        assert (response.status, response.body) == (200, b"ok")
        for name in ("Keep-Alive", "X-Hop", "Proxy-Connection", "Upgrade"):
            assert name not in response.fields
        assert response.fields.one("X-Kept") == "1"
        assert "close" not in (response.fields.get("Connection") or ""), "the upstream's close became ours"
        edge.probe(client, "b.test")


@pytest.mark.parametrize("nominated", [b"Content-Length", b"Content-Type", b"Set-Cookie"])
def test_response_cannot_nominate_away_what_matters(edge: Edge, nominated: bytes) -> None:
    edge.a.script = answer(b"HTTP/1.1 200 OK\r\nConnection: " + nominated + b"\r\nContent-Length: 2\r\n\r\nok")
    with edge.client() as client:
        response = client.ask(request())
        assert response.status == 502 or (response.body, response.framing) == (b"ok", "length")


def test_upstream_speaks_1_1_and_is_kept(edge: Edge) -> None:
    with edge.client() as client:
        client.ask(request("Connection: close"))
    with edge.client() as client:
        client.ask(request(version="1.0", host="a.test"))
    assert [seen.minor for seen in edge.a.requests] == [1, 1]
    assert len(edge.a.connections) == 1, "the client's close closed the upstream connection"
    for seen in edge.a.requests:
        assert "close" not in (seen.fields.get("Connection") or "")


# Context.


def contexts(seen: Request) -> tuple[tuple[str, str, str], tuple[str, str, str]]:
    """(trace, span, flags) of traceparent and of uber-trace-id, each exactly once."""
    w3c = TRACEPARENT.match(seen.fields.one("traceparent"))
    jaeger = UBER.match(seen.fields.one("uber-trace-id"))
    assert w3c
    assert jaeger
    return (w3c[1], w3c[2], w3c[3]), (jaeger[1], jaeger[2], jaeger[4])


def test_context_is_made(edge: Edge) -> None:
    w3c, jaeger = contexts(edge.passed(request()))
    assert w3c[:2] == jaeger[:2]
    assert int(w3c[2], 16) & 1 == int(jaeger[2], 16) & 1 == 1
    assert w3c[0] != "0" * 32


def test_context_is_continued_with_a_new_parent(edge: Edge) -> None:
    seen = edge.passed(request(f"traceparent: 00-{TRACE}-{PARENT}-01", "tracestate: a=1,b=2"))
    w3c, jaeger = contexts(seen)
    assert w3c[0] == jaeger[0] == TRACE
    assert w3c[1] == jaeger[1] != PARENT
    assert ",".join(seen.fields.all("tracestate")).replace(" ", "") == "a=1,b=2"


def test_jaeger_context_is_continued(edge: Edge) -> None:
    w3c, jaeger = contexts(edge.passed(request(f"uber-trace-id: {TRACE}:{PARENT}:0:1")))
    assert w3c[0] == jaeger[0] == TRACE
    assert w3c[1] != PARENT


def test_precedence_is_the_list_of_formats(edge: Edge) -> None:
    other = "f" * 32
    w3c, _ = contexts(
        edge.passed(request(f"uber-trace-id: {other}:{PARENT}:0:1", f"traceparent: 00-{TRACE}-{PARENT}-01"))
    )
    assert w3c[0] == TRACE


def test_every_attempt_has_its_own_parent(edge: Edge) -> None:
    with edge.client() as client:
        for _ in range(3):
            client.ask(request(f"traceparent: 00-{TRACE}-{PARENT}-01"))
    spans = [contexts(seen)[0][1] for seen in edge.a.requests]
    assert len(set(spans)) == 3


@pytest.mark.parametrize(
    "value",
    [
        f"00-{TRACE}-{PARENT}",
        f"00-{TRACE}-{PARENT}-1",
        f"00-{TRACE}-{PARENT}-01-x",
        f"00-{'0' * 32}-{PARENT}-01",
        f"00-{TRACE}-{'0' * 16}-01",
        f"00-{TRACE.upper()}-{PARENT}-01",
        f"ff-{TRACE}-{PARENT}-01",
        f"00-{TRACE[:-1]}g-{PARENT}-01",
        "",
        "x" * 5000,
    ],
)
def test_malformed_context_starts_a_new_trace(edge: Edge, value: str) -> None:
    w3c, _ = contexts(edge.passed(request(f"traceparent: {value}")))
    assert w3c[0].lower() != TRACE


def test_two_contexts_are_none(edge: Edge) -> None:
    # W3C Trace Context section 3.2: a doubled traceparent is invalid.
    seen = edge.passed(request(f"traceparent: 00-{TRACE}-{PARENT}-01", f"traceparent: 00-{'f' * 32}-{PARENT}-01"))
    w3c, _ = contexts(seen)
    assert w3c[0] not in (TRACE, "f" * 32)


def test_stranger_does_not_choose_the_trace(wary: Edge) -> None:
    seen = wary.passed(
        request(f"traceparent: 00-{TRACE}-{PARENT}-00", "tracestate: evil=1", f"uber-trace-id: {TRACE}:{PARENT}:0:3")
    )
    w3c, jaeger = contexts(seen)
    assert w3c[0] != TRACE
    assert w3c[2] == "01", "a stranger switched tracing off"
    assert int(jaeger[2], 16) & 2 == 0, "a stranger asked for debug"
    assert b"evil" not in seen.head


def test_stranger_behind_a_trusted_peer_is_a_stranger(edge: Edge) -> None:
    # Trust is judged on the resolved client address (design, section 4).
    w3c, _ = contexts(edge.passed(request(f"X-Forwarded-For: {STRANGER}", f"traceparent: 00-{TRACE}-{PARENT}-01")))
    assert w3c[0] != TRACE


def test_unsampled_context_passes_unchanged(edge: Edge) -> None:
    # envoy#38222: never inject the id of a span that will not be exported.
    seen = edge.passed(request(f"traceparent: 00-{TRACE}-{PARENT}-00", "tracestate: a=1"))
    assert seen.fields.one("traceparent") == f"00-{TRACE}-{PARENT}-00"
    assert seen.fields.one("tracestate") == "a=1"


def test_nothing_sampled_is_a_fresh_unsampled_context(quiet: Edge) -> None:
    # So that nothing behind the proxy starts a trace of its own.
    w3c, jaeger = contexts(quiet.passed(request()))
    assert w3c[2] == "00"
    assert int(jaeger[2], 16) & 1 == 0
    assert w3c[0] != "0" * 32


def test_parent_based_sampling_follows_the_parent(quiet: Edge) -> None:
    w3c, _ = contexts(quiet.passed(request(f"traceparent: 00-{TRACE}-{PARENT}-01")))
    assert (w3c[0], w3c[2]) == (TRACE, "01")
    assert w3c[1] != PARENT


def test_baggage_passes(edge: Edge) -> None:
    seen = edge.passed(request("baggage: a=1,b=2", "uberctx-k: v"))
    assert seen.fields.one("baggage") == "a=1,b=2"
    assert seen.fields.one("uberctx-k") == "v"


# What must not be turned into a field.


@pytest.mark.parametrize("host", ["a.test", "a.test:80"])
def test_host_is_there_once_and_first_hand(edge: Edge, host: str) -> None:
    seen = edge.passed(request("X-Forwarded-Host: b.test", host=host))
    assert seen.host == host


def test_traceresponse_is_off(edge: Edge) -> None:
    with edge.client() as client:
        assert "traceresponse" not in client.ask(request()).fields
