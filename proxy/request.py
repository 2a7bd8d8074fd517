"""What an exchange knows: the span's record, and what admission and routing found. State without behaviour."""

from __future__ import annotations

from typing import TYPE_CHECKING

from proxy.trace.record import AttemptRecord, RequestRecord

if TYPE_CHECKING:
    from proxy.admit.forwarded import Claim
    from proxy.attempt import Attempt
    from proxy.connection import Connection
    from proxy.http1.head import RequestHead
    from proxy.net.tcp_info import Reading
    from proxy.relay.upload import Upload
    from proxy.route.table import Route
    from proxy.tunnel import Tunnel
    from proxy.worker import Worker


class Request(RequestRecord):
    """See the module; `Exchange` is the one subclass. ``start_ns`` and ``entry_ns`` are Unix nanoseconds."""

    __slots__ = (
        "answered",  # bool: response bytes have gone to the downstream
        "attempt",  # the current one; None before the first and after the end
        "authority",  # bytes: Host as the client wrote it
        "chunked_out",  # bool: the response goes out in chunks
        "claim",  # what a trusted peer says of the client, None if nothing
        "downstream",
        "entry_ns",  # when the callback began that completed the head
        "expects",  # bool: Expect: 100-continue
        "extra",  # bytes: header lines that admission adds
        "framing",  # int: the request's (http1.framing)
        "head",
        "keep",  # bool: the connection outlives this exchange
        "other_context",  # bytes: header lines of a trusted client's context that we do not replace
        "read_timeout",  # float: seconds between two reads of the upstream
        "remote",  # bool: a trusted peer's trace context came along
        "request_done",  # bool: the whole request has been read
        "request_id",  # bytes: X-Request-ID
        "send_timeout",  # float: seconds between two writes to the upstream
        "target",  # bytes: in normal form, as forwarded
        "tunnel",  # after 101
        "upgrade",  # bytes: the protocol asked for, b"" for none
        "upload",  # the request's body, None without one
        "wants_trailers",  # bool: TE: trailers
        "worker",
    )

    attempts: list[Attempt]
    route: Route | None
    head: RequestHead

    def prepare(self, downstream: Connection, worker: Worker, start_ns: int, entry_ns: int) -> None:
        """What ``__init__`` would do, as a plain call when it is compiled."""
        self.downstream = downstream
        self.worker = worker
        self.start_ns = start_ns
        self.entry_ns = entry_ns
        self.peer_address = downstream.peer_address
        self.peer_port = downstream.peer_port
        self.client_address = downstream.client_address
        self.client_port = downstream.client_port
        self.scheme = downstream.scheme
        self.host = self.path = self.query = self.user_agent = self.method = b""
        self.trace_id = self.request_id = self.upgrade = self.sent_path = b""
        self.target = self.authority = self.extra = self.other_context = b""
        self.version = 1
        self.generation = worker.table.generation
        self.route = None
        self.claim: Claim | None = None
        self.attempt: Attempt | None = None
        self.upload: Upload | None = None
        self.tunnel: Tunnel | None = None
        self.tcp: Reading | None = None
        self.watched = False
        self.remote = self.expects = self.wants_trailers = self.keep = self.chunked_out = self.answered = False
        self.request_done = True
        self.status = self.admit_ns = self.route_ns = self.end_ns = self.self_ns = self.server_port = 0
        self.request_body_size = self.response_body_size = self.framing = 0
        self.read_timeout = self.send_timeout = 0.0
        self.error_type = self.outcome = self.detail = ""
        self.attempts = []

    # What the attempts ask of the exchange.

    def request_bytes(self, attempt: AttemptRecord) -> bytes:
        """The head, with this attempt's span as the parent, and what there is of the body."""
        raise NotImplementedError

    def relay(self, data: bytes, size: int, last: bool = False) -> None:
        """Write response bytes, ``size`` of them body payload."""
        raise NotImplementedError

    def complete(self, now_ns: int) -> None:
        """The whole response has been read and written."""
        raise NotImplementedError
