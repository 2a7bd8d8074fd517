"""INTERNAL spans as OTLP bytes, and their ids, which follow from what they are of.

A wire span's id is a hash: a second tap, a restart or a second join of the same attempt writes the same span again, not
another one, and one node can name another's. Encoding as in `trace.encode`: opentelemetry-proto's ``Span``.
"""

from __future__ import annotations

import struct
from collections.abc import Mapping
from functools import lru_cache
from hashlib import blake2b
from typing import Final

from proxy.trace.wire import boolean, delimited, integer_head, number, text, utf8, varint

_SPANS: Final = 2  # ScopeSpans.spans
_NAME, _KIND = 5, 6
_INTERNAL: Final = 1  # SpanKind
_pack_ids: Final = struct.Struct("<2s16s2s8s2s8ssQsQ2sI").pack
_TRACE_ID: Final = b"\x0a\x10"  # Span.trace_id = 1, 16 bytes
_SPAN_ID: Final = b"\x12\x08"  # Span.span_id = 2, 8 bytes
_PARENT_ID: Final = b"\x22\x08"  # Span.parent_span_id = 4, 8 bytes
_START: Final = b"\x39"  # Span.start_time_unix_nano = 7, fixed64
_END: Final = b"\x41"  # Span.end_time_unix_nano = 8, fixed64
_FLAGS: Final = b"\x85\x01"  # Span.flags = 16, fixed32
_SAMPLED: Final = 0x001
_LOCAL: Final = 0x100  # the parent is known not to be remote
_REMOTE: Final = 0x300
_TEXT_LIMIT: Final = 4096  # bytes of a text
_WORD: Final = 40  # characters of one that repeats: an address, a verdict, a place
_head: Final = lru_cache(512)(integer_head)  # some dozens of names, each in a few widths
_boolean: Final = lru_cache(64)(boolean)

Value = str | int | bool


def span_id(trace_id: bytes, client_id: bytes, place: str = "", direction: str = "") -> bytes:
    """The id (8 bytes) of an attempt's wire span, or of the child of a place in it.

    BLAKE2b of trace id, CLIENT span id, ``wire``, place and direction, the last three each ended by a zero byte.
    """
    tail = f"wire\0{place}\0{direction}\0".encode()
    return blake2b(trace_id + client_id + tail, digest_size=8).digest()


def span(
    trace_id: bytes,
    own_id: bytes,
    parent_id: bytes,
    name: str,
    start_ns: int,
    end_ns: int,
    attributes: Mapping[str, Value],
    *,
    remote: bool,
) -> bytes:
    """One INTERNAL span as a ``ScopeSpans.spans`` field; ``remote``: its parent is another process's."""
    flags = _SAMPLED | (_REMOTE if remote else _LOCAL)
    ids = _pack_ids(
        _TRACE_ID, trace_id, _SPAN_ID, own_id, _PARENT_ID, parent_id, _START, start_ns, _END, end_ns, _FLAGS, flags
    )
    body = b"".join(
        (
            ids,
            _opening(name),
            *(_attribute(*item) for item in attributes.items()),
        )
    )
    return delimited(_SPANS, body)


@lru_cache(256)
def _opening(name: str) -> bytes:
    """A span's name and kind: segments repeat."""
    return delimited(_NAME, name.encode()) + number(_KIND, _INTERNAL)


def _attribute(key: str, value: Value) -> bytes:
    match value:
        case bool():
            return _boolean(key, value)
        case int():
            encoded = varint(value)  # `wire.integer` remembers what it wrote; these values hardly repeat
            return _head(key, len(encoded)) + encoded
        case str():
            return _word(key, value) if len(value) <= _WORD else _text(key, value)


def _text(key: str, value: str) -> bytes:
    return text(key, utf8(value.encode("utf-8", "replace"), _TEXT_LIMIT))


_word: Final = lru_cache(2048)(_text)
