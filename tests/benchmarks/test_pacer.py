"""The open loop: what a stall is counted as, when its true distribution is known."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator

import pytest

from benchmarks.load import pacer
from benchmarks.load.openloop import Paced
from benchmarks.load.pacer import Pacer
from benchmarks.measure.distribution import Distribution, upper
from tests.benchmarks.server import OK, Server, slowly


@pytest.fixture
def serve() -> Iterator[Callable[[Callable[[int], bytes]], Server]]:
    started: list[Server] = []

    def start(answer: Callable[[int], bytes]) -> Server:
        started.append(Server(answer))
        return started[-1]

    yield start
    for each in started:
        each.close()


def paced(server: Server, rate: float, seconds: float, *, connections: int = 8, warm_up: float = 0.0) -> Paced:
    result = Pacer(server.port, rate, connections, "bench.test", "/").run(seconds, warm_up)
    plain = {name: getattr(result, name) for name in ("requests", "rate", "latency", "lag", "errors")}
    return Paced.parse("noise\n" + json.dumps(plain))


def above(distribution: Distribution, microseconds: float) -> int:
    return sum(count for bucket, count in distribution.counts.items() if upper(bucket) > microseconds)


def test_a_stall_is_counted_for_every_request_it_delays(serve: Callable[[Callable[[int], bytes]], Server]) -> None:
    """200 requests a second, all connections stalled once for a second: 200 are due meanwhile.

    The one due at time t of the stall waits at least 1 s - t, however busy this machine is, so that their latencies
    are spread evenly over 0 to 1 s. A closed loop would see one slow request for each of the 8 connections.
    """
    server = serve(lambda number: slowly(1.0 if number == 100 else 0.0))
    found = paced(server, rate=200, seconds=3.0)
    assert found.errors == {}
    assert found.latency.total == 600
    for least in (0.2, 0.4, 0.6, 0.8):
        assert above(found.latency, least * 1e6) >= 200 * (1 - least) - 2
    assert found.latency.percentile(1.0) >= 0.99e6
    # What was due while every connection waited is the server's delay and none of the generator's.
    assert found.lag.total <= 600 - 200 + 8


def test_a_server_too_slow_for_the_rate_is_ever_later(serve: Callable[[Callable[[int], bytes]], Server]) -> None:
    """A hundred a second where fifty can be served: the last of 100 is answered at least a second after it was due."""
    server = serve(lambda _: slowly(0.02))
    found = paced(server, rate=100, seconds=1.0, connections=4)
    assert found.latency.total == 100
    assert found.latency.percentile(1.0) >= 1.0e6
    assert found.latency.percentile(0.5) >= 0.5e6


def test_a_fast_server_is_asked_at_the_rate(serve: Callable[[Callable[[int], bytes]], Server]) -> None:
    found = paced(serve(lambda _: OK), rate=500, seconds=2.0, warm_up=1.0)
    assert found.requests == 1000
    assert found.latency.total == 500  # the warm-up's are dropped
    assert found.rate <= 510
    assert found.errors == {}


@pytest.mark.parametrize(
    ("answer", "kind"),
    [
        (b"HTTP/1.1 502 Bad Gateway\r\nContent-Length: 2\r\n\r\nno", "status"),
        (b"HTTP/1.1 302 Found\r\nContent-Length: 0\r\n\r\n", "status"),
        (b"", "read"),
    ],
)
def test_what_is_no_answer_is_an_error(
    serve: Callable[[Callable[[int], bytes]], Server], answer: bytes, kind: str
) -> None:
    server = serve(lambda number: answer if number % 10 == 0 else OK)
    found = paced(server, rate=200, seconds=0.5)
    assert set(found.errors) == {kind}
    assert found.errors[kind] >= 5


def test_what_is_never_answered_is_an_error(
    serve: Callable[[Callable[[int], bytes]], Server], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(pacer, "PATIENCE", 0.3)
    server = serve(lambda number: OK if number < 50 else b"HTTP/1.1 200 OK\r\nContent-Length: 9\r\n\r\nhalf")
    found = paced(server, rate=200, seconds=0.5)
    assert found.errors["timeout"] == 100 - found.latency.total == 51


def test_a_server_may_close_after_an_answer(serve: Callable[[Callable[[int], bytes]], Server]) -> None:
    closing = OK.replace(b"\r\n\r\n", b"\r\nConnection: close\r\n\r\n", 1)
    server = serve(lambda number: closing if number % 7 == 0 else OK)
    found = paced(server, rate=200, seconds=0.5)
    assert found.errors == {}
    assert found.latency.total == 100


def test_an_answer_may_come_in_pieces() -> None:
    head, body = OK[:-2], OK[-2:]
    assert pacer._complete(OK[:10]) == (None, True)
    assert pacer._complete(head + body[:1]) == (None, True)
    assert pacer._complete(OK) == (len(OK), True)
    assert pacer._complete(OK.replace(b"Content", b"Connection: close\r\nContent"))[1] is False


def test_a_pacer_that_could_not_run_is_an_error() -> None:
    with pytest.raises(ValueError, match="ConnectionRefused"):
        Paced.parse("Traceback\nConnectionRefusedError: [Errno 111]\n")
