"""The tunnel after 101: bytes pass both ways as they are (RFC 9110 section 7.8), each way with its own end."""

from __future__ import annotations

from typing import TYPE_CHECKING, Protocol

from proxy.net.clock import NEVER
from proxy.net.now import time_ns

if TYPE_CHECKING:
    from proxy.exchange import Exchange
    from proxy.http1.head import ResponseHead


class Way(Protocol):
    """The upstream's end of a tunnel; `attempt.Attempt` is one."""

    def write(self, data: bytes) -> None:
        """Send bytes to the upstream."""

    def end_writing(self) -> bool:
        """End our way; returns whether the transport can half-close."""

    def finish_tunnel(self) -> None:
        """Close once what was written has gone out."""


UPGRADED = "upgraded"
"""The exchange's ``spanway.outcome``."""


class Tunnel:
    """An exchange whose upstream switched protocols. Its silence is bounded by the route's read timeout or the
    tunnel timeout, whichever is longer (nginx: proxy_read_timeout).
    """

    __slots__ = ("_exchange", "_half_closed", "_upstream")

    def __init__(self, exchange: Exchange, upstream: Way) -> None:
        self._exchange = exchange
        self._upstream = upstream
        self._half_closed = False

    def __repr__(self) -> str:
        sizes = f"{self._exchange.request_body_size} up, {self._exchange.response_body_size} down"
        return f"Tunnel({sizes}{', half closed' if self._half_closed else ''})"

    def open(self, head: ResponseHead, data: bytes) -> None:
        """Forward the 101, and what has come behind it and ahead of it."""
        exchange = self._exchange
        exchange.status = 101
        exchange.outcome = UPGRADED
        exchange.keep = False
        exchange.read_timeout = max(exchange.worker.timeouts.tunnel, exchange.read_timeout)
        protocol = b"Connection: Upgrade\r\nUpgrade: %b\r\n\r\n" % head.noted[b"upgrade"]
        exchange.relay(b"HTTP/1.1 %b\r\n%b%b%b" % (head.reason, head.fields, protocol, data), len(data))
        exchange.downstream.deadline = NEVER
        early = exchange.downstream.take()
        if early:
            self.from_downstream(early)
        if exchange.downstream.ended:
            self.downstream_ended()

    def from_downstream(self, data: bytes) -> None:
        """Bytes from the client."""
        self._exchange.request_body_size += len(data)
        self._upstream.write(data)

    def from_upstream(self, data: bytes) -> None:
        """Bytes from the upstream."""
        self._exchange.relay(data, len(data))

    def downstream_ended(self) -> bool:
        """The client ended its way; returns whether the other way goes on."""
        if self._half_closed or not self._upstream.end_writing():
            self.close()
            return False
        self._half_closed = True
        return True

    def upstream_ended(self) -> bool:
        """The upstream ended its way; returns whether the other way goes on."""
        if self._half_closed or not self._exchange.downstream.end_writing():
            self.close()
            return False
        self._half_closed = True
        return True

    def close(self) -> None:
        """Both ways are over, or one was cut."""
        self._upstream.finish_tunnel()
        self._exchange.finish(time_ns())
