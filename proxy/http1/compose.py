"""Heads put together from their parts: pure functions of bytes, with a compiled twin, ``compose.pyx``.

Parts are what the scanner and admission made and checked; nothing is checked here. ``fields`` and ``extra`` are field
lines, each with its CRLF.
"""

from __future__ import annotations


def request_prefix(
    method: bytes, target: bytes, authority: bytes, fields: bytes, extra: bytes, forwarding: bytes, request_id: bytes
) -> bytes:
    """A request's head for an upstream, up to where the trace context follows."""
    return b"%b %b HTTP/1.1\r\nHost: %b\r\n%b%b%bX-Request-ID: %b\r\n" % (
        method,
        target,
        authority,
        fields,
        extra,
        forwarding,
        request_id,
    )


def request(prefix: bytes, context: bytes, other_context: bytes, body: bytes) -> bytes:
    """`request_prefix`, the lines of the trace context, the head's end, and what there is of the body."""
    return b"%b%b%b\r\n%b" % (prefix, context, other_context, body)


def response(reason: bytes, fields: bytes, extra: bytes, data: bytes, start: int, stop: int) -> bytes:
    """A response's head, and the first of its body: ``data`` from ``start`` to ``stop``.

    ``reason`` is the status code and the phrase.
    """
    return b"HTTP/1.1 %b\r\n%b%b\r\n%b" % (reason, fields, extra, data[start:stop])


def length_line(length: int) -> bytes:
    """The Content-Length line."""
    return b"Content-Length: %d\r\n" % length
