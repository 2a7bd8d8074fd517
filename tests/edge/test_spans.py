"""Every request, however it ends, leaves one SERVER span, one metric sample and one access-log record."""

from __future__ import annotations

from collections.abc import Callable, Iterator

import pytest

from tests.edge.conftest import clean
from tests.harness.collector import ERROR, UNSET, Collector
from tests.harness.edge import Edge, chunked, request, sized
from tests.harness.traced import failed, told
from tests.harness.upstream import answer, hang_up, silent


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


REFUSED = {
    "bad-request": (b"GET / HTTP/1.1\r\nHost: a.test\r\nno colon\r\n\r\n", 400, "bad_request"),
    "bad-host": (request(host=None), 400, "bad_host"),
    "bad-target": (request(target="/../x"), 400, "bad_target"),
    "bad-framing": (request("Content-Length: x"), 400, "bad_framing"),
    "garbage": (b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03\r\n\r\n", 400, "bad_request"),
    "no-route": (request(host="nowhere.test"), 404, "no_route"),
    "connect": (request(target="a.test:443", host="a.test:443", method="CONNECT"), 405, "method_not_allowed"),
    "slow-head": (b"GET / HTTP/1.1\r\nHost: a.test\r\n", 408, "request_timeout"),
    "too-large": (sized(b"x" * 17, host="small.test"), 413, "body_too_large"),
    "too-long": (request(target="/" + "a" * 400), 414, "target_too_long"),
    "expectation": (request("Expect: x"), 417, "expectation_failed"),
    "head-too-large": (request("X-A: " + "a" * 1100), 431, "head_too_large"),
    "coding": (request("Transfer-Encoding: gzip", method="POST"), 501, "not_implemented"),
    "version": (request(version="2.0"), 505, "version_not_supported"),
}


@pytest.mark.parametrize(("raw", "status", "label"), REFUSED.values(), ids=REFUSED)
def test_refused(edge: Edge, raw: bytes, status: int, label: str) -> None:
    account = told(edge, raw, status)
    failed(account, label)
    assert account.attempts == []
    # 4xx is never an error of a SERVER span; 5xx always is.
    assert account.server.status == (ERROR if status >= 500 else UNSET)
    assert account.server.message == ""
    assert not edge.a.requests


def test_slow_body(edge: Edge) -> None:
    account = told(edge, request("Content-Length: 5", method="POST", body=b"he"), 408)
    failed(account, "request_timeout")
    assert account.server.status == UNSET
    assert account.server.end - account.server.start >= 1_000_000_000


def test_chunked_body_too_large(edge: Edge) -> None:
    account = told(edge, chunked(b"x" * 10, b"x" * 10, host="small.test"), 413)
    failed(account, "body_too_large")
    assert account.server.attributes["http.route"] == "/"


def test_malformed_body(edge: Edge) -> None:
    account = told(edge, request("Transfer-Encoding: chunked", method="POST", body=b"2\r\nok\r\nx\r\n"), 400)
    failed(account, "bad_framing")


def test_no_endpoint(edge: Edge) -> None:
    account = told(edge, request(host="none.test"), 503)
    failed(account, "no_endpoint")
    assert account.server.status == ERROR
    assert account.attempts == []


def test_connect_failed(edge: Edge) -> None:
    account = told(edge, request(host="dead.test"), 502)
    failed(account, "connect_failed")
    assert account.server.status == ERROR
    assert account.attempts
    for attempt in account.attempts:
        assert (attempt.error_type, attempt.status) == ("connect_failed", ERROR)
        assert "http.response.status_code" not in attempt.attributes


def test_upstream_reset(edge: Edge) -> None:
    edge.a.script = hang_up
    account = told(edge, sized(b"hello"), 502)
    failed(account, "upstream_reset")
    (attempt,) = account.attempts
    assert (attempt.error_type, attempt.status) == ("upstream_reset", ERROR)


def test_bad_response(edge: Edge) -> None:
    edge.a.script = answer(b"nonsense\r\n\r\n")
    account = told(edge, sized(b"hello"), 502)
    failed(account, "bad_response")
    (attempt,) = account.attempts
    assert attempt.error_type == "bad_response"


def test_unsolicited_101(edge: Edge) -> None:
    edge.a.script = answer(b"HTTP/1.1 101 Switching Protocols\r\nUpgrade: x\r\nConnection: Upgrade\r\n\r\n")
    failed(told(edge, sized(b"hello"), 502), "bad_response")


def test_upstream_timeout(edge: Edge) -> None:
    edge.a.script = silent
    account = told(edge, sized(b"hello", host="quick.test"), 504)
    failed(account, "upstream_timeout")
    assert account.server.status == ERROR
    (attempt,) = account.attempts
    assert attempt.error_type == "upstream_timeout"
    assert attempt.end - attempt.start >= 1_000_000_000


@pytest.mark.parametrize("raw", [request(), sized(b"hello"), request(version="1.0"), chunked(b"hello")])
def test_success(edge: Edge, raw: bytes) -> None:
    account = told(edge, raw, 200, raw[:4].decode().strip())
    server = account.server
    assert (server.error_type, server.status, account.faults) == (None, UNSET, {})
    (attempt,) = account.attempts
    assert (attempt.error_type, attempt.status) == (None, UNSET)
    assert server.name == f"{raw[:4].decode().strip()} /"
    assert server.attributes["http.route"] == "/"
    assert server.attributes["network.protocol.version"] == ("1.0" if b"HTTP/1.0" in raw else "1.1")
    assert edge.a.one().fields.one("traceparent").split("-")[1:3] == [server.trace_id, attempt.span_id]


@pytest.mark.parametrize(
    ("status", "server", "client"), [(404, UNSET, ERROR), (500, ERROR, ERROR), (503, ERROR, ERROR), (302, UNSET, UNSET)]
)
def test_status_of_the_upstream(edge: Edge, status: int, server: int, client: int) -> None:
    edge.a.script = answer(b"HTTP/1.1 %d X\r\nContent-Length: 0\r\n\r\n" % status)
    account = told(edge, sized(b"hello"), status)
    assert account.server.status == server
    assert account.server.error_type == (str(status) if server == ERROR else None)
    (attempt,) = account.attempts
    assert attempt.status == client
    assert attempt.error_type == (str(status) if client == ERROR else None)
    assert attempt.attributes["http.response.status_code"] == status


def test_options_asterisk(edge: Edge) -> None:
    account = told(edge, request(target="*", method="OPTIONS"), 204, "OPTIONS")
    assert account.server.error_type is None
