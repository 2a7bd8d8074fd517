"""The SDK's spans, for all that is not per request: they go where request spans go.

A provider that hands ended spans to our own exporter (`trace.export`), so that they share its queue, its bounds and
the ring that /traces reads. Used by the supervisor alone: it makes a handful of spans per change of the configuration.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Final

from opentelemetry.exporter.otlp.proto.common.trace_encoder import encode_spans
from opentelemetry.proto.trace.v1.trace_pb2 import ScopeSpans
from opentelemetry.sdk.trace import ReadableSpan, SpanProcessor, TracerProvider
from opentelemetry.sdk.trace.id_generator import RandomIdGenerator
from opentelemetry.sdk.trace.sampling import ALWAYS_OFF, ALWAYS_ON, Decision, ParentBased, Sampler, SamplingResult

if TYPE_CHECKING:
    from opentelemetry.context import Context
    from opentelemetry.sdk.resources import Resource
    from opentelemetry.trace import Link, SpanKind
    from opentelemetry.trace.span import TraceState
    from opentelemetry.util.types import Attributes

    from proxy.settings import Tracing
    from proxy.trace.export import Exporter

_OFF: Final = ("always_off", "parentbased_always_off")


class Linked(Sampler):
    """What a span links to decides for it, if that is sampled; else ``otherwise`` does.

    A change of the configuration that somebody traced is traced here too (kubernetes/enhancements#5915).
    """

    def __init__(self, otherwise: Sampler) -> None:
        self._otherwise = otherwise

    def should_sample(
        self,
        parent_context: Context | None,
        trace_id: int,
        name: str,
        kind: SpanKind | None = None,
        attributes: Attributes = None,
        links: Sequence[Link] | None = None,
        trace_state: TraceState | None = None,
    ) -> SamplingResult:
        """See the SDK."""
        if any(link.context.trace_flags.sampled for link in links or ()):
            return SamplingResult(Decision.RECORD_AND_SAMPLE, attributes, trace_state)
        return self._otherwise.should_sample(parent_context, trace_id, name, kind, attributes, links, trace_state)

    def get_description(self) -> str:
        """See the SDK."""
        return f"Linked{{{self._otherwise.get_description()}}}"


class _Ids(RandomIdGenerator):
    """Random ids that are not called random: no flag 02 in ``traceparent`` (Trace Context level 2).

    OpenTelemetry for Go takes a version 00 with more flags than 01 for invalid, and starts a new trace (propagation,
    at 1.41): an API server would.
    """

    def is_trace_id_random(self) -> bool:
        """See the SDK."""
        return False


class _Handover(SpanProcessor):
    """Gives each span that ends to the exporter. Spans end on the loop's thread, to which that belongs."""

    def __init__(self, exporter: Exporter) -> None:
        self._exporter = exporter

    def on_end(self, span: ReadableSpan) -> None:
        """See the SDK; unsampled spans do not come here as recording."""
        if span.context is not None and span.context.trace_flags.sampled:
            self._exporter.offer(encode([span]), 1)


def encode(spans: Sequence[ReadableSpan]) -> bytes:
    """Spans as `ScopeSpans.spans` fields, which is how `trace.export.Exporter` takes them."""
    found = [
        span
        for resource_spans in encode_spans(spans).resource_spans
        for scope_spans in resource_spans.scope_spans
        for span in scope_spans.spans
    ]
    body: bytes = ScopeSpans(spans=found).SerializeToString()
    return body


def provider(tracing: Tracing, resource: Resource, exporter: Exporter) -> TracerProvider:
    """The SDK's provider over an exporter, which somebody else starts and closes.

    Everything is recorded, whatever ratio holds for requests: there are few of these spans, and requests refer to
    them. Where the sampler is off, only what links to a sampled trace is, or is below such a span.
    """
    root = ALWAYS_OFF if tracing.sampler in _OFF else ALWAYS_ON
    made = TracerProvider(ParentBased(Linked(root)), resource, shutdown_on_exit=False, id_generator=_Ids())
    made.add_span_processor(_Handover(exporter))
    return made
