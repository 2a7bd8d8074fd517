"""The little of protobuf that spans need: varints, length-delimited fields, attributes.

Encoding: https://protobuf.dev/programming-guides/encoding/. Everything here writes whole `Span.attributes` fields, so
that pieces made at different times are joined without looking into them.

Numbers of the hot path are written as varints of a fixed width, padded with continuation bits, so that a whole row of
them is one `struct.pack`. A reader must accept up to ten bytes, padded or not; Perfetto writes its lengths the same
way.
"""

from __future__ import annotations

import codecs
import struct
from collections.abc import Callable
from functools import lru_cache
from typing import Final

_VARINT: Final = 0  # wire types
_BYTES: Final = 2
_ATTRIBUTES: Final = 9  # Span.attributes
_KEY, _VALUE = 1, 2  # KeyValue
_STRING_VALUE, _BOOL_VALUE, _INT_VALUE = 1, 2, 3  # AnyValue

_UINT64: Final = (1 << 64) - 1

# A padded varint of two bytes holds 14 bits, as a little-endian uint16; four bytes hold 28, as two of them.
NARROW_BITS: Final = 14
WIDE_BITS: Final = 2 * NARROW_BITS
NARROW: Final = tuple((n & 0x7F) | 0x80 | (n >> 7) << 8 for n in range(1 << NARROW_BITS))
"""14 bits as a whole varint of two bytes."""
LOW: Final = tuple(n | 0x8000 for n in NARROW)
"""14 bits as the first two bytes of a longer varint."""
_MASK: Final = (1 << NARROW_BITS) - 1

_SHORT: Final = 256  # bytes: strings below this have their heads ready
_KEPT: Final = 2048  # heads and integers remembered: some dozens of keys, each with the lengths or values in use
_ONE_BYTE: Final = tuple(bytes((n,)) for n in range(0x80))


def varint(value: int) -> bytes:
    """The shortest varint; a negative ``value`` is written as its 64-bit two's complement."""
    if 0 <= value <= 0x7F:
        return _ONE_BYTE[value]
    value &= _UINT64
    out = bytearray()
    while value > 0x7F:
        out.append(value & 0x7F | 0x80)
        value >>= 7
    out.append(value)
    return bytes(out)


def tag(field: int, wire_type: int) -> bytes:
    """What introduces a field's value."""
    return varint(field << 3 | wire_type)


def delimited(field: int, payload: bytes) -> bytes:
    """A length-delimited field: a message, a string or bytes."""
    return tag(field, _BYTES) + varint(len(payload)) + payload


def number(field: int, value: int) -> bytes:
    """A varint field: an integer, a bool or an enum."""
    return tag(field, _VARINT) + varint(value)


def _attribute_head(key: str, value_length: int) -> bytes:
    """Everything of a `Span.attributes` field before the AnyValue, which is ``value_length`` bytes long."""
    middle = delimited(_KEY, key.encode()) + tag(_VALUE, _BYTES) + varint(value_length)
    return tag(_ATTRIBUTES, _BYTES) + varint(len(middle) + value_length) + middle


@lru_cache(_KEPT)
def text_head(key: str, length: int) -> bytes:
    """A string attribute up to its value, which is ``length`` bytes of UTF-8 and follows."""
    middle = tag(_STRING_VALUE, _BYTES) + varint(length)
    return _attribute_head(key, len(middle) + length) + middle


def text(key: str, value: bytes) -> bytes:
    """A string attribute; ``value`` must be UTF-8, see `utf8`."""
    return text_head(key, len(value)) + value


@lru_cache(_KEPT)
def integer(key: str, value: int) -> bytes:
    """An integer attribute."""
    payload = number(_INT_VALUE, value)
    return _attribute_head(key, len(payload)) + payload


def integer_head(key: str, width: int) -> bytes:
    """An integer attribute up to its value, a varint of exactly ``width`` bytes, which follows."""
    return _attribute_head(key, 1 + width) + tag(_INT_VALUE, _VARINT)


def boolean(key: str, value: bool) -> bytes:
    """A boolean attribute."""
    payload = number(_BOOL_VALUE, value)
    return _attribute_head(key, len(payload)) + payload


# The same with everything prepared that depends on the key alone


def text_writer(key: str) -> Callable[[bytes], bytes]:
    """`text` for one key."""
    heads = tuple(text_head(key, length) for length in range(_SHORT))

    def write(value: bytes) -> bytes:
        length = len(value)
        return (heads[length] if length < _SHORT else text_head(key, length)) + value

    return write


def delimited_writer(field: int) -> Callable[[bytes], bytes]:
    """`delimited` for one field."""
    heads = tuple(tag(field, _BYTES) + varint(length) for length in range(_SHORT))

    def write(payload: bytes) -> bytes:
        length = len(payload)
        return heads[length] + payload if length < _SHORT else delimited(field, payload)

    return write


def integer_writer(key: str) -> Callable[[int], bytes]:
    """`integer` for one key, padded to a width of 2, 4 or 6 bytes where that is enough."""
    head2, head4, head6 = (integer_head(key, width) for width in (2, 4, 6))
    pack2 = struct.Struct(f"<{len(head2)}sH").pack
    pack4 = struct.Struct(f"<{len(head4)}sHH").pack
    pack6 = struct.Struct(f"<{len(head6)}sHHH").pack

    def write(value: int) -> bytes:
        if not value >> NARROW_BITS:
            return pack2(head2, NARROW[value])
        high = value >> NARROW_BITS
        if not value >> WIDE_BITS:
            return pack4(head4, LOW[value & _MASK], NARROW[high])
        if not value >> WIDE_BITS + NARROW_BITS:
            return pack6(head6, LOW[value & _MASK], LOW[high & _MASK], NARROW[high >> NARROW_BITS])
        return integer(key, value)

    return write


def utf8(value: bytes, limit: int) -> bytes:
    """``value`` as protobuf wants strings: valid UTF-8, here at most ``limit`` bytes.

    What is no UTF-8 becomes U+FFFD (the Unicode standard's substitution of maximal subparts); what is too long is cut
    between characters.
    """
    if len(value) <= limit and value.isascii():
        return value
    # An incomplete character at the cut is left away, not replaced.
    clean = codecs.utf_8_decode(value[:limit], "replace", len(value) <= limit)[0].encode()
    if len(clean) <= limit:
        return clean
    return codecs.utf_8_decode(clean[:limit], "strict", False)[0].encode()
