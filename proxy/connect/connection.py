"""One connection to an upstream: its stream offsets, its deadline, and the attempt that it serves now."""

from __future__ import annotations

import asyncio
import os
from typing import TYPE_CHECKING, Final, Protocol, cast

from proxy.errors import Fault, Kind
from proxy.net.clock import NEVER
from proxy.net.stage import Stage
from proxy.net.tls import TlsTransport

if TYPE_CHECKING:
    from proxy.connect.pool import Pool
    from proxy.net.tcp_info import Probe

_RESCUED: Final = 256 * 1024  # bytes, one read


class Borrower(Protocol):
    """What has a connection on loan (`proxy.attempt.Attempt`)."""

    def received(self, data: bytes) -> None:
        """Bytes arrived from the upstream."""

    def upstream_ended(self) -> bool:
        """The upstream sent its end of stream; returns whether our side of the connection stays open (a tunnel)."""

    def upstream_lost(self, error: Exception | None) -> None:
        """The connection is gone."""

    def upstream_paused(self) -> None:
        """The upstream reads slower than we write."""

    def upstream_resumed(self) -> None:
        """The upstream has read what was waiting."""

    def overdue(self) -> None:
        """The connection's deadline has passed."""


class Upstream(Stage):
    """A connection to one endpoint; ``borrower`` is None while it is idle in its pool.

    ``bytes_in`` and ``bytes_out`` count this connection's streams from their start, which is what packets are
    joined by (docs/tracing.md); on TLS the transport counts ciphertext instead.
    """

    __slots__ = (
        "borrower",
        "bytes_in",
        "bytes_out",
        "closed",
        "deadline",
        "local_address",
        "local_port",
        "opened",
        "peer_address",
        "peer_port",
        "pool",
        "probe",
        "served",
        "span_attributes",
        "tapped",
        "tls",
        "transport",
        "wire_ends",
    )

    def __init__(self, pool: Pool) -> None:
        self.pool = pool
        self.borrower: Borrower | None = None
        self.transport = cast("asyncio.Transport", None)
        self.tls: TlsTransport | None = None
        self.bytes_in = 0
        self.bytes_out = 0
        self.served = 0
        self.closed = False
        self.deadline = NEVER
        self.opened: asyncio.Future[None] | None = None
        self.local_address, self.local_port = "", 0
        self.peer_address, self.peer_port = "", 0
        self.probe: Probe | None = None
        self.tapped = False  # its local port is one that the wire taps
        self.span_attributes: bytes | None = None
        self.wire_ends: bytes | None = None

    def __repr__(self) -> str:
        state = "closed" if self.closed else "idle" if self.borrower is None else "lent"
        return (
            f"Upstream({self.local_address}:{self.local_port} > {self.peer_address}:{self.peer_port}, {state}, "
            f"served {self.served})"
        )

    def connection_made(self, transport: asyncio.BaseTransport | TlsTransport) -> None:
        """Take the transport, plain or TLS."""
        self.transport = cast("asyncio.Transport", transport)
        if isinstance(transport, TlsTransport):
            self.tls = transport
        # High water 0: a write goes out at once, not at the end of the loop's round, and whatever the kernel does
        # not take pauses the other side. So a body of any size holds one read of it in memory.
        self.transport.set_write_buffer_limits(high=0)
        self.local_address, self.local_port = self.transport.get_extra_info("sockname")[:2]
        self.tapped = self.pool.connector.ports.tapped.holds(self.local_port)
        self.peer_address, self.peer_port = (self.transport.get_extra_info("peername") or ("", 0))[:2]
        if self.opened is not None and not self.opened.done():
            self.opened.set_result(None)

    def not_opened(self, reason: str) -> None:
        """The TLS handshake has failed. No closure: compiled, one that its own scope names is never freed."""
        if self.opened is not None and not self.opened.done():
            self.opened.set_exception(Fault(Kind.TLS_FAILED, f"{self.pool.host}:{self.pool.port}: {reason}"))

    def data_received(self, data: bytes) -> None:
        """Hand bytes to the borrower; an idle upstream that speaks is broken or an attacker, and is closed."""
        self.bytes_in += len(data)
        borrower = self.borrower
        if borrower is None:
            self.abort()
        else:
            borrower.received(data)

    def eof_received(self) -> bool:
        """The upstream will send no more; it is not used again."""
        borrower = self.borrower
        if borrower is None:
            self.abort()
            return False
        return borrower.upstream_ended()

    def connection_lost(self, exc: Exception | None) -> None:
        """Forget the connection."""
        self.closed = True
        try:
            if exc is not None and self.borrower is not None:
                self._rescue()
            self.pool.lost(self)
            borrower, self.borrower = self.borrower, None
            if borrower is not None:
                borrower.upstream_lost(exc)
        finally:
            if self.probe is not None:
                self.probe.close()

    def _rescue(self) -> None:
        """Read what arrived before our own write failed: often the answer that says why (a 4xx during an upload)."""
        if self.tls is not None:
            return
        try:
            data = os.read(self.transport.get_extra_info("socket").fileno(), _RESCUED)
        except OSError:
            return
        if data:
            self.data_received(data)

    def pause_writing(self) -> None:
        """The kernel's send buffer is full."""
        if self.borrower is not None:
            self.borrower.upstream_paused()

    def resume_writing(self) -> None:
        """Everything written has gone to the kernel."""
        if self.borrower is not None:
            self.borrower.upstream_resumed()

    def sent(self) -> int:
        """Stream offset after the last byte written."""
        return self.bytes_out if self.tls is None else self.tls.bytes_out

    def seen(self) -> int:
        """Stream offset after the last byte read."""
        return self.bytes_in if self.tls is None else self.tls.bytes_in

    def abort(self) -> None:
        """Close now, dropping what is unsent."""
        self.closed = True
        if self.transport is not None:
            self.transport.abort()
