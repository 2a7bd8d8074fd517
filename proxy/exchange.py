"""One request's story, from its head to its end: the only place that knows all rooms.

accept > scan > admit > route > balance > connect > forward > relay > close. Each phase is entered once, can fail with
one `Fault`, and leaves one stamp. Whatever happens, `finish` runs once: one SERVER span, one metric sample, one
access-log record.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from proxy.admission import account, act, admit, trace
from proxy.attempt import Attempt
from proxy.errors import Fault, Kind
from proxy.forward import may_keep, own_lines, request_head
from proxy.http1.compose import request
from proxy.http1.head import RequestHead
from proxy.net.clock import NEVER
from proxy.net.now import time_ns
from proxy.relay import answers
from proxy.relay.upload import REPLAYED, Upload
from proxy.request import Request
from proxy.retries import may_retry

if TYPE_CHECKING:
    from proxy.connection import Connection
    from proxy.route.table import Route
    from proxy.trace.record import AttemptRecord
    from proxy.worker import Worker

_ROUTED: Final = (Kind.NO_ROUTE, Kind.SOURCE_REFUSED)  # whose requests are well-formed, so that the next may follow
_MANY_CHUNKS: Final = 512  # in one read, some 0.5 ms of the loop: then the others have their turn
_REFUSED: Final = frozenset((b"TRACE", b"CONNECT"))


class Exchange(Request):
    """See the module. Made by the downstream connection, which calls `prepare`, then `begin` or `refuse`, once."""

    __slots__ = ("_finished", "_flushing", "_key", "_prefix")

    def prepare(self, downstream: Connection, worker: Worker, start_ns: int, entry_ns: int) -> None:
        """What ``__init__`` would do, as a plain call when it is compiled."""
        Request.prepare(self, downstream, worker, start_ns, entry_ns)
        self._finished = False
        self._flushing = False
        self._key = b""
        self._prefix = b""

    def __repr__(self) -> str:
        state = "finished" if self._finished else "answering" if self.answered else "waiting"
        return f"Exchange({self.method!r} {self.path!r}, {state}, {self.attempt!r})"

    # accept > admit > route > balance > connect

    def begin(self, head: RequestHead) -> None:
        """Take the head through admission and routing, and start the first attempt."""
        self.head = head
        worker = self.worker
        try:
            admit(self, head)
            self.admit_ns = time_ns()
            self.route = route = worker.table.match(self.host, self.path)
            self.route_ns = time_ns()
            trace(self, route)
            if head.target == b"*":
                self._answer(204, b"", b"", b"Allow: GET, HEAD, POST, PUT, DELETE, PATCH, OPTIONS, QUERY\r\n")
                return
            if head.method in _REFUSED:
                raise Fault(Kind.METHOD_NOT_ALLOWED, head.method.decode("ascii"))
            if route is None:
                raise Fault(Kind.NO_ROUTE, f"{self.host!r} {self.path!r}")
            if route.actions is not None:
                redirect = act(self, route.actions)
                if redirect is not None:
                    self._answer(redirect[0], *answers.redirect(*redirect))
                    return
            self.read_timeout = route.read_timeout
            self.send_timeout = route.send_timeout
            if not self.request_done:
                self._begin_body(route)
            self._prefix = request_head(self)
            backend = route.backend
            if backend.key is not None:
                self._key = backend.key(self)
        except Fault as fault:
            self.fail(fault)
            return
        if worker.watching and self.recorded:
            account(self)
        self._try(self.entry_ns)

    def refuse(self, fault: Fault, method: bytes, target: bytes) -> None:
        """End a request whose head could not be read; what could be told of it goes to the span."""
        self.head = RequestHead(method, target, 1, b"", {})
        self.method = method
        self.path, _, self.query = target.partition(b"?")
        self.fail(fault)

    def _try(self, entry_ns: int) -> None:
        """Start an attempt; ``entry_ns`` is when the callback that asks for it began."""
        route = self.route
        assert route is not None  # noqa: S101 - begin has set it
        attempts = self.attempts
        tried = [each.endpoint for each in attempts] if attempts else ()
        backend = route.backend
        endpoint = backend.pick(self._key, tried)
        if endpoint is None:
            self.fail(Fault(Kind.NO_ENDPOINT, route.spec.backend))
            return
        self.attempt = attempt = Attempt.__new__(Attempt)
        attempt.prepare(self, endpoint, len(attempts), entry_ns if attempts else self.route_ns)
        pool = endpoint.pool
        if pool is None:
            pool = self.worker.open_pool(endpoint)
        # After a death on a reused connection the others of its age are suspect: dial.
        upstream = None if attempts and attempts[-1].reused else pool.take(self.watched)
        attempts.append(attempt)
        if upstream is not None:
            attempt.send(upstream, entry_ns)
            return
        self.self_ns += time_ns() - entry_ns
        pool.connect(attempt, route.connect_timeout, self.watched)

    def request_bytes(self, attempt: AttemptRecord) -> bytes:
        """The head, with this attempt's span as the parent, and what there is of the body."""
        worker = self.worker
        if self.recorded:
            context = worker.propagation.inject(self.trace_id, attempt.span_id, self.flags, self.tracestate)
            others = self.other_context
        else:
            context, others = worker.unrecorded_context(self), b""
        return request(self._prefix, context, others, b"" if self.upload is None else self.upload.so_far())

    # The request's body

    def _begin_body(self, route: Route) -> None:
        self.upload = Upload(self.framing, route.body_limit, self.worker.bounds.chunk_extensions, self.wants_trailers)
        data = self.downstream.take()
        if data:
            self.expects = False
            self._take_body(data)
        self._set_body_deadline()

    def _take_body(self, data: bytes) -> bytes:
        upload = self.upload
        assert upload is not None  # noqa: S101 - asked only while the body is not done
        chunks = upload.chunks
        wire = upload.take(data)
        self.request_body_size = upload.size
        if upload.chunks - chunks > _MANY_CHUNKS:
            self.downstream.breathe()
        if upload.done:
            self.request_done = True
            if upload.rest:
                self.downstream.hold(upload.rest)
        return wire

    def received(self, data: bytes) -> None:
        """Bytes from the downstream while this is its current exchange."""
        attempt = self.attempt
        if self.request_done:
            if self.tunnel is not None:
                self.tunnel.from_downstream(data)
            else:
                self.downstream.hold(data)
            return
        if self._flushing and not self.keep:
            return  # the answer is written, and nothing more of this client is read
        entry = time_ns()
        self.continued()  # the body comes, whether or not the upstream has asked for it
        try:
            wire = self._take_body(data)
        except Fault as fault:
            self.fail(fault)
            return
        self._set_body_deadline()
        if attempt is not None and attempt.upstream is not None:
            if wire:
                attempt.write(wire)
        elif self.request_body_size > REPLAYED:
            self.pause_downstream()
        self.self_ns += time_ns() - entry

    def _set_body_deadline(self) -> None:
        downstream = self.downstream
        if not downstream.stalled:  # else the deadline is that of the response, which it does not take
            # With a 100 still to come it is the upstream who is waited for.
            waits = self.request_done or self.expects
            downstream.deadline = NEVER if waits else self.worker.clock.now + self.worker.bounds.body

    def pause_downstream(self) -> None:
        """The upstream does not keep up: stop reading the body."""
        self.downstream.pause()
        if not self.downstream.stalled:
            self.downstream.deadline = NEVER

    def resume_downstream(self) -> None:
        """The upstream takes more."""
        self.downstream.resume()
        if not self.request_done:
            self._set_body_deadline()

    # forward > relay

    def relay(self, data: bytes, size: int, last: bool = False) -> None:
        """Write response bytes, ``size`` of them body payload; ``last`` are those after which `complete` comes."""
        self.answered = True
        self.response_body_size += size
        self.downstream.send(data, last and not self.keep)

    def client_paused(self) -> None:
        """The client reads slower than the upstream sends: stop reading the upstream."""
        attempt = self.attempt
        if attempt is not None and attempt.upstream is not None and not self._flushing:
            attempt.upstream.transport.pause_reading()
            attempt.upstream.deadline = NEVER
        self.downstream.deadline = self.worker.clock.now + self.worker.bounds.send

    def client_resumed(self) -> None:
        """The client has read what was waiting."""
        self.downstream.deadline = NEVER
        if self._flushing:
            self.finish(time_ns())
            return
        attempt = self.attempt
        if attempt is not None and attempt.upstream is not None and not self._finished:
            attempt.upstream.transport.resume_reading()
            if self.request_done:
                attempt.upstream.deadline = self.worker.clock.now + self.read_timeout
            elif self.downstream.reading():
                self._set_body_deadline()

    def complete(self, now_ns: int) -> None:
        """The whole response has been read and written."""
        if self.downstream.stalled:
            self._flushing = True  # the end is when the client has taken the last byte, or leaves
            self.downstream.deadline = self.worker.clock.now + self.worker.bounds.send
        else:
            self.finish(now_ns)

    # What ends early

    def client_ended(self) -> bool:
        """The client ended its way (half-close); returns whether its connection stays open for the answer."""
        if self.tunnel is not None:
            return self.tunnel.downstream_ended()
        if not self.request_done:
            self.client_gone()
            return False
        if not self.answered and self.version:
            # A close and a half-close look the same. An interim response is legal at any time (RFC 9110 section
            # 15.2), and only a client that has really left answers it with a reset, which the sweep looks for.
            self.downstream.transport.write(answers.CONTINUE)
        return True

    def client_gone(self) -> None:
        """The client's connection is gone: cancel the upstream request. Not an error (OpenTelemetry, HTTP spans)."""
        if self.tunnel is not None:
            self.tunnel.close()
        elif self._flushing and not self.downstream.unsent():
            self.finish(time_ns())
        elif not self._finished:
            self._start_trace()
            self.outcome = Kind.CLIENT_GONE.label
            if self.attempt is not None:
                self.attempt.cancel()
            self.finish(time_ns())

    def continued(self) -> None:
        """The body is asked for (100 Continue), or comes unasked: from now on it is the client who is waited for."""
        if self.expects:
            self.expects = False
            if self.attempt is not None and self.attempt.upstream is not None:
                self.attempt.upstream.deadline = NEVER
            self._set_body_deadline()

    def overdue(self) -> None:
        """The downstream's deadline has passed."""
        if self._flushing or self.answered or self.downstream.stalled:
            self.fail(Fault(Kind.CLIENT_STALLED))
        else:
            self.fail(Fault(Kind.REQUEST_TIMEOUT, "the request body stopped arriving"))

    def attempt_failed(self, attempt: Attempt, fault: Fault) -> None:
        """An attempt failed: try again where that is safe, else answer."""
        if self._finished:
            return
        if may_retry(self, attempt, fault.kind):
            self.again()
        else:
            self.fail(fault)

    def again(self) -> None:
        """Make another attempt."""
        self._try(time_ns())

    def fail(self, fault: Fault) -> None:
        """End with a fault: its answer while one can still be sent, else a cut connection."""
        if self._finished:
            return
        self._start_trace()
        if self.attempt is not None:
            self.attempt.cancel()
        kind = fault.kind
        if kind is Kind.CLIENT_GONE:
            self.outcome = kind.label
        else:
            self.error_type = kind.label
        self.detail = fault.detail
        if self.answered or not kind.status:
            self.downstream.abort()
            self.finish(time_ns())
            return
        if kind.side.value == "downstream" and kind not in _ROUTED:
            self.keep = False
        body, content_type = answers.fault_body(kind, self.trace_id.hex(), self.head.noted.get(b"accept", b""))
        extra = b"Allow: GET, HEAD, POST, PUT, DELETE, PATCH, OPTIONS, QUERY\r\n" if kind.status == 405 else b""
        self._answer(kind.status, body, content_type, extra)

    def _answer(self, status: int, body: bytes, content_type: bytes, extra: bytes) -> None:
        """Answer in the upstream's stead."""
        self.status = status
        self.keep = may_keep(self)
        extra += own_lines(self)
        head_only = self.method == b"HEAD"
        data = answers.answer(
            status, body, content_type, extra, keep=self.keep, minor=self.version, head_only=head_only
        )
        self.relay(data, 0 if head_only else len(body), True)
        self.complete(time_ns())

    def _start_trace(self) -> None:
        if not self.trace_id:
            trace(self, None)

    # close

    def finish(self, end_ns: int) -> None:
        """The one end: span, metrics, log, and the connection's next request."""
        if self._finished:
            return
        self._finished = True
        self._flushing = False
        self.end_ns = end_ns
        if self.attempt is None:
            self.self_ns = end_ns - self.entry_ns
        self.worker.record(self)
        self.attempt = None
        self.tunnel = None
        self.downstream.finished(self.keep, 0 if self.request_done or self.upload is None else self.upload.left)
