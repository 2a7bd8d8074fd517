"""Idle keep-alive connections, each of which has made one request."""

from __future__ import annotations

import contextlib
import socket
from collections.abc import Iterator
from typing import Final

from benchmarks.peers.base import HOST, Peer
from tests.real.big import read_answer

REQUEST: Final = b"GET / HTTP/1.1\r\nHost: %b\r\n\r\n" % HOST.encode()


def open_idle(held: contextlib.ExitStack, peer: Peer, count: int) -> None:
    """Open ``count`` connections that stay until ``held`` ends; raises AssertionError for an answer that is not 200."""
    for _ in range(count):
        connection = held.enter_context(socket.create_connection(peer.address, timeout=30))
        connection.sendall(REQUEST)
        read_answer(connection)


@contextlib.contextmanager
def idle(peer: Peer, count: int) -> Iterator[None]:
    """``count`` idle connections for a while."""
    with contextlib.ExitStack() as held:
        open_idle(held, peer, count)
        yield
