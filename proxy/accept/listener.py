"""From an accepted socket to a `Downstream`: plain or TLS, with or without a PROXY protocol header before it."""

from __future__ import annotations

from typing import TYPE_CHECKING, cast

from proxy.accept import proxy_protocol
from proxy.accept.downstream import Downstream
from proxy.errors import Fault
from proxy.net.accepting import accept
from proxy.net.clock import NEVER
from proxy.net.stage import Stage
from proxy.net.tls import TlsTransport

if TYPE_CHECKING:
    import asyncio
    import socket

    from proxy.accept.certificates import Certificates
    from proxy.net.accepting import Accepting
    from proxy.worker import Worker


class Listener:
    """Serves one listening socket. ``certificates`` makes it TLS."""

    def __init__(self, worker: Worker, sock: socket.socket, certificates: Certificates | None) -> None:
        self.worker = worker
        self.sock = sock
        self.certificates = certificates
        self._accepting: Accepting | None = None

    def __repr__(self) -> str:
        return f"Listener({self.sock.getsockname()}, {'https' if self.certificates else 'http'})"

    async def start(self) -> None:
        """Accept from now on."""
        plain = self.certificates is None and not self.worker.settings.proxy_protocol
        factory = self._plain if plain else self._opening
        self._accepting = await accept(self.sock, factory)

    def _plain(self) -> asyncio.Protocol:
        return cast("asyncio.Protocol", Downstream(self.worker, "http"))

    def _opening(self) -> asyncio.Protocol:
        return cast("asyncio.Protocol", Opening(self))

    def stop(self, *, refuse: bool) -> None:
        """Accept no more. ``refuse`` also closes the socket for its other holders, so that clients go elsewhere."""
        if self._accepting is not None:
            self._accepting.close()
            self._accepting = None
        if refuse:
            try:
                self.sock.shutdown(2)
            except OSError:
                return


class Opening(Stage):
    """A connection before its `Downstream`: the PROXY header, the TLS handshake. Bounded in time and bytes."""

    __slots__ = ("_buffer", "_listener", "_tls", "_transport", "deadline")

    def __init__(self, listener: Listener) -> None:
        self._listener = listener
        self._buffer = b""
        self._transport = cast("asyncio.Transport", None)
        self._tls: TlsTransport | None = None
        self.deadline = NEVER

    def __repr__(self) -> str:
        return f"Opening({'handshake' if self._tls else f'{len(self._buffer)} bytes of PROXY header'})"

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """A client has connected."""
        worker = self._listener.worker
        self._transport = cast("asyncio.Transport", transport)
        if len(worker.openings) + len(worker.downstreams) >= worker.limits.connections:
            worker.refused += 1
            self._transport.abort()
            return
        worker.openings.add(self)
        self.deadline = worker.clock.now + worker.timeouts.handshake
        if not worker.settings.proxy_protocol:
            self._go_on(None, b"")

    def data_received(self, data: bytes) -> None:
        """Bytes of the PROXY protocol header."""
        self._buffer += data
        try:
            parsed = proxy_protocol.parse(self._buffer)
        except Fault:
            self.overdue()
            return
        if parsed is not None:
            header, length = parsed
            self._go_on(header.source, self._buffer[length:])

    def _go_on(self, source: tuple[str, int] | None, rest: bytes) -> None:
        listener = self._listener
        transport = self._transport
        if listener.certificates is None:
            listener.worker.openings.discard(self)
            downstream = Downstream(listener.worker, "http", source)
            transport.set_protocol(cast("asyncio.Protocol", downstream))
            downstream.connection_made(transport)
            if rest:
                downstream.data_received(rest)
            return
        downstream = Downstream(listener.worker, "https", source)
        downstream.opening = self
        self._tls = TlsTransport(
            listener.certificates.context,
            cast("asyncio.Protocol", downstream),
            server_side=True,
            server_hostname=None,
            on_failure=self._failed,
        )
        self._tls.start(transport, rest)

    def _failed(self, reason: str) -> None:  # noqa: ARG002 - counted, not logged: strangers cause it at will
        self._listener.worker.openings.discard(self)
        self._listener.worker.handshake_failures += 1

    def connection_lost(self, exc: Exception | None) -> None:  # noqa: ARG002 - asyncio's signature
        """The client left before its first request."""
        self._listener.worker.openings.discard(self)

    def eof_received(self) -> bool:
        """The client has ended its way before it began."""
        return False

    def pause_writing(self) -> None:
        """Nothing is written yet."""

    def resume_writing(self) -> None:
        """Nothing is written yet."""

    def overdue(self) -> None:
        """Too slow, or malformed: close without an answer."""
        self._listener.worker.openings.discard(self)
        if self._tls is not None:
            self._tls.abort()
        else:
            self._transport.abort()
