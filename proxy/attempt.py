"""One attempt at an upstream: its connection, the request written, the response read. One CLIENT span.

The states are those of the response: connecting, head, then a body by length, by chunks or until the close, or a
tunnel after 101; `DONE` is terminal, and nothing that still arrives then is looked at.
"""

from __future__ import annotations

import logging
import time
from typing import TYPE_CHECKING, Final

from proxy.errors import Fault, Kind
from proxy.http1.chunked import ChunkedReader, chunk, last_chunk
from proxy.http1.fields import tokens, without
from proxy.http1.framing import CHUNKED, response_framing
from proxy.http1.scan import HEAD_END, ResponseHead, scan_response
from proxy.net.clock import NEVER
from proxy.trace import ids
from proxy.trace.record import AttemptRecord

if TYPE_CHECKING:
    from proxy.balance.endpoint import Endpoint
    from proxy.connect.connection import Upstream
    from proxy.exchange import Exchange

_log = logging.getLogger(__name__)

CONNECTING: Final = 0
HEAD: Final = 1
LENGTH: Final = 2
CHUNKS: Final = 3
TO_CLOSE: Final = 4
TUNNEL: Final = 5
DONE: Final = 6
_STATES: Final = ("connecting", "head", "length", "chunks", "until close", "tunnel", "done")

# Options that name no field of their own, and fields without which a response is another one.
_KEPT: Final = frozenset((b"close", b"keep-alive", b"upgrade", b"content-type", b"set-cookie", b"location"))
_MOST_INTERIM: Final = 16  # 1xx responses before a final one


class Attempt(AttemptRecord):
    """See the module; made by `Exchange.attempt`, which hears of it by `attempt_failed` and `complete`."""

    __slots__ = ("_buffer", "_entry_ns", "_interim", "_left", "_reader", "abandoned", "endpoint", "exchange", "keep", "state", "upstream")

    def __init__(self, exchange: Exchange, endpoint: Endpoint, resend: int, start_ns: int) -> None:
        self.exchange = exchange
        self.endpoint = endpoint
        self.upstream: Upstream | None = None
        self.connection = None
        self.state = CONNECTING
        self.abandoned = False
        self.keep = False
        self.span_id = ids.span_id()
        self.start_ns = start_ns
        self.resend = resend
        self.scheme = endpoint.scheme
        self.host = endpoint.host
        self.port = endpoint.port
        self.reused = False
        self.error_type = ""
        self.status = 0
        self.queue_ns = self.dns_ns = self.connect_ns = self.tls_ns = 0
        self.write_ns = self.sent_ns = self.first_byte_ns = self.end_ns = 0
        self.request_start = self.request_end = self.response_start = self.response_end = 0
        self._buffer = b""
        self._left = 0
        self._interim = 0
        self._entry_ns = 0
        self._reader: ChunkedReader | None = None
        endpoint.in_flight += 1

    def __repr__(self) -> str:
        return f"Attempt({self.host}:{self.port}, {_STATES[self.state]}, resend {self.resend}, status {self.status})"

    # Getting a connection

    def connected(self, upstream: Upstream) -> None:
        """A connection opened or freed for this attempt."""
        self.send(upstream, time.time_ns())

    def not_connected(self, fault: Fault) -> None:
        """No connection could be had."""
        self._fail(fault)

    # The request's way out

    def send(self, upstream: Upstream, entry_ns: int) -> None:
        """Write the head and what there is of the body; ``entry_ns`` is when this callback began."""
        exchange = self.exchange
        self.upstream = self.connection = upstream
        upstream.borrower = self
        self.state = HEAD
        self.request_start = upstream.sent()
        self.response_start = upstream.seen()
        payload = exchange.request_bytes(self)
        if exchange.request_done:
            upstream.deadline = exchange.worker.clock.now + exchange.read_timeout
        else:
            upstream.deadline = NEVER
            exchange.resume_downstream()
        self.write_ns = time.time_ns()
        upstream.transport.write(payload)
        upstream.bytes_out += len(payload)
        self.sent_ns = now = time.time_ns()
        self.request_end = upstream.sent()
        exchange.self_ns += now - entry_ns
        if exchange.upload is not None:
            exchange.upload.sent()

    def write(self, data: bytes) -> None:
        """Write more of the request body, or of the tunnel."""
        upstream = self.upstream
        if upstream is None or self.state == DONE:
            return
        upstream.transport.write(data)
        upstream.bytes_out += len(data)
        self.sent_ns = time.time_ns()
        self.request_end = upstream.sent()
        exchange = self.exchange
        if exchange.upload is not None:
            exchange.upload.sent()
        if self.state == TUNNEL:
            upstream.deadline = exchange.worker.clock.now + exchange.tunnel_timeout
        elif exchange.request_done:
            upstream.deadline = exchange.worker.clock.now + exchange.read_timeout

    def upstream_paused(self) -> None:
        """The upstream reads slower than the downstream sends."""
        upstream = self.upstream
        if upstream is not None and self.state != DONE:
            upstream.deadline = self.exchange.worker.clock.now + self.exchange.send_timeout
            self.exchange.pause_downstream()

    def upstream_resumed(self) -> None:
        """The upstream has caught up."""
        upstream = self.upstream
        if upstream is not None and self.state != DONE:
            exchange = self.exchange
            waits = exchange.request_done or self.state == TUNNEL
            upstream.deadline = exchange.worker.clock.now + exchange.read_timeout if waits else NEVER
            exchange.resume_downstream()

    # The response's way in

    def received(self, data: bytes) -> None:
        """Bytes from the upstream."""
        exchange = self.exchange
        self._entry_ns = entry = time.time_ns()
        upstream = self.upstream
        assert upstream is not None  # noqa: S101 - a borrower has its connection
        try:
            if self.state == HEAD:
                self._head(data)
            else:
                upstream.deadline = exchange.worker.clock.now + exchange.read_timeout
                self._body(data)
        except Fault as fault:
            self._fail(fault)
        except Exception:
            _log.exception("an upstream's response could not be relayed")
            self._fail(Fault(Kind.INTERNAL, "see the log"))
        if self.state != DONE:
            exchange.self_ns += time.time_ns() - entry

    def _head(self, data: bytes) -> None:
        exchange = self.exchange
        if not self.first_byte_ns:
            self.first_byte_ns = time.time_ns()
        if self._buffer:
            data = self._buffer + data
        limits = exchange.worker.limits
        while True:
            end = data.find(HEAD_END)
            if end < 0 or end > limits.head:
                if len(data) > limits.head:
                    raise Fault(Kind.BAD_RESPONSE, f"response head over {limits.head} bytes")
                self._buffer = data
                return
            head = scan_response(data[:end], limits.fields)
            data = data[end + 4 :]
            status = head.status
            if status >= 200 or status == 101:
                break
            self._interim += 1
            if self._interim > _MOST_INTERIM:
                raise Fault(Kind.BAD_RESPONSE, f"more than {_MOST_INTERIM} interim responses")
            exchange.interim(head)
        self._buffer = b""
        if status == 101:
            self._switch(head, data)
            return
        framing = response_framing(head, exchange.method)
        self.status = status
        connection = head.noted.get(b"connection")
        if connection is None:
            self.keep = head.minor == 1
        else:
            options = tokens(connection)
            self.keep = b"close" not in options and (head.minor == 1 or b"keep-alive" in options)
            nominated = set(options) - _KEPT
            if nominated:
                head.lines = without(head.lines, nominated)
        out = exchange.response_head(head, framing)
        if framing >= 0:
            left = framing - len(data)
            if left <= 0:
                if left < 0:
                    # Bytes that no framing covers: RFC 9112 section 6.3 forbids to read them as another response.
                    self.keep = False
                    data = data[:framing]
                exchange.relay(out + data if data else out, len(data))
                self._complete()
                return
            self.state = LENGTH
            self._left = left
            exchange.relay(out + data, len(data))
            return
        self.state = CHUNKS if framing == CHUNKED else TO_CLOSE
        if framing == CHUNKED:
            self._reader = ChunkedReader(limits.chunk_extensions)
        else:
            self.keep = False
        self._body(data, out)

    def _body(self, data: bytes, out: bytes = b"") -> None:
        """Relay body bytes, behind ``out``, in one write."""
        exchange = self.exchange
        state = self.state
        if state == LENGTH:
            left = self._left - len(data)
            if left < 0:
                self.keep = False
                data = data[:left]
            self._left = left
            exchange.relay(data, len(data))
            if left <= 0:
                self._complete()
        elif state == CHUNKS:
            reader = self._reader
            assert reader is not None  # noqa: S101 - set with the state
            try:
                payload = reader.feed(data)
            except Fault as fault:
                kind = Kind.RESPONSE_CUT if exchange.answered else Kind.BAD_RESPONSE
                raise Fault(kind, fault.detail) from None
            if reader.rest:
                self.keep = False
            piece = chunk(payload) if payload and exchange.chunked_out else payload
            if reader.done and exchange.chunked_out:
                piece += last_chunk(reader.trailers if exchange.wants_trailers else [])
            if out or piece:
                exchange.relay(out + piece, len(payload))
            if reader.done:
                self._complete()
        elif state == TO_CLOSE:
            piece = chunk(data) if data and exchange.chunked_out else data
            if out or piece:
                exchange.relay(out + piece, len(data))
        elif state == TUNNEL:
            exchange.tunnelled(data)

    def _switch(self, head: ResponseHead, data: bytes) -> None:
        exchange = self.exchange
        asked = exchange.upgrade
        if not asked or asked not in tokens(head.noted.get(b"upgrade", b"")):
            raise Fault(Kind.BAD_RESPONSE, "101 Switching Protocols that was not asked for")
        self.status = 101
        self.state = TUNNEL
        exchange.switched(head, data)

    def upstream_ended(self) -> bool:
        """End of stream: the end of a body without length, of a tunnel's one way, or a fault."""
        if self.state == TUNNEL:
            return self.exchange.tunnel_upstream_ended()
        self._ended("closed the connection", None)
        return False

    def upstream_lost(self, error: Exception | None) -> None:
        """The connection is gone."""
        if self.state == TUNNEL:
            self.exchange.tunnel_closed()
        elif self.state != DONE:
            self._ended(str(error or "closed the connection"), error)

    def _ended(self, how: str, error: Exception | None) -> None:
        if self.state == DONE:
            return
        if self.state == HEAD:
            kind = Kind.BAD_RESPONSE if self._buffer else Kind.UPSTREAM_RESET
            self._fail(Fault(kind, f"{self.host}:{self.port} {how}"))
        elif self.state == TO_CLOSE and error is None and not self._truncated():
            if self.exchange.chunked_out:
                self.exchange.relay(last_chunk([]), 0)
            self._complete()
        else:
            self._fail(Fault(Kind.RESPONSE_CUT, f"{self.host}:{self.port} {how}"))

    def _truncated(self) -> bool:
        """A TLS stream cut without close_notify may have lost bytes (RFC 8446 section 6.1)."""
        return self.upstream is not None and self.upstream.tls is not None and self.upstream.tls.truncated

    def overdue(self) -> None:
        """The connection's deadline has passed."""
        where = f"{self.host}:{self.port}"
        if self.state == TUNNEL:
            self.exchange.tunnel_closed()
        elif self.state != HEAD:
            self._fail(Fault(Kind.RESPONSE_STALLED, where))
        elif self.exchange.request_done:
            self._fail(Fault(Kind.UPSTREAM_TIMEOUT, where))
        else:
            self._fail(Fault(Kind.SEND_TIMEOUT, where))

    # Endings

    def _complete(self) -> None:
        upstream = self.upstream
        assert upstream is not None  # noqa: S101 - a borrower has its connection
        exchange = self.exchange
        self.state = DONE
        self.end_ns = now = time.time_ns()
        self.response_end = upstream.seen()
        endpoint = self.endpoint
        endpoint.in_flight -= 1
        if self._entry_ns:
            exchange.self_ns += now - self._entry_ns
        endpoint.succeeded(now - self.write_ns, exchange.worker.clock.now)
        if exchange.downstream.stalled:
            upstream.transport.resume_reading()  # it was paused for this response's sake
        if self.keep and exchange.request_done:
            upstream.pool.give(upstream)
        else:
            upstream.pool.discard(upstream)
        exchange.complete(now)

    def end_writing(self) -> bool:
        """End our way of a tunnel; returns whether the transport can half-close (TLS 1.2 cannot)."""
        upstream = self.upstream
        if upstream is None or not upstream.transport.can_write_eof():
            return False
        upstream.transport.write_eof()
        return True

    def finish_tunnel(self) -> None:
        """The tunnel is over: close once what was written has gone out."""
        upstream = self.upstream
        if self.state != DONE and upstream is not None:
            self.state = DONE
            self.end_ns = time.time_ns()
            self.endpoint.in_flight -= 1
            self.response_end = upstream.seen()
            upstream.pool.discard(upstream)

    def cancel(self) -> None:
        """Nobody waits for the response any more; no fault of the upstream."""
        if self.state != DONE:
            self._release()

    def _fail(self, fault: Fault) -> None:
        if self.state == DONE:
            return
        self.error_type = fault.kind.label
        if not (self.reused and fault.kind is Kind.UPSTREAM_RESET) and fault.kind is not Kind.OVERLOADED:
            self.endpoint.failed(self.exchange.worker.clock.now)
        self._release()
        self.exchange.attempt_failed(self, fault)

    def _release(self) -> None:
        self.state = DONE
        self.abandoned = True
        self.end_ns = time.time_ns()
        self.endpoint.in_flight -= 1
        upstream = self.upstream
        if upstream is not None:
            self.response_end = upstream.seen()
            upstream.borrower = None
            upstream.abort()


