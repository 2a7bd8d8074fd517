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

from proxy.trace import wire
from proxy.trace.wire import NARROW, NARROW_BITS, delimited, integer_head, number, utf8, varint

_SPANS: Final = b"\x12"  # ScopeSpans.spans = 2, a message
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
_WORD: Final = 40  # characters of a text that may come again
_WIDEST: Final = 10  # bytes of a varint
_ONE_BYTE: Final = 1 << 7  # the least that has two
_TWO_BYTES: Final = 1 << NARROW_BITS
_one_byte: Final = struct.Struct("<B").pack
_two_bytes: Final = struct.Struct("<H").pack

Value = str | int | bool


def span_id(trace_id: bytes, client_id: bytes, place: str = "", direction: str = "") -> bytes:
    """The id (8 bytes) of an attempt's wire span, or of the child of a place in it.

    BLAKE2b of trace id, CLIENT span id, ``wire``, place and direction, the last three each ended by a zero byte.
    """
    return Ids(trace_id, client_id).of(place, direction)


class Ids:
    """`span_id` for one attempt's spans, of which the greater part is the same."""

    __slots__ = ("_begun",)

    def __init__(self, trace_id: bytes, client_id: bytes) -> None:
        self._begun = blake2b(trace_id + client_id + b"wire\0", digest_size=8)

    def of(self, place: str = "", direction: str = "") -> bytes:
        """The id (8 bytes) of the wire span, or of the child of a place."""
        ended = self._begun.copy()
        ended.update(_tail(place, direction))
        return ended.digest()


@lru_cache(256)
def _tail(place: str, direction: str) -> bytes:
    return f"{place}\0{direction}\0".encode()


class Number:
    """An integer attribute by its name: all but the value is written beforehand."""

    __slots__ = ("_heads",)

    def __init__(self, key: str) -> None:
        self._heads = tuple(integer_head(key, width) for width in range(_WIDEST + 1))

    def of(self, value: int) -> bytes:
        """The attribute; a negative value as its 64-bit two's complement."""
        encoded = _varint(value)  # `wire.integer` remembers what it wrote; these values hardly repeat
        return self._heads[len(encoded)] + encoded


def _varint(value: int) -> bytes:
    """As `wire.varint`, with less work for what is short."""
    if 0 <= value < _ONE_BYTE:
        return _one_byte(value)
    return _two_bytes(NARROW[value]) if 0 <= value < _TWO_BYTES else varint(value)


def span(
    trace_id: bytes,
    own_id: bytes,
    parent_id: bytes,
    name: str,
    start_ns: int,
    end_ns: int,
    attributes: bytes,
    *,
    remote: bool,
) -> bytes:
    """One INTERNAL span as a ``ScopeSpans.spans`` field, with encoded attributes; ``remote``: its parent is another
    process's."""
    flags = _SAMPLED | (_REMOTE if remote else _LOCAL)
    ids = _pack_ids(
        _TRACE_ID, trace_id, _SPAN_ID, own_id, _PARENT_ID, parent_id, _START, start_ns, _END, end_ns, _FLAGS, flags
    )
    opening = _opening(name)
    return b"".join((_SPANS, _varint(len(ids) + len(opening) + len(attributes)), ids, opening, attributes))


@lru_cache(256)
def _opening(name: str) -> bytes:
    """A span's name and kind: segments repeat."""
    return delimited(_NAME, name.encode()) + number(_KIND, _INTERNAL)


def attributes(values: Mapping[str, Value]) -> bytes:
    """Attributes by their names, encoded."""
    return b"".join([_attribute(key, value) for key, value in values.items()])


def _attribute(key: str, value: Value) -> bytes:
    match value:
        case bool():
            return wire.boolean(key, value)
        case int():
            return number_of(key).of(value)
        case str():
            return word(key, value) if len(value) <= _WORD else text(key, value)


@lru_cache(256)
def number_of(key: str) -> Number:
    """`Number`, for a name that comes again."""
    return Number(key)


def text(key: str, value: str) -> bytes:
    """A string attribute, of at most 4 KiB."""
    return wire.text(key, utf8(value.encode("utf-8", "replace"), _TEXT_LIMIT))


word: Final = lru_cache(2048)(text)
"""The same, for what repeats: a verdict, a place."""
