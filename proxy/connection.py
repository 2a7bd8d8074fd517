"""A client's connection as its exchange sees it: its ends, what has been read ahead, and its two valves."""

from __future__ import annotations

import socket
import struct
from typing import TYPE_CHECKING, Final, cast

from proxy.net.clock import NEVER
from proxy.net.stage import Stage

if TYPE_CHECKING:
    import asyncio

    from proxy.accept.listener import Opening
    from proxy.exchange import Exchange
    from proxy.net.tcp_info import Probe
    from proxy.net.tls import TlsTransport
    from proxy.worker import Worker

_TCP_CLOSE: Final = 7  # tcpi_state, linux/tcp_states.h
_RESET: Final = struct.pack("ii", 1, 0)  # struct linger: on, 0 seconds


class Connection(Stage):
    """State and services of `accept.downstream.Downstream`, its one subclass.

    ``scheme`` is the listener's; ``source`` is the PROXY protocol's source, if any. ``ended`` says that the client has
    ended its way, ``stalled`` that response bytes wait for it.
    """

    __slots__ = (
        "_blank",
        "_breathing",
        "_buffer",
        "_checked",
        "_closing",
        "_paused",
        "_start_ns",
        "_unsent",
        "client_address",
        "client_port",
        "deadline",
        "ended",
        "exchange",
        "forwarded_for",
        "forwarding",
        "forwarding_of",
        "forwarding_port",
        "local_port",
        "opening",
        "peer_address",
        "peer_port",
        "probe",
        "scheme",
        "stalled",
        "tls",
        "transport",
        "trusted",
        "worker",
    )

    def __init__(self, worker: Worker, scheme: str, source: tuple[str, int] | None = None) -> None:
        self.worker = worker
        self.scheme = scheme
        self.transport = cast("asyncio.Transport", None)
        self.tls: TlsTransport | None = None
        self.exchange: Exchange | None = None
        self.opening: Opening | None = None
        self.probe: Probe | None = None
        self.deadline = NEVER
        self.peer_address, self.peer_port, self.local_port = "", 0, 0
        self.client_address, self.client_port = source or ("", 0)
        self.trusted = False
        self.stalled = False
        self.forwarded_for: bytes | None = None
        self.forwarding = b""
        self.forwarding_of = b""  # the lines for any Host, and the port they are for
        self.forwarding_port = 0
        self._buffer = b""
        self._start_ns = 0
        self._checked = self._unsent = 0
        self._closing = self.ended = self._paused = self._breathing = False
        self._blank = False  # an empty line has been skipped before this head

    def finished(self, keep: bool, unread: int) -> None:
        """The exchange is over: ``keep`` the connection, after dropping ``unread`` bytes of its body, or close."""
        raise NotImplementedError

    def send(self, data: bytes, last: bool) -> None:
        """Write to the client; ``last`` if the connection closes behind it, which TLS then says in the same write."""
        if last and self.tls is not None:
            self.tls.write_last(data)
        else:
            self.transport.write(data)

    def take(self) -> bytes:
        """What has been read behind the head."""
        data, self._buffer = self._buffer, b""
        if self._paused:
            self.resume()
        return data

    def hold(self, data: bytes) -> None:
        """Keep bytes that came ahead of their turn, and stop reading when they are many."""
        self._buffer += data
        if len(self._buffer) > self.worker.bounds.pipelined:
            self.pause()

    def pause(self) -> None:
        """Stop reading the client."""
        self._breathing = False
        if not self._paused:
            self._paused = True
            self.transport.pause_reading()

    def breathe(self) -> None:
        """Read on in the loop's next round: uvloop's transports would go on with one busy client for 32 reads."""
        if not self._paused:
            self.pause()
            self._breathing = True
            self.worker.connector.loop.call_soon(self._breathed)

    def _breathed(self) -> None:
        if self._breathing:
            self.resume()

    def resume(self) -> None:
        """Read the client again."""
        if self._paused:
            self._paused = False
            if not self.transport.is_closing():
                self.transport.resume_reading()

    def reading(self) -> bool:
        """Whether the client is being read."""
        return not self._paused

    def unsent(self) -> bool:
        """Whether response bytes wait in the proxy."""
        return self.transport.get_write_buffer_size() > 0

    def end_writing(self) -> bool:
        """End our way of a tunnel; returns whether the transport can half-close."""
        if not self.transport.can_write_eof():
            return False
        self.transport.write_eof()
        return True

    def abort(self) -> None:
        """Cut the connection by a reset: a plain end would look like that of a whole HTTP/1.0 response."""
        self._closing = True
        sock = self.transport.get_extra_info("socket")
        if sock is not None and not self.transport.is_closing():
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, _RESET)
        self.transport.abort()

    def reset(self) -> bool:
        """Whether the client has reset the connection since it ended its way, when nothing is read any more."""
        sock = self.transport.get_extra_info("socket")
        return sock is not None and sock.getsockopt(socket.IPPROTO_TCP, socket.TCP_INFO, 1)[0] == _TCP_CLOSE
