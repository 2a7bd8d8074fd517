"""What a TLS transport passes through unchanged, and what is known of its connection."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, cast

from proxy.net.records import Records, ServerObject
from proxy.net.stage import Stage

if TYPE_CHECKING:
    import asyncio
    import ssl
    from collections.abc import Iterable


class Layer(Stage):
    """Between the raw transport below (``_raw``) and the inner protocol above (``_inner``).

    A protocol and a transport as asyncio means them, but no instance of its classes, which compiled code cannot be.
    """

    __slots__ = ("_hostname", "_inner", "_raw", "_records", "_server_side", "handshake_ns")

    _hostname: str | None
    _inner: asyncio.Protocol
    _raw: asyncio.Transport
    _records: Records
    _server_side: bool
    handshake_ns: int

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Never called: the raw transport is connected before the layer takes it over."""

    def write(self, data: bytes | bytearray | memoryview) -> None:
        """Write to the inner protocol's peer."""
        raise NotImplementedError

    def writelines(self, list_of_data: Iterable[bytes | bytearray | memoryview]) -> None:
        """Write the pieces as one."""
        self.write(b"".join(list_of_data))

    def get_write_buffer_size(self) -> int:
        """Bytes not yet accepted by the kernel."""
        return self._raw.get_write_buffer_size() + self._records.waiting

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

    # What is known of the connection.

    def get_extra_info(self, name: str, default: object = None) -> Any:
        """As asyncio names them: ``ssl_object``, ``sslcontext``, ``cipher``, ``peercert``, or the raw transport's."""
        known = self._records.info(name)
        return self._raw.get_extra_info(name, default) if known is None else known

    @property
    def version(self) -> str:
        """``TLSv1.3`` or ``TLSv1.2``; "" before the handshake is done."""
        return (self._records.tls.version() or "") if self.handshake_ns else ""

    @property
    def cipher(self) -> str:
        """OpenSSL's name of the cipher suite; "" before the handshake is done."""
        cipher = self._records.tls.cipher() if self.handshake_ns else None
        return cipher[0] if cipher is not None else ""

    @property
    def server_name(self) -> str:
        """The name asked for by SNI; "" for none."""
        if self._server_side:
            tls = self._records.tls
            return tls.requested_name if isinstance(tls, ServerObject) else ""
        return self._hostname or ""

    @property
    def alpn(self) -> str:
        """The protocol that both sides agreed on; "" for none."""
        return (self._records.tls.selected_alpn_protocol() or "") if self.handshake_ns else ""

    @property
    def resumed(self) -> bool:
        """Whether the handshake resumed an earlier session."""
        return bool(self.handshake_ns) and bool(self._records.tls.session_reused)

    @property
    def session(self) -> ssl.SSLSession | None:
        """A session to resume (client side); with TLS 1.3 it comes with the tickets, after the first answer."""
        return self._records.tls.session if self.handshake_ns else None
