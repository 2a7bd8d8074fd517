"""The same for requests that end in another way than by an answer; and what spans say besides."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator

import pytest

from tests.edge.conftest import clean
from tests.harness.collector import ERROR, UNSET, Collector
from tests.harness.edge import Edge, request, sized
from tests.harness.traced import Account, Ledger, failed, judged, told
from tests.harness.upstream import Exchange, answer, silent


@pytest.fixture(scope="module")
def own(launch: Callable[..., Edge]) -> Iterator[Edge]:
    """A proxy of this module's own, so that nobody else's requests are counted; one second instead of sixty."""
    collector = Collector("grpc")
    yield launch(
        collector=collector,
        settings={
            "timeouts.head": 1,
            "timeouts.body": 1,
            "timeouts.idle": 5,
            "limits.head": 1024,
            "limits.request_line": 256,
        },
    )
    collector.stop()


@pytest.fixture
def edge(own: Edge) -> Iterator[Edge]:
    yield from clean(own)


def test_client_gone_while_waiting(edge: Edge) -> None:
    # A client that leaves is no error: no status code, no error.type, no status (semantic conventions v1.44).
    edge.a.script = silent
    ledger, before = Ledger(edge.proxy, edge.collector), time.time_ns()
    client = edge.client()
    client.send(sized(b"hello"))
    edge.a.wait(1)
    client.reset()
    account = ledger.account(client.port)
    judged(account, None, before)
    gone(account)
    assert "client_gone" in account.record.values()


def gone(account: Account) -> None:
    assert account.server.error_type is None
    assert account.server.status == UNSET
    for attempt in account.attempts:
        assert attempt.error_type is None
        assert attempt.status == UNSET


def test_client_gone_in_the_middle_of_the_response(edge: Edge) -> None:
    def script(exchange: Exchange) -> None:
        exchange.send(b"HTTP/1.1 200 OK\r\nContent-Length: 1000000000\r\n\r\nbegin")
        exchange.hold(exchange.recorder.over)

    edge.a.script = script
    ledger, before = Ledger(edge.proxy, edge.collector), time.time_ns()
    client = edge.client()
    client.send(request())
    while b"begin" not in client.stream.raw:
        client.stream.fill()
    client.reset()
    account = ledger.account(client.port)
    judged(account, 200, before)
    gone(account)


def test_client_gone_in_the_middle_of_its_upload(edge: Edge) -> None:
    ledger, before = Ledger(edge.proxy, edge.collector), time.time_ns()
    client = edge.client()
    client.send(request("Content-Length: 5", method="POST", body=b"he"))
    edge.a.wait(1)
    client.reset()
    account = ledger.account(client.port)
    judged(account, None, before)
    gone(account)


@pytest.mark.parametrize("part", [b"GET / HTTP/1.1\r\nHost: a", b"G"])
def test_client_gone_in_the_middle_of_its_head(edge: Edge, part: bytes) -> None:
    ledger, before = Ledger(edge.proxy, edge.collector), time.time_ns()
    client = edge.client()
    client.send(part)
    edge.probe()  # it has been read by now
    client.reset()
    spans = edge.collector
    assert spans is not None
    port = client.port
    (server,) = spans.wait(lambda span: span.attributes.get("network.peer.port") == port, what="the SERVER span")
    assert "http.response.status_code" not in server.attributes
    assert server.error_type is None
    assert server.start >= before
    assert len(ledger.proxy.log()) >= 1


@pytest.mark.parametrize("abrupt", [False, True], ids=["fin", "rst"])
def test_reset_in_the_middle_of_the_response(edge: Edge, abrupt: bool) -> None:
    release = threading.Event()

    def script(exchange: Exchange) -> None:
        exchange.read_body()
        exchange.send(b"HTTP/1.1 200 OK\r\nContent-Length: 10\r\n\r\nbegin")
        release.wait(5)
        if abrupt:
            exchange.reset()
        else:
            exchange.close()

    edge.a.script = script
    ledger, before = Ledger(edge.proxy, edge.collector), time.time_ns()
    with edge.client() as client:
        client.send(sized(b"hello"))
        while b"begin" not in client.stream.raw:
            client.stream.fill()
        release.set()
        assert not client.response().complete
        account = ledger.account(client.port)
    judged(account, 200, before)
    failed(account, "response_cut")
    # The response was not sent as it should have been: Error, whatever the status says.
    assert account.server.status == ERROR
    (attempt,) = account.attempts
    assert (attempt.error_type, attempt.status) == ("response_cut", ERROR)


def test_upgrade(edge: Edge) -> None:
    def script(exchange: Exchange) -> None:
        exchange.send(b"HTTP/1.1 101 Switching Protocols\r\nUpgrade: x\r\nConnection: Upgrade\r\n\r\n")
        exchange.send(exchange.stream.exactly(5))
        exchange.await_close()
        exchange.close()

    edge.a.script = script
    ledger, before = Ledger(edge.proxy, edge.collector), time.time_ns()
    with edge.client() as client:
        client.send(request("Upgrade: x", "Connection: Upgrade"))
        assert client.response().status == 101
        client.send(b"hello")
        assert client.stream.exactly(5) == b"hello"
    account = ledger.account(client.port)
    judged(account, 101, before)
    # envoy#44486: the end of a tunnel is no error.
    assert (account.server.status, account.server.error_type, account.faults) == (UNSET, None, {})
    (attempt,) = account.attempts
    assert (attempt.status, attempt.error_type) == (UNSET, None)


def test_upgrade_whose_client_resets(edge: Edge) -> None:
    def script(exchange: Exchange) -> None:
        exchange.send(b"HTTP/1.1 101 Switching Protocols\r\nUpgrade: x\r\nConnection: Upgrade\r\n\r\n")
        exchange.await_close()
        exchange.close()

    edge.a.script = script
    ledger, before = Ledger(edge.proxy, edge.collector), time.time_ns()
    client = edge.client()
    client.send(request("Upgrade: x", "Connection: Upgrade"))
    assert client.response().status == 101
    client.reset()
    account = ledger.account(client.port)
    judged(account, 101, before)
    assert (account.server.status, account.server.error_type) == (UNSET, None)


def test_a_connection_without_a_request_leaves_nothing(edge: Edge) -> None:
    ledger = Ledger(edge.proxy, edge.collector)
    for _ in range(3):
        edge.client().close()
    with edge.client() as client:
        client.ask(request())
        ledger.account(client.port)  # exactly one: the probe's


@pytest.mark.parametrize("stray", [b"\r\n", b"\r"])
def test_a_stray_line_end_is_no_request(edge: Edge, stray: bytes) -> None:
    # Old clients send CRLF behind a POST body (RFC 9112 section 2.2): nothing is counted for it.
    ledger = Ledger(edge.proxy, edge.collector)
    with edge.client() as client:
        assert client.ask(sized(b"hello") + stray).status == 200
        port = client.port
    edge.proxy.admin("/healthz")
    ledger.account(port)  # exactly one


def test_pipelined_requests_each_leave_their_own(edge: Edge) -> None:
    ledger = Ledger(edge.proxy, edge.collector)
    collector = edge.collector
    assert collector is not None
    with edge.client() as client:
        client.send(request(target="/1") + request(target="/2", host="nowhere.test") + b"bad\r\n\r\n")
        assert [client.response().status for _ in range(3)] == [200, 404, 400]
        port = client.port
    spans = collector.wait(lambda span: span.attributes.get("network.peer.port") == port and span.kind == 2, 3)
    assert [span.attributes["http.response.status_code"] for span in sorted(spans, key=lambda span: span.start)] == [
        200,
        404,
        400,
    ]
    assert len({span.trace_id for span in spans}) == 3
    assert ledger.proxy.metrics().total("http_server_request_duration_seconds_count") > 0


def test_self_time_is_a_part_of_the_whole(edge: Edge) -> None:
    def slow(exchange: Exchange) -> None:
        time.sleep(0.1)
        answer()(exchange)

    edge.a.script = slow
    account = told(edge, request(), 200)
    server, (attempt,) = account.server, account.attempts
    whole = (server.end - server.start) / 1000
    assert 0 < server.attributes["spanway.self.us"] <= whole - 90_000
    assert 90_000 <= attempt.attributes["spanway.wait.us"] <= whole


def test_join_keys(edge: Edge) -> None:
    # Design, section 5: the upstream connection's 5-tuple and the byte ranges within its streams.
    ranges = []
    for number in range(3):
        raw = request(target=f"/{'x' * number}")
        (attempt,) = told(edge, raw, 200).attempts
        names = ["network.local.address", "network.local.port", "network.peer.address", "network.peer.port"]
        values = [attempt.attributes[name] for name in names]
        assert values[0] == values[2] == "127.0.0.1"
        assert values[3] == edge.a.port
        offsets = {
            name: value
            for name, value in attempt.attributes.items()
            if "offset" in name or "bytes" in name or ".start" in name or ".end" in name
        }
        ranges.append((values[1], sorted(value for value in offsets.values() if isinstance(value, int))))
    assert len({local for local, _ in ranges}) == 1, "one upstream connection"
    sizes = [len(seen.head) for seen in edge.a.requests]
    total = sum(sizes)
    assert total in ranges[-1][1], f"the end of the last request ({total}) is not among {ranges[-1]}"


def test_traces_page_shows_the_request(edge: Edge) -> None:
    account = told(edge, request(), 200)
    page = edge.proxy.admin_json(f"/traces/{account.server.trace_id}")
    assert account.server.span_id in repr(page)
