"""The chunked transfer coding, read strictly and written plainly (RFC 9112 section 7.1)."""

from __future__ import annotations

import re
from typing import Final

from proxy.errors import Fault, Kind
from proxy.http1.fields import NOT_IN_TRAILERS, TOKEN

_MOST_SIZE_DIGITS: Final = 15  # hex digits, below 2**60; HAProxy stops at 13
_MOST_TRAILERS: Final = 32  # trailer fields
_MOST_TRAILER_BYTES: Final = 8 * 1024

# chunk-ext = *( BWS ";" BWS name [ BWS "=" BWS ( token / quoted-string ) ] ), possessive so that it cannot backtrack.
_TOKEN: Final = rb"[!#$%&'*+\-.^_`|~0-9A-Za-z]++"
_QUOTED: Final = rb'"(?:[\t \x21\x23-\x5b\x5d-\x7e\x80-\xff]|\\[\t \x21-\x7e\x80-\xff])*+"'
_EXTENSIONS: Final = re.compile(
    rb"(?:[ \t]*+;[ \t]*+" + _TOKEN + rb"(?:[ \t]*+=[ \t]*+(?:" + _TOKEN + rb"|" + _QUOTED + rb"))?+)*+"
)
_HEX: Final = re.compile(rb"[0-9A-Fa-f]+")
_VALUE: Final = bytes([9, *range(0x20, 0x7F), *range(0x80, 0x100)])

LAST_CHUNK: Final = b"0\r\n\r\n"


class ChunkedReader:
    """Decodes one body piece by piece.

    `feed` takes what arrived and returns the payload in it; then ``done`` says whether the body is complete, ``rest``
    holds the bytes after it and ``trailers`` its trailer lines that may be forwarded. ``announced`` is the payload of
    all chunks begun so far, in bytes: what is too large is known by its first chunk size; ``chunks`` is their number. A
    chunk extension is checked, counted and never forwarded.
    """

    __slots__ = ("_buffer", "_extensions", "_left", "_trailer_bytes", "announced", "chunks", "done", "rest", "trailers")

    def __init__(self, most_extensions: int) -> None:
        self._buffer = b""
        self._left = _SIZE
        self._extensions = most_extensions
        self._trailer_bytes = _MOST_TRAILER_BYTES
        self.announced = 0
        self.chunks = 0
        self.done = False
        self.rest = b""
        self.trailers: list[bytes] = []

    def __repr__(self) -> str:
        state = "done" if self.done else _STATES.get(self._left, f"{self._left} bytes of chunk left")
        return f"ChunkedReader({state})"

    def feed(self, data: bytes) -> bytes:
        """Decode ``data``; returns its payload (b"" when there is none). Raises `Fault`: BAD_FRAMING."""
        if self._buffer:
            data = self._buffer + data
            self._buffer = b""
        pieces: list[bytes] = []
        position, end = 0, len(data)
        while position < end:
            left = self._left
            if left > 0:
                piece = data[position : position + left]
                pieces.append(piece)
                position += len(piece)
                left -= len(piece)
                self._left = left or _CRLF
                continue
            if left == _CRLF:
                # RFC 9112 section 7.1: the data is followed by CRLF, and by nothing else.
                mark = data[position : position + 2]
                if mark != b"\r\n":
                    if mark == b"\r":
                        break
                    raise Fault(Kind.BAD_FRAMING, "chunk data without its CRLF")
                position += 2
                self._left = _SIZE
                continue
            stop = data.find(b"\r\n", position)
            if stop < 0:
                self._check_partial(data[position:])
                break
            line = data[position:stop]
            position = stop + 2
            if left == _SIZE:
                self._left = self._size(line) or _TRAILER
            elif line:
                self._trailer(line)
            else:
                self.done = True
                self.rest = data[position:]
                return b"".join(pieces) if len(pieces) != 1 else pieces[0]
        self._buffer = data[position:]
        return b"".join(pieces) if len(pieces) != 1 else pieces[0]

    def _size(self, line: bytes) -> int:
        match = _HEX.match(line)
        if match is None:
            raise Fault(Kind.BAD_FRAMING, "a chunk size that is not hexadecimal")
        digits = match[0]
        if len(digits.lstrip(b"0")) > _MOST_SIZE_DIGITS or len(digits) > 32:
            raise Fault(Kind.BAD_FRAMING, "a chunk size that is too large")
        if len(line) != len(digits):
            extension = line[len(digits) :]
            self._extensions -= len(extension)
            if self._extensions < 0:
                raise Fault(Kind.BAD_FRAMING, "too many bytes of chunk extensions")
            if _EXTENSIONS.fullmatch(extension) is None:
                raise Fault(Kind.BAD_FRAMING, "a malformed chunk size or chunk extension")
        size = int(digits, 16)
        self.announced += size
        self.chunks += 1
        return size

    def _trailer(self, line: bytes) -> None:
        self._trailer_bytes -= len(line) + 2
        if self._trailer_bytes < 0 or len(self.trailers) >= _MOST_TRAILERS:
            raise Fault(Kind.BAD_FRAMING, "the trailers are too large or too many")
        name, colon, value = line.partition(b":")
        if not colon or TOKEN.fullmatch(name) is None or value.translate(None, _VALUE):
            raise Fault(Kind.BAD_FRAMING, "a malformed trailer field")
        if name.lower() not in NOT_IN_TRAILERS and not name.lower().startswith(b"x-forwarded-") and b"_" not in name:
            self.trailers.append(line)

    def _check_partial(self, line: bytes) -> None:
        """Refuse early a line that cannot end well, and bound what is kept of it."""
        text = line[:-1] if line.endswith(b"\r") else line
        if b"\r" in text or b"\n" in text or b"\0" in text:
            raise Fault(Kind.BAD_FRAMING, "bare CR, bare LF or NUL in chunk framing")
        if self._left == _TRAILER:
            if len(text) > self._trailer_bytes:
                raise Fault(Kind.BAD_FRAMING, "the trailers are too large or too many")
        elif text:
            match = _HEX.match(text)
            if match is None or (len(text) != len(match[0]) and text[len(match[0])] not in b"; \t"):
                raise Fault(Kind.BAD_FRAMING, "a chunk size that is not hexadecimal")
            if len(text) > self._extensions + 32:
                raise Fault(Kind.BAD_FRAMING, "too many bytes of chunk extensions")


_SIZE: Final = 0
_CRLF: Final = -1
_TRAILER: Final = -2
_STATES: Final = {_SIZE: "at a chunk size", _CRLF: "after chunk data", _TRAILER: "in trailers"}


def chunk(payload: bytes) -> bytes:
    """One chunk with this payload, which must not be empty."""
    return b"%x\r\n%b\r\n" % (len(payload), payload)


def last_chunk(trailers: list[bytes]) -> bytes:
    """The end of a chunked body, with its trailer lines."""
    if not trailers:
        return LAST_CHUNK
    return b"0\r\n%b\r\n\r\n" % b"\r\n".join(trailers)
