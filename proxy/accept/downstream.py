"""One client's connection: reads heads, runs one exchange after the other, in order, and closes well.

What is read ahead of the current exchange waits in ``_buffer``; beyond a bound the socket is not read. After a
response that leaves request bytes unread, the connection is closed in two steps (RFC 9112 section 9.6), so that the
response is not destroyed by a reset.
"""

from __future__ import annotations

import asyncio
import logging
import time
from typing import TYPE_CHECKING, Final, cast

from proxy.errors import Fault, Kind
from proxy.exchange import Exchange
from proxy.http1.fields import TOKEN
from proxy.http1.scan import HEAD_END, check_partial, scan_request
from proxy.net.clock import NEVER

if TYPE_CHECKING:
    from proxy.accept.listener import Opening
    from proxy.worker import Worker

_log = logging.getLogger(__name__)

_LINGER: Final = 2.0  # seconds between our end and a reset (nginx: lingering_time 30 s, lingering_timeout 5 s)
_LINGERED: Final = 1024 * 1024  # bytes read and dropped meanwhile


class Downstream(asyncio.Protocol):
    """See the module. ``scheme`` is the listener's; ``client_address`` is the PROXY protocol's source, if any."""

    __slots__ = (
        "_blank",
        "_buffer",
        "_checked",
        "_closing",
        "_ended",
        "_lingered",
        "_paused",
        "_serving",
        "_skip",
        "_start_ns",
        "client_address",
        "client_port",
        "deadline",
        "exchange",
        "forwarded_for",
        "forwarding",
        "local_port",
        "opening",
        "peer_address",
        "peer_port",
        "scheme",
        "stalled",
        "transport",
        "trusted",
        "worker",
    )

    def __init__(self, worker: Worker, scheme: str, source: tuple[str, int] | None = None) -> None:
        self.worker = worker
        self.scheme = scheme
        self.transport = cast("asyncio.Transport", None)
        self.exchange: Exchange | None = None
        self.opening: Opening | None = None
        self.deadline = NEVER
        self.peer_address, self.peer_port, self.local_port = "", 0, 0
        self.client_address, self.client_port = source or ("", 0)
        self.trusted = False
        self.stalled = False
        self.forwarded_for: bytes | None = None
        self.forwarding = b""
        self._buffer = b""
        self._start_ns = 0
        self._skip = self._checked = 0
        self._lingered = 0
        self._closing = self._ended = self._paused = self._serving = False
        self._blank = False  # an empty line has been skipped before this head

    def __repr__(self) -> str:
        state = "closing" if self._closing else repr(self.exchange) if self.exchange else "idle"
        return f"Downstream({self.peer_address}:{self.peer_port} {self.scheme}, {state})"

    # asyncio.Protocol

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """A client has connected."""
        worker = self.worker
        if self.opening is not None:
            worker.openings.discard(self.opening)
            self.opening = None
        self.transport = cast("asyncio.Transport", transport)
        # High water 0: see `connect.connection.Upstream`.
        self.transport.set_write_buffer_limits(high=0)
        peer = self.transport.get_extra_info("peername") or ("", 0)
        self.peer_address, self.peer_port = worker.address_text(peer[0]), peer[1]
        self.local_port = self.transport.get_extra_info("sockname")[1]
        if not self.client_address:
            self.client_address, self.client_port = self.peer_address, self.peer_port
        self.trusted = worker.trust.trusts(self.client_address)
        self.deadline = worker.clock.now + worker.timeouts.idle
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
            self._buffer += data
        else:
            self._buffer = data
            self._start_ns = time.time_ns()
        self._serve()

    def eof_received(self) -> bool:
        """The client has ended its way; returns whether ours stays open."""
        exchange = self.exchange
        if exchange is not None:
            self._ended = True
            return exchange.client_ended()
        if self._within_head() and not self._closing:
            self._refuse(Fault(Kind.CLIENT_GONE, "the client left within a head"))
        return False

    def connection_lost(self, exc: Exception | None) -> None:  # noqa: ARG002 - asyncio's signature
        """The connection is gone."""
        self._closing = True
        self.worker.downstreams.discard(self)
        exchange = self.exchange
        if exchange is not None:
            exchange.client_gone()
        elif self._within_head():
            self._refuse(Fault(Kind.CLIENT_GONE, "the client left within a head"))

    def pause_writing(self) -> None:
        """The kernel's send buffer is full: the client reads slowly."""
        self.stalled = True
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
        try:
            while self._buffer and self.exchange is None and not self._closing:
                if not self._start():
                    return
        finally:
            self._serving = False

    def _start(self) -> bool:
        """Take one head off the buffer; returns whether there was one."""
        worker = self.worker
        limits = worker.limits
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
        end = data.find(HEAD_END, checked - 3 if checked > 3 else 0)
        start_ns, self._start_ns = self._start_ns or time.time_ns(), 0
        try:
            if end < 0:
                check_partial(data, checked, limits.request_line, limits.head)
                self._start_ns = start_ns
                self._wait_for_head(len(data))
                return False
            if end > limits.head:
                check_partial(data[: limits.head + 1], 0, limits.request_line, limits.head)
            head = scan_request(data[:end], limits.request_line, limits.fields, underscores=worker.settings.underscores)
        except Fault as fault:
            self._start_ns = start_ns
            self._refuse(fault)
            return False
        self._buffer = data[end + 4 :]
        if self._paused and len(self._buffer) <= limits.pipelined:
            self.resume()
        # A head that came in pieces was waited for: the proxy's own time begins with its last piece.
        entry_ns = start_ns
        self._blank = False
        if checked:
            self._checked = 0
            entry_ns = time.time_ns()
        self.deadline = NEVER
        self.exchange = exchange = Exchange(self, worker, start_ns, entry_ns)
        try:
            exchange.begin(head)
        except Exception:
            _log.exception("a request could not be served")
            exchange.fail(Fault(Kind.INTERNAL, "see the log"))
        return True

    def _within_head(self) -> bool:
        """Whether a request has begun to arrive; an empty line is none."""
        return bool(self._buffer.strip(b"\r\n"))

    def _wait_for_head(self, seen: int) -> None:
        """The head is not whole yet; ``seen`` bytes of it have been looked at."""
        if not self._start_ns:
            self._start_ns = time.time_ns()
        if not self._checked:
            self.deadline = self.worker.clock.now + self.worker.timeouts.head
        self._checked = seen

    def _refuse(self, fault: Fault) -> None:
        """Answer a head that cannot be read. Its method and target go to the span if they are clean."""
        now = time.time_ns()
        method, _, rest = self._buffer[:8192].partition(b"\r\n")[0].partition(b" ")
        target = rest.partition(b" ")[0]
        self._buffer = b""
        exchange = Exchange(self, self.worker, self._start_ns or now, now)
        self.exchange = exchange
        clean = target.startswith(b"/") and target.isascii() and target.decode("ascii").isprintable()
        exchange.refuse(fault, method if TOKEN.fullmatch(method) else b"", target if clean else b"")

    # What an exchange asks of its connection

    def take(self) -> bytes:
        """What has been read behind the head."""
        data, self._buffer = self._buffer, b""
        if self._paused:
            self.resume()
        return data

    def hold(self, data: bytes) -> None:
        """Keep bytes that came ahead of their turn, and stop reading when they are many."""
        self._buffer += data
        if len(self._buffer) > self.worker.limits.pipelined:
            self.pause()

    def pause(self) -> None:
        """Stop reading the client."""
        if not self._paused:
            self._paused = True
            self.transport.pause_reading()

    def resume(self) -> None:
        """Read the client again."""
        if self._paused:
            self._paused = False
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
        """Cut the connection: the client must see that the response is not whole."""
        self._closing = True
        self.transport.abort()

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
        self.deadline = worker.clock.now + worker.timeouts.idle
        if self._buffer:
            self._serve()
        if self._paused and self.exchange is None:
            self.resume()
        if self._ended:
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
        if clean or self._ended or not self.transport.can_write_eof():
            self.transport.close()
            return
        self.deadline = self.worker.clock.now + _LINGER
        self.resume()
        self.transport.write_eof()

    def drain(self) -> None:
        """The worker stops: close if idle; a busy connection closes after its exchange."""
        if self.exchange is None and not self._closing:
            self._closing = True
            self.transport.close()

    def overdue(self) -> None:
        """The deadline has passed: a slow head or body is answered 408, an idle connection just closed."""
        self.deadline = NEVER
        exchange = self.exchange
        if exchange is not None:
            exchange.overdue()
        elif self._closing:
            self.transport.abort()
        elif self._within_head():
            self._refuse(Fault(Kind.REQUEST_TIMEOUT, "the head did not arrive in time"))
        else:
            self._closing = True
            self.transport.close()
