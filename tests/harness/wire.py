"""A strict reader of HTTP/1.1 messages from a socket, for both sides of the proxy (RFC 9112).

It takes what a proxy may emit and nothing else: no bare LF, no obs-fold, no doubled or dressed-up framing fields, no
chunk extensions. What it refuses raises `WireError`, so that a sloppy message fails the test that provoked it.
"""

from __future__ import annotations

import re
import socket
import time
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field

#: Seconds any single wait may take.
TIMEOUT = 10.0
#: Bytes; no head in the tests is larger.
MAX_LINE = 256 * 1024

_TOKEN = re.compile(rb"[!#$%&'*+\-.^_`|~0-9A-Za-z]+\Z")
_VALUE = re.compile(rb"[\t\x20-\x7e\x80-\xff]*\Z")
_STATUS = re.compile(rb"HTTP/1\.([01]) ([1-9][0-9]{2}) ([\t\x20-\x7e\x80-\xff]*)\Z")
_REQUEST = re.compile(rb"([!#$%&'*+\-.^_`|~0-9A-Za-z]+) ([\x21-\x7e]+) HTTP/1\.([01])\Z")
_LENGTH = re.compile(rb"(?:0|[1-9][0-9]{0,18})\Z")
_CHUNK = re.compile(rb"[0-9A-Fa-f]{1,16}\Z")


class WireError(AssertionError):
    """The peer sent something that is not strict HTTP/1.1."""


class Ended(WireError):
    """The peer closed where a message, or more of one, was expected."""


class Fields:
    """Header fields in the order they came: lower-case names, values without surrounding whitespace."""

    def __init__(self, pairs: Iterable[tuple[bytes, bytes]] = ()) -> None:
        self.pairs = list(pairs)

    def all(self, name: str) -> list[str]:
        """Every value of ``name``, in order."""
        wanted = name.lower().encode()
        return [value.decode("latin-1") for key, value in self.pairs if key == wanted]

    def one(self, name: str) -> str:
        """The only value of ``name``; AssertionError if there are none or several."""
        values = self.all(name)
        assert len(values) == 1, f"{name}: {values} in {self.pairs}"
        return values[0]

    def get(self, name: str) -> str | None:
        """The value of ``name`` or None; AssertionError if there are several."""
        return self.one(name) if name in self else None

    def names(self) -> list[str]:
        """The names in order."""
        return [key.decode() for key, _ in self.pairs]

    def __contains__(self, name: str) -> bool:
        return bool(self.all(name))

    def __iter__(self) -> Iterator[tuple[bytes, bytes]]:
        return iter(self.pairs)

    def __repr__(self) -> str:
        return repr(self.pairs)


class Stream:
    """What comes out of a socket: buffered, remembered whole, and never waited for without a limit."""

    def __init__(self, connection: socket.socket, timeout: float = TIMEOUT) -> None:
        self.socket = connection
        self.timeout = timeout
        self.buffer = bytearray()
        self.raw = bytearray()  # everything ever received
        self.eof = False
        self.was_reset = False

    def fill(self, timeout: float | None = None) -> bool:
        """Receive once; False at the end of the stream. TimeoutError when nothing came."""
        if self.eof:
            return False
        self.socket.settimeout(self.timeout if timeout is None else timeout)
        try:
            data = self.socket.recv(256 * 1024)
        except (ConnectionResetError, BrokenPipeError):
            self.was_reset = True
            data = b""
        except TimeoutError:
            raise TimeoutError(
                f"nothing came; so far {bytes(self.raw[-200:])!r}, unread {bytes(self.buffer)!r}"
            ) from None
        if not data:
            self.eof = True
            return False
        self.buffer += data
        self.raw += data
        return True

    def line(self) -> bytes:
        """One line without its CRLF. `WireError` for a bare CR or LF, `Ended` at the end of the stream."""
        while (end := self.buffer.find(b"\n")) < 0:
            if len(self.buffer) > MAX_LINE:
                raise WireError("endless line")
            if not self.fill():
                raise Ended(f"end of stream inside a line: {bytes(self.buffer)!r}")
        line = bytes(self.buffer[: end + 1])
        del self.buffer[: end + 1]
        if not line.endswith(b"\r\n") or b"\r" in line[:-2]:
            raise WireError(f"bare CR or LF in {line!r}")
        return line[:-2]

    def exactly(self, count: int) -> bytes:
        """``count`` bytes; `Ended` if the stream ends before."""
        while len(self.buffer) < count:
            if not self.fill():
                raise Ended(f"end of stream with {len(self.buffer)} of {count} bytes")
        data = bytes(self.buffer[:count])
        del self.buffer[:count]
        return data

    def some(self) -> bytes:
        """Whatever there is, at least one byte; b"" at the end of the stream."""
        if not self.buffer:
            self.fill()
        data = bytes(self.buffer)
        self.buffer.clear()
        return data

    def rest(self) -> bytes:
        """Everything up to the end of the stream."""
        deadline = time.monotonic() + self.timeout
        while self.fill():
            if time.monotonic() > deadline:
                raise TimeoutError("the stream does not end")
        return self.some() if self.buffer else b""


@dataclass
class Response:
    """A response as the downstream read it."""

    status: int
    reason: str
    minor: int
    fields: Fields
    body: bytes = b""
    trailers: Fields = field(default_factory=Fields)
    interim: list[Response] = field(default_factory=list)
    framing: str = "none"  # none | length | chunked | close
    complete: bool = True

    @property
    def text(self) -> str:
        """The body as text."""
        return self.body.decode()


@dataclass
class Request:
    """A request as the upstream read it; ``complete`` once its body has been read to the end."""

    method: str
    target: str
    minor: int
    fields: Fields
    head: bytes
    framing: str
    length: int = 0
    body: bytes = b""
    trailers: Fields = field(default_factory=Fields)
    complete: bool = False

    @property
    def host(self) -> str:
        """Host, which must be there exactly once."""
        return self.fields.one("Host")


def read_fields(stream: Stream) -> Fields:
    """Field lines up to the empty line; `WireError` for anything RFC 9110 section 5 does not allow to be sent."""
    pairs: list[tuple[bytes, bytes]] = []
    while line := stream.line():
        name, colon, value = line.partition(b":")
        if not colon or not _TOKEN.match(name) or not _VALUE.match(value):
            raise WireError(f"malformed field line {line!r}")
        pairs.append((name.lower(), value.strip(b" \t")))
    return Fields(pairs)


def _framing(fields: Fields, minor: int) -> tuple[str, int]:
    """("length", n), ("chunked", 0) or ("", 0); `WireError` where two recipients could disagree."""
    codings, lengths = fields.all("Transfer-Encoding"), fields.all("Content-Length")
    if codings:
        if codings != ["chunked"] or lengths or minor != 1:
            raise WireError(f"ambiguous framing: Transfer-Encoding {codings}, Content-Length {lengths}, HTTP/1.{minor}")
        return "chunked", 0
    if lengths:
        if len(lengths) != 1 or not _LENGTH.match(lengths[0].encode("latin-1")):
            raise WireError(f"malformed Content-Length {lengths}")
        return "length", int(lengths[0])
    return "", 0


def read_chunk(stream: Stream) -> bytes:
    """The data of the next chunk, b"" for the last one (its trailers are still to be read)."""
    size_line = stream.line()
    if not _CHUNK.match(size_line):
        raise WireError(f"chunk size {size_line!r}")
    size = int(size_line, 16)
    if not size:
        return b""
    data = stream.exactly(size)
    if (ending := stream.exactly(2)) != b"\r\n":
        raise WireError(f"chunk data followed by {ending!r}")
    return data


def read_response(stream: Stream, method: str = "GET") -> Response:
    """The next final response, its 1xx in ``interim``; a body cut short gives ``complete`` False.

    `Ended` when the stream ends before or within a head.
    """
    interim: list[Response] = []
    while True:
        line = stream.line()
        found = _STATUS.match(line)
        if not found:
            raise WireError(f"status line {line!r}")
        response = Response(int(found[2]), found[3].decode("latin-1"), int(found[1]), read_fields(stream))
        if response.status >= 200 or response.status == 101:
            break
        interim.append(response)
    response.interim = interim
    framing, length = _framing(response.fields, response.minor)
    if response.status == 101:
        return response
    if response.status == 204 and framing:  # RFC 9112 section 6.1 and RFC 9110 section 8.6: MUST NOT
        raise WireError(f"framing fields in a 204: {response.fields}")
    if method == "HEAD" or response.status in (204, 304):
        return response
    response.framing = framing or "close"
    pieces: list[bytes] = []
    try:
        if framing == "chunked":
            while chunk := read_chunk(stream):
                pieces.append(chunk)
            response.trailers = read_fields(stream)
        elif framing == "length":
            _read_sized(stream, length, pieces)
        else:
            pieces.append(stream.rest())
            response.complete = not stream.was_reset
    except Ended:
        response.complete = False
    response.body = b"".join(pieces)
    return response


def _read_sized(stream: Stream, length: int, pieces: list[bytes]) -> None:
    """``length`` bytes into ``pieces`` as they come; `Ended` if there are fewer."""
    while length:
        if not stream.buffer and not stream.fill():
            raise Ended(f"end of stream with {length} body bytes missing")
        pieces.append(bytes(stream.buffer[:length]))
        del stream.buffer[:length]
        length -= len(pieces[-1])


def read_request_head(stream: Stream) -> Request | None:
    """The next request's head, None at a clean end of the stream."""
    if not stream.buffer and not stream.fill():
        return None
    before = len(stream.raw) - len(stream.buffer)
    line = stream.line()
    found = _REQUEST.match(line)
    if not found:
        raise WireError(f"request line {line!r}")
    fields = read_fields(stream)
    head = bytes(stream.raw[before : len(stream.raw) - len(stream.buffer)])
    if len(fields.all("Host")) != 1:
        raise WireError(f"Host {fields.all('Host')} in {head!r}")
    framing, length = _framing(fields, int(found[3]))
    request = Request(found[1].decode(), found[2].decode(), int(found[3]), fields, head, framing or "none", length)
    request.complete = framing != "chunked" and not length
    return request


def read_request_body(stream: Stream, request: Request) -> None:
    """Read ``request``'s body to its end, into it; `Ended` if the stream ends before (what came is kept)."""
    pieces: list[bytes] = []
    try:
        if request.framing == "chunked":
            while chunk := read_chunk(stream):
                pieces.append(chunk)
            request.trailers = read_fields(stream)
        else:
            _read_sized(stream, request.length, pieces)
    finally:
        request.body = b"".join(pieces)
    request.complete = True
