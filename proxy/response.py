"""The response's way in: head, then a body by length, by chunks or until the close, or a tunnel after 101.

The states are those of reading; `DONE` is terminal, and nothing that still arrives then is looked at. The one
subclass, `proxy.attempt.Attempt`, adds the request's way out and the endings.
"""

from __future__ import annotations

import logging
from typing import TYPE_CHECKING, Final

from proxy.errors import Fault, Kind
from proxy.forward import interim_head, response_head
from proxy.http1.chunked import ChunkedReader, chunk, last_chunk
from proxy.http1.fields import tokens, without
from proxy.http1.framing import CHUNKED, response_framing
from proxy.http1.head import ResponseHead
from proxy.http1.scan import find_end, scan_response
from proxy.net.now import time_ns
from proxy.trace.record import AttemptRecord
from proxy.tunnel import Tunnel

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
STATES: Final = ("connecting", "head", "length", "chunks", "until close", "tunnel", "done")

# Options that name no field of their own, and fields without which a response is another one.
_KEPT: Final = frozenset((b"close", b"keep-alive", b"upgrade", b"content-type", b"set-cookie", b"location"))
_MOST_INTERIM: Final = 16  # 1xx responses before a final one


class Response(AttemptRecord):
    """See the module. ``keep`` says whether the connection may serve again after this response."""

    __slots__ = (
        "_buffer",
        "_entry_ns",
        "_interim",
        "_left",
        "_reader",
        "endpoint",
        "exchange",
        "keep",
        "state",
        "upstream",
    )

    def attach(self, exchange: Exchange, endpoint: Endpoint) -> None:
        """Begin before there is a connection."""
        self.exchange = exchange
        self.endpoint = endpoint
        self.upstream: Upstream | None = None
        self.state = CONNECTING
        self.keep = False
        self._buffer = b""
        self._left = self._interim = self._entry_ns = 0
        self._reader: ChunkedReader | None = None

    def complete(self) -> None:
        """The response's last byte has been relayed."""
        raise NotImplementedError

    def failed(self, fault: Fault) -> None:
        """The attempt is over, by a fault."""
        raise NotImplementedError

    def given_up(self) -> bool:
        """Give this response up for another attempt, where one may be made; returns whether it was."""
        raise NotImplementedError

    def write(self, data: bytes) -> None:
        """Send bytes to the upstream."""
        raise NotImplementedError

    def end_writing(self) -> bool:
        """End our way of a tunnel; returns whether the transport can half-close."""
        raise NotImplementedError

    def finish_tunnel(self) -> None:
        """The tunnel is over."""
        raise NotImplementedError

    def where(self) -> str:
        """The endpoint, for a fault's detail."""
        raise NotImplementedError

    def received(self, data: bytes) -> None:
        """Bytes from the upstream."""
        exchange = self.exchange
        self._entry_ns = entry = time_ns()
        upstream = self.upstream
        assert upstream is not None  # noqa: S101 - a borrower has its connection
        try:
            if self.state == HEAD:
                self._head(data)
            else:
                self._body(data)
        except Fault as fault:
            self.failed(fault)
        except Exception:
            _log.exception("an upstream's response could not be relayed")
            self.failed(Fault(Kind.INTERNAL, "see the log"))
        if self.state != DONE:
            exchange.self_ns += time_ns() - entry
            if exchange.request_done and not exchange.downstream.stalled:
                upstream.deadline = exchange.worker.clock.now + exchange.read_timeout

    def _head(self, data: bytes) -> None:
        exchange = self.exchange
        if not self.first_byte_ns:
            self.first_byte_ns = self._entry_ns
            upstream = self.upstream
            if upstream is not None and upstream.tls is not None and not self.reused:
                self.response_start = upstream.tls.first_in  # behind the tickets, which came after the request was sent
        if self._buffer:
            data = self._buffer + data
        bounds = exchange.worker.bounds
        while True:
            end = find_end(data)
            if end < 0 or end > bounds.head:
                if len(data) > bounds.head:
                    raise Fault(Kind.BAD_RESPONSE, f"response head over {bounds.head} bytes")
                self._buffer = data
                return
            head = scan_response(data, bounds.fields, end)
            start = end + 4
            status = head.status
            if status >= 200 or status == 101:
                break
            data = data[start:]
            self._interim += 1
            if self._interim > _MOST_INTERIM:
                raise Fault(Kind.BAD_RESPONSE, f"more than {_MOST_INTERIM} interim responses")
            interim = interim_head(exchange, head)
            if interim:
                exchange.downstream.transport.write(interim)
            if status == 100:
                exchange.continued()
        self._buffer = b""
        if status == 101:
            self._switch(head, data[start:])
            return
        framing = response_framing(head, exchange.method)
        self.status = status
        route = exchange.route
        actions = None if route is None else route.actions
        if actions is not None and status in actions.retry_statuses and self.given_up():
            return
        connection = head.noted.get(b"connection")
        if connection is None:
            self.keep = head.minor == 1
        elif connection == b"keep-alive":
            self.keep = True
        else:
            options = tokens(connection)
            self.keep = b"close" not in options and (head.minor == 1 or b"keep-alive" in options)
            nominated = set(options) - _KEPT
            if nominated:
                head.fields = without(head.fields, nominated)
        if framing >= 0:
            stop = len(data)
            left = framing - (stop - start)
            if left < 0:
                # Bytes that no framing covers: RFC 9112 section 6.3 forbids to read them as another response.
                self.keep = False
                stop = start + framing
            if left > 0:
                self.state = LENGTH
                self._left = left
            out = response_head(exchange, head, framing, data, start, stop)
            exchange.relay(out, stop - start, left <= 0)
            if left <= 0:
                self.complete()
            return
        self.state = CHUNKS if framing == CHUNKED else TO_CLOSE
        if framing == CHUNKED:
            self._reader = ChunkedReader(bounds.chunk_extensions)
        else:
            self.keep = False
        self._body(data[start:], response_head(exchange, head, framing, b"", 0, 0))

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
            exchange.relay(data, len(data), left <= 0)
            if left <= 0:
                self.complete()
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
                exchange.relay(out + piece, len(payload), reader.done)
            if reader.done:
                self.complete()
        elif state == TO_CLOSE:
            piece = chunk(data) if data and exchange.chunked_out else data
            if out or piece:
                exchange.relay(out + piece, len(data))
        elif state == TUNNEL and exchange.tunnel is not None:
            exchange.tunnel.from_upstream(data)

    def _switch(self, head: ResponseHead, data: bytes) -> None:
        exchange = self.exchange
        asked = exchange.upgrade
        if not asked or asked not in tokens(head.noted.get(b"upgrade", b"")):
            raise Fault(Kind.BAD_RESPONSE, "101 Switching Protocols that was not asked for")
        self.status = 101
        self.state = TUNNEL
        self.endpoint.succeeded(self.first_byte_ns - self.write_ns, exchange.worker.clock.now)
        exchange.tunnel = tunnel = Tunnel(exchange, self)
        tunnel.open(head, data)

    def upstream_ended(self) -> bool:
        """End of stream: the end of a body without length, of a tunnel's one way, or a fault."""
        if self.state == TUNNEL and self.exchange.tunnel is not None:
            return self.exchange.tunnel.upstream_ended()
        self._ended("closed the connection", None)
        return False

    def upstream_lost(self, error: Exception | None) -> None:
        """The connection is gone."""
        if self.state == TUNNEL and self.exchange.tunnel is not None:
            self.exchange.tunnel.close()
        elif self.state != DONE:
            self._ended(str(error or "closed the connection"), error)

    def _ended(self, how: str, error: Exception | None) -> None:
        if self.state == DONE:
            return
        if self.state == HEAD:
            kind = Kind.BAD_RESPONSE if self._buffer else Kind.UPSTREAM_RESET
            self.failed(Fault(kind, f"{self.where()} {how}"))
        elif self.state == TO_CLOSE and error is None and not self._truncated():
            if self.exchange.chunked_out:
                self.exchange.relay(last_chunk([]), 0, True)
            self.until_close = True
            self.complete()
        else:
            self.failed(Fault(Kind.RESPONSE_CUT, f"{self.where()} {how}"))

    def _truncated(self) -> bool:
        """A TLS stream cut without close_notify may have lost bytes (RFC 8446 section 6.1)."""
        return self.upstream is not None and self.upstream.tls is not None and self.upstream.tls.truncated
