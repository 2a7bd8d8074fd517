"""A gate on the way to a server: TCP is passed on, cut, or swallowed, as the test says."""

from __future__ import annotations

import asyncio
import contextlib
import threading
from collections.abc import Coroutine
from typing import Any, Self, TypeVar

from tests.harness.accepting import stop_accepting

T = TypeVar("T")


class Gate:
    """Listens on a loopback ``port``, which stays its own, and passes connections on to ``targets``, in turn."""

    def __init__(self, *targets: tuple[str, int]) -> None:
        self.targets = list(targets)
        self._turn = 0
        self.port = 0
        self._server: asyncio.Server | None = None
        self._writers: set[asyncio.StreamWriter] = set()
        self._moving = asyncio.Event()
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._loop.run_forever, name="gate", daemon=True)
        self._thread.start()
        self.open()

    def open(self) -> None:
        """Pass on what comes, and what was held back."""
        self._call(self._open())

    def cut(self) -> None:
        """Reset every connection, and refuse new ones."""
        self._call(self._cut())

    def freeze(self) -> None:
        """Take connections and bytes, and pass nothing on: a network that loses every packet."""
        self._loop.call_soon_threadsafe(self._moving.clear)

    def close(self) -> None:
        """The end."""
        self.cut()
        self._call(self._finish())
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join(10)
        self._loop.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def _call(self, coroutine: Coroutine[Any, Any, T]) -> T:
        return asyncio.run_coroutine_threadsafe(coroutine, self._loop).result(10)

    async def _open(self) -> None:
        self._moving.set()
        if self._server is None:
            self._server = await asyncio.start_server(self._pass, "127.0.0.1", self.port, reuse_address=True)
            self.port = self._server.sockets[0].getsockname()[1]

    async def _cut(self) -> None:
        self._moving.set()
        if self._server is not None:
            server, self._server = self._server, None
            await stop_accepting(server.sockets)
            server.close()
        for writer in list(self._writers):
            writer.transport.abort()

    async def _finish(self) -> None:
        rest = asyncio.all_tasks() - {asyncio.current_task()}
        for task in rest:
            task.cancel()
        await asyncio.gather(*rest, return_exceptions=True)

    async def _pass(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            self._turn += 1
            there, back = await asyncio.open_connection(*self.targets[self._turn % len(self.targets)])
        except OSError:
            writer.transport.abort()
            return
        self._writers |= {writer, back}
        try:
            async with asyncio.TaskGroup() as group:
                group.create_task(self._pump(reader, back))
                group.create_task(self._pump(there, writer))
        finally:
            for each in (writer, back):
                self._writers.discard(each)
                each.transport.abort()

    async def _pump(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with contextlib.suppress(OSError):
            while data := await reader.read(65536):
                await self._moving.wait()
                writer.write(data)
                await writer.drain()
            if writer.can_write_eof():
                writer.write_eof()
