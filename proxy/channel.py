"""The words between the supervisor and its workers, over one socket pair per worker.

Each message is a msgpack struct behind its length in four bytes. The supervisor asks and the worker answers by the
same ``id``.
"""

from __future__ import annotations

import asyncio
import socket
from typing import Final

import msgspec

from proxy.admin.source import WorkerSample
from proxy.route.change import TableChange, parts

_LENGTH: Final = 4  # bytes, big endian
_MOST: Final = 1 << 30  # bytes of one message; a table of 100,000 rules is some 40 MB


class Prepare(msgspec.Struct, tag=True, array_like=True, frozen=True):
    """Make the next table ready beside the one that is served; answered with `Prepared` after its last part.

    ``change`` is a `route.change.TableChange`, encoded once for all workers.
    """

    id: int
    change: msgspec.Raw
    last: bool = True


class Prepared(msgspec.Struct, tag=True, array_like=True, frozen=True):
    """A table is ready, or ``error`` says why not, and it is forgotten. ``busy_ns``: what it cost the worker."""

    id: int
    generation: int
    error: str = ""
    busy_ns: int = 0


class Commit(msgspec.Struct, tag=True, array_like=True, frozen=True):
    """Serve the table that is ready; answered with `Applied`."""

    id: int


class Applied(msgspec.Struct, tag=True, array_like=True, frozen=True):
    """This generation is served, from ``at_ns`` on (Unix nanoseconds)."""

    id: int
    generation: int
    at_ns: int = 0


class First(msgspec.Struct, tag=True, array_like=True, frozen=True):
    """The first request that a generation has served in this worker has ended. Sent unasked: its ``id`` is 0.

    ``span_id`` is that of its SERVER span, b"" where that was not recorded. Times are Unix nanoseconds.
    """

    id: int
    generation: int
    trace_id: bytes
    span_id: bytes
    start_ns: int
    end_ns: int
    status: int


class AskSample(msgspec.Struct, tag=True, array_like=True, frozen=True):
    """Tell your counters."""

    id: int


class Sampled(msgspec.Struct, tag=True, array_like=True, frozen=True):
    """A worker's counters."""

    id: int
    sample: WorkerSample


class AskBatches(msgspec.Struct, tag=True, array_like=True, frozen=True):
    """Tell the recent spans after this position of your ring."""

    id: int
    cursor: int


class Batches(msgspec.Struct, tag=True, array_like=True, frozen=True):
    """Recent spans, and the position after them."""

    id: int
    cursor: int
    batches: list[bytes]


class Drain(msgspec.Struct, tag=True, array_like=True, frozen=True):
    """Stop accepting, finish, and exit."""


Order = Prepare | Commit | AskSample | AskBatches | Drain
Report = Prepared | Applied | First | Sampled | Batches

_encode = msgspec.msgpack.Encoder().encode
_orders = msgspec.msgpack.Decoder(Order)
_reports = msgspec.msgpack.Decoder(Report)


_changes = msgspec.msgpack.Decoder(TableChange)


def encoded(change: TableChange) -> tuple[msgspec.Raw, ...]:
    """A change in parts, as `Prepare` carries them."""
    return tuple(msgspec.Raw(_encode(part)) for part in parts(change))


def decoded(part: msgspec.Raw) -> TableChange:
    """A part of a change."""
    change: TableChange = _changes.decode(part)
    return change


class Channel:
    """One end of the pair as asyncio streams."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self._reader = reader
        self._writer = writer

    @classmethod
    async def open(cls, sock: socket.socket) -> Channel:
        """Take over one end of the pair."""
        sock.setblocking(False)
        reader, writer = await asyncio.open_unix_connection(sock=sock)
        return cls(reader, writer)

    def send(self, message: Order | Report) -> None:
        """Queue a message."""
        body = _encode(message)
        self._writer.write(len(body).to_bytes(_LENGTH, "big") + body)

    async def drain(self) -> None:
        """Wait while more is queued than the other end has read. Raises `ConnectionError` if it is gone."""
        await self._writer.drain()

    async def order(self) -> Order:
        """The next message from the supervisor. Raises `asyncio.IncompleteReadError` at the end."""
        order: Order = _orders.decode(await self._message())
        return order

    async def report(self) -> Report:
        """The next message from a worker. Raises `asyncio.IncompleteReadError` at the end."""
        report: Report = _reports.decode(await self._message())
        return report

    async def _message(self) -> bytes:
        length = int.from_bytes(await self._reader.readexactly(_LENGTH), "big")
        if length > _MOST:
            raise ConnectionError(f"a message of {length} bytes on a worker's channel")
        return await self._reader.readexactly(length)

    def close(self) -> None:
        """Close this end."""
        self._writer.close()
