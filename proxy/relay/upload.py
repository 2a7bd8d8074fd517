"""A request body on its way to the upstream: counted, limited, and kept while another attempt could need it."""

from __future__ import annotations

from typing import Final

from proxy.errors import Fault, Kind
from proxy.http1.chunked import ChunkedReader, chunk, last_chunk
from proxy.http1.framing import CHUNKED

REPLAYED: Final = 64 * 1024  # bytes kept for another attempt (Envoy: per_request_buffer_limit_bytes)


class Upload:
    """One request's body.

    `take` turns what the downstream sent into what the upstream gets. ``left`` is the bytes still to come (0 for a
    chunked body, whose end is not known), ``rest`` what stood behind the body, ``size`` the payload so far.
    ``replayable`` says whether `so_far` still holds everything taken.

    Raises `Fault`: BODY_TOO_LARGE when a Content-Length is over ``limit`` bytes (0: no limit).
    """

    __slots__ = ("_kept", "_kept_size", "_limit", "_reader", "_trailers", "done", "left", "replayable", "rest", "size")

    def __init__(self, framing: int, limit: int, most_extensions: int, trailers: bool) -> None:
        if limit and framing > limit:
            raise Fault(Kind.BODY_TOO_LARGE, f"Content-Length {framing}, limit {limit} bytes")
        self._reader = ChunkedReader(most_extensions) if framing == CHUNKED else None
        self._trailers = trailers
        self._limit = limit
        self._kept: list[bytes] = []
        self._kept_size = 0
        self.left = max(framing, 0)
        self.size = 0
        self.rest = b""
        self.done = False
        self.replayable = True

    def __repr__(self) -> str:
        return f"Upload({self.size} bytes, {'done' if self.done else self._reader or f'{self.left} left'})"

    def take(self, data: bytes) -> bytes:
        """Take arrived bytes; returns those for the upstream. Raises `Fault`: BAD_FRAMING, BODY_TOO_LARGE."""
        reader = self._reader
        if reader is None:
            left = self.left - len(data)
            if left < 0:
                data, self.rest = data[:left], data[left:]
                left = 0
            self.left = left
            self.size += len(data)
            self.done = left == 0
            wire = data
        else:
            payload = reader.feed(data)
            self.size += len(payload)
            if 0 < self._limit < reader.announced:
                raise Fault(Kind.BODY_TOO_LARGE, f"over {self._limit} bytes of chunks")
            wire = chunk(payload) if payload else b""
            if reader.done:
                wire += last_chunk(reader.trailers if self._trailers else [])
                self.rest = reader.rest
                self.done = True
        if self.replayable and wire:
            self._kept.append(wire)
            self._kept_size += len(wire)
        return wire

    @property
    def chunks(self) -> int:
        """Chunks begun so far; 0 for a body of known length."""
        return 0 if self._reader is None else self._reader.chunks

    def so_far(self) -> bytes:
        """What has been taken, as the upstream gets it."""
        return self._kept[0] if len(self._kept) == 1 else b"".join(self._kept)

    def sent(self) -> None:
        """Everything taken has been written once: keep it only while it is small."""
        if self._kept_size > REPLAYED:
            self.replayable = False
            self._kept = []
