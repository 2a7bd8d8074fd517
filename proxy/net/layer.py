"""A protocol that is itself the transport of another protocol: what such a layer passes through unchanged."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, cast

if TYPE_CHECKING:
    from collections.abc import Iterable


class Layer(asyncio.Protocol, asyncio.Transport):
    """Between the raw transport below (``_raw``) and the inner protocol above (``_inner``)."""

    __slots__ = ("_inner", "_raw")

    _inner: asyncio.Protocol
    _raw: asyncio.Transport

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Never called: the raw transport is connected before the layer takes it over."""

    def writelines(self, list_of_data: Iterable[bytes | bytearray | memoryview]) -> None:
        """Write the pieces as one."""
        self.write(b"".join(list_of_data))

    def get_write_buffer_limits(self) -> tuple[int, int]:
        """The raw transport's low and high marks, bytes on the wire."""
        return self._raw.get_write_buffer_limits()

    def set_write_buffer_limits(self, high: int | None = None, low: int | None = None) -> None:
        """Set the raw transport's marks, bytes on the wire."""
        self._raw.set_write_buffer_limits(high, low)

    def can_write_eof(self) -> bool:
        """False: the stream is only closed as a whole."""
        return False

    def write_eof(self) -> None:
        """Not supported, as with asyncio's own TLS transport."""
        raise NotImplementedError(f"{type(self).__name__} is closed as a whole")

    def set_protocol(self, protocol: asyncio.BaseProtocol) -> None:
        """Hand the connection to another inner protocol; its `connection_made` is not called."""
        self._inner = cast("asyncio.Protocol", protocol)

    def get_protocol(self) -> asyncio.BaseProtocol:
        """The inner protocol."""
        return self._inner
