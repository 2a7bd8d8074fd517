"""The flow on one connection: 100-continue, pipelining, and backpressure from either end to the other."""

from __future__ import annotations

import threading

import pytest

from tests.harness.edge import Edge, chunked, request, sized
from tests.harness.feed import Feed
from tests.harness.poll import stalls
from tests.harness.upstream import Exchange, answer, echo

MIB = 1024 * 1024


# 100-continue with a body that is refused, and one that is huge, live in the rows; here: end to end with chunks.


def test_continue_with_chunks(edge: Edge, how: Feed) -> None:
    def script(exchange: Exchange) -> None:
        exchange.send(b"HTTP/1.1 100 Continue\r\n\r\n", how)
        echo(exchange)

    edge.a.script = script
    with edge.client() as client:
        client.send(request("Transfer-Encoding: chunked", "Expect: 100-continue", method="PUT"), how)
        while b"\r\n\r\n" not in client.stream.raw:
            assert client.stream.fill()
        client.send(b"5\r\nhello\r\n0\r\n\r\n", how)
        response = client.response()
        assert ([item.status for item in response.interim], response.body) == ([100], b"hello")


def test_client_that_does_not_wait_for_continue(edge: Edge, how: Feed) -> None:
    # RFC 9110 section 10.1.1: a client need not wait indefinitely; the body may simply come.
    edge.a.script = echo
    with edge.client() as client:
        response = client.ask(sized(b"hello", "Expect: 100-continue"), how)
        assert (response.status, response.body) == (200, b"hello")
        edge.probe(client, "b.test")


# Pipelining.


def test_pipelined_bodies_both_ways(edge: Edge, how: Feed) -> None:
    edge.a.script = echo
    raw = b"".join(
        sized(b"s%d" % number) if number % 2 else chunked(b"c", b"%d" % number, lines=["X-A: 1"])
        for number in range(10)
    )
    with edge.client() as client:
        client.send(raw, how)
        assert [client.response("POST").body for _ in range(10)] == [
            (b"s%d" if number % 2 else b"c%d") % number for number in range(10)
        ]
        edge.probe(client, "b.test")


def test_pipelined_behind_a_large_upload(edge: Edge) -> None:
    body = b"x" * (2 * MIB)
    with edge.client() as client:
        sender = threading.Thread(target=client.send, args=(sized(body, host="open.test") + request(target="/behind"),))
        sender.start()
        assert [client.response("POST").status, client.response().status] == [200, 200]
        sender.join()
    assert [len(seen.body) for seen in edge.a.complete] == [2 * MIB, 0]


def test_pipelined_to_different_upstreams(edge: Edge, how: Feed) -> None:
    edge.a.script = answer(b"HTTP/1.1 200 OK\r\nContent-Length: 1\r\n\r\na")
    edge.b.script = answer(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n1\r\nb\r\n0\r\n\r\n")
    with edge.client() as client:
        client.send(b"".join(request(host=host) for host in ("a.test", "b.test") * 5), how)
        assert b"".join(client.response().body for _ in range(10)) == b"ab" * 5


def test_pipelined_head_and_get(edge: Edge, how: Feed) -> None:
    edge.a.script = lambda exchange: exchange.send(
        b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\n" + (b"" if exchange.request.method == "HEAD" else b"ok")
    )
    with edge.client() as client:
        client.send(request(method="HEAD") + request() + request(method="HEAD") + request(), how)
        bodies = [client.response(method).body for method in ("HEAD", "GET", "HEAD", "GET")]
        assert bodies == [b"", b"ok", b"", b"ok"]


def test_pipelined_local_answers_keep_their_place(edge: Edge, how: Feed) -> None:
    with edge.client() as client:
        client.send(request() + request(host="nowhere.test") + request(target="*", method="OPTIONS") + request(), how)
        statuses = [client.response(method).status for method in ("GET", "GET", "OPTIONS")]
        assert statuses == [200, 404, 204]
        assert client.response().status == 200


def test_pipelining_is_bounded(edge: Edge) -> None:
    """A client that pipelines without reading cannot fill the proxy's memory: it is not read from."""
    release = threading.Event()

    def script(exchange: Exchange) -> None:
        exchange.hold(release)
        exchange.send(b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n")

    edge.a.script = script
    raw = request("X-Fill: " + "x" * 8000) * 8
    taken = 0
    with edge.client(timeout=1) as client:
        try:
            while taken < 1024:
                client.send(raw)
                taken += 1
        except TimeoutError:
            pass
        assert taken < 1024, "64 MiB of requests were read ahead"
        release.set()
        client.finish_writing()  # somewhere within a request
        client.timeout = client.stream.timeout = 30
        assert client.stream.rest().count(b"HTTP/1.1 200 ") >= 8 * taken


# Backpressure.


def test_backpressure_towards_the_upstream(edge: Edge) -> None:
    """An upstream that does not read stalls the client."""
    release = threading.Event()

    def script(exchange: Exchange) -> None:
        exchange.hold(release)
        exchange.read_body()
        exchange.send(b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok")

    edge.a.script = script
    size, sent = 64 * MIB, 0
    with edge.client(timeout=20) as client:

        def upload() -> None:
            nonlocal sent
            client.socket.sendall(request(f"Content-Length: {size}", method="POST", host="open.test"))
            block = b"x" * 65536
            while sent < size:
                client.socket.sendall(block)
                sent += len(block)

        sender = threading.Thread(target=upload)
        sender.start()
        edge.a.wait(1)
        stalled = stalls(lambda: sent, 48 * MIB, "upload")
        assert stalled < size
        release.set()
        assert client.response().status == 200
        sender.join()
    assert edge.a.one().length == size


@pytest.mark.parametrize("coding", ["sized", "chunked"])
def test_backpressure_towards_the_client(edge: Edge, coding: str) -> None:
    """A client that does not read stalls the upstream."""
    size, sent = 64 * MIB, 0
    block = b"x" * 65536

    def script(exchange: Exchange) -> None:
        nonlocal sent
        if coding == "sized":
            exchange.send(b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n" % size)
        else:
            exchange.send(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n")
        while sent < size:
            exchange.send(block if coding == "sized" else b"10000\r\n%b\r\n" % block)
            sent += len(block)
        if coding == "chunked":
            exchange.send(b"0\r\n\r\n")

    edge.a.script = script
    with edge.client(timeout=20, receive_buffer=65536) as client:
        client.send(request())
        stalls(lambda: sent, 48 * MIB, "download")
        assert sent < size
        received = 0
        while received < size:
            chunk = client.stream.some()
            assert chunk, f"cut after {received} bytes"
            received += len(chunk)
            client.stream.raw.clear()


def test_a_slow_client_costs_the_others_nothing(edge: Edge) -> None:
    block = b"x" * MIB
    edge.a.script = answer(b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n%b" % (32 * MIB, block * 32))
    with edge.client(receive_buffer=4096) as slow:
        slow.send(request())
        slow.stream.fill()
        for _ in range(10):
            edge.probe(host="b.test")
