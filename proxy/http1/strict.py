"""A message head's bytes to its parts, strictly (RFC 9112 sections 2 to 5).

One pass, mostly in C: the control characters of the whole head are compared with the line ends that belong there, which
leaves neither bare CR nor LF nor NUL to find later; then each line is cut at its first colon and its name looked up
once.
"""

from __future__ import annotations

import re
from typing import Final

from proxy.errors import Fault, Kind
from proxy.http1.fields import DROP, FRAME, NOTE, REQUEST_NAMES, RESPONSE_NAMES, TOKEN, Action
from proxy.http1.head import RequestHead, ResponseHead

# Field values are HTAB, SP, VCHAR and obs-text (RFC 9110 section 5.5). Everything else that a head may hold is CRLF.
_TEXT: Final = bytes([9, *range(0x20, 0x7F), *range(0x80, 0x100)])
_TARGET: Final = bytes(c for c in range(0x21, 0x7F) if c != 0x23)  # no fragment (RFC 9112 section 3.2)
_LINE_ENDS: Final = tuple(b"\r\n" * count for count in range(1024))
_METHODS: Final = frozenset((b"GET", b"HEAD", b"POST", b"PUT", b"DELETE", b"PATCH", b"OPTIONS", b"QUERY"))
_VERSION: Final = re.compile(rb"HTTP/([0-9])\.([0-9])")
_BARE: Final = re.compile(rb"(?<!\r)\n|\r(?!\n|\Z)")
_STATUS_LINE: Final = re.compile(rb"HTTP/1\.([01]) ([1-9][0-9]{2})(?: ([\t\x20-\x7e\x80-\xff]*))?")


def scan_request(
    head: bytes, most_line: int, most_fields: int, underscores: bool = False, end: int = -1
) -> RequestHead:
    """Parse a request head.

    ``head`` ends before its empty line's CRLF CRLF, or at ``end`` if that is not negative; ``most_line`` bytes of
    request line and ``most_fields`` fields are allowed. ``underscores`` keeps field names with ``_`` (nginx
    ``underscores_in_headers``).

    Raises `Fault`: BAD_REQUEST, BAD_TARGET, BAD_HOST, BAD_FRAMING, TARGET_TOO_LONG, HEAD_TOO_LARGE,
    VERSION_NOT_SUPPORTED.
    """
    if end >= 0:
        head = head[:end]
    lines = head.split(b"\r\n")
    count = len(lines) - 1
    first = lines[0]
    if len(first) > most_line:
        raise Fault(Kind.TARGET_TOO_LONG, f"request line over {most_line} bytes")
    if count > most_fields:
        raise Fault(Kind.HEAD_TOO_LARGE, f"more than {most_fields} fields")
    if head.translate(None, _TEXT) != _line_ends(count):
        raise Fault(Kind.BAD_REQUEST, "control character, bare CR or bare LF in the head")
    parts = first.split(b" ")
    if len(parts) != 3:
        raise Fault(Kind.BAD_REQUEST, "the request line is not 'METHOD target HTTP/1.1'")
    method, target, version = parts
    minor = 1 if version == b"HTTP/1.1" else _minor(version)
    if method not in _METHODS and TOKEN.fullmatch(method) is None:
        raise Fault(Kind.BAD_REQUEST, "the method is not a token")
    if not target or target.translate(None, _TARGET):
        raise Fault(Kind.BAD_TARGET, "character not allowed in a target")
    passed, noted = _fields(lines, REQUEST_NAMES, underscores)
    return RequestHead(method, target, minor, passed, noted)


def scan_response(head: bytes, most_fields: int, end: int = -1) -> ResponseHead:
    """Parse a response head; ``head`` as for `scan_request`. Raises `Fault`: BAD_RESPONSE."""
    if end >= 0:
        head = head[:end]
    lines = head.split(b"\r\n")
    count = len(lines) - 1
    if count > most_fields:
        raise Fault(Kind.BAD_RESPONSE, f"more than {most_fields} fields")
    if head.translate(None, _TEXT) != _line_ends(count):
        raise Fault(Kind.BAD_RESPONSE, "control character, bare CR or bare LF in the head")
    first = lines[0]
    if first == b"HTTP/1.1 200 OK":
        status, reason, minor = 200, b"200 OK", 1
    else:
        match = _STATUS_LINE.fullmatch(first)
        if match is None:
            raise Fault(Kind.BAD_RESPONSE, "the status line is malformed")
        status, reason, minor = int(match[2]), match[2] + b" " + (match[3] or b""), int(match[1])
    try:
        passed, noted = _fields(lines, RESPONSE_NAMES, True)
    except Fault as fault:
        raise Fault(Kind.BAD_RESPONSE, fault.detail) from None
    return ResponseHead(status, reason, minor, passed, noted)


def _fields(
    lines: list[bytes], names: dict[bytes, Action | None], underscores: bool
) -> tuple[bytes, dict[bytes, bytes]]:
    passed: list[bytes] = []
    noted: dict[bytes, bytes] = {}
    del lines[0]
    for line in lines:
        name, colon, value = line.partition(b":")
        if not colon:
            raise _name_fault(name, colon)
        try:
            row = names[name]
        except KeyError:
            if TOKEN.fullmatch(name) is None:
                raise _name_fault(name, colon) from None
            if b"_" in name and not underscores:
                continue
            row = names.get(name.lower())
        if row is None:
            passed.append(line)
            continue
        action, key = row
        if action == DROP:
            continue
        value = value.strip(b" \t")
        if action == NOTE:
            passed.append(line)
        if key in noted:
            if action == FRAME:
                kind = Kind.BAD_HOST if key == b"host" else Kind.BAD_FRAMING
                raise Fault(kind, f"more than one {key.decode()}")
            value = noted[key] + b", " + value
        noted[key] = value
    if not passed:
        return b"", noted
    passed.append(b"")
    return b"\r\n".join(passed), noted


def _line_ends(count: int) -> bytes:
    return _LINE_ENDS[count] if count < len(_LINE_ENDS) else b"\r\n" * count


def _name_fault(name: bytes, colon: bytes) -> Fault:
    if name[:1] in (b" ", b"\t"):
        return Fault(Kind.BAD_REQUEST, "obsolete line folding (RFC 9112 section 5.2)")
    if not colon:
        return Fault(Kind.BAD_REQUEST, "a field line without a colon")
    if name.rstrip(b" \t") != name:
        return Fault(Kind.BAD_REQUEST, "white space before the colon (RFC 9112 section 5.1)")
    return Fault(Kind.BAD_REQUEST, "a field name that is not a token")


def _minor(version: bytes) -> int:
    if version == b"HTTP/1.0":
        return 0
    match = _VERSION.fullmatch(version)
    if match is None or match[1] == b"0":
        raise Fault(Kind.BAD_REQUEST, "the protocol version is malformed")
    raise Fault(Kind.VERSION_NOT_SUPPORTED, version.decode("ascii"))


def check_partial(data: bytes, since: int, most_line: int, most_head: int) -> None:
    """Refuse early what can no longer become a valid request head.

    Called only while the head's end has not arrived: a request that is malformed is answered at once, not after the
    head's timeout. The first ``since`` bytes have been checked before, so that a head in many pieces costs no more
    than in one. Raises `Fault`.
    """
    line_end = data.find(b"\r\n", 0, most_line + 2)
    if line_end > most_line or (line_end < 0 and len(data) > most_line):
        raise Fault(Kind.TARGET_TOO_LONG, f"request line over {most_line} bytes")
    if len(data) > most_head:
        raise Fault(Kind.HEAD_TOO_LARGE, f"head over {most_head} bytes")
    if _BARE.search(data, max(since - 1, 0)) is not None:
        raise Fault(Kind.BAD_REQUEST, "bare CR or bare LF in the head")
    if data[since:].translate(None, _TEXT).strip(b"\r\n"):
        raise Fault(Kind.BAD_REQUEST, "control character in the head")
