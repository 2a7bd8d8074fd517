"""Upstreams that fail, in every way they can: retries, choice of endpoints, timeouts, errors, cancellation, TLS."""

from __future__ import annotations

import json
import re
import secrets
import socket
import threading
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from tests.edge.conftest import clean
from tests.harness import poll
from tests.harness.certificates import Certificate
from tests.harness.collector import CLIENT, ERROR, Collector
from tests.harness.edge import Edge, chunked, request, sized
from tests.harness.manifests import service, site
from tests.harness.traced import PARENT, Traced
from tests.harness.upstream import OK, Exchange, Recorder, Refusing, answer, hang_up, in_turn, silent

MIB = 1024 * 1024


@pytest.fixture
def traced(edge: Edge) -> Traced:
    return Traced(edge.collector)


class Full:
    """A port whose backlog is full: SYNs go unanswered, so that connecting takes for ever."""

    def __init__(self) -> None:
        self._listener = socket.socket(socket.AF_INET, socket.SOCK_STREAM)
        self._listener.bind(("127.0.0.1", 0))
        self._listener.listen(0)
        self.port: int = self._listener.getsockname()[1]
        self._fillers: list[socket.socket] = []
        for _ in range(8):
            filler = socket.socket(socket.AF_INET, socket.SOCK_STREAM)
            filler.setblocking(False)
            filler.connect_ex(("127.0.0.1", self.port))
            self._fillers.append(filler)

    def stop(self) -> None:
        for filler in self._fillers:
            filler.close()
        self._listener.close()


class Several:
    """A proxy of this module's own with sites of several endpoints, and quick to eject."""

    def __init__(self, launch: Callable[..., Edge], folder: Path) -> None:
        self.certificate = Certificate("secure.test", "127.0.0.1")
        self.three = [Recorder() for _ in range(3)]
        self.sick, self.well = Recorder(), Recorder()
        self.live = Recorder()
        self.tls = Recorder(tls=self.certificate.server_context(folder))
        self.plain = Recorder()
        self.refusing = [Refusing() for _ in range(5)]
        self.full = Full()
        dead = [item.port for item in self.refusing]
        quick = {
            "proxy-connect-timeout": "1",
            "proxy-read-timeout": "1",
            "proxy-send-timeout": "1",
            "proxy-body-size": "0",
        }
        self.edge = launch(
            collector=Collector(),
            settings={"eject_after": 3, "eject_time": 1},
            extra=[
                *site("three", [item.port for item in self.three]),
                *site("eject", [self.sick.port, self.well.port]),
                *site("half", [dead[0], self.live.port]),
                *site("gone", dead),
                *site("full", [self.full.port], annotations=quick),
                *site("send", [self.plain.port], annotations=quick),
                *site("secure", [self.tls.port], annotations={"backend-protocol": "HTTPS"}),
                *site("insecure", [self.plain.port], annotations={"backend-protocol": "HTTPS"}),
            ],
        )

    @property
    def recorders(self) -> list[Recorder]:
        return [*self.three, self.sick, self.well, self.live, self.tls, self.plain]

    def reset(self) -> None:
        for recorder in self.recorders:
            recorder.reset()

    def stop(self) -> None:
        for recorder in self.recorders:
            recorder.stop()
        for refusing in self.refusing:
            refusing.stop()
        self.full.stop()
        assert self.edge.collector is not None
        self.edge.stop()
        self.edge.collector.stop()


@pytest.fixture(scope="module")
def all_sites(launch: Callable[..., Edge], tmp_path_factory: pytest.TempPathFactory) -> Iterator[Several]:
    several = Several(launch, tmp_path_factory.mktemp("tls"))
    yield several
    several.stop()


@pytest.fixture
def sites(all_sites: Several) -> Iterator[Several]:
    all_sites.reset()
    for _ in clean(all_sites.edge):
        yield all_sites
    for recorder in all_sites.recorders:
        assert not recorder.malformed
    all_sites.reset()


def ask(edge: Edge, raw: bytes, method: str = "GET") -> int:
    with edge.client() as client:
        return client.ask(raw, method=method).status


# Retries.


def test_dead_reused_connection_is_retried_silently(edge: Edge, traced: Traced) -> None:
    edge.probe()
    edge.a.script = in_turn(answer(), hang_up, answer())  # the probe was the first
    assert ask(edge, request(traced.line, target="/again")) == 200
    first, second = traced.attempts()
    assert (first.error_type, first.status) == ("upstream_reset", ERROR)
    assert "http.response.status_code" not in first.attributes
    assert "http.request.resend_count" not in first.attributes
    assert second.attributes["http.request.resend_count"] == 1
    assert second.attributes["http.response.status_code"] == 200
    assert second.error_type is None
    assert traced.server().error_type is None
    parents = [re.split("-", seen.fields.one("traceparent"))[2] for seen in edge.a.requests if seen.target == "/again"]
    assert parents == [first.span_id, second.span_id], "each attempt's own span goes to the upstream"


def test_connection_closed_while_idle_is_not_even_tried(edge: Edge, traced: Traced) -> None:
    edge.probe()
    edge.a.reset()  # closes it, and waits until the proxy has closed too
    assert ask(edge, sized(b"hello", traced.line)) == 200
    assert len(traced.attempts()) == 1


@pytest.mark.parametrize("method", ["POST", "PATCH"])
def test_not_idempotent_is_not_retried_once_sent(edge: Edge, traced: Traced, method: str) -> None:
    edge.a.script = hang_up
    assert ask(edge, sized(b"hello", traced.line, method=method)) == 502
    assert len(edge.a.requests) == 1
    (attempt,) = traced.attempts()
    assert attempt.error_type == "upstream_reset"


@pytest.mark.parametrize("raw", [sized(b"x" * 500, method="PUT"), chunked(b"x" * 250, b"x" * 250, method="PUT")])
def test_retried_body_is_whole_or_not_sent(edge: Edge, raw: bytes) -> None:
    edge.probe()
    edge.a.script = in_turn(answer(), hang_up, answer())  # the probe was the first
    status = ask(edge, raw, "PUT")
    assert status in (200, 502)
    puts = [seen for seen in edge.a.requests if seen.method == "PUT"]
    assert 1 <= len(puts) <= 3
    assert all(seen.body == b"x" * 500 for seen in puts if seen.complete)
    assert status == 502 or puts[-1].complete


def test_no_retry_after_the_first_response_byte(edge: Edge, traced: Traced) -> None:
    def script(exchange: Exchange) -> None:
        exchange.send(b"HTTP/1.1 2")
        exchange.close()

    edge.probe()
    edge.a.script = script
    assert ask(edge, request(traced.line, target="/once")) == 502
    assert len([seen for seen in edge.a.requests if seen.target == "/once"]) == 1
    assert len(traced.attempts()) == 1


def test_endless_hanging_up_ends(edge: Edge, traced: Traced) -> None:
    edge.a.script = hang_up
    assert ask(edge, request(traced.line)) == 502
    assert 1 <= len(edge.a.requests) <= 3
    attempts = traced.attempts()
    assert len(attempts) == len(edge.a.requests)
    assert [span.attributes.get("http.request.resend_count") for span in attempts] == [None, 1, 2][: len(attempts)]


@pytest.mark.parametrize(
    "raw", [request(host="half.test"), sized(b"hello", host="half.test"), chunked(b"he", b"llo", host="half.test")]
)
def test_refused_connection_is_retried_elsewhere(sites: Several, raw: bytes) -> None:
    # Nothing was sent: any method may try again.
    for _ in range(6):
        assert ask(sites.edge, raw) == 200
    assert len(sites.live.complete) == 6
    assert {seen.body for seen in sites.live.complete} <= {b"", b"hello"}


def test_at_most_three_tries(sites: Several) -> None:
    traced = Traced(sites.edge.collector)
    assert ask(sites.edge, sized(b"hello", traced.line, host="gone.test")) == 502
    attempts = traced.attempts()
    assert [span.error_type for span in attempts] == ["connect_failed"] * 3
    assert [span.attributes.get("http.request.resend_count") for span in attempts] == [None, 1, 2]
    assert len({span.attributes["server.port"] for span in attempts}) == 3, "the same endpoint was tried twice"
    assert all(span.status == ERROR and span.kind == CLIENT for span in attempts)
    assert traced.server().error_type == "connect_failed"


def test_attempts_do_not_overlap_and_lie_within_the_request(sites: Several) -> None:
    traced = Traced(sites.edge.collector)
    assert ask(sites.edge, request(traced.line, host="gone.test")) == 502
    attempts, server = traced.attempts(), traced.server()
    times = [server.start, *[moment for span in attempts for moment in (span.start, span.end)], server.end]
    assert times == sorted(times)
    assert {span.parent_id for span in attempts} == {server.span_id}


# Endpoints.


def test_round_robin(sites: Several) -> None:
    for _ in range(9):
        assert ask(sites.edge, request(host="three.test")) == 200
    assert [len(recorder.requests) for recorder in sites.three] == [3, 3, 3]


def test_ejection_and_recovery(sites: Several) -> None:
    sites.sick.script = hang_up
    statuses = [ask(sites.edge, sized(b"x", host="eject.test")) for _ in range(20)]
    assert statuses.count(502) == 3, "three failures in a row eject it"
    assert statuses[-8:] == [200] * 8
    assert len(sites.sick.requests) == 3
    sites.sick.script = answer()
    sites.sick.connections.clear()

    def recovered() -> bool:
        assert ask(sites.edge, sized(b"x", host="eject.test")) == 200
        return len(sites.sick.requests) >= 2

    poll.until(recovered, "the ejected endpoint to be used again")


def test_ejected_for_longer_when_the_trial_fails(sites: Several) -> None:
    sites.sick.script = hang_up
    for _ in range(20):
        ask(sites.edge, sized(b"x", host="eject.test"))
    before = len(sites.sick.requests)

    def tried() -> bool:
        ask(sites.edge, sized(b"x", host="eject.test"))
        return len(sites.sick.requests) > before

    poll.until(tried, "a trial")
    statuses = [ask(sites.edge, sized(b"x", host="eject.test")) for _ in range(10)]
    assert statuses == [200] * 10, "one failed trial is enough"
    sites.sick.script = answer()


def test_connect_refused(edge: Edge, traced: Traced) -> None:
    assert ask(edge, request(traced.line, host="dead.test")) == 502
    assert {span.error_type for span in traced.attempts()} == {"connect_failed"}


def test_no_endpoint(edge: Edge, traced: Traced) -> None:
    assert ask(edge, request(traced.line, host="none.test")) == 503
    assert traced.attempts() == []
    server = traced.server()
    assert (server.error_type, server.status) == ("no_endpoint", ERROR)
    assert server.attributes["http.route"] == "/"


def test_no_endpoint_keeps_the_connection(edge: Edge) -> None:
    with edge.client() as client:
        assert client.ask(request(host="none.test")).status == 503
        edge.probe(client)


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


def test_connect_timeout(sites: Several) -> None:
    traced = Traced(sites.edge.collector)
    assert ask(sites.edge, sized(b"hello", traced.line, host="full.test")) == 504
    assert {span.error_type for span in traced.attempts()} == {"connect_timeout"}


def test_send_timeout(sites: Several) -> None:
    def script(exchange: Exchange) -> None:
        exchange.hold(exchange.recorder.over)  # reads nothing

    sites.plain.script = script
    traced = Traced(sites.edge.collector)
    with sites.edge.client() as client:
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


# Error pages.

ERRORS = {
    "404": (request(host="nowhere.test"), 404, "no_route"),
    "502": (request(host="dead.test"), 502, "connect_failed"),
    "503": (request(host="none.test"), 503, "no_endpoint"),
    "413": (sized(b"x" * 20, host="small.test"), 413, "body_too_large"),
    "405": (request(method="TRACE"), 405, "method_not_allowed"),
    "417": (request("Expect: x"), 417, "expectation_failed"),
    "400": (request(target="/%00"), 400, "bad_target"),
}


@pytest.mark.parametrize(("raw", "status", "label"), ERRORS.values(), ids=ERRORS)
@pytest.mark.parametrize("accept", ["", "*/*", "text/html", "application/json", "text/plain, application/json;q=0.5"])
def test_error_page(edge: Edge, raw: bytes, status: int, label: str, accept: str) -> None:
    trace_id = secrets.token_hex(16)
    lines = f"traceparent: 00-{trace_id}-{PARENT}-01\r\n" + (f"Accept: {accept}\r\n" if accept else "")
    raw = raw.replace(b"\r\n", b"\r\n" + lines.encode(), 1)
    with edge.client() as client:
        response = client.ask(raw)
    assert response.status == status
    kind = response.fields.one("Content-Type")
    if accept == "application/json":
        assert kind.startswith("application/json")
        page = json.loads(response.body)
        assert (page["status"], page["error"]) == (status, label)
        assert page["message"]
        shown = page["trace_id"]
    elif "json" not in accept:
        assert kind.startswith("text/plain")
        assert label in response.text
        found = re.search(r"\b[0-9a-f]{32}\b", response.text)
        assert found
        shown = found[0]
    else:
        return
    assert len(response.body) < 600
    if status != 400:  # a malformed request need not have been read to its traceparent
        assert shown == trace_id


def test_error_page_for_head_has_no_body(edge: Edge) -> None:
    with edge.client() as client:
        response = client.ask(request(host="none.test", method="HEAD"), method="HEAD")
        assert response.status == 503
        edge.probe(client)


def test_error_page_for_http_1_0(edge: Edge) -> None:
    with edge.client() as client:
        assert client.ask(request(host="none.test", version="1.0")).status == 503
        assert client.closed()


def test_error_page_repeats_nothing_of_the_request(edge: Edge) -> None:
    evil = "<script>alert(1)</script>"
    with edge.client() as client:
        response = client.ask(
            request(f"X-A: {evil}", f"User-Agent: {evil}", target="/%3Cscript%3Ealert(1)", host="nowhere.test")
        )
    assert response.status == 404
    assert b"script" not in response.body
    assert "script" not in repr(response.fields)


# TLS to the upstream.


def test_tls_upstream(sites: Several) -> None:
    traced = Traced(sites.edge.collector)
    for _ in range(3):
        assert ask(sites.edge, sized(b"hello", traced.line, host="secure.test")) == 200
    assert [seen.body for seen in sites.tls.complete] == [b"hello"] * 3
    assert len(sites.tls.connections) == 1, "the TLS connection was not reused"
    assert sites.tls.requests[0].host == "secure.test"


def test_tls_upstream_phases(sites: Several) -> None:
    traced = Traced(sites.edge.collector)
    assert ask(sites.edge, request(traced.line, host="secure.test")) == 200
    (attempt,) = traced.attempts()
    assert attempt.attributes["url.full"].startswith("https://")
    assert attempt.attributes["spanway.tls.us"] > 0


def test_tls_upstream_large_both_ways(sites: Several) -> None:
    body = secrets.token_bytes(MIB)
    sites.tls.script = lambda exchange: exchange.send(
        b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n%b" % (MIB, exchange.read_body())
    )
    with sites.edge.client() as client:
        assert client.ask(sized(body, host="secure.test")).body == body


def test_tls_upstream_that_is_none(sites: Several) -> None:
    traced = Traced(sites.edge.collector)
    assert ask(sites.edge, request(traced.line, host="insecure.test")) == 502
    assert {span.error_type for span in traced.attempts()} == {"tls_failed"}


def test_service_without_any_slice(edge: Edge) -> None:
    assert len(service("none", [])) == 1  # the site none.test has no EndpointSlice at all
    assert ask(edge, request(host="none.test")) == 503


def test_normal_answer_after_all_this(edge: Edge) -> None:
    edge.a.script = answer(OK)
    assert ask(edge, request()) == 200
