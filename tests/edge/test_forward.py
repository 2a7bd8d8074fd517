"""Row 30 and around it: what the upstream is told of the client, what both sides are told of each other's fields."""

from __future__ import annotations

import re
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
def trusting(launch: Callable[..., Edge]) -> Edge:
    return launch("--trust", "all", "--via", "--forwarded")


@pytest.fixture
def naive(trusting: Edge) -> Iterator[Edge]:
    """A proxy that trusts everybody, and sends Via and Forwarded."""
    yield from clean(trusting)


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


def made(edge: Edge, seen: Request, scheme: str = "http") -> bool:
    """Whether the fields say what we saw ourselves. Host names no port here, so the port is the listener's."""
    port = (edge.proxy.tls_address if scheme == "https" else edge.proxy.address)[1]
    return forwarded(seen) == ("127.0.0.1", "a.test", scheme, str(port))


def test_forwarded_fields_are_made(edge: Edge) -> None:
    seen = edge.passed(request())
    assert made(edge, seen), seen.fields
    assert seen.host == "a.test"


def test_forwarded_fields_over_tls(edge: Edge) -> None:
    with Client(edge.proxy.tls_address, tls=any_server(), server_name="a.test") as client:
        assert client.ask(request()).status == 200
    assert made(edge, edge.a.one(), "https")


def test_forwarded_port_is_the_one_asked_for(edge: Edge) -> None:
    seen = edge.passed(request(host="a.test:8443"))
    assert forwarded(seen)[3] == "8443"
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
    assert made(wary, seen), seen.fields
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
    assert made(edge, seen), seen.fields


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


# What must not be turned into a field.


@pytest.mark.parametrize("host", ["a.test", "a.test:80"])
def test_host_is_there_once_and_first_hand(edge: Edge, host: str) -> None:
    seen = edge.passed(request("X-Forwarded-Host: b.test", host=host))
    assert seen.host == host


def test_traceresponse_is_off(edge: Edge) -> None:
    with edge.client() as client:
        assert "traceresponse" not in client.ask(request()).fields
