"""TCP connections as transports.

This is asyncio's own way, by the loop's transports. Compiled, ``transport.pyx`` beside it stands in its place:
connections on an epoll of their own (``reactor.pyx``). The suite runs on both, so that each is held to what the
other does.
"""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import socket


async def adopt(sock: socket.socket, protocol: asyncio.Protocol) -> asyncio.Transport:
    """Make a connected TCP socket, which is the transport's from then on, a connection of ``protocol``."""
    transport, _ = await asyncio.get_running_loop().create_connection(lambda: protocol, sock=sock)
    return transport
