"""One client's connection: reads heads, runs one exchange after the other, in order, and closes well.

What is read ahead of the current exchange waits in ``_buffer``; beyond a bound the socket is not read. After a
response that leaves request bytes unread, the connection is closed in two steps (RFC 9112 section 9.6), so that the
response is not destroyed by a reset.
"""

from __future__ import annotations

import asyncio
import logging
from typing import TYPE_CHECKING, Final, cast

from proxy.connection import Connection
from proxy.errors import Fault, Kind
from proxy.exchange import Exchange
from proxy.http1.fields import TOKEN
from proxy.http1.scan import find_end, scan_request
from proxy.http1.strict import check_partial
from proxy.net.clock import NEVER
from proxy.net.now import time_ns
from proxy.net.tls import TlsTransport

if TYPE_CHECKING:
    from proxy.worker import Worker

_log = logging.getLogger(__name__)

_LINGER: Final = 2.0  # seconds between our end and a reset (nginx: lingering_time 30 s, lingering_timeout 5 s)
_TURNS: Final = 32  # heads taken in a row of one client's pipeline
_LINGERED: Final = 1024 * 1024  # bytes read and dropped meanwhile


class Downstream(Connection):
    """See the module."""

    __slots__ = ("_lingered", "_serving", "_skip")

    def __init__(self, worker: Worker, scheme: str, source: tuple[str, int] | None = None) -> None:
        Connection.__init__(self, worker, scheme, source)
        self._skip = self._lingered = 0
        self._serving = False

    def __repr__(self) -> str:
        state = "closing" if self._closing else repr(self.exchange) if self.exchange else "idle"
        return f"Downstream({self.peer_address}:{self.peer_port} {self.scheme}, {state})"

    # asyncio.Protocol

    def connection_made(self, transport: asyncio.BaseTransport | TlsTransport) -> None:
        """A client has connected."""
        worker = self.worker
        if self.opening is not None:
            worker.openings.discard(self.opening)
            self.opening = None
        self.transport = cast("asyncio.Transport", transport)
        if isinstance(transport, TlsTransport):
            self.tls = transport
        # High water 0: see `connect.connection.Upstream`.
        self.transport.set_write_buffer_limits(high=0)
        peer = self.transport.get_extra_info("peername") or ("", 0)
        self.peer_address, self.peer_port = worker.address_text(peer[0]), peer[1]
        self.local_port = self.transport.get_extra_info("sockname")[1]
        if not self.client_address:
            self.client_address, self.client_port = self.peer_address, self.peer_port
        self.trusted = worker.trust.trusts(self.client_address)
        self.deadline = worker.clock.now + worker.bounds.idle
        if not worker.admit_connection(self):
            self.transport.abort()

    def data_received(self, data: bytes) -> None:
        """Bytes from the client: for the current exchange, or the next head."""
        exchange = self.exchange
        if exchange is not None:
            exchange.received(data)
            return
        if self._closing:
            self._lingered += len(data)
            if self._lingered > _LINGERED:
                self.transport.abort()
            return
        if self._skip:
            left = self._skip - len(data)
            if left >= 0:
                self._skip = left
                return
            data = data[left:]
            self._skip = 0
        if self._buffer:
            self.hold(data)
        else:
            self._buffer = data
            self._start_ns = time_ns()
        self._serve()

    def eof_received(self) -> bool:
        """The client has ended its way; returns whether ours stays open."""
        exchange = self.exchange
        if exchange is not None:
            self.ended = True
            self.worker.ended.add(self)
            return exchange.client_ended()
        if self._within_head() and not self._closing:
            self._refuse(Fault(Kind.CLIENT_GONE, "the client left within a head"))
        return False

    def connection_lost(self, exc: Exception | None) -> None:  # noqa: ARG002 - asyncio's signature
        """The connection is gone."""
        ours, self._closing = self._closing, True
        self.worker.downstreams.discard(self)
        self.worker.ended.discard(self)
        exchange = self.exchange
        try:
            if exchange is not None:
                exchange.client_gone()
            elif not ours and self._within_head():
                self._refuse(Fault(Kind.CLIENT_GONE, "the client left within a head"))
        finally:
            if self.probe is not None:
                self.probe.close()

    def pause_writing(self) -> None:
        """The kernel's send buffer is full: the client reads slowly."""
        self.stalled = True
        self._unsent = self.transport.get_write_buffer_size()
        if self.exchange is not None:
            self.exchange.client_paused()

    def resume_writing(self) -> None:
        """Everything written has gone to the kernel."""
        self.stalled = False
        if self.exchange is not None:
            self.exchange.client_resumed()

    # Heads

    def _serve(self) -> None:
        """Start exchanges from the buffer until one is busy or the buffer holds no whole head."""
        if self._serving:
            return
        self._serving = True
        for _ in range(_TURNS):
            if not self._buffer or self.exchange is not None or self._closing or not self._start():
                self._serving = False
                if self.ended:
                    self._close_if_answered()
                return
        # A pipeline of requests that are answered here costs the other connections a turn at a time.
        self.worker.connector.loop.call_soon(self._serve_on)

    def _serve_on(self) -> None:
        self._serving = False
        self._serve()

    def _start(self) -> bool:
        """Take one head off the buffer; returns whether there was one."""
        worker = self.worker
        bounds = worker.bounds
        data = self._buffer
        if data[0] == 0x0D:
            # RFC 9112 section 2.2: at least one empty line before the request line is ignored; we ignore just one.
            if self._blank:
                self._refuse(Fault(Kind.BAD_REQUEST, "empty lines before the request line"))
                return False
            if data.startswith(b"\r\n"):
                self._blank = True
                self._buffer = data[2:]
                return bool(self._buffer)
            if data == b"\r":
                self._wait_for_head(1)
                return False
        checked = self._checked
        end = find_end(data, checked - 3 if checked > 3 else 0)
        start_ns, self._start_ns = self._start_ns or time_ns(), 0
        try:
            if end < 0:
                check_partial(data, checked, bounds.request_line, bounds.head)
                self._start_ns = start_ns
                self._wait_for_head(len(data))
                return False
            if end > bounds.head:
                check_partial(data[: bounds.head + 1], 0, bounds.request_line, bounds.head)
            head = scan_request(data, bounds.request_line, bounds.fields, bounds.underscores, end)
        except Fault as fault:
            self._start_ns = start_ns
            self._refuse(fault)
            return False
        self._buffer = data[end + 4 :] if len(data) > end + 4 else b""
        if self._paused and len(self._buffer) <= bounds.pipelined:
            self.resume()
        # A head that came in pieces was waited for: the proxy's own time begins with its last piece.
        entry_ns = start_ns
        self._blank = False
        if checked:
            self._checked = 0
            entry_ns = time_ns()
        self.deadline = NEVER
        self.exchange = exchange = Exchange.__new__(Exchange)
        exchange.prepare(self, worker, start_ns, entry_ns)
        try:
            exchange.begin(head)
        except Exception:
            _log.exception("a request could not be served")
            exchange.fail(Fault(Kind.INTERNAL, "see the log"))
        if self.ended and not exchange.request_done:
            exchange.client_gone()  # the rest of its body will never come
        return True

    def _within_head(self) -> bool:
        """Whether a request has begun to arrive; an empty line is none."""
        return bool(self._buffer.strip(b"\r\n"))

    def _wait_for_head(self, seen: int) -> None:
        """The head is not whole yet; ``seen`` bytes of it have been looked at."""
        if not self._start_ns:
            self._start_ns = time_ns()
        if not self._checked:
            self.deadline = self.worker.clock.now + self.worker.timeouts.head
        self._checked = seen

    def _refuse(self, fault: Fault) -> None:
        """Answer a head that cannot be read. Its method and target go to the span if they are clean."""
        now = time_ns()
        method, _, rest = self._buffer[:8192].partition(b"\r\n")[0].partition(b" ")
        target = rest.partition(b" ")[0]
        self._buffer = b""
        exchange = Exchange.__new__(Exchange)
        exchange.prepare(self, self.worker, self._start_ns or now, now)
        self.exchange = exchange
        clean = target.startswith(b"/") and target.isascii() and target.decode("ascii").isprintable()
        exchange.refuse(fault, method if TOKEN.fullmatch(method) else b"", target if clean else b"")

    def finished(self, keep: bool, unread: int) -> None:
        """The exchange is over: ``keep`` the connection, after dropping ``unread`` bytes of its body, or close."""
        exchange, self.exchange = self.exchange, None
        if self._closing or self.transport.is_closing():
            return
        if not keep:
            self._close(exchange)
            return
        if unread:
            dropped = self._buffer[:unread]
            self._buffer = self._buffer[len(dropped) :]
            self._skip = unread - len(dropped)
        worker = self.worker
        self.deadline = worker.clock.now + worker.bounds.idle
        if self._buffer:
            self._serve()
        self._settle()

    def _settle(self) -> None:
        """Between two requests: read on if there is room, and end what the client has ended."""
        if self._paused and self.exchange is None and len(self._buffer) <= self.worker.bounds.pipelined:
            self.resume()
        if self.ended and not self._serving:
            self._close_if_answered()

    def _close_if_answered(self) -> None:
        """A half-closed connection ends once its last complete request has been answered."""
        if self.exchange is None and not self._closing:
            self._close(None)

    def _close(self, exchange: Exchange | None) -> None:
        """Close after a response, gently if the client may still be sending."""
        self._closing = True
        clean = exchange is None or (exchange.request_done and not self._buffer and not exchange.error_type)
        self._buffer = b""
        if clean or self.ended:
            self.transport.close()
            return
        self.deadline = self.worker.clock.now + _LINGER
        self.resume()
        if self.tls is not None:
            self.tls.linger()
        else:
            self.transport.write_eof()

    def drain(self) -> None:
        """The worker stops: close if idle; a busy connection closes after its exchange."""
        if self.exchange is None and not self._closing and not self._within_head():
            self._closing = True
            self.transport.close()

    def cut(self) -> None:
        """The worker waits no longer."""
        if self.exchange is not None:
            self.exchange.fail(Fault(Kind.DRAINING, "not finished in time"))
        else:
            self.abort()

    def overdue(self) -> None:
        """The deadline has passed: a slow head or body is answered 408, an idle connection just closed."""
        self.deadline = NEVER
        exchange = self.exchange
        if exchange is not None:
            if self.stalled:
                before, self._unsent = self._unsent, self.transport.get_write_buffer_size()
                if self._unsent < before:  # slow, but it reads
                    self.deadline = self.worker.clock.now + self.worker.bounds.send
                    return
            exchange.overdue()
        elif self._closing:
            self.transport.abort()
        elif self._within_head():
            self._refuse(Fault(Kind.REQUEST_TIMEOUT, "the head did not arrive in time"))
        else:
            self._closing = True
            self.transport.close()
