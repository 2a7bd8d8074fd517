"""proxy-next-upstream in its forms, and service-upstream: who is asked again, and when."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import pytest

from tests.harness.collector import Collector
from tests.harness.edge import Edge, request, sized
from tests.harness.manifests import documents, site
from tests.harness.traced import Traced
from tests.harness.upstream import OK, Exchange, Recorder, Script, answer, hang_up, in_turn
from tests.harness.wire import Response

UNAVAILABLE = b"HTTP/1.1 503 Service Unavailable\r\nContent-Length: 4\r\n\r\nsick"
NOT_FOUND = b"HTTP/1.1 404 Not Found\r\nContent-Length: 4\r\n\r\nlost"
MALFORMED = b"HTTP/1.1 200 OK\r\nno colon\r\n\r\n"

FINE = answer(OK)

SITES = {
    "plain": {},
    "off": {"proxy-next-upstream": "off"},
    "error": {"proxy-next-upstream": "error"},
    "timeout": {"proxy-next-upstream": "timeout"},
    "invalid": {"proxy-next-upstream": "error invalid_header"},
    "statuses": {"proxy-next-upstream": "error timeout http_503 http_404"},
    "once": {"proxy-next-upstream": "http_503", "proxy-next-upstream-tries": "1"},
    "every": {"proxy-next-upstream": "error http_503 non_idempotent"},
    "brief": {"proxy-next-upstream": "error http_503", "proxy-next-upstream-timeout": "1"},
}


class Pair:
    """A proxy, and two upstreams behind every site; whichever is asked first does as ``first`` does."""

    def __init__(self, launch: Callable[..., Edge]) -> None:
        self.collector = Collector()
        self.edge = launch(collector=self.collector, settings={"eject_after": 1000})
        self.upstreams = Recorder(), Recorder()
        ports = [each.port for each in self.upstreams]
        sites = [item for name, said in SITES.items() for item in site(name, ports, annotations=said)]
        before = self.edge.proxy.generation()
        self.edge.proxy.write("more.yaml", documents(*sites, *self._service()))
        self.edge.proxy.applied(before)

    def _service(self) -> list[dict[str, Any]]:
        """A Service whose cluster IP is the first upstream's address; its endpoints are nobody's."""
        objects = site("cluster", [1], annotations={"service-upstream": "true"})
        objects[0]["spec"]["clusterIP"] = "127.0.0.1"
        objects[0]["spec"]["ports"][0]["port"] = self.upstreams[0].port
        ingress = objects[-1]["spec"]["rules"][0]["http"]["paths"][0]
        ingress["backend"]["service"]["port"]["number"] = self.upstreams[0].port
        return objects

    def script(self, first: Script, then: Script = FINE) -> None:
        """What the first attempt meets, and any further one."""
        count = iter(range(100))

        def script(exchange: Exchange) -> None:
            (first if next(count) == 0 else then)(exchange)

        for each in self.upstreams:
            each.reset()
            each.script = script

    def ask(self, host: str, *lines: str, method: str = "GET", body: bytes = b"") -> Response:
        raw = sized(body, *lines, method=method, host=host) if body else request(*lines, method=method, host=host)
        with self.edge.client() as client:
            return client.ask(raw, method=method)

    @property
    def attempts(self) -> int:
        return sum(len(each.requests) for each in self.upstreams)

    def stop(self) -> None:
        for each in self.upstreams:
            each.stop()
        self.collector.stop()


@pytest.fixture(scope="module")
def pair(launch: Callable[..., Edge]) -> Iterator[Pair]:
    pair = Pair(launch)
    yield pair
    pair.stop()


@pytest.mark.parametrize(
    ("host", "first", "method", "status", "attempts"),
    [
        ("plain", hang_up, "GET", 200, 2),
        ("plain", hang_up, "POST", 502, 1),
        ("plain", answer(UNAVAILABLE), "GET", 503, 1),
        ("plain", answer(MALFORMED, close=True), "GET", 502, 1),
        ("off", hang_up, "GET", 502, 1),
        ("error", hang_up, "GET", 200, 2),
        ("timeout", hang_up, "GET", 502, 1),
        ("invalid", answer(MALFORMED, close=True), "GET", 200, 2),
        ("invalid", answer(MALFORMED, close=True), "POST", 502, 1),
        ("statuses", answer(UNAVAILABLE), "GET", 200, 2),
        ("statuses", answer(NOT_FOUND), "HEAD", 200, 2),
        ("statuses", answer(UNAVAILABLE), "POST", 503, 1),
        ("statuses", answer(b"HTTP/1.1 500 Internal Server Error\r\nContent-Length: 0\r\n\r\n"), "GET", 500, 1),
        ("once", answer(UNAVAILABLE), "GET", 503, 1),
        ("every", answer(UNAVAILABLE), "POST", 200, 2),
        ("every", hang_up, "POST", 200, 2),
    ],
)
def test_who_is_asked_again(pair: Pair, host: str, first: Script, method: str, status: int, attempts: int) -> None:
    pair.script(first)
    response = pair.ask(f"{host}.test", method=method)
    assert response.complete
    assert (response.status, pair.attempts) == (status, attempts)


def test_when_all_are_sick_the_last_answer_is_passed_on(pair: Pair) -> None:
    pair.script(answer(UNAVAILABLE), answer(UNAVAILABLE))
    response = pair.ask("statuses.test")
    assert (response.status, response.body) == (503, b"sick")
    assert pair.attempts == 3


def test_a_body_is_sent_again_whole(pair: Pair) -> None:
    pair.script(answer(UNAVAILABLE))
    assert pair.ask("every.test", method="POST", body=b"x" * 5000).status == 200
    assert [seen.body for each in pair.upstreams for seen in each.requests] == [b"x" * 5000] * 2


def test_an_answer_that_is_given_up_is_an_attempt_with_its_status(pair: Pair) -> None:
    pair.script(answer(UNAVAILABLE))
    traced = Traced(pair.collector)
    assert pair.ask("statuses.test", traced.line).status == 200
    first, second = traced.attempts()
    assert first.attributes["http.response.status_code"] == 503
    assert (first.error_type, second.error_type) == ("503", None)
    assert second.attributes["http.request.resend_count"] == 1
    assert traced.server().attributes["http.response.status_code"] == 200
    # The endpoint that was given up is in use by nobody.
    page = pair.edge.proxy.admin_json("/routes")
    assert {endpoint.get("active", 0) for backend in page["backends"] for endpoint in backend["endpoints"]} == {0}


def test_after_the_timeout_nobody_is_asked_again(pair: Pair) -> None:
    def late(exchange: Exchange) -> None:
        exchange.read_body()
        exchange.recorder.over.wait(1.2)
        exchange.send(UNAVAILABLE)

    pair.script(late)
    assert pair.ask("brief.test").status == 503
    assert pair.attempts == 1
    pair.script(answer(UNAVAILABLE))
    assert pair.ask("brief.test").status == 200


def test_service_upstream_is_the_cluster_ip_and_one_attempt(pair: Pair) -> None:
    pair.script(answer(OK))
    assert pair.ask("cluster.test").status == 200
    assert len(pair.upstreams[0].requests) == 1
    pair.script(hang_up)
    pair.upstreams[0].script = hang_up
    assert pair.ask("cluster.test").status == 502


def test_an_idle_connection_that_died_costs_no_try(pair: Pair) -> None:
    pair.script(answer(OK))
    pair.upstreams[0].script = in_turn(answer(OK), hang_up, answer(OK))
    assert pair.ask("cluster.test").status == 200
    assert pair.ask("cluster.test").status == 200  # dialled anew: nothing was tried on the one that was kept
    assert len(pair.upstreams[0].requests) == 3
