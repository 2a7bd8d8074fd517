"""Closing an asyncio server so that no accepted connection is left behind."""

from __future__ import annotations

import asyncio
from collections.abc import Iterable
from typing import Final, Protocol

_PATIENCE: Final = 2.0  # seconds for the handshakes under way: a TLS client that says nothing more holds up no test


class Listening(Protocol):
    """A listening socket, as ``asyncio.Server.sockets`` has them."""

    def fileno(self) -> int:
        """Its file descriptor."""
        ...


async def stop_accepting(sockets: Iterable[Listening]) -> None:
    """Accept nothing more on ``sockets``, and wait until what was accepted is a connection that can be cut.

    To be called before the server is closed. asyncio makes each accepted socket a connection in a task, which fails
    when its server has been closed in between (``Server._attach``): the socket then stays open with nobody to close
    it, its client waits for ever, and whichever test is running when it is collected is blamed for it.
    """
    loop = asyncio.get_running_loop()
    for each in sockets:
        loop.remove_reader(each.fileno())
    opening = [each for each in asyncio.all_tasks() if "_accept_connection2" in repr(each.get_coro())]
    if opening:
        await asyncio.wait(opening, timeout=_PATIENCE)
