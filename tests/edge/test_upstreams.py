"""Upstreams that fail: retries, choice of endpoints, ejection, TLS."""

from __future__ import annotations

import re
import secrets
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from tests.edge.conftest import clean
from tests.harness import poll
from tests.harness.certificates import Certificate
from tests.harness.collector import CLIENT, ERROR, Collector
from tests.harness.edge import Edge, chunked, request, sized
from tests.harness.manifests import service, site
from tests.harness.traced import Traced
from tests.harness.upstream import OK, Exchange, Recorder, Refusing, answer, hang_up, in_turn

MIB = 1024 * 1024


@pytest.fixture
def traced(edge: Edge) -> Traced:
    return Traced(edge.collector)


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
        dead = [item.port for item in self.refusing]
        self.edge = launch(
            collector=Collector(),
            settings={"eject_after": 3, "eject_time": 1},
            extra=[
                *site("three", [item.port for item in self.three]),
                *site("eject", [self.sick.port, self.well.port]),
                *site("half", [dead[0], self.live.port]),
                *site("gone", dead),
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
        if recorder is not all_sites.plain:  # which is spoken TLS to
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


def healed(sites: Several) -> None:
    """Wait until the endpoint that falls ill is in use again, whatever an earlier test did to it."""
    sites.sick.script = answer()
    before = len(sites.sick.requests)

    def used() -> bool:
        assert ask(sites.edge, sized(b"x", host="eject.test")) == 200
        return len(sites.sick.requests) >= before + 2

    poll.until(used, "the ejected endpoint to be used again", 30)


def test_ejection_and_recovery(sites: Several) -> None:
    healed(sites)
    before = len(sites.sick.requests)
    sites.sick.script = hang_up
    statuses = [ask(sites.edge, sized(b"x", host="eject.test")) for _ in range(20)]
    # Three failures in a row eject it; the death of a connection that had served before is not one.
    failures = statuses.count(502)
    assert failures in (3, 4)
    assert statuses[-8:] == [200] * 8
    assert len(sites.sick.requests) == before + failures
    healed(sites)


def test_ejected_for_longer_when_the_trial_fails(sites: Several) -> None:
    healed(sites)
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
