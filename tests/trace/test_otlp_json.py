from __future__ import annotations

import base64
import json
from typing import Any

import pytest
from google.protobuf.json_format import MessageToDict
from hypothesis import given
from hypothesis import strategies as st
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest
from opentelemetry.proto.trace.v1.trace_pb2 import Span

from proxy.trace.otlp_json import parse
from tests.trace.spans import batch, span, spans_in


def otlp_json(request: bytes, **options: Any) -> bytes:
    """An export request in OTLP's JSON: protobuf's, with the ids turned from base64 to hex."""
    document = MessageToDict(ExportTraceServiceRequest.FromString(request), use_integers_for_enums=True, **options)

    def walk(value: Any) -> Any:
        if isinstance(value, list):
            return [walk(item) for item in value]
        if isinstance(value, dict):
            ids = ("traceId", "spanId", "parentSpanId", "trace_id", "span_id", "parent_span_id")
            return {k: base64.b64decode(v).hex() if k in ids else walk(v) for k, v in value.items()}
        return value

    return json.dumps(walk(document)).encode()


@pytest.mark.parametrize("snake_case", [False, True])
def test_it_means_what_protobuf_means(snake_case: bool) -> None:
    rich = span(1, 2, 3, error=True)
    rich.links.append(Span.Link(trace_id=b"t" * 16, span_id=b"s" * 8))
    rich.attributes.add(key="n").value.int_value = 2**60
    rich.attributes.add(key="raw").value.bytes_value = b"\0\1"
    request = batch(rich, span(1, 4))
    parsed = parse(otlp_json(request, preserving_proto_field_name=snake_case))
    assert parsed == ExportTraceServiceRequest.FromString(request)


def test_ids_are_hex_in_any_case_and_unknown_fields_are_ignored() -> None:
    text = b"""{"new": 1, "resourceSpans": [{"scopeSpans": [{"spans": [
        {"traceId": "5B8EFFF798038103D269B633813FC60C", "spanId": "EEE19B7EC3C1B174", "parentSpanId": "", "kind": 2,
         "startTimeUnixNano": "1544712660000000000", "endTimeUnixNano": 1544712661000000000,
         "future": {"x": []}}]}]}]}"""
    (one,) = spans_in(parse(text))
    assert one.trace_id.hex() == "5b8efff798038103d269b633813fc60c"
    assert one.parent_span_id == b""
    assert (one.kind, one.end_time_unix_nano - one.start_time_unix_nano) == (2, 10**9)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (b"", "not JSON"),
        (b"{", "not JSON"),
        (b"\xff", "not JSON"),
        (b"[" * 100_000, "not JSON"),
        (b"[]", "not a JSON object"),
        (b'{"resourceSpans": 5}', "not an export request"),
        (b'{"resourceSpans": [{"scopeSpans": [{"spans": [{"name": 5}]}]}]}', "not an export request"),
        (b'{"resourceSpans": [{"scopeSpans": [{"spans": [{"traceId": "xyz"}]}]}]}', "traceId is not hex"),
        (b'{"resourceSpans": [{"scopeSpans": [{"spans": [{"links": [{"spanId": "q"}]}]}]}]}', "spanId is not hex"),
    ],
)
def test_what_is_wrong_is_said(text: bytes, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        parse(text)


def test_deep_nesting_is_refused() -> None:
    value = '{"arrayValue": {"values": [' * 500 + "{}" + "]}}" * 500
    attribute = f'{{"key": "k", "value": {value}}}'
    text = f'{{"resourceSpans": [{{"resource": {{"attributes": [{attribute}]}}}}]}}'
    with pytest.raises(ValueError, match="not"):
        parse(text.encode())


JSON = st.recursive(
    st.none() | st.booleans() | st.integers(-(2**70), 2**70) | st.floats() | st.text(max_size=5),
    lambda inner: (
        st.lists(inner, max_size=3)
        | st.dictionaries(
            st.sampled_from(
                ["resourceSpans", "scopeSpans", "spans", "links", "traceId", "spanId", "name", "kind", "attributes"]
            ),
            inner,
            max_size=4,
        )
    ),
    max_leaves=20,
)


@given(JSON)
def test_any_document_parses_or_is_a_value_error(document: Any) -> None:
    try:
        request = parse(json.dumps(document).encode())
    except ValueError:
        return
    assert isinstance(request, ExportTraceServiceRequest)
