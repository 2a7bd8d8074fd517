"""One attempt at an upstream: its connection, the request written, the response read, its end. One CLIENT span."""

from __future__ import annotations

from typing import TYPE_CHECKING

from proxy.errors import Fault, Kind
from proxy.net import tcp_info
from proxy.net.clock import NEVER
from proxy.net.now import time_ns
from proxy.response import DONE, HEAD, STATES, TUNNEL, Response
from proxy.retries import may_ask_another
from proxy.trace.ids import span_id

if TYPE_CHECKING:
    from proxy.balance.endpoint import Endpoint
    from proxy.connect.connection import Upstream
    from proxy.exchange import Exchange


class Attempt(Response):
    """See the module; made by the exchange, which hears of it by `attempt_failed` and `complete`."""

    __slots__ = ()

    def prepare(self, exchange: Exchange, endpoint: Endpoint, resend: int, start_ns: int) -> None:
        """What ``__init__`` would do, as a plain call when it is compiled."""
        self.attach(exchange, endpoint)
        self.connection = None
        self.abandoned = self.until_close = False
        self.tcp = None
        self.span_id = span_id()
        self.start_ns = start_ns
        self.resend = resend
        self.scheme = endpoint.scheme
        self.host = endpoint.host
        self.port = endpoint.port
        self.reused = False
        self.error_type = ""
        self.status = self.queue_ns = self.dns_ns = self.connect_ns = self.tls_ns = 0
        self.write_ns = self.sent_ns = self.first_byte_ns = self.end_ns = 0
        self.request_start = self.request_end = self.response_start = self.response_end = 0
        endpoint.in_flight += 1

    def __repr__(self) -> str:
        return f"Attempt({self.host}:{self.port}, {STATES[self.state]}, resend {self.resend}, status {self.status})"

    def where(self) -> str:
        """The endpoint, for a fault's detail."""
        return self.endpoint.name

    # Getting a connection

    def connected(self, upstream: Upstream) -> None:
        """A connection opened or freed for this attempt."""
        self.send(upstream, time_ns())

    def not_connected(self, fault: Fault) -> None:
        """No connection could be had."""
        self.failed(fault)

    # The request's way out

    def send(self, upstream: Upstream, entry_ns: int) -> None:
        """Write the head and what there is of the body; ``entry_ns`` is when this callback began."""
        exchange = self.exchange
        self.upstream = self.connection = upstream
        upstream.borrower = self
        if exchange.tcp is not None:
            self.tcp = tcp_info.begin(upstream)
        self.state = HEAD
        self.request_start = upstream.sent()
        self.response_start = upstream.seen()
        payload = exchange.request_bytes(self)
        self.reused = upstream.served > 0
        waits = exchange.request_done or exchange.expects
        upstream.deadline = exchange.worker.clock.now + exchange.read_timeout if waits else NEVER
        if not exchange.request_done:
            exchange.resume_downstream()
        # One stamp, before the write: the kernel may run the upstream before it returns to us, and that is its time.
        self.write_ns = self.sent_ns = now = time_ns()
        upstream.transport.write(payload)
        upstream.bytes_out += len(payload)
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
        exchange = self.exchange
        if self.state == TUNNEL:
            upstream.deadline = exchange.worker.clock.now + exchange.read_timeout
            return
        self.sent_ns = time_ns()
        self.request_end = upstream.sent()
        if exchange.upload is not None:
            exchange.upload.sent()
        if exchange.request_done and not exchange.downstream.stalled:  # while it is, we do not read the upstream
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
            waits = (exchange.request_done or self.state == TUNNEL) and not exchange.downstream.stalled
            upstream.deadline = exchange.worker.clock.now + exchange.read_timeout if waits else NEVER
            exchange.resume_downstream()

    def overdue(self) -> None:
        """The connection's deadline has passed."""
        where = self.where()
        if self.state == TUNNEL and self.exchange.tunnel is not None:
            self.exchange.tunnel.close()
        elif self.state != HEAD:
            self.failed(Fault(Kind.RESPONSE_STALLED, where))
        elif self.exchange.request_done or self.exchange.expects:
            self.failed(Fault(Kind.UPSTREAM_TIMEOUT, where))
        else:
            self.failed(Fault(Kind.SEND_TIMEOUT, where))

    # Endings

    def complete(self) -> None:
        """The response's last byte has been relayed: the connection goes back to its pool."""
        upstream = self.upstream
        assert upstream is not None  # noqa: S101 - a borrower has its connection
        exchange = self.exchange
        self.state = DONE
        self.end_ns = now = time_ns()
        self.response_end = upstream.seen()
        endpoint = self.endpoint
        endpoint.in_flight -= 1
        if self._entry_ns:
            exchange.self_ns += now - self._entry_ns
        endpoint.succeeded(self.first_byte_ns - self.write_ns, exchange.worker.clock.now)
        if exchange.downstream.stalled:
            upstream.transport.resume_reading()  # it was paused for this response's sake
        if self.tcp is not None:
            self.tcp = tcp_info.end(upstream, self.tcp)
        pool = upstream.pool
        if self.keep and exchange.request_done:
            pool.give(upstream)
        else:
            pool.discard(upstream)
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
            self.end_ns = time_ns()
            self.endpoint.in_flight -= 1
            self.response_end = upstream.seen()
            if self.tcp is not None:
                self.tcp = tcp_info.end(upstream, self.tcp)
            upstream.pool.discard(upstream)

    def cancel(self) -> None:
        """Nobody waits for the response any more; no fault of the upstream."""
        if self.state != DONE:
            self._release()

    def failed(self, fault: Fault) -> None:
        """The attempt is over: count it against its endpoint, and let the exchange decide."""
        if self.state == DONE:
            return
        self.error_type = fault.kind.label
        if not (self.reused and fault.kind is Kind.UPSTREAM_RESET) and fault.kind is not Kind.OVERLOADED:
            self.endpoint.failed(self.exchange.worker.clock.now)
        self._release()
        self.exchange.attempt_failed(self, fault)

    def given_up(self) -> bool:
        """Give this response up for another attempt (proxy-next-upstream: http_503), where one may be made."""
        exchange = self.exchange
        if not may_ask_another(exchange, self):
            return False
        self._release()
        exchange.again()
        return True

    def _release(self) -> None:
        self.state = DONE
        self.abandoned = True
        self.end_ns = time_ns()
        self.endpoint.in_flight -= 1
        upstream = self.upstream
        if upstream is not None:
            self.response_end = upstream.seen()
            if self.tcp is not None:
                self.tcp = tcp_info.end(upstream, self.tcp)
            upstream.borrower = None
            upstream.abort()
