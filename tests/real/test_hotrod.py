"""Real HotROD behind the proxy, both exporting to a real Jaeger: its query API must show one tree for each request."""

from __future__ import annotations

import secrets
from typing import get_args

import pytest

from tests.harness import manifests
from tests.harness.proxy import Proxy
from tests.real.client import Answer, Connection, many
from tests.real.conftest import StartSpanway
from tests.real.hotrod import CUSTOMERS, ROUTES_PER_DISPATCH, HotRod
from tests.real.jaeger import Jaeger, Protocol
from tests.real.tree import Span, Trace

pytestmark = [pytest.mark.real, pytest.mark.timeout(180)]

HOST = {"Host": "rides.test"}
DISPATCHES = 24
# HotROD's redis times out on every fifth call; at load the same ride may meet that three times, and then fails.
RIDE, NO_RIDE = 200, 500
PROTOCOLS = get_args(Protocol)


def serve(start_spanway: StartSpanway, hotrod: HotRod, jaeger: Jaeger, protocol: Protocol, *arguments: str) -> Proxy:
    """A proxy in front of HotROD that exports to Jaeger."""
    site = manifests.documents(*manifests.site("rides", [hotrod.port]))
    return start_spanway(site, "--otlp", jaeger.endpoint(protocol), "--otlp-protocol", protocol, *arguments)


@pytest.fixture
def proxy(start_spanway: StartSpanway, hotrod: HotRod, jaeger: Jaeger) -> Proxy:
    """With the defaults: over gRPC, trusting loopback."""
    return serve(start_spanway, hotrod, jaeger, "grpc")


def dispatch(connection: Connection, number: int, **fields: str) -> Answer:
    """One ride ordered; ``fields`` are header fields, with underscores for hyphens."""
    customer = CUSTOMERS[number % len(CUSTOMERS)]
    named = {name.replace("_", "-"): value for name, value in fields.items()}
    answer = connection.ask("GET", f"/dispatch?customer={customer}&nonse={number}", HOST | named)
    assert answer.status in (RIDE, NO_RIDE), answer
    return answer


def dispatch_once(proxy: Proxy, number: int, **fields: str) -> Answer:
    """One ride ordered on a connection of its own."""
    with Connection(proxy.address) as connection:
        return dispatch(connection, number, **fields)


def joined(answer: Answer) -> tuple[str, str]:
    """Trace and span id in `traceresponse`: the application's own word for which span served this request."""
    version, trace_id, span_id, flags = answer.fields["traceresponse"].split("-")
    assert (version, flags) == ("00", "01")
    return trace_id, span_id


def whole(trace: Trace, remote_parent: str = "") -> bool:
    """Whether every span of a dispatch has arrived."""
    failed = any(span.attributes.get("http.response.status_code") == NO_RIDE for span in trace.select("spanway"))
    routes = 0 if failed else ROUTES_PER_DISPATCH
    arrived = {"spanway", "customer", "mysql", "driver", "redis-manual"} <= set(trace.services)
    return arrived and not trace.faults(remote_parent) and len(trace.select("route", "SERVER")) == routes


def proxied(trace: Trace) -> tuple[Span, Span, Span]:
    """The proxy's SERVER and CLIENT span and the frontend's SERVER span, which must be one chain from the top."""
    drawing = trace.drawing()
    (server,) = trace.select("spanway", "SERVER")
    (client,) = trace.children(server)
    (frontend,) = trace.children(client)
    assert (client.service, client.kind) == ("spanway", "CLIENT"), drawing
    assert (frontend.service, frontend.kind) == ("frontend", "SERVER"), drawing
    return server, client, frontend


@pytest.mark.parametrize("protocol", PROTOCOLS)
def test_every_dispatch_is_one_tree(
    start_spanway: StartSpanway, hotrod: HotRod, jaeger: Jaeger, protocol: Protocol
) -> None:
    proxy = serve(start_spanway, hotrod, jaeger, protocol)
    answers = many(proxy.address, DISPATCHES, 4, dispatch)
    assert len({joined(answer) for answer in answers}) == DISPATCHES
    assert sum(answer.status == RIDE for answer in answers) > DISPATCHES // 2
    for answer in answers:
        trace_id, frontend_id = joined(answer)
        trace = jaeger.wait_for_trace(trace_id, whole)
        drawing = trace.drawing()
        assert trace.faults() == [], drawing
        server, client, frontend = proxied(trace)
        assert server.parent_id == ""
        assert frontend.span_id == frontend_id
        assert frontend.end <= client.end, drawing  # so short an answer leaves Go's buffer after the handler's end
        assert (server.name, client.name) == ("GET /", "GET")
        status = "UNSET" if answer.status == RIDE else "ERROR"
        assert (server.status, client.status) == (status, status), drawing
        assert server.attributes["http.response.status_code"] == answer.status
        assert len(trace.select("customer", "SERVER")) == 1, drawing
        assert len(trace.select("mysql", "CLIENT", "SQL SELECT")) == 1, drawing
        assert len(trace.select("driver", "SERVER")) == 1, drawing
        assert len(trace.select("redis-manual", "CLIENT", "FindDriverIDs")) == 1, drawing
        if answer.status == RIDE:
            # A driver whose look-up timed out was looked up again.
            assert len(trace.select("redis-manual", "CLIENT", "GetDriver")) >= ROUTES_PER_DISPATCH, drawing
            assert len(trace.select("route", "SERVER")) == ROUTES_PER_DISPATCH, drawing


@pytest.mark.parametrize("protocol", PROTOCOLS)
def test_every_request_arrives_as_a_trace(
    start_spanway: StartSpanway, hotrod: HotRod, jaeger: Jaeger, protocol: Protocol
) -> None:
    count = 600
    proxy = serve(start_spanway, hotrod, jaeger, protocol)
    answers = many(proxy.address, count, 8, lambda connection, number: connection.ask("GET", f"/?{number}", HOST))
    assert {answer.status for answer in answers} == {200}
    joins = dict(map(joined, answers))
    assert len(joins) == count
    for trace_id, frontend_id in joins.items():
        trace = jaeger.wait_for_trace(trace_id, lambda trace: len(trace.spans) == 3)
        assert trace.faults() == [], trace.drawing()
        assert [span.span_id for span in proxied(trace)][2] == frontend_id


def test_the_clients_traceparent_is_continued(proxy: Proxy, jaeger: Jaeger) -> None:
    trace_id, parent_id = secrets.token_hex(16), secrets.token_hex(8)
    answer = dispatch_once(proxy, 0, traceparent=f"00-{trace_id}-{parent_id}-01", tracestate="a=1,b=2")
    trace = jaeger.wait_for_trace(trace_id, lambda trace: whole(trace, parent_id))
    assert trace.faults(parent_id) == [], trace.drawing()
    server, _, frontend = proxied(trace)
    assert server.parent_id == parent_id
    assert joined(answer) == (trace_id, frontend.span_id)


def test_the_clients_uber_trace_id_is_continued(proxy: Proxy, jaeger: Jaeger) -> None:
    # HotROD itself reads only traceparent: the tree is whole because the proxy translates.
    trace_id, parent_id = secrets.token_hex(16), secrets.token_hex(8)
    answer = dispatch_once(proxy, 1, uber_trace_id=f"{trace_id}:{parent_id}:0:1")
    trace = jaeger.wait_for_trace(trace_id, lambda trace: whole(trace, parent_id))
    assert trace.faults(parent_id) == [], trace.drawing()
    server, _, frontend = proxied(trace)
    assert server.parent_id == parent_id
    assert joined(answer) == (trace_id, frontend.span_id)


def test_a_strangers_trace_is_restarted_with_a_link(
    start_spanway: StartSpanway, hotrod: HotRod, jaeger: Jaeger
) -> None:
    proxy = serve(start_spanway, hotrod, jaeger, "grpc", "--trust", "none")
    sent, parent_id = secrets.token_hex(16), secrets.token_hex(8)
    answer = dispatch_once(proxy, 2, traceparent=f"00-{sent}-{parent_id}-01")
    trace_id, _ = joined(answer)
    assert trace_id != sent
    trace = jaeger.wait_for_trace(trace_id, whole)
    assert trace.faults() == [], trace.drawing()
    server, client, _ = proxied(trace)
    assert (sent, parent_id) in server.links  # of the first request of a generation there is another
    assert client.links == ()
    assert jaeger.trace(sent).spans == ()


def test_a_stranger_cannot_switch_tracing_off(start_spanway: StartSpanway, hotrod: HotRod, jaeger: Jaeger) -> None:
    proxy = serve(start_spanway, hotrod, jaeger, "grpc", "--trust", "none")
    sent = f"00-{secrets.token_hex(16)}-{secrets.token_hex(8)}-00"
    trace_id, _ = joined(dispatch_once(proxy, 2, traceparent=sent))
    trace = jaeger.wait_for_trace(trace_id, whole)
    assert trace.faults() == [], trace.drawing()


def test_a_request_that_is_not_sampled_leaves_no_span_anywhere(proxy: Proxy, jaeger: Jaeger) -> None:
    silent, parent_id = secrets.token_hex(16), secrets.token_hex(8)
    answer = dispatch_once(proxy, 3, traceparent=f"00-{silent}-{parent_id}-00")
    assert answer.fields["traceresponse"].startswith(f"00-{silent}-")
    assert answer.fields["traceresponse"].endswith("-00")
    # Whatever the silent one had recorded would have left before the spans of the one that came after it.
    following, _ = joined(dispatch_once(proxy, 3))
    assert jaeger.wait_for_trace(following, whole).faults() == []
    assert jaeger.trace(silent).spans == ()


def test_without_a_trace_of_its_own_the_proxy_keeps_the_application_silent(
    start_spanway: StartSpanway, hotrod: HotRod, jaeger: Jaeger
) -> None:
    site = manifests.documents(*manifests.site("rides", [hotrod.port]))
    proxy = start_spanway(site, "--otlp", jaeger.endpoint("grpc"), environment={"OTEL_TRACES_SAMPLER": "always_off"})
    answer = dispatch_once(proxy, 0)
    _, trace_id, _, flags = answer.fields["traceresponse"].split("-")
    assert flags == "00"
    assert jaeger.trace(trace_id).spans == ()
