"""From encoded spans to an encoded export request, with nothing encoded twice.

An ``ExportTraceServiceRequest`` is one ``ResourceSpans`` with one ``ScopeSpans`` whose spans are already bytes, each
with its own tag and length (``ScopeSpans.spans`` is field 2). Only three lengths change from batch to batch.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final, TypeAlias

from proxy.trace.wire import delimited, tag, varint

if TYPE_CHECKING:
    from collections.abc import Sequence

_RESOURCE_SPANS: Final = tag(1, 2)  # ExportTraceServiceRequest.resource_spans, length-delimited
_RESOURCE: Final = 1  # ResourceSpans.resource
_SCOPE_SPANS: Final = tag(2, 2)  # ResourceSpans.scope_spans, length-delimited
_SCOPE: Final = 1  # ScopeSpans.scope
_SCHEMA_URL: Final = 3  # ScopeSpans.schema_url

_LENGTH_MOST: Final = 5  # bytes of a varint below 2^35


Body: TypeAlias = "bytes | list[bytes]"
"""An encoded export request, whole or in pieces."""


def size_of(body: Body) -> int:
    """Its bytes."""
    return len(body) if isinstance(body, bytes) else sum(map(len, body))


def whole(body: Body) -> bytes:
    """The request as one."""
    return body if isinstance(body, bytes) else b"".join(body)


class Envelope:
    """What surrounds the spans of every batch: the resource and the scope, encoded once.

    ``resource`` and ``scope`` are the encoded ``Resource`` and ``InstrumentationScope`` messages.
    """

    __slots__ = ("_resource", "_scope", "overhead")

    def __init__(self, resource: bytes, scope: bytes, schema_url: str = "") -> None:
        self._resource = delimited(_RESOURCE, resource)
        self._scope = delimited(_SCOPE, scope) + (delimited(_SCHEMA_URL, schema_url.encode()) if schema_url else b"")
        # The most bytes a batch has beyond its spans: both parts, two tags and two lengths.
        self.overhead = len(self._resource) + len(self._scope) + 2 * (1 + _LENGTH_MOST)

    def around(self, spans: list[bytes]) -> list[bytes]:
        """The export request around ``spans``, tagged ``Span`` fields cut anywhere: one more piece before them."""
        inside = len(self._scope) + sum(map(len, spans))
        scope_spans = _SCOPE_SPANS + varint(inside)
        outside = len(self._resource) + len(scope_spans) + inside
        return [b"".join((_RESOURCE_SPANS, varint(outside), self._resource, scope_spans, self._scope)), *spans]

    def wrap(self, spans: Sequence[bytes]) -> bytes:
        """The same as one."""
        return b"".join(self.around(list(spans)))

    def __repr__(self) -> str:
        return f"Envelope({self.overhead} bytes)"


def resource_spans(resource_bytes: bytes, scope_bytes: bytes, spans: Sequence[bytes], schema_url: str = "") -> bytes:
    """An ``ExportTraceServiceRequest`` from an encoded resource, an encoded scope and already tagged spans."""
    return Envelope(resource_bytes, scope_bytes, schema_url).wrap(spans)


class Batch:
    """One export request on its way: its bytes, how many spans are in it, and how far it has come."""

    __slots__ = ("body", "sent", "settled", "size", "spans")

    def __init__(self, body: Body, spans: int) -> None:
        self.body = body
        self.size = size_of(body)
        self.spans = spans
        self.sent = False  # at least one call was made with it
        self.settled = False  # counted for good: acknowledged, rejected or dropped

    def __repr__(self) -> str:
        state = "settled" if self.settled else "sent" if self.sent else "waiting"
        return f"Batch({self.spans} spans, {self.size} bytes, {state})"
