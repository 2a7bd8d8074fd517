"""The same traffic through TLS: what holds of plain connections holds of encrypted ones (RFC 9112 section 9.7)."""

from __future__ import annotations

import secrets
import socket
import ssl
import threading
from collections.abc import Callable, Iterator
from typing import Any

import pytest

from tests.edge.conftest import clean
from tests.harness.certificates import Certificate, any_server
from tests.harness.client import Client
from tests.harness.edge import Edge, chunked, nothing_more, request, sized
from tests.harness.feed import Feed
from tests.harness.manifests import site
from tests.harness.poll import stalls
from tests.harness.upstream import Exchange, Recorder, answer, echo, silent

MIB = 1024 * 1024
SMUGGLED = b"GET /smuggled HTTP/1.1\r\nHost: a.test\r\n\r\n"
SWITCH = b"HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n\r\n"
VERSIONS = [ssl.TLSVersion.TLSv1_2, ssl.TLSVersion.TLSv1_3]


def connect(edge: Edge, version: ssl.TLSVersion = ssl.TLSVersion.TLSv1_3, **options: Any) -> Client:
    context = any_server()
    context.minimum_version = context.maximum_version = version
    return Client(edge.proxy.tls_address, tls=context, server_name="a.test", **options)


@pytest.fixture(params=VERSIONS, ids=lambda version: version.name)
def client(edge: Edge, request: pytest.FixtureRequest) -> Iterator[Client]:
    """A TLS connection of each version."""
    with connect(edge, request.param) as client:
        yield client


@pytest.mark.parametrize("how", list(Feed), ids=lambda how: how.value)
def test_bodies_in_every_way(edge: Edge, client: Client, how: Feed) -> None:
    edge.a.script = echo
    client.send(sized(b"hello") + chunked(b"he", b"llo") + request(), how)
    assert [client.response("POST").body, client.response("POST").body, client.response().body] == [b"hello"] * 2 + [
        b""
    ]
    assert {seen.fields.one("X-Forwarded-Proto") for seen in edge.a.requests} == {"https"}


@pytest.mark.parametrize(
    "raw",
    [
        request(host=None),
        request("Content-Length: 5", "Transfer-Encoding: chunked", method="POST", body=b"0\r\n\r\n" + SMUGGLED),
        request("X-A: \x00"),
        b"GET / HTTP/1.1\nHost: a.test\n\n",
    ],
)
def test_refused_and_closed(edge: Edge, client: Client, raw: bytes) -> None:
    assert client.ask(raw + SMUGGLED).status == 400
    assert nothing_more(client)  # with close_notify, or Python would raise
    assert not edge.a.requests


def test_refused_upload_goes_on_unharmed(edge: Edge, client: Client) -> None:
    # As without TLS: the proxy closes in two steps, so that no reset takes the answer away (RFC 9112 section 9.6).
    client.send(request(f"Content-Length: {4 * MIB}", method="POST"))
    assert client.response("POST").status == 413
    assert nothing_more(client)  # close_notify has come
    for _ in range(16):
        assert client.send(b"x" * (32 << 10))
    client.close()
    edge.probe()


def test_large_both_ways(edge: Edge, client: Client) -> None:
    body = secrets.token_bytes(3 * MIB)
    edge.a.script = lambda exchange: exchange.send(
        b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n%b" % (len(body), exchange.read_body())
    )
    assert client.ask(sized(body, host="open.test")).body == body


@pytest.mark.parametrize("close", [False, True], ids=["chunked", "until-close"])
def test_bodies_without_length(edge: Edge, client: Client, close: bool) -> None:
    head = b"" if close else b"Transfer-Encoding: chunked\r\n"
    body = b"hello" if close else b"5\r\nhello\r\n0\r\n\r\n"
    edge.a.script = answer(b"HTTP/1.1 200 OK\r\n" + head + b"\r\n" + body, close=close)
    response = client.ask(request())
    assert (response.body, response.complete) == (b"hello", True)
    edge.probe(client, "b.test")


def test_tunnel(edge: Edge, client: Client) -> None:
    def script(exchange: Exchange) -> None:
        exchange.send(SWITCH)
        while data := exchange.stream.some():
            exchange.send(data.upper())
        exchange.close()

    edge.a.script = script
    assert client.ask(request("Upgrade: websocket", "Connection: Upgrade")).status == 101
    for size in (1, 1000, 100_000):
        client.send(b"x" * size)
        assert client.stream.exactly(size) == b"X" * size
    client.close()
    edge.a.wait_closed()


def test_client_that_leaves_cancels(edge: Edge, client: Client) -> None:
    edge.a.script = silent
    client.send(request())
    edge.a.wait(1)
    client.reset()
    edge.a.wait_closed()


def test_slow_reader_stalls_the_upstream(edge: Edge) -> None:
    sent = 0

    def script(exchange: Exchange) -> None:
        nonlocal sent
        exchange.send(b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n" % (64 * MIB))
        while sent < 64 * MIB:
            exchange.send(b"x" * 65536)
            sent += 65536

    edge.a.script = script
    with connect(edge, receive_buffer=65536) as client:
        client.send(request())
        stalls(lambda: sent, 48 * MIB, "download")
        client.reset()


# To an upstream that speaks TLS.


class Secure:
    """A proxy whose one upstream speaks TLS."""

    def __init__(self, launch: Callable[..., Edge], context: ssl.SSLContext) -> None:
        self.recorder = Recorder(tls=context)
        extra = site("secure", [self.recorder.port], annotations={"backend-protocol": "HTTPS", "proxy-body-size": "0"})
        self.edge = launch(extra=extra)


@pytest.fixture(scope="module")
def running(launch: Callable[..., Edge], tmp_path_factory: pytest.TempPathFactory) -> Iterator[Secure]:
    certificate = Certificate("secure.test", "127.0.0.1")
    secure = Secure(launch, certificate.server_context(tmp_path_factory.mktemp("certificate")))
    yield secure
    secure.recorder.stop()


@pytest.fixture
def secure(running: Secure) -> Iterator[Secure]:
    running.recorder.reset()
    for _ in clean(running.edge):
        yield running
    assert not running.recorder.malformed
    running.recorder.reset()


def test_upstream_tunnel(secure: Secure) -> None:
    def script(exchange: Exchange) -> None:
        exchange.send(SWITCH)
        while data := exchange.stream.some():
            exchange.send(data.upper())
        exchange.close()

    secure.recorder.script = script
    with secure.edge.client() as client:
        raw = request("Upgrade: websocket", "Connection: Upgrade", host="secure.test")
        assert client.ask(raw).status == 101
        for size in (1, 1000, 100_000):
            client.send(b"x" * size)
            assert client.stream.exactly(size) == b"X" * size
    secure.recorder.wait_closed()


def test_upstream_upload_streams(secure: Secure) -> None:
    seen: list[bytes] = []
    step = threading.Event()

    def script(exchange: Exchange) -> None:
        for _ in range(3):
            seen.append(exchange.stream.exactly(3))
            step.set()
        exchange.send(b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n")

    secure.recorder.script = script
    with secure.edge.client() as client:
        client.send(request("Content-Length: 9", method="POST", host="secure.test"))
        for piece in (b"one", b"two", b"six"):
            step.clear()
            client.send(piece)
            assert step.wait(5)
        assert client.response().status == 200
    assert seen == [b"one", b"two", b"six"]


@pytest.mark.parametrize("framing", ["until-close", "chunked"])
def test_upstream_cut_without_close_notify(secure: Secure, framing: str) -> None:
    # RFC 9112 section 9.8: without close_notify a response until the close is incomplete, for anybody may have cut it.
    head = b"Transfer-Encoding: chunked\r\n" if framing == "chunked" else b""
    body = b"5\r\nhello\r\n" if framing == "chunked" else b"hello"

    def script(exchange: Exchange) -> None:
        exchange.send(b"HTTP/1.1 200 OK\r\n" + head + b"\r\n" + body)
        raw = exchange.socket.detach()  # FIN without close_notify
        socket.socket(fileno=raw).close()
        exchange.connection.closed = True

    secure.recorder.script = script
    with secure.edge.client() as client:
        response = client.ask(request(host="secure.test"))
        assert (response.status, response.body, response.complete) == (200, b"hello", False)


def test_upstream_closed_properly(secure: Secure) -> None:
    secure.recorder.script = answer(b"HTTP/1.1 200 OK\r\n\r\nhello", close=True)
    with secure.edge.client() as client:
        response = client.ask(request(host="secure.test"))
        assert (response.status, response.body, response.complete) == (200, b"hello", True)


def test_upstream_backpressure(secure: Secure) -> None:
    release = threading.Event()
    sent, size = 0, 64 * MIB

    def script(exchange: Exchange) -> None:
        exchange.hold(release)
        exchange.read_body()
        exchange.send(b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok")

    secure.recorder.script = script
    with secure.edge.client(timeout=20) as client:

        def upload() -> None:
            nonlocal sent
            client.socket.sendall(request(f"Content-Length: {size}", method="POST", host="secure.test"))
            while sent < size:
                client.socket.sendall(b"x" * 65536)
                sent += 65536

        sender = threading.Thread(target=upload)
        sender.start()
        secure.recorder.wait(1)
        stalls(lambda: sent, 48 * MIB, "upload")
        release.set()
        assert client.response().status == 200
        sender.join()
