"""What an attacker tries, part three: exhaustion, growth, secrets fished for, and plain noise."""

from __future__ import annotations

import contextlib
import random
import secrets
import socket
import threading
import time
from collections.abc import Callable

import psutil
import pytest

from tests.harness import poll
from tests.harness.client import Client
from tests.harness.edge import Edge, chunked, request, sized
from tests.harness.feed import Feed
from tests.harness.traced import Traced
from tests.harness.upstream import Exchange, answer
from tests.harness.wire import WireError

SMUGGLED = b"GET /smuggled HTTP/1.1\r\nHost: a.test\r\n\r\n"
EVIL = b"HTTP/1.1 200 OK\r\nContent-Length: 4\r\n\r\nevil"


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


MIB = 1024 * 1024

FLOODS = {
    "forwarded": request(),
    "no-route": request(host="nowhere.test"),
    "options": request(target="*", method="OPTIONS"),
    "unavailable": request(host="none.test"),
}


@pytest.mark.parametrize("raw", FLOODS.values(), ids=FLOODS)
def test_endless_pipelining_without_reading(edge: Edge, raw: bytes) -> None:
    """Neither requests nor answers pile up in the proxy: a client that does not read is soon no longer read from.

    What the kernel holds, two send and two receive buffers of some MiB each, is all that may be under way.
    """
    worker = max((psutil.Process(pid) for pid in edge.proxy.workers()), key=lambda process: process.memory_info().rss)
    before = worker.memory_info().rss
    block = raw * (65536 // len(raw))
    sent = 0
    with edge.client(timeout=1) as client:
        with contextlib.suppress(TimeoutError):
            while sent < 48 * MIB:
                client.send(block)
                sent += len(block)
        assert sent < 24 * MIB, "the proxy reads on and on"
        assert worker.memory_info().rss - before < 32 * MIB  # an allocator's habits included
        client.reset()
    poll.until(lambda: edge.proxy.metrics().total("http_server_active_requests") == 0, "no request left behind")


def test_requests_read_ahead_are_bounded_by_bytes(edge: Edge) -> None:
    """A client that reads but pipelines faster than the upstream answers must not grow the buffer read by read."""
    worker = max((psutil.Process(pid) for pid in edge.proxy.workers()), key=lambda process: process.memory_info().rss)

    def unhurried(exchange: Exchange) -> None:
        time.sleep(0.002)
        answer()(exchange)

    edge.a.script = unhurried
    block = request("X-Fill: " + "x" * 200) * 256
    before = worker.memory_info().rss
    peak, sent = before, 0
    with edge.client(timeout=0.1) as client:
        reader = threading.Thread(target=client.stream.rest)
        client.stream.timeout = 30
        reader.start()
        deadline = time.monotonic() + 2
        while time.monotonic() < deadline and sent < 48 * MIB:
            try:
                client.socket.sendall(block)
                sent += len(block)
            except TimeoutError:
                break
            peak = max(peak, worker.memory_info().rss)
        client.socket.shutdown(socket.SHUT_RDWR)
        reader.join()
    assert peak - before < 12 * MIB, f"{(peak - before) >> 20} MiB more"


def one_byte_chunks() -> bytes:
    return b"1\r\nx\r\n" * 10_000


@pytest.mark.parametrize(
    ("head", "block"),
    [
        (b"", request(host="nowhere.test") * 1500),
        (b"", request(target="*", method="OPTIONS") * 1500),
        (b"", request(host="none.test", method="HEAD") * 1500),
        (b"", request() * 1500),
        (request("Transfer-Encoding: chunked", method="POST", host="open.test"), one_byte_chunks()),
        (request("Content-Length: 999999999999", method="POST", host="open.test"), b"x" * 65536),
    ],
    ids=["no-route", "options", "unavailable", "forwarded", "tiny-chunks", "upload"],
)
def test_one_busy_client_does_not_starve_the_others(edge: Edge, head: bytes, block: bytes) -> None:
    """However much one connection has to say, the loop comes round to the others: a few are served meanwhile."""
    over = threading.Event()

    def flood() -> None:
        with edge.client() as client:
            reader = threading.Thread(target=_swallow, args=(client,))
            reader.start()
            with contextlib.suppress(OSError):
                client.socket.sendall(head)
                while not over.is_set():
                    client.socket.sendall(block)
            with contextlib.suppress(OSError):
                client.socket.shutdown(socket.SHUT_RDWR)
            reader.join()

    attacker = threading.Thread(target=flood)
    attacker.start()
    try:
        for _ in range(10):
            with edge.client(timeout=5) as client:
                assert client.ask(request(host="b.test")).status == 200
    finally:
        over.set()
        attacker.join()
    poll.until(lambda: edge.proxy.metrics().total("http_server_active_requests") == 0, "no request left behind", 30)


def _swallow(client: Client) -> None:
    """Read and forget until the end."""
    with contextlib.suppress(OSError):
        while client.socket.recv(1 << 20):
            pass


@pytest.fixture(scope="module")
def narrow(launch: Callable[..., Edge]) -> Edge:
    return launch(settings={"limits.connections": 5})


def test_connections_are_bounded(narrow: Edge) -> None:
    """Beyond the bound a connection is closed at once; those that are open go on, and room that is made is used."""
    clients = [narrow.client() for _ in range(5)]
    try:
        for client in clients:
            narrow.probe(client)
        with narrow.client() as one_more:
            one_more.send(request())
            assert one_more.closed()
        for client in clients:
            narrow.probe(client)
        clients.pop().close()

        def room() -> bool:
            with narrow.client() as late:
                late.send(request())
                return b"200 OK" in late.stream.some()

        poll.until(room, "room for another connection")
    finally:
        for client in clients:
            client.close()


def test_a_trickled_head_costs_no_more_by_its_length(edge: Edge) -> None:
    """Looking again at the whole head for each byte of it is quadratic: a core for some thousand tiny packets."""
    worker = psutil.Process(edge.proxy.workers()[0])

    def cost(size: int, times: int) -> float:
        """CPU seconds of the worker per byte."""
        raw = request(*[f"X-{number}: {'a' * 200}" for number in range(size // 208)])
        before = sum(worker.cpu_times()[:2])
        for _ in range(times):
            with edge.client() as client:
                assert client.ask(raw, Feed.BYTES).status == 200
        return (sum(worker.cpu_times()[:2]) - before) / (len(raw) * times)

    small, large = cost(2_000, 8), cost(16_000, 1)
    assert large < 3 * small, f"{large * 1e6:.0f} us a byte instead of {small * 1e6:.0f}"


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
                while not client.ended():
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
