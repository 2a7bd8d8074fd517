"""B3: Zipkin's context, in one header (``b3``) or several (``x-b3-*``).

https://github.com/openzipkin/b3-propagation. A context may be a decision alone, without ids (``b3: 0``), or ids alone,
with the decision left to the receiver.
"""

from __future__ import annotations

from binascii import unhexlify
from typing import Final

DENY: Final = 0
ACCEPT: Final = 1
DEBUG: Final = 2  # accept, and keep whatever samplers behind may say
DEFER: Final = 3  # undecided: the receiver decides

_DECISIONS: Final = {b"0": DENY, b"1": ACCEPT, b"d": DEBUG}
# Before 2016 the multi-header form said true and false, and some senders still do.
_SAMPLED: Final = {b"0": DENY, b"1": ACCEPT, b"false": DENY, b"true": ACCEPT}
_LETTERS: Final = (b"0", b"1", b"d")

_HEX: Final = b"0123456789abcdef"
_ZERO_TRACE: Final = bytes(16)
_ZERO_SPAN: Final = bytes(8)

Context = tuple[bytes, bytes, int]
"""Trace id (16 bytes, b"" for a decision alone), span id of the parent (or b""), and one of the four decisions."""


def parse_single(value: bytes) -> Context | None:
    """The context in a ``b3`` header, None if it is invalid.

    ``{trace}-{span}``, ``{trace}-{span}-{decision}``, ``{trace}-{span}-{decision}-{parent}``, or ``{decision}``.
    """
    alone = _DECISIONS.get(value)
    if alone is not None:
        return b"", b"", alone
    fields = value.split(b"-")
    if not 2 <= len(fields) <= 4:
        return None
    trace_id, span_id = _trace_id(fields[0]), _span_id(fields[1])
    decision = _DECISIONS.get(fields[2]) if len(fields) > 2 else DEFER
    if trace_id is None or span_id is None or decision is None:
        return None
    if len(fields) == 4 and _span_id(fields[3]) is None:
        return None
    return trace_id, span_id, decision


def parse_multi(trace: bytes, span: bytes, parent: bytes, sampled: bytes, flags: bytes) -> Context | None:
    """The context in ``x-b3-traceid``, ``-spanid``, ``-parentspanid``, ``-sampled`` and ``-flags``, b"" where missing.

    None if there is none or it is invalid. ``x-b3-flags: 1`` is debug and implies accept.
    """
    if flags not in (b"", b"0", b"1"):
        return None
    if flags == b"1":
        decision: int | None = DEBUG
    else:
        decision = _SAMPLED.get(sampled) if sampled else DEFER
    if decision is None:
        return None
    if not trace and not span and not parent:
        return None if decision == DEFER else (b"", b"", decision)
    trace_id, span_id = _trace_id(trace), _span_id(span)
    if trace_id is None or span_id is None or (parent and _span_id(parent) is None):
        return None
    return trace_id, span_id, decision


def format_single(trace_id: bytes, span_id: bytes, decision: int) -> bytes:
    """A ``b3`` value; ``decision`` is `DENY`, `ACCEPT` or `DEBUG`."""
    return b"-".join((trace_id.hex().encode(), span_id.hex().encode(), _LETTERS[decision]))


def format_multi(trace_id: bytes, span_id: bytes, decision: int) -> tuple[tuple[bytes, bytes], ...]:
    """The ``x-b3-*`` names and values; debug is sent as flags, without sampled."""
    last = (b"x-b3-flags", b"1") if decision == DEBUG else (b"x-b3-sampled", _LETTERS[decision])
    return (b"x-b3-traceid", trace_id.hex().encode()), (b"x-b3-spanid", span_id.hex().encode()), last


def _trace_id(digits: bytes) -> bytes | None:
    """64 bits are padded on the left to 128."""
    if len(digits) not in (16, 32) or digits.translate(None, _HEX):
        return None
    trace_id = unhexlify(digits.rjust(32, b"0"))
    return None if trace_id == _ZERO_TRACE else trace_id


def _span_id(digits: bytes) -> bytes | None:
    if len(digits) != 16 or digits.translate(None, _HEX):
        return None
    span_id = unhexlify(digits)
    return None if span_id == _ZERO_SPAN else span_id
