"""From a request's record to the bytes of its spans: the only encoder on the request path.

Written for speed, as every recorded request passes here. What repeats comes from bounded caches of encoded chunks
(`trace.chunks`), or is kept on the route or the connection that it is of; ids, times and numbers of the usual request
are one `struct.pack` per span, numbers as varints of fixed width (`trace.wire`). What does not fit that width, or did
not happen, is written piece by piece instead and means the same.
"""

from __future__ import annotations

import struct
from typing import Final

from proxy.settings import Tracing
from proxy.trace import chunks, numbers, semconv, wire
from proxy.trace.record import AttemptRecord, Link, RequestRecord, RouteIdentity, UpstreamIdentity
from proxy.trace.redact import Redactor
from proxy.trace.segments import Segments

CACHED: Final = 4096
"""Most entries of each cache. A client may choose port, method and User-Agent, so a full cache starts anew."""

# Bytes. What is longer is encoded each time, so that an entry is bounded as well as their number.
_CACHED_METHOD: Final = 32
_CACHED_AGENT: Final = 256
_CACHED_ADDRESS: Final = 64

# opentelemetry-proto: field number << 3 | wire type, and the length where it is fixed.
_SPANS: Final = b"\x12"  # ScopeSpans.spans = 2
_TRACE_ID: Final = b"\x0a\x10"  # Span.trace_id = 1, 16 bytes
_SPAN_ID: Final = b"\x12\x08"  # Span.span_id = 2, 8 bytes
_TRACE_STATE: Final = 3
_PARENT_ID: Final = b"\x22\x08"  # Span.parent_span_id = 4, 8 bytes
_START: Final = b"\x39"  # Span.start_time_unix_nano = 7, fixed64
_END: Final = b"\x41"  # Span.end_time_unix_nano = 8, fixed64
_LINKS: Final = 13
_LINK_ATTRIBUTES: Final = 4  # a KeyValue, of key = 1 and value = 2, an AnyValue, of int_value = 3
_KEY, _VALUE, _INT_VALUE = 1, 2, 3
_LINK_FLAGS: Final = b"\x35"  # Link.flags = 6, fixed32
_FLAGS: Final = b"\x85\x01"  # Span.flags = 16, fixed32
_W3C_FLAGS: Final = 0xFF  # SpanFlags: the trace flags
_LOCAL: Final = 0x100  # the parent is known not to be remote, as it is for a root
_REMOTE: Final = 0x300  # the parent is known to be remote

_NARROW, _LOW = wire.NARROW, wire.LOW
_N, _W = wire.NARROW_BITS, wire.WIDE_BITS
_MASK: Final = (1 << _N) - 1
_PORTS: Final = 1 << 16

_ADMIT: Final = wire.integer_head(semconv.ADMIT_US.name, 2)
_ROUTE: Final = wire.integer_head(semconv.ROUTE_US.name, 2)
_SELF: Final = wire.integer_head(semconv.SELF_US.name, 2)
_LAG: Final = wire.integer_head(semconv.LOOP_LAG_US.name, 2)
_PEER_PORT: Final = wire.integer_head(semconv.NETWORK_PEER_PORT.name, 3)
_SIZE: Final = wire.integer_head(semconv.HTTP_RESPONSE_BODY_SIZE.name, 4)
_WAIT: Final = wire.integer_head(semconv.WAIT_US.name, 4)
_RELAY: Final = wire.integer_head(semconv.RELAY_US.name, 4)
_Q0: Final = wire.integer_head(semconv.REQUEST_START.name, 4)
_Q1: Final = wire.integer_head(semconv.REQUEST_END.name, 4)
_P0: Final = wire.integer_head(semconv.RESPONSE_START.name, 4)
_P1: Final = wire.integer_head(semconv.RESPONSE_END.name, 4)
_write_name: Final = wire.delimited_writer(chunks.NAME)
_write_host: Final = wire.text_writer(semconv.SERVER_ADDRESS.name)
_write_query: Final = wire.text_writer(semconv.URL_QUERY.name)
_write_trace_state: Final = wire.delimited_writer(_TRACE_STATE)
_write_request_size: Final = wire.integer_writer(semconv.HTTP_REQUEST_BODY_SIZE.name)


def _row(form: str, *heads: bytes) -> str:
    return "".join(f"{len(head)}s{form}" for head in heads)


_IDS: Final = "<2s16s2s8ssQsQ2sI"
_pack_ids: Final = struct.Struct(_IDS).pack
_pack_server: Final = struct.Struct(
    _IDS + _row("H", _ADMIT, _ROUTE, _SELF, _LAG) + _row("HB", _PEER_PORT) + _row("HH", _SIZE)
).pack
_pack_client: Final = struct.Struct(_IDS + "2s8s" + _row("HH", _WAIT, _RELAY, _Q0, _Q1, _P0, _P1)).pack

# By the length of what follows. A path of no bytes is no attribute.
_SHORT: Final = 256
_SHORT_URL: Final = 512
_SHORT_SPAN: Final = 2048
_PATH: Final = (b"", *(wire.text_head(semconv.URL_PATH.name, length) for length in range(1, _SHORT)))
_URL: Final = tuple(wire.text_head(semconv.URL_FULL.name, length) for length in range(_SHORT_URL))
_SPAN: Final = tuple(_SPANS + wire.varint(length) for length in range(_SHORT_SPAN))

_ServerKey = tuple[int, int, bytes, int, str, int, str, str]
_ClientKey = tuple[bytes, str, int, str, int, str, int, bool, bool]
_PeerKey = tuple[str, str, bytes]


class Encoder:
    """Encodes records to the settings of ``tracing``: known methods and redacted query parameters."""

    __slots__ = ("_chunks", "_clients", "_peers", "_redactor", "_servers")

    def __init__(self, tracing: Tracing) -> None:
        self._chunks = chunks.Chunks(tracing.known_methods)
        self._redactor = Redactor(tracing.redact)
        self._servers: dict[_ServerKey, tuple[bytes, bytes]] = {}
        self._clients: dict[_ClientKey, tuple[bytes, bytes]] = {}
        self._peers: dict[_PeerKey, bytes] = {}

    def __repr__(self) -> str:
        return f"Encoder({len(self._servers)} server, {len(self._clients)} client, {len(self._peers)} peer chunks)"

    def append(self, record: RequestRecord, segments: Segments, most: int) -> int:
        """Add what `encode` makes of ``record`` to ``segments``, and return 0. Where they would have more than ``most``
        bytes then, nothing is added, and its own are returned."""
        blob = self.encode(record)
        if segments.size + len(blob) > most:
            return len(blob)
        segments.add(blob)
        return 0

    def encode(self, record: RequestRecord) -> bytes:
        """The SERVER span of ``record`` and a CLIENT span for each attempt, as `ScopeSpans.spans` fields."""
        outcome = record.outcome
        error = record.error_type
        verb, static = self.server_chunk(record)
        route = record.route
        if route is None:
            name, attributes = verb, b""
        else:
            name, _, attributes = (route.span_parts or parts(route)).partition(chunks.NAME_END)
            name = name.replace(chunks.VERB, verb)
        where = address(record.host)
        peer = self.peer_chunk(record)

        path = record.path
        length = len(path)
        if length < _SHORT and path.isascii():
            path_head = _PATH[length]
        else:
            path = wire.utf8(path, chunks.URL_LIMIT)
            path_head = wire.text_head(semconv.URL_PATH.name, len(path))
        target = path
        rest = b""
        if record.query:
            query = wire.utf8(self._redactor.query(record.query), chunks.URL_LIMIT)
            target = b"".join((path, b"?", query))
            rest = _write_query(query)
        state = b""
        if record.tracestate:
            state = _write_trace_state(record.tracestate)
            rest += state
        if record.link is not None and record.link.trace_id:
            rest += _link(record.link)
        if record.request_body_size:
            rest += _write_request_size(record.request_body_size)
        if record.tcp is not None:
            rest += numbers.tcp(record.tcp)

        flags = record.flags & _W3C_FLAGS | _LOCAL
        if record.parent_id:
            rest += _PARENT_ID + record.parent_id
            flags |= _REMOTE
        start = record.start_ns
        end = record.end_ns
        if end < start:
            end = start
        # One test for a row of numbers: whatever is negative, because it never happened, or too large for its width
        # leaves bits above it.
        admit = (record.admit_ns - start) // 1000
        routed = (record.route_ns - record.admit_ns) // 1000
        own = record.self_ns // 1000
        lag = record.loop_lag_us
        port = record.peer_port
        size = record.response_body_size
        if not (admit | routed | own | lag) >> _N and 0 < size < 1 << _W and 0 < port < _PORTS:
            head = _pack_server(
                _TRACE_ID, record.trace_id, _SPAN_ID, record.span_id, _START, start, _END, end, _FLAGS, flags,
                _ADMIT, _NARROW[admit], _ROUTE, _NARROW[routed], _SELF, _NARROW[own], _LAG, _NARROW[lag],
                _PEER_PORT, _LOW[port & _MASK], port >> _N, _SIZE, _LOW[size & _MASK], _NARROW[size >> _N],
            )  # fmt: skip
        else:
            head = _pack_ids(
                _TRACE_ID, record.trace_id, _SPAN_ID, record.span_id, _START, start, _END, end, _FLAGS, flags
            )
            rest += numbers.server(record)
        span = b"".join((head, _write_name(name), static, where, attributes, peer, path_head, path, rest))
        length = len(span)
        spans = [_SPAN[length] if length < _SHORT_SPAN else _SPANS + wire.varint(length), span]

        attempts = record.attempts
        if attempts:
            if record.sent_path:  # of the rest only the query is the same
                target = wire.utf8(record.sent_path, chunks.URL_LIMIT) + target[len(path) :]
            gone = outcome == semconv.CLIENT_GONE or error == semconv.CLIENT_GONE
            for attempt in attempts:
                span = self._attempt(record, attempt, gone and attempt is attempts[-1], target, state, start, end)
                length = len(span)
                spans.append(_SPAN[length] if length < _SHORT_SPAN else _SPANS + wire.varint(length))
                spans.append(span)
        return b"".join(spans)

    def _attempt(
        self,
        record: RequestRecord,
        attempt: AttemptRecord,
        gone: bool,
        target: bytes,
        state: bytes,
        start: int,
        end: int,
    ) -> bytes:
        """A CLIENT span within the SERVER span's ``start`` and ``end``; ``gone``: the client left during it."""
        static, origin = self.client_chunk(record, attempt, gone)
        connection = attempt.connection
        ends = b"" if connection is None else connection.span_attributes or _ends(connection)
        length = len(origin) + len(target)
        url_head = _URL[length] if length < _SHORT_URL else wire.text_head(semconv.URL_FULL.name, length)

        begin = attempt.start_ns
        if not start <= begin <= end:
            begin = start if begin < start else end
        finish = attempt.end_ns
        if not begin <= finish <= end:
            finish = begin if finish < begin else end
        first = attempt.first_byte_ns
        wait = (first - attempt.sent_ns) // 1000
        relay = (finish - first) // 1000
        q0 = attempt.request_start
        q1 = attempt.request_end
        p0 = attempt.response_start
        p1 = attempt.response_end
        flags = record.flags & _W3C_FLAGS | _LOCAL
        if not (wait | relay | q0 | q1 | p0 | p1) >> _W:
            head = _pack_client(
                _TRACE_ID, record.trace_id, _SPAN_ID, attempt.span_id, _START, begin, _END, finish, _FLAGS, flags,
                _PARENT_ID, record.span_id,
                _WAIT, _LOW[wait & _MASK], _NARROW[wait >> _N], _RELAY, _LOW[relay & _MASK], _NARROW[relay >> _N],
                _Q0, _LOW[q0 & _MASK], _NARROW[q0 >> _N], _Q1, _LOW[q1 & _MASK], _NARROW[q1 >> _N],
                _P0, _LOW[p0 & _MASK], _NARROW[p0 >> _N], _P1, _LOW[p1 & _MASK], _NARROW[p1 >> _N],
            )  # fmt: skip
        else:
            head = _pack_ids(
                _TRACE_ID, record.trace_id, _SPAN_ID, attempt.span_id, _START, begin, _END, finish, _FLAGS, flags
            )
            head = b"".join((head, _PARENT_ID, record.span_id, numbers.client(attempt, finish)))
        if attempt.connect_ns or attempt.queue_ns or attempt.dns_ns or attempt.tls_ns:
            head += numbers.opening(attempt)
        if attempt.tcp is not None:
            head += numbers.tcp(attempt.tcp)
        return b"".join((head, static, ends, url_head, origin, target, state))

    # What repeats

    def server_chunk(self, record: RequestRecord) -> tuple[bytes, bytes]:
        """`Chunks.server`, remembered."""
        key = (
            record.generation,
            record.status,
            record.method,
            record.server_port if record.host else 0,
            record.scheme,
            record.version,
            record.outcome,
            record.error_type,
        )
        try:
            return self._servers[key]
        except KeyError:
            return self._server(record, key)

    def peer_chunk(self, record: RequestRecord) -> bytes:
        """`chunks.peer`, remembered."""
        key = (record.client_address, record.peer_address, record.user_agent)
        try:
            return self._peers[key]
        except KeyError:
            return self._peer(record, key)

    def client_chunk(self, record: RequestRecord, attempt: AttemptRecord, gone: bool) -> tuple[bytes, bytes]:
        """`Chunks.client` and `chunks.origin`, remembered."""
        key = (
            record.method,
            attempt.host,
            attempt.port,
            attempt.scheme,
            attempt.status,
            attempt.error_type,
            attempt.resend,
            attempt.reused,
            gone,
        )
        try:
            return self._clients[key]
        except KeyError:
            return self._client(attempt, key)

    def _server(self, record: RequestRecord, key: _ServerKey) -> tuple[bytes, bytes]:
        entry = self._chunks.server(record)
        if len(record.method) <= _CACHED_METHOD:
            if len(self._servers) >= CACHED:
                self._servers.clear()
            self._servers[key] = entry
        return entry

    def _peer(self, record: RequestRecord, key: _PeerKey) -> bytes:
        chunk = chunks.peer(record)
        if len(record.user_agent) <= _CACHED_AGENT and len(record.client_address) <= _CACHED_ADDRESS:
            if len(self._peers) >= CACHED:
                self._peers.clear()
            self._peers[key] = chunk
        return chunk

    def _client(self, attempt: AttemptRecord, key: _ClientKey) -> tuple[bytes, bytes]:
        method, gone = key[0], key[-1]
        entry = self._chunks.client(method, attempt, gone), chunks.origin(attempt)
        if len(method) <= _CACHED_METHOD:
            if len(self._clients) >= CACHED:
                self._clients.clear()
            self._clients[key] = entry
        return entry


def parts(route: RouteIdentity) -> bytes:
    """`chunks.route`, from now on kept on ``route``."""
    made = route.span_parts = chunks.route(route)
    return made


def address(host: bytes) -> bytes:
    """What a SERVER span says of the host that was asked for; nothing where there is none."""
    return _write_host(chunks.host(host)) if host else b""


def _ends(connection: UpstreamIdentity) -> bytes:
    """What all spans of ``connection`` say of its two ends, from now on kept on it."""
    ends = connection.span_attributes = chunks.connection(connection)
    return ends


def _link(link: Link) -> bytes:
    """A context that is linked to, and those after it. Link and Span number ids and trace state alike."""
    state = _write_trace_state(link.tracestate) if link.tracestate else b""
    flags = struct.pack("<I", link.flags & _W3C_FLAGS | _REMOTE)
    said = b""
    if link.generation:
        value = wire.delimited(_VALUE, wire.number(_INT_VALUE, link.generation))
        said = wire.delimited(_LINK_ATTRIBUTES, wire.delimited(_KEY, semconv.GENERATION.name.encode()) + value)
    encoded = wire.delimited(
        _LINKS, b"".join((_TRACE_ID, link.trace_id, _SPAN_ID, link.span_id, state, said, _LINK_FLAGS, flags))
    )
    return encoded if link.more is None else encoded + _link(link.more)
