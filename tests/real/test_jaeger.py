"""The proxy and a real Jaeger: every request arrives once, whatever the protocol, the load and Jaeger's health."""

from __future__ import annotations

import secrets
from datetime import UTC, datetime
from typing import get_args

import pytest

from tests.harness import manifests
from tests.harness.proxy import Proxy
from tests.real.client import many
from tests.real.conftest import StartNginx, StartSpanway
from tests.real.jaeger import Jaeger, Protocol
from tests.real.nginx import Nginx
from tests.real.process import free_ports, stopped
from tests.real.tree import Trace

pytestmark = [pytest.mark.real, pytest.mark.timeout(180)]

PROTOCOLS = get_args(Protocol)
HOST = {"Host": "files.test"}


@pytest.fixture
def upstream(start_nginx: StartNginx) -> Nginx:
    (port,) = free_ports(1)
    return start_nginx(f'server {{ listen 127.0.0.1:{port}; return 200 "ok\\n"; }}', port)


class Traced:
    """A proxy in front of nginx under a service name of its own, and what Jaeger has of it."""

    def __init__(
        self, start_spanway: StartSpanway, upstream: Nginx, jaeger: Jaeger, protocol: Protocol, workers: int = 1
    ):
        self.service = f"spanway-{secrets.token_hex(4)}"
        self._jaeger = jaeger
        self._since = datetime.now(UTC)
        site = manifests.documents(*manifests.site("files", [upstream.port]))
        arguments = ("--otlp", jaeger.endpoint(protocol), "--otlp-protocol", protocol)
        environment = {"OTEL_SERVICE_NAME": self.service}
        self.proxy: Proxy = start_spanway(site, *arguments, workers=workers, environment=environment)

    def ask(self, count: int, connections: int = 8) -> None:
        """Make ``count`` requests, every one of which must be answered."""
        answers = many(
            self.proxy.address, count, connections, lambda connection, number: connection.ask("GET", f"/{number}", HOST)
        )
        assert {answer.status for answer in answers} == {200}

    def wait_for(self, count: int, within: float = 20.0) -> dict[str, Trace]:
        """The requests' traces in Jaeger once there are ``count``, or after ``within`` seconds as many as there are."""
        found: dict[str, Trace] = {}

        def enough() -> bool:
            nonlocal found
            every = self._jaeger.traces(self.service, self._since)
            # The generations of the table are traces too.
            found = {key: trace for key, trace in every.items() if "url.path" in trace.spans[0].attributes}
            return len(found) >= count

        self._jaeger.process.until(enough, f"to have {count} traces (it has {len(found)})", within)
        return found


def requested(traces: dict[str, Trace]) -> list[int]:
    """Which requests the traces are of, by the number in their path."""
    paths = [trace.spans[0].attributes["url.path"] for trace in traces.values()]
    return sorted(int(path.removeprefix("/")) for path in paths)


@pytest.mark.parametrize("protocol", PROTOCOLS)
@pytest.mark.parametrize("workers", [1, 2])
def test_every_request_is_one_trace(
    start_spanway: StartSpanway, upstream: Nginx, jaeger: Jaeger, protocol: Protocol, workers: int
) -> None:
    count = 1500
    traced = Traced(start_spanway, upstream, jaeger, protocol, workers)
    traced.ask(count)
    traces = traced.wait_for(count)
    assert requested(traces) == list(range(count))
    for trace in traces.values():
        assert trace.faults() == [], trace.drawing()
        assert [span.kind for span in trace.spans] == ["SERVER", "CLIENT"], trace.drawing()
        server, client = trace.spans
        assert server.attributes["http.response.status_code"] == 200
        assert server.attributes["http.route"] == "/"
        assert client.attributes["server.port"] == upstream.port


@pytest.mark.parametrize("protocol", PROTOCOLS)
def test_a_jaeger_that_hangs_costs_no_request_and_loses_no_span(
    start_spanway: StartSpanway, upstream: Nginx, jaeger: Jaeger, protocol: Protocol
) -> None:
    traced = Traced(start_spanway, upstream, jaeger, protocol)
    traced.ask(50)
    with stopped(jaeger.process):
        traced.ask(500)
    traced.ask(50)
    assert len(traced.wait_for(600)) == 600


@pytest.mark.parametrize("protocol", PROTOCOLS)
def test_what_is_waiting_is_sent_before_the_proxy_ends(
    start_spanway: StartSpanway, upstream: Nginx, jaeger: Jaeger, protocol: Protocol
) -> None:
    traced = Traced(start_spanway, upstream, jaeger, protocol)
    traced.ask(200)
    traced.proxy.terminate()
    assert traced.proxy.wait() == 0
    assert requested(traced.wait_for(200)) == list(range(200))


def test_both_of_jaegers_interfaces_tell_the_same(
    start_spanway: StartSpanway, upstream: Nginx, jaeger: Jaeger, monkeypatch: pytest.MonkeyPatch
) -> None:
    traced = Traced(start_spanway, upstream, jaeger, "grpc")
    traced.ask(3)
    ((trace_id, new), *_) = traced.wait_for(3).items()
    monkeypatch.setattr(jaeger, "_version3", False)
    old = jaeger.trace(trace_id)
    assert [(span.span_id, span.parent_id, span.name, span.kind, span.service) for span in old.spans] == [
        (span.span_id, span.parent_id, span.name, span.kind, span.service) for span in new.spans
    ]
    assert set(traced.wait_for(3)) >= {trace_id}
