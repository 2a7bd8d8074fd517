"""Where a message's body ends: the list of RFC 9112 section 6.3 as code.

A framing is an int: the body's length in bytes (0 for none), `CHUNKED`, or `UNTIL_CLOSE` (responses only).
"""

from __future__ import annotations

from typing import Final

from proxy.errors import Fault, Kind
from proxy.http1.fields import TOKEN, tokens
from proxy.http1.head import RequestHead, ResponseHead

CHUNKED: Final = -1
UNTIL_CLOSE: Final = -2

_MOST_DIGITS: Final = 18  # 10**18 - 1 bytes: below 2**63, above any body; leading zeros are not counted
_MOST_TEXT: Final = 64  # characters of a Content-Length, zeros included


def request_framing(head: RequestHead) -> int:
    """A request's framing. Raises `Fault`: BAD_FRAMING (400) or NOT_IMPLEMENTED (501)."""
    noted = head.noted
    coding = noted.get(b"transfer-encoding")
    length = noted.get(b"content-length")
    if coding is not None:
        # RFC 9112 section 6.1: both fields are a smuggling attempt or a broken sender; section 6.1: not in HTTP/1.0.
        if length is not None:
            raise Fault(Kind.BAD_FRAMING, "Content-Length with Transfer-Encoding")
        if head.minor == 0:
            raise Fault(Kind.BAD_FRAMING, "Transfer-Encoding in HTTP/1.0")
        return CHUNKED if coding == b"chunked" else _coding(coding)
    return 0 if length is None else content_length(length)


def response_framing(head: ResponseHead, method: bytes) -> int:
    """A final response's framing, given the request's method. Raises `Fault`: BAD_RESPONSE."""
    noted = head.noted
    coding = noted.get(b"transfer-encoding")
    length = noted.get(b"content-length")
    status = head.status
    try:
        size = 0 if length is None else content_length(length)
        if coding is not None:
            if length is not None:
                raise Fault(Kind.BAD_FRAMING, "Content-Length with Transfer-Encoding")
            if head.minor == 0:
                raise Fault(Kind.BAD_FRAMING, "Transfer-Encoding in HTTP/1.0")
            if coding != b"chunked":
                _coding(coding)
    except Fault as fault:
        raise Fault(Kind.BAD_RESPONSE, fault.detail) from None
    if method == b"HEAD" or status == 204 or status == 304:
        return 0
    if coding is not None:
        return CHUNKED
    return UNTIL_CLOSE if length is None else size


def content_length(value: bytes) -> int:
    """A Content-Length's value in bytes, 1*DIGIT (RFC 9110 section 8.6). Raises `Fault`: BAD_FRAMING."""
    length = len(value)
    if not 0 < length <= _MOST_TEXT:
        raise Fault(Kind.BAD_FRAMING, "Content-Length is not a number")
    if length > _MOST_DIGITS and value.isdigit() and len(value.lstrip(b"0")) > _MOST_DIGITS:
        raise Fault(Kind.BAD_FRAMING, "Content-Length is too large")
    size = 0
    for digit in value:
        if not 0x30 <= digit <= 0x39:
            raise Fault(Kind.BAD_FRAMING, "Content-Length is not a number")
        size = size * 10 + digit - 0x30
    return size


def _coding(value: bytes) -> int:
    """Judge a Transfer-Encoding that is not literally ``chunked`` (RFC 9112 section 6.1)."""
    if value.lower() == b"chunked":
        return CHUNKED
    codings = tokens(value)
    members = [part.strip(b" \t") for part in value.split(b",")]
    if not all(members):
        raise Fault(Kind.BAD_FRAMING, "an empty transfer coding")
    if not all(TOKEN.fullmatch(member.partition(b";")[0].rstrip(b" \t")) for member in members):
        raise Fault(Kind.BAD_FRAMING, "a transfer coding that is not a token")
    if b"chunked" in codings[:-1] or codings.count(b"chunked") > 1:
        raise Fault(Kind.BAD_FRAMING, "chunked is not the last transfer coding, or is applied twice")
    raise Fault(Kind.NOT_IMPLEMENTED, "a transfer coding other than chunked")
