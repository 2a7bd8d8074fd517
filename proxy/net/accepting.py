"""Listening sockets, whose connections are transports. Compiled, ``accepting.pyx`` beside it stands in its place."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Final, Protocol

if TYPE_CHECKING:
    import socket
    from collections.abc import Callable

BACKLOG: Final = 4096  # connections the kernel holds per socket, bounded by net.core.somaxconn (nginx: 511)


class Accepting(Protocol):
    """What accepts connections from a listening socket until it is closed."""

    def close(self) -> None:
        """Accept no more; the connections stay."""


async def accept(sock: socket.socket, factory: Callable[[], asyncio.Protocol]) -> Accepting:
    """Accept from ``sock``, bound, from now on: each connection is told to a new protocol of ``factory``.

    The caller keeps ``sock``: what is closed is a duplicate. Raises `OSError` where it cannot listen.
    """
    # asyncio's own backlog of 100 would shrink the queue.
    return await asyncio.get_running_loop().create_server(factory, sock=sock.dup(), backlog=BACKLOG)
