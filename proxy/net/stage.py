"""What the stages of a connection have in common: transport, TLS, and whoever speaks HTTP over them.

Each hears what the one below has read, and writes to it. Compiled, these calls are calls of C, for which both
sides must be of one class: this one. Which of them a stage has is its own affair; the others are never called.
"""

from __future__ import annotations


class Stage:
    """One stage of a connection, with asyncio's meaning of each name (`asyncio.Protocol`, `asyncio.Transport`)."""

    __slots__ = ()

    def data_received(self, data: bytes) -> None:
        """Take what has been read."""
        raise NotImplementedError

    def write(self, data: bytes | bytearray | memoryview) -> None:
        """Send."""
        raise NotImplementedError

    def is_closing(self) -> bool:
        """Whether it is closed or about to be."""
        raise NotImplementedError
