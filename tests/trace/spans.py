"""Encoded spans for tests of what happens to them, whatever is in them."""

from __future__ import annotations

from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest
from opentelemetry.proto.common.v1.common_pb2 import AnyValue, InstrumentationScope, KeyValue
from opentelemetry.proto.resource.v1.resource_pb2 import Resource
from opentelemetry.proto.trace.v1.trace_pb2 import ScopeSpans, Span, Status

from proxy.trace.batch import resource_spans

RESOURCE = Resource(
    attributes=[KeyValue(key="service.name", value=AnyValue(string_value="spanway"))]
).SerializeToString()
SCOPE = InstrumentationScope(name="spanway", version="1").SerializeToString()


def span(
    trace: int, number: int, parent: int = 0, *, name: str = "", start: int = 0, end: int = 0, error: bool = False
) -> Span:
    """A span; ``trace``, ``number`` and ``parent`` become ids, parent 0 is none."""
    return Span(
        trace_id=trace.to_bytes(16, "big"),
        span_id=number.to_bytes(8, "big"),
        parent_span_id=parent.to_bytes(8, "big") if parent else b"",
        name=name or f"span {number}",
        kind=Span.SPAN_KIND_SERVER,
        start_time_unix_nano=start or number,
        end_time_unix_nano=end or (start or number) + 10,
        status=Status(code=Status.STATUS_CODE_ERROR if error else Status.STATUS_CODE_UNSET),
    )


def blob(*spans: Span) -> bytes:
    """What the encoder hands to the exporter: tagged ``ScopeSpans.spans`` fields, one after the other."""
    return ScopeSpans(spans=spans).SerializeToString()


def sized(size: int, number: int = 1) -> bytes:
    """One tagged span of exactly ``size`` bytes, or as few as a span needs."""
    empty = len(blob(span(1, number, name="x")))
    for length in range(max(size - empty - 8, 1), size + 1):
        made = blob(span(1, number, name="x" * length))
        if len(made) == size:
            return made
    raise AssertionError(f"no span of {size} bytes")


def batch(*spans: Span, service: str = "spanway") -> bytes:
    """An encoded export request."""
    resource = Resource(attributes=[KeyValue(key="service.name", value=AnyValue(string_value=service))])
    return resource_spans(resource.SerializeToString(), SCOPE, [blob(*spans)])


def spans_in(request: ExportTraceServiceRequest | bytes) -> list[Span]:
    """All spans of an export request."""
    message = ExportTraceServiceRequest.FromString(request) if isinstance(request, bytes) else request
    return [one for part in message.resource_spans for scope in part.scope_spans for one in scope.spans]
