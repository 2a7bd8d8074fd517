"""Spans of the wire as bytes: what they mean to opentelemetry-proto, and ids that follow from what they are of."""

from __future__ import annotations

import hashlib

from hypothesis import given
from hypothesis import strategies as st
from opentelemetry.exporter.otlp.proto.common.trace_encoder import encode_spans
from opentelemetry.proto.trace.v1.trace_pb2 import ScopeSpans
from opentelemetry.sdk.trace import ReadableSpan
from opentelemetry.trace import SpanContext, SpanKind, TraceFlags

from proxy.layers import otlp

ID16 = st.binary(min_size=16, max_size=16).filter(any)
ID8 = st.binary(min_size=8, max_size=8).filter(any)
WORDS = st.text(st.characters(codec="utf-8"), min_size=1, max_size=40)
INT64 = st.integers(min_value=-(1 << 63), max_value=(1 << 63) - 1)
UINT63 = st.integers(min_value=0, max_value=(1 << 63) - 1)


@given(ID16, ID8, ID8, WORDS, UINT63, UINT63, st.dictionaries(WORDS, WORDS | INT64 | st.booleans()), st.booleans())
def test_a_span_means_what_the_sdk_writes(trace, own, parent, name, start, end, attributes, remote) -> None:
    written = ScopeSpans.FromString(
        otlp.span(trace, own, parent, name, start, end, otlp.attributes(attributes), remote=remote)
    ).spans

    def context(span: bytes, is_remote: bool) -> SpanContext:
        return SpanContext(int.from_bytes(trace), int.from_bytes(span), is_remote, TraceFlags(1))

    same = ReadableSpan(
        name, context(own, False), context(parent, remote), attributes=attributes, kind=SpanKind.INTERNAL,
        start_time=start, end_time=end,
    )  # fmt: skip
    (expected,) = encode_spans([same]).resource_spans[0].scope_spans[0].spans
    (found,) = written
    assert {item.key: item.value for item in found.attributes} == {item.key: item.value for item in expected.attributes}
    for message in (found, expected):
        del message.attributes[:]
    expected.ClearField("status")  # an empty message here, none there
    expected.flags |= 1  # sampled: the SDK's exporter leaves the W3C flags out
    assert found == expected


def test_an_id_is_the_documented_hash() -> None:
    trace, client = bytes(range(16)), bytes(range(8))
    expected = hashlib.blake2b(trace + client + b"wire\0ovs br0\0<\0", digest_size=8).digest()
    assert otlp.span_id(trace, client, "ovs br0", "<") == expected


@given(st.lists(st.tuples(ID16, ID8, WORDS, st.sampled_from("<>")), unique=True, max_size=20))
def test_ids_of_different_things_differ(things) -> None:
    things = [thing for thing in things if "\0" not in thing[2]]
    assert len({otlp.span_id(*thing) for thing in things}) == len(things)
