"""W3C Trace Context: ``traceparent`` and ``tracestate``, parsed strictly and written as version 00.

W3C Recommendation (level 1), with what level 2 adds: the random-trace-id flag, and keys that begin with a digit.
"""

from __future__ import annotations

import re
from binascii import unhexlify
from typing import Final

SAMPLED: Final = 0x01  # trace-flags
RANDOM: Final = 0x02  # level 2: the last 7 bytes of the trace id are random
_KNOWN_FLAGS: Final = SAMPLED | RANDOM

MEMBERS: Final = 32
"""Most list-members of a tracestate."""
STATE_LIMIT: Final = 512
"""Bytes of tracestate sent on: the least that must be possible, and the most that anybody can count on."""
_LONG_MEMBER: Final = 128  # bytes; longer ones are the first to go

_LENGTH: Final = 55  # 2 + 1 + 32 + 1 + 16 + 1 + 2
_FORBIDDEN_VERSION: Final = 0xFF
_DASH: Final = ord("-")
_ZERO_TRACE: Final = bytes(16)
_ZERO_SPAN: Final = bytes(8)
_HEX: Final = b"0123456789abcdef"

# Level 1: a simple key, or tenant@system of at most 241 and 14 characters. The value ends in no space.
_MEMBER: Final = re.compile(
    rb"([a-z0-9][a-z0-9_\-*/]{0,255}|[a-z0-9][a-z0-9_\-*/]{0,240}@[a-z][a-z0-9_\-*/]{0,13})"
    rb"=[\x20-\x2b\x2d-\x3c\x3e-\x7e]{0,255}[\x21-\x2b\x2d-\x3c\x3e-\x7e]"
)

Context = tuple[bytes, bytes, int]
"""Trace id, span id of the parent, trace flags."""


def parse_traceparent(value: bytes) -> Context | None:
    """The context in a ``traceparent``, None if it is invalid.

    A version above 00 may be longer, after another dash, and only its sampled flag is understood (section 3.2.4).
    Flags that version 00 does not define are dropped.
    """
    if len(value) != _LENGTH and (len(value) < _LENGTH or value[:2] == b"00" or value[_LENGTH] != _DASH):
        return None
    if value[2] != _DASH or value[35] != _DASH or value[52] != _DASH:
        return None
    digits = value[:2] + value[3:35] + value[36:52] + value[53:55]
    if digits.translate(None, _HEX):
        return None
    raw = unhexlify(digits)
    trace_id = raw[1:17]
    span_id = raw[17:25]
    if raw[0] == _FORBIDDEN_VERSION or trace_id == _ZERO_TRACE or span_id == _ZERO_SPAN:
        return None
    return trace_id, span_id, raw[25] & (SAMPLED if raw[0] else _KNOWN_FLAGS)


def format_traceparent(trace_id: bytes, span_id: bytes, flags: int) -> bytes:
    """A ``traceparent`` of version 00."""
    return f"00-{trace_id.hex()}-{span_id.hex()}-{flags & 0xFF:02x}".encode()


def members(value: bytes) -> list[bytes] | None:
    """The list-members of a ``tracestate``, in order, None if it is invalid as a whole.

    Empty members are allowed and left out. More than 32 of them, a member that is no key and value, and a key that
    appears twice are invalid.
    """
    found = [member for item in value.split(b",") if (member := item.strip(b" \t"))]
    # A leading space belongs to a value, never to a key, so stripping the member took nothing that counts.
    if len(found) > MEMBERS:
        return None
    keys = set()
    for member in found:
        match = _MEMBER.fullmatch(member)
        if match is None:
            return None
        keys.add(match[1])
    return found if len(keys) == len(found) else None


def parse_tracestate(value: bytes) -> bytes:
    """A ``tracestate`` as it may be sent on: valid, without optional whitespace, at most `STATE_LIMIT` bytes.

    An invalid one is dropped, and b"" returned. Of one that is too long whole members go: first those over 128 bytes,
    then from the end (section 3.3.1.5).
    """
    if not value:
        return b""
    found = members(value)
    if found is None:
        return b""
    state = b",".join(found)
    if len(state) <= STATE_LIMIT:
        return state
    return _shortened(found)


def _shortened(found: list[bytes]) -> bytes:
    length = sum(map(len, found)) + len(found) - 1
    kept = list(found)
    for member in reversed(found):
        if length > STATE_LIMIT and len(member) > _LONG_MEMBER:
            kept.remove(member)
            length -= len(member) + 1
    while length > STATE_LIMIT:
        length -= len(kept.pop()) + 1
    return b",".join(kept)
