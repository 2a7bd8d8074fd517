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
from proxy.route.spec import TableSpec

_LENGTH: Final = 4  # bytes, big endian
_MOST: Final = 1 << 30  # bytes of one message; a table of 100,000 rules is some 40 MB


class Apply(msgspec.Struct, tag=True, array_like=True, frozen=True):
    """Serve this table."""

    id: int
    table: TableSpec


class Applied(msgspec.Struct, tag=True, array_like=True, frozen=True):
    """The table is served, or ``error`` says why not."""

    id: int
    generation: int
    error: str = ""


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


Order = Apply | AskSample | AskBatches | Drain
Report = Applied | Sampled | Batches

_encode = msgspec.msgpack.Encoder().encode
_orders = msgspec.msgpack.Decoder(Order)
_reports = msgspec.msgpack.Decoder(Report)


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
