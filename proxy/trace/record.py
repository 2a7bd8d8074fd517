"""What is remembered of a request while it travels: a few slots, no span objects.

`Exchange` and `Attempt` inherit these; `trace.encode` reads them once, at the end, and writes the OTLP bytes. Every
``*_ns`` is `time.time_ns` (Unix nanoseconds, one clock for all spans of the host), 0 where it did not happen.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Protocol

if TYPE_CHECKING:
    from proxy.net.tcp_info import Reading


class Link:
    """A context that is linked to, never continued: a stranger's, or that of a ``generation`` of the table.

    ``more`` is the next one, None at the end.
    """

    __slots__ = ("flags", "generation", "more", "span_id", "trace_id", "tracestate")

    def __init__(
        self,
        trace_id: bytes,
        span_id: bytes,
        flags: int,
        tracestate: bytes = b"",
        generation: int = 0,
        more: Link | None = None,
    ) -> None:
        self.generation = generation
        self.more = more
        self.trace_id = trace_id
        self.span_id = span_id
        self.flags = flags
        self.tracestate = tracestate

    def __repr__(self) -> str:
        return f"Link({self.trace_id.hex()}-{self.span_id.hex()}-{self.flags:02x})"


class RouteIdentity(Protocol):
    """What spans say of the route; `route.table.Route` is one. ``index`` is unique among a worker's routes.

    What is encoded of it is kept on the route itself, and so for as long as a table has it: the encoder fills
    ``span_parts`` when it meets the route first.
    """

    span_parts: bytes | None

    @property
    def index(self) -> int: ...
    @property
    def host(self) -> str: ...
    @property
    def namespace(self) -> str: ...
    @property
    def name(self) -> str: ...
    @property
    def uid(self) -> str: ...
    @property
    def resource_version(self) -> str: ...
    @property
    def path(self) -> str: ...
    @property
    def span_name(self) -> str: ...


class UpstreamIdentity(Protocol):
    """What spans say of an upstream connection; `connect.connection.Upstream` is one.

    The 5-tuple is fixed for the connection's life, so what is encoded of it is kept on the connection itself: the
    encoder fills ``span_attributes`` on first use, `trace.handover` ``wire_ends``.
    ``tapped`` says that its local port is one whose packets the wire sees.
    """

    local_address: str
    local_port: int
    peer_address: str
    peer_port: int
    span_attributes: bytes | None
    wire_ends: bytes | None
    tapped: bool


class AttemptRecord:
    """One attempt at an upstream: one CLIENT span.

    Stream offsets count bytes within the connection's two streams (ciphertext where it is TLS), half-open, the key
    of the exact join with packets (docs/tracing.md).
    """

    __slots__ = (
        "abandoned",  # bool: given up, or cut, before the response's end
        "connect_ns",  # duration, ns: TCP connect; 0 on a reused connection
        "connection",  # UpstreamIdentity | None: None until connected
        "dns_ns",  # duration, ns: name resolution
        "end_ns",  # last response byte read, or the failure
        "error_type",  # str: fault label, or "" ; a 4xx/5xx status is derived by the encoder
        "first_byte_ns",  # first response byte read
        "host",  # str: server.address of the upstream (endpoint's host)
        "port",  # int: server.port of the upstream
        "queue_ns",  # duration, ns: waited for a connection slot
        "request_end",  # int: offset after the last request byte
        "request_start",  # int: offset of the first request byte
        "resend",  # int: http.request.resend_count, 0 for the first attempt
        "response_end",
        "response_start",
        "reused",  # bool: the connection had served before
        "scheme",  # str: "http" | "https", for url.full
        "sent_ns",  # last request byte handed to the kernel (write of the head when there is no body)
        "span_id",  # bytes, 8
        "start_ns",  # attempt began (before queue, dns, connect, tls)
        "status",  # int: http.response.status_code, 0 if none arrived
        "tcp",  # Reading | None: of the upstream connection, while this attempt had it
        "tls_ns",  # duration, ns: TLS handshake
        "until_close",  # bool: the response ended with its connection
        "write_ns",  # first request byte handed to the kernel
    )

    abandoned: bool
    span_id: bytes
    start_ns: int
    write_ns: int
    sent_ns: int
    first_byte_ns: int
    end_ns: int
    queue_ns: int
    dns_ns: int
    connect_ns: int
    tls_ns: int
    until_close: bool
    status: int
    error_type: str
    resend: int
    reused: bool
    scheme: str
    host: str
    port: int
    connection: UpstreamIdentity | None
    request_start: int
    request_end: int
    response_start: int
    response_end: int
    tcp: Reading | None


class RequestRecord:
    """One request as the downstream made it: one SERVER span."""

    __slots__ = (
        "admit_ns",  # stamp: admission (checks, normal form, trust) finished
        "attempts",  # tuple or list of AttemptRecord, in order
        "client_address",  # str: resolved client (X-Forwarded-For, PROXY protocol), else the peer
        "client_port",  # int: 0 when unknown
        "detail",  # str: a fault's particulars, for the log
        "end_ns",  # stamp: last response byte handed to the kernel, or the failure
        "error_type",  # str: "" on success; a 5xx status without a fault is derived by the encoder
        "flags",  # int: W3C trace flags to send on
        "generation",  # int: table generation that routed it
        "host",  # bytes: server.address, lower-case, no port
        "link",  # Link | None
        "loop_lag_us",  # int: the event loop's latest measured lag
        "method",  # bytes: as sent
        "outcome",  # str: "" | "client_gone" | "upgraded" ...: what happened beyond the status
        "parent_id",  # bytes: 8, or b"" for a root
        "path",  # bytes: url.path in normal form, still percent-encoded
        "peer_address",  # str: network.peer.address
        "peer_port",  # int
        "query",  # bytes: without "?", b"" when absent; redacted by the encoder
        "recorded",  # bool: sampled, so spans are exported
        "request_body_size",  # int: body bytes read from the downstream
        "response_body_size",  # int: body bytes written to the downstream
        "route",  # RouteIdentity | None
        "route_ns",  # stamp: routing finished
        "scheme",  # str: "http" | "https", the original scheme
        "self_ns",  # duration, ns: spent inside the proxy itself
        "sent_path",  # bytes: the path that the upstream is asked for, b"" where it is the same
        "server_port",  # int: port the client asked for (Host, X-Forwarded-Port, or the listener's)
        "span_id",  # bytes, 8
        "start_ns",  # stamp: first byte of the request read
        "status",  # int: 0 when no response was sent
        "tcp",  # Reading | None: of the client's connection, during this request
        "trace_id",  # bytes, 16
        "tracestate",  # bytes: as to be sent on, b"" when none
        "user_agent",  # bytes
        "version",  # int: minor HTTP version, 0 or 1
        "watched",  # bool: recorded, and `spanway wire` is told of it
    )

    trace_id: bytes
    span_id: bytes
    parent_id: bytes
    flags: int
    tracestate: bytes
    link: Link | None
    recorded: bool
    method: bytes
    scheme: str
    host: bytes
    server_port: int
    path: bytes
    query: bytes
    version: int
    watched: bool
    user_agent: bytes
    client_address: str
    client_port: int
    peer_address: str
    peer_port: int
    route: RouteIdentity | None
    generation: int
    status: int
    error_type: str
    detail: str
    outcome: str
    start_ns: int
    admit_ns: int
    route_ns: int
    end_ns: int
    sent_path: bytes
    self_ns: int
    loop_lag_us: int
    request_body_size: int
    response_body_size: int
    attempts: Sequence[AttemptRecord]
    tcp: Reading | None
