"""A backend for labs: HTTP/1.1 that does what the path asks for, and says when it did.

    python -m tests.harness.lab_backend FD [LOG]

It serves on the inherited listening socket FD (`Lab.listener`). ``/?think_us=2000&bytes=4000&unread_ms=50``: before it
answers with so many bytes it waits so long, and before it reads the request's body it does not read for so long. The
response's fields ``in`` and ``out`` are the Unix times in nanoseconds at which the whole request had been read, and
just before the response was written: its own part of the wait. To LOG goes one JSON line per time that it did not read.
"""

from __future__ import annotations

import asyncio
import json
import socket
import sys
import time
from pathlib import Path
from typing import Final, TextIO
from urllib.parse import parse_qs, urlsplit

END: Final = b"\r\n\r\n"


class Backend(asyncio.Protocol):
    """One connection. Requests have a Content-Length or no body."""

    def __init__(self, log: TextIO | None) -> None:
        self._log = log
        self._data = bytearray()
        self._transport: asyncio.Transport | None = None
        self._task: asyncio.Task[None] | None = None
        self._paused = False

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        assert isinstance(transport, asyncio.Transport)
        self._transport = transport

    def data_received(self, data: bytes) -> None:
        self._data += data
        if self._task is None:
            self._next()

    def connection_lost(self, error: Exception | None) -> None:
        if self._task is not None:
            self._task.cancel()

    def _next(self) -> None:
        head, found, _ = bytes(self._data).partition(END) if END in self._data else (b"", b"", b"")
        if not found:
            return
        target = head.split(b" ", 2)[1].decode("ascii")
        wanted = {name: int(values[-1]) for name, values in parse_qs(urlsplit(target).query).items()}
        length = 0
        for line in head.split(b"\r\n")[1:]:
            name, _, value = line.partition(b":")
            if name.lower() == b"content-length":
                length = int(value)
        assert self._transport is not None
        if wanted.get("unread_ms") and not self._paused:
            self._paused = True
            self._transport.pause_reading()
            self._task = asyncio.get_running_loop().create_task(self._unread(wanted["unread_ms"] / 1e3))
        elif len(self._data) >= len(head) + 4 + length:
            read = time.time_ns()
            del self._data[: len(head) + 4 + length]
            self._task = asyncio.get_running_loop().create_task(self._answer(wanted, read))

    async def _unread(self, seconds: float) -> None:
        begin = time.time_ns()
        await asyncio.sleep(seconds)
        if self._log is not None:
            peer = self._transport.get_extra_info("peername") if self._transport else None
            entry = {"fault": "not reading", "peer": peer, "begin_ns": begin, "end_ns": time.time_ns()}
            self._log.write(json.dumps(entry) + "\n")
            self._log.flush()
        self._task = None
        assert self._transport is not None
        self._transport.resume_reading()
        self._next()

    async def _answer(self, wanted: dict[str, int], read: int) -> None:
        if wanted.get("think_us"):
            await asyncio.sleep(wanted["think_us"] / 1e6)
        body = bytes(wanted.get("bytes", 2))
        assert self._transport is not None
        # Its writes go out at once: `out` is when the last of it left this process, unless the socket's buffer is full.
        head = f"HTTP/1.1 200 OK\r\ncontent-length: {len(body)}\r\nin: {read}\r\nout: {time.time_ns()}\r\n\r\n"
        self._transport.write(head.encode("ascii") + body)
        self._task, self._paused = None, False
        self._next()


async def serve(listener: socket.socket, log: TextIO | None) -> None:
    """Serve until killed."""
    server = await asyncio.get_running_loop().create_server(lambda: Backend(log), sock=listener)
    await server.serve_forever()


if __name__ == "__main__":
    with Path(sys.argv[2] if len(sys.argv) > 2 else "/dev/null").open("a", encoding="utf-8") as stream:
        asyncio.run(serve(socket.socket(fileno=int(sys.argv[1])), stream))
