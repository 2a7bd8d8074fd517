from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest

from proxy.trace.batch import Batch, Envelope, resource_spans
from tests.trace.spans import RESOURCE, SCOPE, blob, span


def test_a_batch_is_what_protobuf_itself_would_say() -> None:
    first, second, third = span(1, 1), span(1, 2, 1), span(2, 3)
    expected = ExportTraceServiceRequest()
    part = expected.resource_spans.add()
    part.resource.ParseFromString(RESOURCE)
    scope = part.scope_spans.add(spans=[first, second, third])
    scope.scope.ParseFromString(SCOPE)

    made = resource_spans(RESOURCE, SCOPE, [blob(first, second), blob(third)])

    assert ExportTraceServiceRequest.FromString(made) == expected
    assert len(made) == expected.ByteSize()


def test_the_spans_bytes_are_not_touched() -> None:
    odd = blob(span(1, 1)) + b"\x92\x3f\x03abc"  # field 1010 of ScopeSpans, which no reader knows
    assert odd in resource_spans(RESOURCE, SCOPE, [odd])


def test_a_schema_url_belongs_to_the_scope() -> None:
    made = ExportTraceServiceRequest.FromString(resource_spans(RESOURCE, SCOPE, [blob(span(1, 1))], "https://x/1.44.0"))
    assert made.resource_spans[0].scope_spans[0].schema_url == "https://x/1.44.0"
    assert made.resource_spans[0].schema_url == ""


@pytest.mark.parametrize("size", [0, 1, 126, 127, 128, 16_383, 16_384, 2_097_152])
def test_lengths_of_every_width(size: int) -> None:
    # The content of a length-delimited field nobody knows: any number of bytes makes a valid message.
    from proxy.trace.wire import delimited

    filler = delimited(1010, b"x" * size)
    envelope = Envelope(RESOURCE, SCOPE)
    made = envelope.wrap([filler])
    assert ExportTraceServiceRequest.FromString(made).resource_spans[0].scope_spans[0].scope.name == "spanway"
    assert len(made) <= len(filler) + envelope.overhead


@given(st.lists(st.lists(st.integers(1, 1 << 60), min_size=1, max_size=4), max_size=40), st.binary(max_size=300))
def test_any_number_of_spans(groups: list[list[int]], name: bytes) -> None:
    blobs = [blob(*(span(7, number, name=name.hex()) for number in group)) for group in groups]
    envelope = Envelope(RESOURCE, SCOPE)
    made = envelope.wrap(blobs)
    spans = ExportTraceServiceRequest.FromString(made).resource_spans[0].scope_spans[0].spans
    assert [int.from_bytes(one.span_id, "big") for one in spans] == [number for group in groups for number in group]
    assert len(made) <= sum(map(len, blobs)) + envelope.overhead


def test_a_batch_shows_its_state() -> None:
    batch = Batch(b"12345", 2)
    assert repr(batch) == "Batch(2 spans, 5 bytes, waiting)"
    batch.sent = True
    assert "sent" in repr(batch)
    batch.settled = True
    assert "settled" in repr(batch)
    assert "bytes" in repr(Envelope(b"", b""))
