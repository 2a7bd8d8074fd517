from __future__ import annotations

from typing import Any

import pytest
from opentelemetry.proto.trace.v1.trace_pb2 import ScopeSpans
from opentelemetry.sdk.resources import Resource
from opentelemetry.trace import Link, SpanContext, SpanKind, TraceFlags, set_span_in_context

from proxy.settings import Tracing
from proxy.trace import resource
from proxy.trace.export import Exporter
from proxy.trace.provider import Linked, provider
from proxy.trace.ring import Ring
from proxy.trace.view import decode


def made(sampler: Any = "parentbased_always_on") -> tuple[Any, Exporter, Ring]:
    tracing, ring = Tracing(endpoint="none", sampler=sampler), Ring(1 << 20)
    origin = Resource({"service.name": "spanway"})
    exporter = Exporter(tracing, None, resource=resource.encode(origin), scope=resource.encode_scope("1"), ring=ring)
    return provider(tracing, origin, exporter).get_tracer("spanway"), exporter, ring


def test_spans_of_the_sdk_come_into_the_ring() -> None:
    tracer, exporter, ring = made()
    link = Link(SpanContext(1, 2, is_remote=True, trace_flags=TraceFlags(1)))
    above = tracer.start_span("above", kind=SpanKind.CONSUMER, attributes={"a": 1, "b": "x"}, links=[link])
    below = tracer.start_span("below", set_span_in_context(above), start_time=5)
    below.end(9)
    above.end()
    exporter.seal()
    inner, outer = decode(ring.since()[1])
    assert (inner.name, inner.start_ns, inner.end_ns, inner.parent_id) == ("below", 5, 9, outer.span_id)
    assert (outer.kind, outer.attributes, outer.service, outer.scope) == (
        "CONSUMER",
        {"a": 1, "b": "x"},
        "spanway",
        "spanway",
    )
    assert outer.links[0].trace_id == f"{1:032x}"
    assert exporter.counters().recorded == 2


@pytest.mark.parametrize(("sampler", "recorded"), [("always_off", 0), ("parentbased_always_off", 0), ("always_on", 1)])
def test_off_is_off_but_for_what_links_to_a_sampled_trace(sampler: str, recorded: int) -> None:
    tracer, exporter, _ = made(sampler)
    tracer.start_span("alone").end()
    assert exporter.counters().recorded == recorded
    link = Link(SpanContext(1, 2, is_remote=True, trace_flags=TraceFlags(1)))
    above = tracer.start_span("linked", links=[link])
    tracer.start_span("below", set_span_in_context(above)).end()
    above.end()
    assert exporter.counters().recorded == recorded + 2


def test_a_ratio_is_for_requests() -> None:
    tracer, exporter, _ = made("traceidratio")
    for _ in range(20):
        tracer.start_span("generation").end()
    assert exporter.counters().recorded == 20


def test_what_the_exporter_gets_is_part_of_a_scope() -> None:
    class Offered:
        def __init__(self) -> None:
            self.blobs: list[bytes] = []

        def offer(self, blob: bytes, _: int) -> None:
            self.blobs.append(blob)

    offered: Any = Offered()
    provider(Tracing(), Resource({}), offered).get_tracer("x").start_span("one").end()
    [span] = ScopeSpans.FromString(offered.blobs[0]).spans
    assert span.name == "one"
    assert Linked(made()[0].sampler).get_description().startswith("Linked{")
