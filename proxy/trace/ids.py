"""Trace and span ids: random, never zero, cut in stock from one block of kernel randomness.

W3C Trace Context asks for ids that are random in every bit; one getrandom(2) per 4 KiB makes that nearly free. The
stocks belong to one process: a child forgets what it inherited, so that two workers never give out the same id.
"""

from __future__ import annotations

import os
import struct
from typing import Final

TRACE_ID_SIZE: Final = 16  # bytes
SPAN_ID_SIZE: Final = 8

_BLOCK: Final = 4096  # bytes per getrandom: a page, 256 trace ids or 512 span ids
_cut_trace_ids: Final = struct.Struct(f"{TRACE_ID_SIZE}s" * (_BLOCK // TRACE_ID_SIZE)).unpack
_cut_span_ids: Final = struct.Struct(f"{SPAN_ID_SIZE}s" * (_BLOCK // SPAN_ID_SIZE)).unpack
_ZERO: Final = bytes(SPAN_ID_SIZE)

_trace_ids: Final[list[bytes]] = []
_span_ids: Final[list[bytes]] = []


def trace_id() -> bytes:
    """A new trace id: 16 random bytes, not all zero."""
    if not _trace_ids:
        _trace_ids.extend(_cut_trace_ids(_block()))
    return _trace_ids.pop()


def span_id() -> bytes:
    """A new span id: 8 random bytes, not all zero."""
    if not _span_ids:
        _span_ids.extend(_cut_span_ids(_block()))
    return _span_ids.pop()


def reseed() -> None:
    """Throw the stocks away; called by itself in a forked child."""
    _trace_ids.clear()
    _span_ids.clear()


def _block() -> bytes:
    """Random bytes without eight zero bytes in a row: more than both kinds of id need, and once in 10^15 blocks."""
    block = os.urandom(_BLOCK)
    while _ZERO in block:
        block = os.urandom(_BLOCK)
    return block


os.register_at_fork(after_in_child=reseed)
