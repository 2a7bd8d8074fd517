"""Spans for people: OTLP batches decoded into plain structs, for the explorer and the terminal."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any, Final

import msgspec
from google.protobuf.message import DecodeError
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

KINDS: Final = ("UNSPECIFIED", "INTERNAL", "SERVER", "CLIENT", "PRODUCER", "CONSUMER")  # Span.SpanKind
STATUSES: Final = ("UNSET", "OK", "ERROR")  # Status.StatusCode
NO_SERVICE: Final = "unknown_service"  # resource conventions, service.name

_DEPTH_MOST: Final = 8  # levels of lists and maps within one attribute


class EventView(msgspec.Struct, frozen=True):
    """Something that happened during a span."""

    name: str
    time_ns: int
    attributes: dict[str, Any]


class LinkView(msgspec.Struct, frozen=True):
    """Another span that a span refers to; ids in lower-case hex."""

    trace_id: str
    span_id: str
    attributes: dict[str, Any]


class SpanView(msgspec.Struct, frozen=True):
    """One span. Ids are lower-case hex, times Unix nanoseconds; ``parent_id`` is "" for a root.

    ``kind`` is one of `KINDS`, ``status`` one of `STATUSES`. Attribute values are str, bool, int, float, lists and
    dicts; bytes appear as hex, numbers that JSON lacks (NaN, infinity) as text. ``resource`` is one dict shared by all
    spans of a batch: do not change it.
    """

    trace_id: str
    span_id: str
    parent_id: str
    name: str
    kind: str
    service: str
    start_ns: int
    end_ns: int
    status: str
    status_message: str
    attributes: dict[str, Any]
    events: list[EventView]
    links: list[LinkView]
    scope: str
    trace_state: str
    resource: dict[str, Any]

    @property
    def duration_ns(self) -> int:
        """From start to end; never negative, whatever the clock did."""
        return max(self.end_ns - self.start_ns, 0)


def requests(batches: Iterable[bytes]) -> Iterator[Any]:
    """The decoded export requests; one that cannot be decoded is left out."""
    for batch in batches:
        try:
            yield ExportTraceServiceRequest.FromString(batch)
        except DecodeError:
            continue


def decode(batches: Iterable[bytes], prefix: str = "") -> list[SpanView]:
    """The spans of encoded export requests, in their order; with ``prefix`` only of traces whose id begins with it."""
    views: list[SpanView] = []
    for request in requests(batches):
        for resource_spans in request.resource_spans:
            resource = attributes(resource_spans.resource.attributes)
            service = str(resource.get("service.name") or NO_SERVICE)
            for scope_spans in resource_spans.scope_spans:
                scope = scope_spans.scope.name
                views.extend(
                    _view(span, service, scope, resource)
                    for span in scope_spans.spans
                    if not prefix or span.trace_id.hex().startswith(prefix)
                )
    return views


def _view(span: Any, service: str, scope: str, resource: dict[str, Any]) -> SpanView:
    return SpanView(
        trace_id=span.trace_id.hex(),
        span_id=span.span_id.hex(),
        parent_id=span.parent_span_id.hex() if any(span.parent_span_id) else "",
        name=span.name,
        kind=name_of(KINDS, span.kind),
        service=service,
        start_ns=span.start_time_unix_nano,
        end_ns=span.end_time_unix_nano,
        status=name_of(STATUSES, span.status.code),
        status_message=span.status.message,
        attributes=attributes(span.attributes),
        events=[EventView(event.name, event.time_unix_nano, attributes(event.attributes)) for event in span.events],
        links=[LinkView(link.trace_id.hex(), link.span_id.hex(), attributes(link.attributes)) for link in span.links],
        scope=scope,
        trace_state=span.trace_state,
        resource=resource,
    )


def name_of(names: tuple[str, ...], number: int) -> str:
    """An enum's name; proto3 enums are open, so a number from the future is shown as the first, "nothing said"."""
    return names[number] if 0 <= number < len(names) else names[0]


def attributes(pairs: Iterable[Any]) -> dict[str, Any]:
    """``KeyValue`` messages as a dict."""
    return {pair.key: _value(pair.value, 0) for pair in pairs}


def _value(value: Any, depth: int) -> Any:
    which = value.WhichOneof("value")
    if which is None:
        return None
    content = getattr(value, which)
    if which == "double_value":
        return content if math.isfinite(content) else str(content)
    if which == "bytes_value":
        return content.hex()
    if which in {"array_value", "kvlist_value"}:
        if depth == _DEPTH_MOST:
            return "…"
        if which == "array_value":
            return [_value(item, depth + 1) for item in content.values]
        return {pair.key: _value(pair.value, depth + 1) for pair in content.values}
    return content
