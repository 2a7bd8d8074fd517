"""Responses that the proxy writes itself: short, clear, and carrying the trace id."""

from __future__ import annotations

from email.utils import formatdate
from http import HTTPStatus
from typing import Final

import msgspec

from proxy.errors import Kind

REASONS: Final = {status.value: status.phrase.encode("ascii") for status in HTTPStatus}
CONTINUE: Final = b"HTTP/1.1 100 Continue\r\n\r\n"


def answer(
    status: int, body: bytes, content_type: bytes, extra: bytes, *, keep: bool, minor: int, head_only: bool
) -> bytes:
    """A whole response. ``extra`` are further header lines, each with its CRLF; ``keep`` keeps the connection."""
    connection = b"" if keep and minor else b"Connection: keep-alive\r\n" if keep else b"Connection: close\r\n"
    entity = b"" if status == 204 else b"Content-Type: %b\r\nContent-Length: %d\r\n" % (content_type, len(body))
    return b"HTTP/1.1 %d %b\r\nServer: spanway\r\nDate: %b\r\n%b%b%b\r\n%b" % (
        status,
        REASONS.get(status, b"Unknown"),
        formatdate(usegmt=True).encode("ascii"),
        entity,
        extra,
        connection,
        b"" if head_only else body,
    )


def redirect(status: int, location: bytes) -> tuple[bytes, bytes, bytes]:
    """Body, content type and header lines of a redirect. The body does not repeat what the client sent."""
    text = b"%d %b\n" % (status, REASONS.get(status, b"Redirect"))
    return text, b"text/plain; charset=utf-8", b"Location: %b\r\n" % location


def fault_body(kind: Kind, trace_id: str, accept: bytes) -> tuple[bytes, bytes]:
    """The body and content type that explain a fault: JSON where `Accept` names it, else text."""
    status = kind.status
    if b"json" in accept.lower():
        body = {"status": status, "error": kind.label, "message": kind.text, "trace_id": trace_id}
        return msgspec.json.encode(body) + b"\n", b"application/json"
    phrase = REASONS.get(status, b"Error").decode("ascii")
    text = f"{status} {phrase}\n{kind.text}\nerror: {kind.label}\ntrace-id: {trace_id}\n"
    return text.encode("ascii"), b"text/plain; charset=utf-8"
