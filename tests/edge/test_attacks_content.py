"""What an attacker tries, part two: poisoned answers, injected fields, borrowed names, disguised paths."""

from __future__ import annotations

import json
import posixpath
import threading
from collections.abc import Callable, Iterator
from urllib.parse import unquote

import pytest

from tests.edge.conftest import clean
from tests.harness.edge import Edge, request, sized
from tests.harness.feed import Feed
from tests.harness.traced import Traced
from tests.harness.upstream import Exchange, answer, in_turn

SMUGGLED = b"GET /smuggled HTTP/1.1\r\nHost: a.test\r\n\r\n"
EVIL = b"HTTP/1.1 200 OK\r\nContent-Length: 4\r\n\r\nevil"


# Response poisoning.


def test_unasked_response_on_an_idle_connection(edge: Edge) -> None:
    """The next request on that connection would get it."""
    answered = threading.Event()

    def script(exchange: Exchange) -> None:
        answer()(exchange)
        exchange.hold(answered)
        exchange.send(EVIL)

    edge.a.script = in_turn(script, answer())
    with edge.client() as client:
        assert client.ask(request()).body == b"ok"
        edge.probe(client, "b.test")  # by now the connection to a is idle
    answered.set()
    edge.a.wait_closed()
    with edge.client() as client:
        assert client.ask(request()).body == b"ok"
    assert len(edge.a.connections) == 2


def test_answers_never_cross(edge: Edge) -> None:
    """Many clients on few upstream connections, some of them attackers: each gets its own answer.

    The extra answer comes with the right one: what comes later, on a connection that has been reused meanwhile, no
    proxy can tell from an answer (nor could the client, without us).
    """

    def script(exchange: Exchange) -> None:
        exchange.read_body()
        token = exchange.request.target.encode()
        extra = EVIL if b"extra" in token else b""
        exchange.send(b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n%b%b" % (len(token), token, extra))

    edge.a.script = script
    wrong: list[tuple[str, bytes]] = []

    def work(number: int) -> None:
        with edge.client() as client:
            for turn in range(10):
                target = f"/{number}/{turn}/{'extra' if (number + turn) % 3 == 0 else 'fine'}"
                body = client.ask(sized(SMUGGLED, target=target, method="PUT")).body
                if body != target.encode():
                    wrong.append((target, body))

    threads = [threading.Thread(target=work, args=(number,)) for number in range(6)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert not wrong
    assert "/smuggled" not in [seen.target for seen in edge.a.requests]


@pytest.mark.parametrize(
    "raw",
    [
        b"HTTP/1.1 200 OK\r\nX-A: 1\r\n\r\nSet-Cookie: evil=1\r\nContent-Length: 0\r\n\r\n",
        b"HTTP/1.1 200 OK\r\nLocation: /x\rSet-Cookie: evil=1\r\nContent-Length: 0\r\n\r\n",
        b"HTTP/1.1 200 OK\r\nLocation: /x\nSet-Cookie: evil=1\r\nContent-Length: 0\r\n\r\n",
        b"HTTP/1.1 200 OK\r\nLocation: /x\x00\r\nContent-Length: 0\r\n\r\n",
        b"HTTP/1.1 200 OK\rSet-Cookie: evil=1\r\nContent-Length: 0\r\n\r\n",
        b"HTTP/1.1 200 OK\nSet-Cookie: evil=1\r\nContent-Length: 0\r\n\r\n",
        b"HTTP/1.1 200 OK\r\n\nSet-Cookie: evil=1\r\nContent-Length: 0\r\n\r\n",
    ],
)
def test_response_splitting(edge: Edge, raw: bytes, how: Feed) -> None:
    edge.a.script = answer(raw, how, close=True)
    with edge.client() as client:
        response = client.ask(sized(b"x"))
        assert "Set-Cookie" not in response.fields
        assert response.status == 502 or b"evil" in response.body


@pytest.mark.parametrize(
    "target",
    [
        "/%0d%0aSet-Cookie:%20evil=1",
        "/?%0d%0a%0d%0aevil",
        "/%0a",
        "/a%0d%0aHost:%20b.test",
        "/%E5%98%8A%E5%98%8DX:1",
        "/%u000a",
    ],
)
def test_encoded_line_ends_stay_encoded(edge: Edge, target: str) -> None:
    with edge.client() as client:
        response = client.ask(request(target=target))
    assert response.status in (200, 400)
    assert "Set-Cookie" not in response.fields
    for seen in edge.a.requests:
        assert seen.host == "a.test"
        assert seen.head.count(b"\r\n") == seen.head.count(b"\n") == len(seen.fields.pairs) + 2


# Injection through what we write ourselves.


@pytest.mark.parametrize("octet", [0x80, 0xA0, 0x8A, 0x8D, 0xFF])
@pytest.mark.parametrize(
    "name",
    [
        "X-Forwarded-For",
        "X-Forwarded-Host",
        "X-Forwarded-Proto",
        "X-Forwarded-Port",
        "X-Request-ID",
        "Forwarded",
        "Via",
        "tracestate",
        "baggage",
        "traceparent",
        "uber-trace-id",
        "b3",
        "User-Agent",
        "Accept",
        "Referer",
        "Cookie",
    ],
)
def test_odd_octets_break_nothing(edge: Edge, name: str, octet: int) -> None:
    """obs-text is legal in a value: the span stays decodable (proto3 strings are UTF-8), the log stays JSON."""
    traced = Traced(edge.collector)
    line = f"{name}: a{chr(octet)}{chr(0xC3)}b"
    with edge.client() as client:
        response = client.ask(request(line, traced.line, host="none.test"))
        assert response.status == 503
        port = client.port
    assert edge.collector is not None
    edge.collector.wait(lambda span: span.attributes.get("network.peer.port") == port, what="the SERVER span")
    edge.proxy.log()


@pytest.mark.parametrize("target", ["/%ff%fe", "/?q=%c3%28", "/%f0%28%8c%28", "/?%80=%81"])
def test_targets_that_are_not_utf_8(edge: Edge, target: str) -> None:
    traced = Traced(edge.collector)
    edge.passed(request(traced.line, target=target))
    assert traced.server().attributes["url.path"].startswith("/")
    json.dumps(edge.proxy.log()[-1])


@pytest.mark.parametrize(
    "host",
    [
        "a.test:80@b.test",
        "b.test@a.test",
        "a.test%2eb.test",
        "a.test%0d%0aX: 1",
        "a.test\x0bb",
        "a.test\x85",
        "a.test;b.test",
    ],
)
def test_host_tricks(edge: Edge, host: str, how: Feed) -> None:
    with edge.client() as client:
        client.send(request(host=host), how)
        assert client.response().status in (400, 404)
    assert not edge.a.requests
    assert not edge.b.requests


@pytest.mark.parametrize(
    "target",
    [
        "http://a.test@b.test/",
        "http://a.test:80@b.test/",
        "http://b.test#@a.test/",
        "http://b.test\\@a.test/",
        "http://b.test/@a.test/",
        "http://b.test%2f@a.test/",
        "http://a.test:80:80/",
        "http://a.test.:80/../../x",
        "http:\\\\b.test\\",
        "http:/b.test/",
        "http:b.test",
        "//b.test/",
        "\\\\b.test\\",
        "/\\b.test",
        "@b.test/",
        ":80/",
        ".b.test/",
        "a.test:80/",
        "http://[::1]/",
        "http://[::1%25eth0]/",
        "http://2130706433/",
        "http://0x7f.1/",
        "unix:/var/run/docker.sock|http://localhost/",  # CVE-2021-40438
        "file:///etc/passwd",
        "gopher://b.test/",
        "ws://a.test/",
        "https://b.test/",
        "http://a.test/\thttp://b.test/",
    ],
)
def test_target_tricks(edge: Edge, target: str, how: Feed) -> None:
    """The Host that was judged is the Host that goes on: nothing of these reaches b, or a under another name."""
    with edge.client() as client:
        client.send(request(target=target), how)
        status = client.response().status
    assert not edge.b.requests
    if status == 200:
        (seen,) = edge.a.requests
        assert seen.host == "a.test"
        assert seen.target.startswith("/")
        assert not seen.target.startswith("//")
    else:
        assert status in (400, 404, 421)
        assert not edge.a.requests


@pytest.mark.parametrize("target", ["http://b.test/", "https://b.test/", "b.test:80", "//b.test/"])
@pytest.mark.parametrize(
    "line",
    [
        "X-Forwarded-Host: b.test",
        "Forwarded: host=b.test",
        "X-Host: b.test",
        "X-Original-URL: /admin",
        "X-Rewrite-URL: /admin",
        "X-Forwarded-Prefix: /admin",
        "X-Original-Host: b.test",
    ],
)
def test_no_field_reroutes(edge: Edge, target: str, line: str) -> None:
    with edge.client() as client:
        assert client.ask(request(line, host="a.test")).status == 200
        client.ask(request(line, target=target, host="a.test"))
    assert not edge.b.requests


@pytest.fixture(scope="module")
def spoken(launch: Callable[..., Edge]) -> Edge:
    return launch("--trust", "none", "--forwarded", "--via")


@pytest.fixture
def talkative(spoken: Edge) -> Iterator[Edge]:
    yield from clean(spoken)


@pytest.mark.parametrize("host", ['a.test";evil="1', "a.test,for=6.6.6.6", "a.test;proto=https", "a.test\\"])
def test_injection_through_forwarded(talkative: Edge, host: str) -> None:
    """Forwarded is built from Host: what could end its quoted string is no Host."""
    with talkative.client() as client:
        assert client.ask(request(host=host)).status == 400
    assert not talkative.a.requests


def test_forwarded_of_a_stranger_is_replaced(talkative: Edge) -> None:
    seen = talkative.passed(request("Forwarded: for=6.6.6.6;proto=https;host=evil.test", "Via: 1.1 evil"))
    assert "6.6.6.6" not in seen.fields.one("Forwarded")
    assert "evil" not in seen.fields.one("Forwarded")


# Paths.


def test_admin_is_not_reached_by_another_name(edge: Edge) -> None:
    """Everything an application could take for /admin goes where /admin goes, or nowhere (%2f, %5c stay: row 29)."""
    parts = ["/", "//", "/./", "/x/../", "/%2e/", "/x/%2e%2e/", "/x/.%2E/", "/%61/../", "///./", "/.//"]
    words = [
        "admin",
        "%61dmin",
        "a%64min",
        "%61%64%6d%69%6e",
        "admin/",
        "admin/.",
        "admin//",
        "admin/./x",
        "admin/x/..",
        "x/../admin",
        "admin/../admin",
    ]
    with edge.client() as client:
        for before in parts:
            for word in words:
                target = before + word
                status = client.ask(request(target=target, host="paths.test")).status
                assert status == 200, target
                assert (
                    unquote(posixpath.normpath(edge.b.requests[-1].target)).rstrip("/").lstrip("/").startswith("admin")
                )
    assert not edge.a.requests, edge.a.requests[0].target
    assert len(edge.b.requests) == len(parts) * len(words)


@pytest.mark.parametrize(
    "target",
    [
        "/%2e%2e%2fadmin",
        "/..%2fadmin",
        "/x/..%5cadmin",
        "/%2fadmin",
        "/admin%00",
        "/admin%0a",
        "/%252e%252e/admin",
        "/admin%20",
        "/admin.",
        "/admin;/x",
        "/;/admin",
        "/admin%3b",
        "/aDmin",
        "/admin%2f..%2fx",
    ],
)
def test_what_is_not_admin_is_forwarded_as_it_was_judged(edge: Edge, target: str) -> None:
    with edge.client() as client:
        status = client.ask(request(target=target, host="paths.test")).status
    assert status in (200, 400)
    for seen in edge.a.requests:
        assert not seen.target.startswith("/admin/")
        assert seen.target != "/admin"
    for seen in edge.b.requests:
        assert seen.target == "/admin" or seen.target.startswith("/admin/")
