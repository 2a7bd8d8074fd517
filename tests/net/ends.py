"""Real connections for `proxy.net.transport`: a transport whose protocol remembers, and a raw peer."""

from __future__ import annotations

import asyncio
import gc
import os
import socket
import struct
from collections.abc import Callable, Coroutine
from typing import Any

import uvloop

from proxy.net.accepting import accept
from proxy.net.transport import adopt

RESET = struct.pack("ii", 1, 0)  # struct linger: on, 0 seconds
HOST = "127.0.0.1"
LONG = 20.0  # seconds: after them something hangs


class End(asyncio.Protocol):
    """Remembers what its transport tells, and holds it to asyncio's order of calls."""

    def __init__(self, *, keep: bool = False) -> None:
        self.transport: asyncio.Transport
        self.calls: list[str] = []
        self.data = bytearray()
        self.reads: list[int] = []
        self.keep = keep
        self.paused = False  # ours: it does not read
        self.full = False  # the transport's: it waits for the peer
        self.closed = False
        self.lost_with: BaseException | None = None
        self.on: dict[str, Callable[[], object]] = {}  # done within the callback of that name
        self._changed = asyncio.Event()

    def _note(self, call: str, *, reading: bool = False) -> None:
        assert "lost" not in self.calls, f"{call} after the end"
        assert ("made" in self.calls) is (call != "made"), call
        if reading:
            assert not self.paused, f"{call} while paused"
            assert not self.closed, f"{call} after close"
            assert "eof" not in self.calls, f"{call} after the end of the stream"
        if call != "data":
            self.calls.append(call)
        self._changed.set()
        if call in self.on:
            self.on[call]()

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        assert isinstance(transport, asyncio.Transport) or type(transport).__name__ in ("Transport", "TCPTransport")
        self.transport = transport  # type: ignore[assignment]
        self._note("made")

    def data_received(self, data: bytes) -> None:
        assert type(data) is bytes
        assert data
        self.data += data
        self.reads.append(len(data))
        self._note("data", reading=True)

    def eof_received(self) -> bool:
        self._note("eof", reading=True)
        return self.keep

    def pause_writing(self) -> None:
        assert not self.full
        self.full = True
        self._note("pause")

    def resume_writing(self) -> None:
        assert self.full
        self.full = False
        self._note("resume")

    def connection_lost(self, exc: BaseException | None) -> None:
        self.lost_with = exc
        self._note("lost")

    # What the tests do.

    def pause(self) -> None:
        self.paused = True
        self.transport.pause_reading()

    def resume(self) -> None:
        self.paused = False
        self.transport.resume_reading()

    def close(self) -> None:
        self.closed = True
        self.transport.close()

    def abort(self) -> None:
        self.closed = True
        self.transport.abort()

    @property
    def lost(self) -> bool:
        return "lost" in self.calls

    async def until(self, true: Callable[[], bool]) -> None:
        while not true():
            self._changed.clear()
            await self._changed.wait()

    async def after(self, call: str) -> None:
        await self.until(lambda: call in self.calls)

    async def has(self, size: int) -> None:
        await self.until(lambda: len(self.data) >= size)


async def turns(count: int = 10) -> None:
    """Rounds of the loop: what has happened on the loopback by now is told."""
    for _ in range(count):
        await asyncio.sleep(0)


def listen(host: str = HOST) -> socket.socket:
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    sock = socket.socket(family, socket.SOCK_STREAM)
    sock.bind((host, 0))
    return sock


def dial(to: Any, *, receive: int = 0, send: int = 0) -> socket.socket:
    """A raw peer, whose buffers may be set."""
    sock = socket.socket(socket.AF_INET6 if len(to) == 4 else socket.AF_INET, socket.SOCK_STREAM, socket.IPPROTO_TCP)
    if receive:
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, receive)
    if send:
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, send)
    sock.connect(to)
    sock.setblocking(False)
    return sock


async def accepted(end: End, *, buffers: int = 0) -> socket.socket:
    """The peer of a connection that was accepted."""
    with listen() as listening:
        if buffers:  # inherited by what is accepted
            listening.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, buffers)
            listening.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, buffers)
        accepting = await accept(listening, lambda: end)
        peer = dial(listening.getsockname(), receive=buffers, send=buffers)
        await end.after("made")
        accepting.close()
    return peer


async def adopted(end: End, *, buffers: int = 0) -> socket.socket:
    """The peer of a connection that was opened."""
    with listen() as listening:
        listening.listen()
        if buffers:
            listening.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, buffers)
            listening.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, buffers)
        sock = dial(listening.getsockname(), receive=buffers, send=buffers)
        peer, _ = listening.accept()
    peer.setblocking(False)
    assert await adopt(sock, end) is end.transport
    return peer


def reset(peer: socket.socket) -> None:
    """End it by a RST."""
    peer.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, RESET)
    peer.close()


def take(peer: socket.socket, size: int = 1 << 20) -> bytes | None:
    """What a peer can read now; None at the end."""
    try:
        return peer.recv(size) or None
    except BlockingIOError:
        return b""


async def drain(peer: socket.socket) -> bytes:
    """All that comes until the end."""
    data = bytearray()
    while (piece := take(peer)) is not None:
        data += piece
        await asyncio.sleep(0)
    return bytes(data)


def filler(end: End, size: int = 1 << 16) -> bytes:
    """Write until bytes wait; returns all that was written."""
    written = bytearray()
    while not end.transport.get_write_buffer_size():
        piece = bytes([len(written) // size % 251]) * size
        end.transport.write(piece)
        written += piece
    return bytes(written)


def descriptors() -> set[tuple[int, str]]:
    """What this process has open."""
    found = set()
    for name in os.listdir("/proc/self/fd"):
        try:
            found.add((int(name), os.readlink(f"/proc/self/fd/{name}")))
        except OSError:
            continue  # the listing's own
    return found


def run(main: Callable[[], Coroutine[Any, Any, None]], *, reports: int = 0) -> list[dict[str, Any]]:
    """On a loop as a worker's: returns what the loop reported, of which there must be as many as said, and nothing may
    stay open."""
    # Behind thousands of tests a collection takes half a second; only what is made here is to be looked at.
    gc.freeze()
    try:
        return _run(main, reports)
    finally:
        gc.unfreeze()


def _run(main: Callable[[], Coroutine[Any, Any, None]], reports: int) -> list[dict[str, Any]]:
    reported: list[dict[str, Any]] = []
    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        runner.get_loop()  # the first in a process opens what stays
    gc.collect()
    before = descriptors()
    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        runner.get_loop().set_exception_handler(lambda _, context: reported.append(context))
        runner.run(asyncio.wait_for(main(), LONG))
    del runner
    assert len(reported) == reports, reported
    kept = [dict(report) for report in reported] if reports else []
    gc.collect()
    assert not descriptors() - before
    return kept
