"""Upstreams that are slow and clients that leave. One second by annotation; the sweep adds half a second."""

from __future__ import annotations

import contextlib
import socket
import threading
from collections.abc import Callable, Iterator

import pytest

from tests.harness.collector import Collector
from tests.harness.edge import Edge, chunked, request, sized
from tests.harness.manifests import site
from tests.harness.traced import Traced
from tests.harness.upstream import Exchange, Full, Recorder, silent

MIB = 1024 * 1024


@pytest.fixture
def traced(edge: Edge) -> Traced:
    return Traced(edge.collector)


class Slow:
    """Sites that never accept, and that never read."""

    def __init__(self, launch: Callable[..., Edge], collector: Collector) -> None:
        self.full, self.plain = Full(), Recorder()
        limits = {f"proxy-{what}-timeout": "1" for what in ("connect", "read", "send")} | {"proxy-body-size": "0"}
        self.edge = launch(
            collector=collector,
            extra=[
                *site("full", [self.full.port], annotations=limits),
                *site("send", [self.plain.port], annotations=limits),
            ],
        )


@pytest.fixture(scope="module")
def sluggish(launch: Callable[..., Edge], collector: Collector) -> Iterator[Slow]:
    slow = Slow(launch, collector)
    yield slow
    slow.full.stop()
    slow.plain.stop()


@pytest.fixture
def slow(sluggish: Slow) -> Iterator[Slow]:
    sluggish.plain.reset()
    yield sluggish
    sluggish.plain.reset()


def ask(edge: Edge, raw: bytes, method: str = "GET") -> int:
    with edge.client() as client:
        return client.ask(raw, method=method).status


# Timeouts. One second by annotation; the sweep adds half a second.


def test_read_timeout(edge: Edge, traced: Traced) -> None:
    edge.a.script = silent
    assert ask(edge, sized(b"hello", traced.line, host="quick.test")) == 504
    assert len(edge.a.requests) == 1, "a POST was sent again"
    edge.a.wait_closed()
    (attempt,) = traced.attempts()
    assert attempt.error_type == "upstream_timeout"
    server = traced.server()
    assert (server.error_type, server.attributes["http.response.status_code"]) == ("upstream_timeout", 504)
    assert server.end - server.start >= 1_000_000_000


def test_read_timeout_of_get_is_bounded(edge: Edge, traced: Traced) -> None:
    edge.a.script = silent
    assert ask(edge, request(traced.line, host="quick.test")) == 504
    assert 1 <= len(edge.a.requests) <= 3


def test_read_timeout_is_between_two_reads(edge: Edge) -> None:
    def script(exchange: Exchange) -> None:
        exchange.send(b"HTTP/1.1 200 OK\r\nContent-Length: 8\r\n\r\n")
        for octet in b"12345678":
            threading.Event().wait(0.25)  # two seconds in all
            exchange.send(bytes([octet]))

    edge.a.script = script
    with edge.client() as client:
        assert client.ask(request(host="quick.test")).body == b"12345678"


def test_read_timeout_in_the_middle(edge: Edge, traced: Traced) -> None:
    def script(exchange: Exchange) -> None:
        exchange.send(b"HTTP/1.1 200 OK\r\nContent-Length: 8\r\n\r\n1234")
        exchange.await_close()

    edge.a.script = script
    with edge.client() as client:
        response = client.ask(request(traced.line, host="quick.test"))
        assert (response.status, response.body, response.complete) == (200, b"1234", False)
        assert client.closed()
    edge.a.wait_closed()
    assert traced.server().error_type == "response_stalled"


def test_read_timeout_does_not_run_during_the_upload(edge: Edge) -> None:
    with edge.client() as client:
        client.send(request("Content-Length: 8", method="POST", host="quick.test"))
        for octet in b"12345678":
            threading.Event().wait(0.25)
            client.send(bytes([octet]))
        assert client.response().status == 200


def test_connect_timeout(slow: Slow) -> None:
    traced = Traced(slow.edge.collector)
    assert ask(slow.edge, sized(b"hello", traced.line, host="full.test")) == 504
    assert {span.error_type for span in traced.attempts()} == {"connect_timeout"}


def test_send_timeout(slow: Slow) -> None:
    def script(exchange: Exchange) -> None:
        exchange.hold(exchange.recorder.over)  # reads nothing

    slow.plain.script = script
    traced = Traced(slow.edge.collector)
    with slow.edge.client() as client:
        raw = request(traced.line, f"Content-Length: {64 * MIB}", method="POST", host="send.test")
        stalled: list[bool] = []

        def upload() -> None:
            try:
                client.socket.sendall(raw + b"x" * (64 * MIB))
            except OSError:
                stalled.append(True)

        sender = threading.Thread(target=upload)
        sender.start()
        assert client.response("POST").status == 504
        with contextlib.suppress(OSError):  # the proxy may have cut it already
            client.socket.shutdown(socket.SHUT_RDWR)
        sender.join()
    assert traced.server().error_type == "send_timeout"


# The client.


@pytest.mark.parametrize("raw", [request(), sized(b"hello"), request("Content-Length: 5", method="POST", body=b"he")])
def test_client_that_resets_cancels_its_request(edge: Edge, raw: bytes) -> None:
    edge.a.script = silent
    client = edge.client()
    client.send(raw)
    edge.a.wait(1)
    client.reset()
    edge.a.wait_closed()


@pytest.mark.parametrize("raw", [request(), sized(b"hello"), chunked(b"hello")])
def test_client_that_closes_cancels_its_request(edge: Edge, raw: bytes) -> None:
    # A FIN alone could be a half-close (row 37), so the proxy has to find out; nothing is ever said to a client that
    # only half-closed, but an interim response.
    edge.a.script = silent
    client = edge.client()
    client.send(raw)
    edge.a.wait(1)
    client.close()
    edge.a.wait_closed()


@pytest.mark.parametrize("abrupt", [False, True], ids=["fin", "rst"])
def test_client_that_leaves_during_the_response_cancels_it(edge: Edge, abrupt: bool) -> None:
    sent = 0

    def script(exchange: Exchange) -> None:
        nonlocal sent
        exchange.send(b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n" % (1 << 40))
        while exchange.stream.socket.fileno() >= 0 and sent < 1 << 30:
            exchange.stream.socket.sendall(b"x" * 65536)  # ends with an error once the proxy has closed
            sent += 65536

    edge.a.script = script
    client = edge.client()
    client.send(request())
    client.stream.fill()
    if abrupt:
        client.reset()
    else:
        client.close()
    edge.a.wait_closed()
    assert sent < 1 << 30


def test_client_that_leaves_during_its_upload_cancels_it(edge: Edge) -> None:
    client = edge.client()
    client.send(request("Content-Length: 100", method="POST", body=b"x" * 50))
    edge.a.wait(1)
    client.close()
    edge.a.wait_closed()
    assert not edge.a.complete
