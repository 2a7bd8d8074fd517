"""OTLP's JSON, which is protobuf's JSON mapping with one exception: trace and span ids are hex, not base64.

https://opentelemetry.io/docs/specs/otlp/#json-protobuf-encoding
"""

from __future__ import annotations

import base64
from typing import Any, Final

import msgspec
from google.protobuf.json_format import ParseDict, ParseError
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest

# Both spellings: the mapping's parsers accept the names of the .proto file as well (protobuf JSON specification).
_IDS: Final = ("traceId", "spanId", "parentSpanId", "trace_id", "span_id", "parent_span_id")


def parse(text: bytes) -> ExportTraceServiceRequest:
    """Read an export request; ValueError says what is wrong with it. Unknown fields are ignored, as OTLP has it."""
    try:
        document = msgspec.json.decode(text)
    except (msgspec.DecodeError, RecursionError) as error:
        raise ValueError(f"not JSON: {error}") from None
    if not isinstance(document, dict):
        raise ValueError("not a JSON object")
    for resource_spans in _objects(document, "resourceSpans", "resource_spans"):
        for scope_spans in _objects(resource_spans, "scopeSpans", "scope_spans"):
            for span in _objects(scope_spans, "spans"):
                _translate_ids(span)
                for link in _objects(span, "links"):
                    _translate_ids(link)
    try:
        request = ExportTraceServiceRequest()
        ParseDict(document, request, ignore_unknown_fields=True)
    except (ParseError, RecursionError) as error:
        raise ValueError(f"not an export request: {error}") from None
    return request


def _objects(parent: dict[str, Any], *names: str) -> list[dict[str, Any]]:
    for name in names:
        items = parent.get(name)
        if isinstance(items, list):
            return [item for item in items if isinstance(item, dict)]
    return []  # whatever else is there, the parser refuses or ignores it


def _translate_ids(item: dict[str, Any]) -> None:
    for name in _IDS:
        text = item.get(name)
        if isinstance(text, str):
            try:
                item[name] = base64.b64encode(bytes.fromhex(text)).decode()
            except ValueError:
                raise ValueError(f"{name} is not hex") from None
