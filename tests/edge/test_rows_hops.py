"""Rows 22 to 24: fields and promises between neighbours: Connection, Expect, Upgrade (RFC 9110 sections 7, 10)."""

from __future__ import annotations

import threading
from collections.abc import Callable

import pytest

from tests.harness.edge import Edge, nothing_more, request, sized
from tests.harness.feed import Feed
from tests.harness.upstream import Exchange, answer, in_turn

SWITCH = b"HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\r\n"
SMUGGLED = b"GET /smuggled HTTP/1.1\r\nHost: a.test\r\n\r\n"

# Row 22: connection-specific fields go no further (RFC 9110 section 7.6.1).


@pytest.mark.parametrize(
    "line",
    [
        "Keep-Alive: timeout=5",
        "Proxy-Connection: keep-alive",
        "TE: gzip",
        "TE: deflate, trailers;q=0.5",
        "Upgrade: h2c",
        "Connection: keep-alive",
    ],
)
def test_row_22_hop_by_hop_fields_are_removed(edge: Edge, line: str, how: Feed) -> None:
    name, _, value = line.partition(": ")
    seen = edge.passed(request(line, "X-Kept: 1"), how)
    assert value not in seen.fields.all(name)
    assert seen.fields.one("X-Kept") == "1"


@pytest.mark.parametrize(
    ("connection", "gone"),
    [
        (["X-Foo"], ["X-Foo"]),
        (["x-foo"], ["X-Foo"]),
        (["keep-alive, X-Foo"], ["X-Foo"]),
        (["X-Foo,X-Bar"], ["X-Foo", "X-Bar"]),
        (["X-Foo", "X-Bar"], ["X-Foo", "X-Bar"]),
        ([" , X-Foo ,, "], ["X-Foo"]),
    ],
)
def test_row_22_nominated_fields_are_removed(edge: Edge, connection: list[str], gone: list[str], how: Feed) -> None:
    lines = [f"Connection: {value}" for value in connection]
    seen = edge.passed(request(*lines, "X-Foo: 1", "X-Bar: 2", "X-Kept: 3", "x-foo: 4"), how)
    assert not [name for name in gone if name in seen.fields], seen.fields
    assert [name for name in ("X-Foo", "X-Bar", "X-Kept") if name in seen.fields] == [
        name for name in ("X-Foo", "X-Bar", "X-Kept") if name not in gone
    ]


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("Host", ""),
        ("Content-Length", ""),
        ("Authorization", "Basic eDp5"),
        ("traceparent", ""),
        ("X-Forwarded-For", ""),
        ("X-Forwarded-Proto", ""),
        ("X-Forwarded-Host", ""),
        ("X-Forwarded-Port", ""),
    ],
)
@pytest.mark.parametrize("case", [str, str.lower, str.upper], ids=["as-is", "lower", "upper"])
def test_row_22_refused_nominations(edge: Edge, name: str, value: str, case: Callable[[str], str], how: Feed) -> None:
    # A client must not make us drop what the upstream relies on (row 22: "refuse nomination").
    lines = [f"Connection: close, {case(name)}"] + ([f"{name}: {value}"] if value else [])
    edge.refused(sized(b"hello", *lines), 400, how)


def test_row_22_te_is_only_ever_trailers(edge: Edge, how: Feed) -> None:
    seen = edge.passed(request("TE: trailers", "Connection: TE"), how)
    assert seen.fields.all("TE") in ([], ["trailers"])


@pytest.mark.parametrize("value", ["close, \x00", "@", "X Foo", "close;"])
def test_row_22_malformed_connection_does_no_harm(edge: Edge, value: str) -> None:
    with edge.client() as client:
        assert client.ask(request(f"Connection: {value}", "X-Kept: 1")).status in (200, 400)
    for seen in edge.a.complete:
        assert seen.fields.one("X-Kept") == "1"


# Row 23: Expect (RFC 9110 section 10.1.1): the upstream's own 100, end to end.


def continue_then_ok(exchange: Exchange) -> None:
    assert exchange.request.fields.one("Expect").lower() == "100-continue"
    exchange.send(b"HTTP/1.1 100 Continue\r\n\r\n")
    exchange.read_body()
    exchange.send(b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok")


@pytest.mark.parametrize("value", ["100-continue", "100-Continue"])
def test_row_23_continue_is_relayed(edge: Edge, value: str, how: Feed) -> None:
    edge.a.script = in_turn(continue_then_ok, answer())
    with edge.client() as client:
        client.send(request("Content-Length: 5", f"Expect: {value}", method="POST"), how)
        while b"\r\n\r\n" not in client.stream.buffer:
            assert client.stream.fill(), "closed instead of 100"
        assert client.stream.buffer.startswith(b"HTTP/1.1 100 ")
        assert edge.a.requests[0].body == b""
        response = client.ask(b"hello", how)
        assert [item.status for item in response.interim] == [100]
        assert response.status == 200
        edge.probe(client)
    assert edge.a.requests[0].body == b"hello"


def test_row_23_continue_is_not_ours_to_send(edge: Edge) -> None:
    # Until the upstream has said so, the client waits.
    release = threading.Event()

    def later(exchange: Exchange) -> None:
        exchange.hold(release)
        continue_then_ok(exchange)

    edge.a.script = later
    with edge.client() as client:
        client.send(request("Content-Length: 5", "Expect: 100-continue", method="POST"))
        edge.a.wait(1)
        assert not client.closed(0.05)
        assert not client.stream.buffer
        release.set()
        response = client.ask(b"hello")
        assert ([item.status for item in response.interim], response.status) == ([100], 200)


def test_row_23_final_answer_instead(edge: Edge, how: Feed) -> None:
    # The body never comes; the next bytes of the client are the next request, or nothing at all: we cannot know.
    edge.a.script = lambda exchange: exchange.send(b"HTTP/1.1 403 Forbidden\r\nContent-Length: 2\r\n\r\nno")
    with edge.client() as client:
        response = client.ask(request("Content-Length: 5", "Expect: 100-continue", method="POST"), how)
        assert (response.status, response.body, response.interim) == (403, b"no", [])
        assert nothing_more(client)
    edge.a.wait_closed()
    assert not edge.a.complete


@pytest.mark.parametrize("value", ["200-ok", "100-continue, x", "nothing", "100"])
def test_row_23_other_expectations(edge: Edge, value: str, how: Feed) -> None:
    edge.refused(sized(b"hello", f"Expect: {value}"), 417, how, closes=None)


def test_row_23_two_expectations(edge: Edge, how: Feed) -> None:
    edge.refused(request("Expect: 100-continue", "Expect: x", "Content-Length: 5", method="POST"), {400, 417}, how)


def test_row_23_not_to_http_1_0(edge: Edge, how: Feed) -> None:
    # RFC 9110 section 10.1.1: MUST ignore the expectation of an HTTP/1.0 request.
    edge.a.script = answer(b"HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok")
    with edge.client() as client:
        response = client.ask(sized(b"hello", "Expect: 100-continue", version="1.0"), how)
        assert (response.status, response.interim) == (200, [])
        assert client.closed()
    assert edge.a.one().body == b"hello"


# Row 24: Upgrade (RFC 9110 section 7.8): GET, HTTP/1.1 and a Connection that says so, or it is no upgrade.


@pytest.mark.parametrize(
    "raw",
    [
        sized(b"", "Connection: Upgrade", "Upgrade: websocket"),
        request("Upgrade: websocket"),
        request("Connection: keep-alive", "Upgrade: websocket"),
        request("Connection: keep-alive, Upgrade", "Upgrade: websocket", version="1.0"),
        request("Connection: Upgrade", "Upgrade:"),
        request("Connection: Upgrade"),
    ],
    ids=["post", "no-connection", "other-connection", "http-1.0", "empty", "no-upgrade"],
)
def test_row_24_no_upgrade(edge: Edge, raw: bytes, how: Feed) -> None:
    with edge.client() as client:
        assert client.ask(raw, how).status == 200
    seen = edge.a.one()
    assert "Upgrade" not in seen.fields
    assert "upgrade" not in (seen.fields.get("Connection") or "").lower()


@pytest.mark.parametrize("token", ["h2c", "H2C", "h2", "h2c, h2", "HTTP/2.0", "TLS/1.2, HTTP/2.0"])
def test_row_24_h2c_is_removed(edge: Edge, token: str, how: Feed) -> None:
    raw = request(
        "Connection: Upgrade, HTTP2-Settings", f"Upgrade: {token}", "HTTP2-Settings: AAMAAABkAARAAAAAAAIAAAAA"
    )
    if "TLS" in token or "HTTP/" in token:
        # Neither is a WebSocket; only h2 and h2c are known to be smuggling (Bishop Fox 2020), but nothing tells the
        # upstream to talk HTTP/2 to a client that we would then tunnel blindly.
        with edge.client() as client:
            assert client.ask(raw, how).status == 200
        assert "HTTP2-Settings" not in edge.a.one().fields
        return
    seen = edge.passed(raw, how)
    assert "Upgrade" not in seen.fields
    assert "HTTP2-Settings" not in seen.fields


@pytest.mark.parametrize("token", ["websocket, h2c", "h2c, websocket", "h2c,websocket,h2"])
def test_row_24_h2c_is_removed_from_a_list(edge: Edge, token: str, how: Feed) -> None:
    edge.a.script = answer(SWITCH)
    with edge.client() as client:
        assert client.ask(request("Connection: Upgrade", f"Upgrade: {token}"), how).status == 101
    assert edge.a.one().fields.one("Upgrade") == "websocket"


@pytest.mark.parametrize("raw", [request(), sized(b"hello"), request(version="1.0"), request("Upgrade: websocket")])
def test_row_24_unsolicited_101(edge: Edge, raw: bytes, how: Feed) -> None:
    edge.a.script = answer(SWITCH + b"HTTP/1.1 200 OK\r\nContent-Length: 4\r\n\r\nevil")
    with edge.client() as client:
        response = client.ask(raw, how)
        assert response.status == 502
        assert b"evil" not in response.body
    edge.a.wait_closed()


def test_row_24_upgrade_not_taken(edge: Edge, how: Feed) -> None:
    # The upstream may ignore it (RFC 9110 section 7.8); the connection goes on with HTTP.
    with edge.client() as client:
        assert client.ask(request("Connection: Upgrade", "Upgrade: websocket"), how).status == 200
        edge.probe(client)
    assert edge.a.requests[0].fields.one("Upgrade") == "websocket"
    assert "upgrade" in edge.a.requests[0].fields.one("Connection").lower()
