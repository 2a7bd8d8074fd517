"""What an attacker tries: desynchronisation, poisoning, injection, exhaustion. Kept because it was tried.

The oracle is nearly always the same. Behind every attack hides a request for /smuggled; no upstream may ever see it as
a request of its own, no client may ever get an answer that belongs to another, and the proxy lives on.
"""

from __future__ import annotations

import json
import posixpath
import random
import secrets
import threading
from collections.abc import Callable, Iterator
from urllib.parse import unquote

import pytest

from tests.edge.conftest import clean
from tests.harness import poll
from tests.harness.client import Client
from tests.harness.edge import Edge, chunked, request, sized
from tests.harness.feed import Feed
from tests.harness.traced import Traced
from tests.harness.upstream import Exchange, answer, in_turn
from tests.harness.wire import WireError

SMUGGLED = b"GET /smuggled HTTP/1.1\r\nHost: a.test\r\n\r\n"
EVIL = b"HTTP/1.1 200 OK\r\nContent-Length: 4\r\n\r\nevil"


def attack(edge: Edge, raw: bytes, how: Feed = Feed.WHOLE) -> list[int]:
    """Send ``raw``, read every answer until the proxy closes or is silent; the statuses. Nothing was smuggled."""
    statuses: list[int] = []
    with edge.client() as client:
        client.send(raw, how)
        client.finish_writing()
        while not ended(client):
            statuses.append(client.response().status)
    edge.probe()
    for recorder in (edge.a, edge.b):
        assert not recorder.malformed
        assert "/smuggled" not in [seen.target for seen in recorder.requests], raw
    return statuses


def ended(client: Client) -> bool:
    """Whether the stream has ended; False when an answer waits to be read."""
    return not client.stream.buffer and not client.stream.fill()


# Request smuggling.

# A body that is 'empty chunked, then a request' to the one and nothing but bytes to the other.
BOTH_WAYS = b"0\r\n\r\n" + SMUGGLED

POSITIONS = {
    "before-name": b"%bTransfer-Encoding: chunked",
    "in-name": b"Transfer%b-Encoding: chunked",
    "after-name": b"Transfer-Encoding%b: chunked",
    "after-colon": b"Transfer-Encoding:%bchunked",
    "after-space": b"Transfer-Encoding: %bchunked",
    "in-value": b"Transfer-Encoding: chun%bked",
    "after-value": b"Transfer-Encoding: chunked%b",
    "before-host": b"X: 1%bTransfer-Encoding: chunked",
}


@pytest.mark.parametrize("template", POSITIONS.values(), ids=POSITIONS)
def test_transfer_encoding_hidden_by_any_octet(edge: Edge, template: bytes) -> None:
    """CL.TE and TE.CL: whatever octet dresses the coding, the two sides of us agree or the request is refused."""
    for octet in range(256):
        line = template % bytes([octet])
        raw = b"POST / HTTP/1.1\r\nHost: a.test\r\nContent-Length: %d\r\n%b\r\n\r\n%b" % (
            len(BOTH_WAYS),
            line,
            BOTH_WAYS,
        )
        with edge.client() as client:
            client.send(raw)
            status = client.response().status
            assert status in (200, 400, 501), (octet, status)
            if status != 200:
                assert client.closed(), octet
        if status == 200:
            seen = edge.a.requests[-1]
            # Then it was some other field, and the length is what counts, here and there.
            assert seen.body == BOTH_WAYS, octet
            assert "Transfer-Encoding" not in seen.fields, octet
    assert "/smuggled" not in [seen.target for seen in edge.a.requests]


@pytest.mark.parametrize("name", [b"Content-Length", b"Host"])
def test_other_fields_hidden_by_any_octet(edge: Edge, name: bytes) -> None:
    for octet in range(256):
        for template in (b"%b" + name + b": 5", name + b"%b: 5", name + b":%b5", name + b": 5%b"):
            raw = (
                b"POST / HTTP/1.1\r\nHost: a.test\r\n"
                + template % bytes([octet])
                + b"\r\nX-A: 1\r\n\r\nhello"
                + SMUGGLED
            )
            with edge.client() as client:
                client.send(raw)
                status = client.response().status
            assert status in (200, 400), (octet, template, status)
            if status == 200:
                heads = [seen for seen in edge.a.requests if seen.target == "/"]
                assert heads[-1].host == "a.test"
    # The smuggled request is a legitimate second one wherever the length was understood; never before "hello" is gone.
    for connection in edge.a.connections:
        assert b"helloGET" not in connection.raw


@pytest.mark.parametrize(
    "lines",
    [
        ["Transfer-Encoding: chunked", "Connection: Transfer-Encoding"],
        ["Transfer-Encoding: chunked", "Connection: close, Transfer-Encoding"],
        ["Transfer-Encoding: chunked", "TE: chunked"],
        ["Transfer-Encoding: chunked", "Upgrade: chunked", "Connection: upgrade"],
        ["transfer-encoding: chunked", "X-Transfer-Encoding: identity"],
    ],
)
def test_coding_cannot_be_talked_away(edge: Edge, lines: list[str], how: Feed) -> None:
    raw = request(*lines, method="POST", body=b"%x\r\n%b\r\n0\r\n\r\n" % (len(SMUGGLED), SMUGGLED))
    statuses = attack(edge, raw, how)
    assert statuses in ([200], [400])
    if statuses == [200]:
        assert edge.a.requests[0].body == SMUGGLED


@pytest.mark.parametrize("case", [str, str.lower, str.upper], ids=["as-is", "lower", "upper"])
def test_length_cannot_be_talked_away(edge: Edge, case: Callable[[str], str], how: Feed) -> None:
    """Connection: Content-Length, the oldest hop-by-hop abuse: the body would become a request at the upstream."""
    statuses = attack(edge, sized(SMUGGLED, f"Connection: {case('Content-Length')}"), how)
    assert statuses in ([200], [400])
    if statuses == [200]:
        assert edge.a.requests[0].body == SMUGGLED


CHUNKS = {
    # "Funky chunks" (J. Bonde Weikop, 2025) and their older relatives: what ends a chunk line, and what follows data.
    "term-ext": b"2;\nxx\r\n%x\r\n" % len(SMUGGLED) + b"0\r\n\r\n" + SMUGGLED,
    "ext-term": b"2;a\nxx\r\n0\r\n\r\n" + SMUGGLED,
    "term-spill": b"5\r\nAAAAA\n0\r\n\r\n" + SMUGGLED,
    "spill-two": b"5\r\nAAAAAXX0\r\n\r\n" + SMUGGLED,
    "one-two": b"5\r\nAAAAA\r0\r\n\r\n" + SMUGGLED,
    "zero-two": b"5\r\nAAAAA0\r\n\r\n" + SMUGGLED,
    "cr-in-size": b"5\r\r\nAAAAA\r\n0\r\n\r\n" + SMUGGLED,
    "truncated-size": b"100000005\r\nAAAAA\r\n0\r\n\r\n" + SMUGGLED,
    "size-wraps-32": b"100000005\r\nAAAAA\r\n0\r\n\r\n" + SMUGGLED,
    "size-wraps-64": b"10000000000000005\r\nAAAAA\r\n0\r\n\r\n" + SMUGGLED,
    "quoted-crlf": b'5;a="\r\nAAAAA\r\n0\r\n\r\n' + SMUGGLED + b'"',
    "last-chunk-ext-lf": b"0;\n\r\n\r\n" + SMUGGLED,
    "zero-x": b"0x\r\n\r\n" + SMUGGLED,
    "trailer-request": b"0\r\nGET /smuggled HTTP/1.1\r\nHost: a.test\r\n\r\n",
    "trailer-lf": b"0\r\nX: 1\n\r\n" + SMUGGLED,
    "missing-end": b"0\r\n" + SMUGGLED,
    "data-after-zero": b"0\r\nX\r\n" + SMUGGLED,
}


@pytest.mark.parametrize("body", CHUNKS.values(), ids=CHUNKS)
def test_funky_chunks(edge: Edge, body: bytes, how: Feed) -> None:
    statuses = attack(edge, request("Transfer-Encoding: chunked", method="POST", body=body), how)
    assert statuses in ([400], [413])
    assert not [seen for seen in edge.a.complete if seen.target != "/probe"]


@pytest.mark.parametrize("method", ["GET", "HEAD", "DELETE", "OPTIONS", "POST", "get"])
def test_body_where_none_is_expected(edge: Edge, method: str, how: Feed) -> None:
    """CL.0 and 0.CL: a body is a body with every method."""
    edge.a.script = lambda exchange: exchange.send(
        b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n" if exchange.read_body() is not None else b""
    )
    assert attack(edge, sized(SMUGGLED, method=method), how) == [200]
    assert edge.a.requests[0].body == SMUGGLED
    edge.reset()
    assert attack(edge, chunked(SMUGGLED, method=method), how) == [200]


@pytest.mark.parametrize("lines", [["Expect: 100-continue"], ["Expect: 100-Continue", "X: 1"]])
@pytest.mark.parametrize("status", [200, 204, 302, 400, 401, 404, 417, 500])
def test_expect_then_a_final_answer(edge: Edge, lines: list[str], status: int) -> None:
    """Expect desync (Kettle 2025): the upstream answers without reading; the body comes all the same, as a request."""
    length = b"" if status == 204 else b"Content-Length: 0\r\n"
    edge.a.script = in_turn(
        lambda exchange: exchange.send(b"HTTP/1.1 %d X\r\n%b\r\n" % (status, length)),
        answer(),
    )
    with edge.client() as client:
        client.send(request(f"Content-Length: {len(SMUGGLED)}", *lines, method="POST"))
        assert client.response().status == status
        client.send(SMUGGLED)
        rest = client.stream.rest() if client.closed(0.5) else b""
        assert rest == b"", "the body was answered as a request"
    edge.probe()
    assert [seen.target for seen in edge.a.requests] == ["/", "/probe"]
    assert edge.a.connections[0].raw.count(b" HTTP/1.1\r\n") == 1, "the upstream connection was reused with a body owed"


def test_answer_before_the_body_does_not_poison_the_pool(edge: Edge) -> None:
    """The upstream connection still owes a body: the next client's request must not be taken for it."""
    edge.a.script = in_turn(
        lambda exchange: exchange.send(b"HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\nearly"), answer()
    )
    with edge.client() as client:
        client.send(request("Content-Length: 100", method="POST", body=b"x" * 10))
        assert client.response("POST").body == b"early"
        for _ in range(3):
            edge.probe()
    assert edge.a.connections[0].raw.count(b" HTTP/1.1\r\n") == 1


# Response poisoning.


def test_unasked_response_on_an_idle_connection(edge: Edge) -> None:
    sent = threading.Event()

    def script(exchange: Exchange) -> None:
        answer()(exchange)
        exchange.send(EVIL)
        sent.set()

    edge.a.script = in_turn(script, answer())
    with edge.client() as client:
        assert client.ask(request()).body == b"ok"
    assert sent.wait(5)
    edge.a.wait_closed()
    with edge.client() as client:
        assert client.ask(request()).body == b"ok"
    assert len(edge.a.connections) == 2


@pytest.mark.parametrize("how", [Feed.WHOLE, Feed.BYTES])
def test_answers_never_cross(edge: Edge, how: Feed) -> None:
    """Many clients on few upstream connections, some of them attackers: each gets its own answer."""

    def script(exchange: Exchange) -> None:
        exchange.read_body()
        token = exchange.request.target.encode()
        extra = EVIL if b"extra" in token else b""
        exchange.send(b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n%b%b" % (len(token), token, extra), how)

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


# Upgrades.


def test_failed_upgrade_is_no_tunnel(edge: Edge, how: Feed) -> None:
    """WebSocket smuggling: after 426 the bytes that follow are HTTP, judged and routed like any other."""
    edge.a.script = answer(b"HTTP/1.1 426 Upgrade Required\r\nSec-WebSocket-Version: 13\r\nContent-Length: 0\r\n\r\n")
    with edge.client() as client:
        client.send(request("Upgrade: websocket", "Connection: Upgrade", "Sec-WebSocket-Version: 777"), how)
        assert client.response().status == 426
        client.send(request(target="/admin", host="paths.test"), how)
        assert client.response().status == 200
    assert [seen.target for seen in edge.a.requests] == ["/"]
    assert [seen.target for seen in edge.b.requests] == ["/admin"]


def test_nothing_is_tunnelled_before_the_101(edge: Edge) -> None:
    release = threading.Event()

    def script(exchange: Exchange) -> None:
        exchange.hold(release)
        exchange.send(b"HTTP/1.1 400 Bad Request\r\nContent-Length: 0\r\n\r\n")

    edge.a.script = in_turn(script, answer())
    with edge.client() as client:
        client.send(request("Upgrade: websocket", "Connection: Upgrade") + SMUGGLED)
        edge.a.wait(1)
        assert b"smuggled" not in edge.a.raw
        release.set()
        assert client.response().status == 400
        # It was a pipelined request all along.
        assert client.response().status == 200


@pytest.mark.parametrize(
    "lines",
    [
        ["Upgrade: websocket", "Upgrade: h2c", "Connection: Upgrade"],
        ["Upgrade: h2c", "Upgrade: websocket", "Connection: Upgrade"],
        ["Upgrade: websocket", "Connection: Upgrade, HTTP2-Settings", "HTTP2-Settings: AAMAAABkAAQAAP__"],
        ["Upgrade:\th2c", "Connection:upgrade"],
        ["Upgrade: H2c", "Connection: UPGRADE"],
        ["upgrade: ,h2c,", "connection: ,upgrade,"],
    ],
)
def test_h2c_smuggling(edge: Edge, lines: list[str], how: Feed) -> None:
    with edge.client() as client:
        client.send(request(*lines), how)
        assert client.response().status in (200, 400)
    for seen in edge.a.requests:
        assert "h2c" not in ",".join(seen.fields.all("Upgrade")).lower()
        assert "HTTP2-Settings" not in seen.fields
        assert "http2-settings" not in ",".join(seen.fields.all("Connection")).lower()


def test_upgrade_with_a_body_is_no_upgrade(edge: Edge, how: Feed) -> None:
    """A GET with a body and Upgrade: after a 101 nobody could say where the body ends."""
    edge.a.script = answer()
    statuses = attack(edge, sized(SMUGGLED, "Upgrade: websocket", "Connection: Upgrade", method="GET"), how)
    assert statuses in ([200], [400])


# Exhaustion.


def test_many_slow_clients(edge: Edge) -> None:
    """Slowloris: 300 half heads cost the others nothing."""
    clients = [edge.client() for _ in range(300)]
    try:
        for client in clients:
            client.send(b"GET / HTTP/1.1\r\nHost: a.test\r\nX-A: ")
        for _ in range(5):
            edge.probe()
        for client in clients:
            client.send(b"a")
        edge.probe()
    finally:
        for client in clients:
            client.close()


def test_many_clients_that_leave_at_once(edge: Edge) -> None:
    for _ in range(100):
        client = edge.client()
        client.send(request())
        client.reset()
    edge.probe()
    gauge = "http_server_active_requests"
    poll.until(lambda: edge.proxy.metrics().total(gauge) == 0, "no request left behind")


NUMBERS = ["9" * 1000, "1" + "0" * 4300, "4294967301", "2147483653", "18446744073709551621", "0" * 4000 + "5"]


@pytest.mark.parametrize("number", NUMBERS, ids=lambda number: f"{number[:4]}x{len(number)}")
def test_huge_numbers(edge: Edge, number: str) -> None:
    """int() of a long string is quadratic and refuses past 4300 digits; 32 and 64 bits wrap elsewhere."""
    for raw in (
        request(f"Content-Length: {number}", method="POST", body=b"hello" + SMUGGLED),
        request(
            "Transfer-Encoding: chunked", method="POST", body=number.encode() + b"\r\nhello\r\n0\r\n\r\n" + SMUGGLED
        ),
        request(host=f"a.test:{number}"),
        request(target=f"http://a.test:{number}/"),
        request(f"X-Forwarded-Port: {number}"),
        request(f"Keep-Alive: timeout={number}"),
        request(f"Max-Forwards: {number}"),
    ):
        with edge.client() as client:
            client.send(raw)
            assert client.response().status in (200, 400, 404, 413, 431)
    assert "Traceback" not in edge.proxy.said()
    edge.probe()


def test_strangers_cannot_grow_the_metrics(edge: Edge) -> None:
    """Hosts, paths, methods and user agents are the attacker's; labels are not."""

    def storm() -> None:
        with edge.client() as client:
            for _ in range(40):
                word = secrets.token_hex(8)
                client.ask(request(f"User-Agent: {word}", target=f"/{word}", method=word[:6]))
                client.ask(request(f"User-Agent: {word}", target=f"/{word}", host=f"{word}.test"))
                client.ask(request(f"X-Forwarded-For: 203.0.113.{secrets.randbelow(250)}", host=f"{word}.wild.test"))

    storm()
    before = len(edge.proxy.metrics())
    storm()
    assert len(edge.proxy.metrics()) == before


def test_secrets_stay_out_of_spans_and_log(edge: Edge) -> None:
    traced, word = Traced(edge.collector), secrets.token_hex(8)
    edge.passed(
        request(
            traced.line,
            f"Authorization: Bearer {word}",
            f"Cookie: session={word}",
            f"Proxy-Authorization: Basic {word}",
            target=f"/x?sig={word}&X-Amz-Signature={word}&keep=1",
        )
    )
    server = traced.server()
    assert "keep=1" in server.attributes["url.query"]
    assert word not in repr(server)
    assert word not in repr(traced.attempts())
    poll.until(lambda: traced.trace_id in edge.proxy.access_log.read_text(), "the log record")
    assert word not in edge.proxy.access_log.read_text()
    assert word not in edge.proxy.said()
    assert word not in edge.proxy.admin(f"/traces/{traced.trace_id}")[1]


# Noise.


def test_garbage(edge: Edge) -> None:
    """Random bytes and random damage to good requests: an answer or a close, never silence, never a traceback."""
    chance = random.Random(20260101)
    good = [
        request("X-A: 1"),
        sized(b"hello"),
        chunked(b"he", b"llo"),
        request(target="http://a.test/x?y"),
        request(version="1.0"),
    ]
    for turn in range(400):
        raw = bytearray(chance.choice(good))
        if turn % 4 == 0:
            raw = bytearray(chance.randbytes(chance.randrange(1, 200)))
        else:
            for _ in range(chance.randrange(1, 4)):
                at = chance.randrange(len(raw))
                raw[at : at + chance.randrange(3)] = chance.choice(
                    [b"", b"\r", b"\n", b"\r\n", b" ", b"\x00", b":", b"0", chance.randbytes(1)]
                )
        with edge.client() as client:
            client.send(bytes(raw))
            client.finish_writing()
            try:
                while not ended(client):
                    assert 200 <= client.response().status < 600
            except WireError as error:
                raise AssertionError(f"{bytes(raw)!r}: {error}") from error
    edge.probe()
    assert "Traceback" not in edge.proxy.said()
    for seen in edge.a.complete:
        assert seen.host.lower().startswith("a.test") or seen.target.startswith("/any")


def test_every_split_in_two(edge: Edge) -> None:
    """The same pipelined requests, cut at every single place into two reads: always the same."""
    raw = sized(b"hello", target="/1") + chunked(b"he", b"llo", target="/2") + request("X-A: 1", target="/3")
    for cut in range(1, len(raw)):
        with edge.client() as client:
            client.send(raw[:cut], Feed.WHOLE)
            client.send(raw[cut : cut + 1], Feed.BYTES)
            client.send(raw[cut + 1 :])
            assert [client.response().status for _ in range(3)] == [200] * 3, cut
    seen = [(item.target, item.body) for item in edge.a.complete]
    assert sorted(set(seen)) == [("/1", b"hello"), ("/2", b"hello"), ("/3", b"")]
    assert len(seen) == 3 * (len(raw) - 1)


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
