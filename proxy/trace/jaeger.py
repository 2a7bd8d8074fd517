"""Jaeger's own context headers: ``uber-trace-id`` and ``jaeger-debug-id``.

https://www.jaegertracing.io/docs/1.21/client-libraries/#propagation-format:
``{trace-id}:{span-id}:{parent-span-id}:{flags}``, hexadecimal, leading zeros optional, colons possibly URL-encoded.
Baggage (``uberctx-*``) is no context and passes through the proxy as any other field.
"""

from __future__ import annotations

from typing import Final

SAMPLED: Final = 0x01  # flags
DEBUG: Final = 0x02  # sample whatever the samplers say, and keep
_FLAGS_DIGITS: Final = 2

_HEX: Final = b"0123456789abcdefABCDEF"

Context = tuple[bytes, bytes, int]
"""Trace id (16 bytes), span id of the parent, Jaeger's flags."""


def parse(value: bytes) -> Context | None:
    """The context in a ``uber-trace-id``, None if it is invalid.

    Trace ids are 64 or 128 bits, the shorter ones padded on the left. The parent's own parent is deprecated and only
    checked for its form. Upper-case digits are read, as every Jaeger client does.
    """
    if b"%" in value:
        value = value.replace(b"%3A", b":").replace(b"%3a", b":")
    fields = value.split(b":")
    if len(fields) != 4:
        return None
    trace, span, parent, flags = fields
    if not (_is_hex(trace, 32) and _is_hex(span, 16) and _is_hex(parent, 16) and _is_hex(flags, _FLAGS_DIGITS)):
        return None
    trace_id, span_id = int(trace, 16), int(span, 16)
    if not trace_id or not span_id:
        return None
    return trace_id.to_bytes(16, "big"), span_id.to_bytes(8, "big"), int(flags, 16)


def format_context(trace_id: bytes, span_id: bytes, flags: int) -> bytes:
    """A ``uber-trace-id`` with all leading zeros and no grandparent; ``flags`` are Jaeger's."""
    return f"{trace_id.hex()}:{span_id.hex()}:0:{flags & 0xFF:x}".encode()


def _is_hex(digits: bytes, most: int) -> bool:
    return 0 < len(digits) <= most and not digits.translate(None, _HEX)
