"""The context lines of the default formats, and ids as text: what is written for every request.

Pure functions with a compiled twin, ``lines.pyx``; the other formats are written by `trace.context`.
"""

from __future__ import annotations

from typing import Final

from proxy.trace import jaeger, w3c

_DEBUG: Final = 0x100  # `context.DEBUG`
_FLAGS: Final = 0x1FF  # the W3C flags and DEBUG
_W3C_FLAGS: Final = tuple(f"-{flags & 0xFF:02x}\r\n" for flags in range(_FLAGS + 1))
_JAEGER_FLAGS: Final = tuple(
    f":0:{jaeger.SAMPLED | jaeger.DEBUG if flags & _DEBUG else flags & w3c.SAMPLED:x}\r\n"
    for flags in range(_FLAGS + 1)
)


def default_lines(trace_id: bytes, span_id: bytes, flags: int, tracestate: bytes) -> bytes:
    """``traceparent``, ``uber-trace-id`` and, unless it is empty, ``tracestate``, each line with its CRLF.

    ``trace_id`` is 16 bytes, ``span_id`` 8; ``flags`` are the W3C flags, and `context.DEBUG`.
    """
    trace, span = trace_id.hex(), span_id.hex()
    flags &= _FLAGS
    lines = (
        f"traceparent: 00-{trace}-{span}{_W3C_FLAGS[flags]}uber-trace-id: {trace}:{span}{_JAEGER_FLAGS[flags]}"
    ).encode()
    return b"".join((lines, b"tracestate: ", tracestate, b"\r\n")) if tracestate else lines


def hexed(value: bytes) -> bytes:
    """Bytes as lower-case hexadecimal digits, in ASCII."""
    return value.hex().encode("ascii")
