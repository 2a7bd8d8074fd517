"""The numbers of a span one by one: only those that happened, each as wide as it needs.

What `trace.encode` packs in one go for the usual request, for all others.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from proxy.trace import semconv, wire
from proxy.trace.record import AttemptRecord, RequestRecord

if TYPE_CHECKING:
    from proxy.net.tcp_info import Reading

_response_size: Final = wire.integer_writer(semconv.HTTP_RESPONSE_BODY_SIZE.name)
_peer_port: Final = wire.integer_writer(semconv.NETWORK_PEER_PORT.name)
_admit: Final = wire.integer_writer(semconv.ADMIT_US.name)
_route: Final = wire.integer_writer(semconv.ROUTE_US.name)
_self: Final = wire.integer_writer(semconv.SELF_US.name)
_lag: Final = wire.integer_writer(semconv.LOOP_LAG_US.name)
_queue: Final = wire.integer_writer(semconv.QUEUE_US.name)
_dns: Final = wire.integer_writer(semconv.DNS_US.name)
_connect: Final = wire.integer_writer(semconv.CONNECT_US.name)
_tls: Final = wire.integer_writer(semconv.TLS_US.name)
_wait: Final = wire.integer_writer(semconv.WAIT_US.name)
_relay: Final = wire.integer_writer(semconv.RELAY_US.name)
_request_start: Final = wire.integer_writer(semconv.REQUEST_START.name)
_request_end: Final = wire.integer_writer(semconv.REQUEST_END.name)
_response_start: Final = wire.integer_writer(semconv.RESPONSE_START.name)
_response_end: Final = wire.integer_writer(semconv.RESPONSE_END.name)
_rtt: Final = wire.integer_writer(semconv.TCP_RTT_US.name)
_min_rtt: Final = wire.integer_writer(semconv.TCP_MIN_RTT_US.name)
_segments: Final = wire.integer_writer(semconv.TCP_SEGMENTS.name)
_retransmitted: Final = wire.integer_writer(semconv.TCP_RETRANSMITTED.name)
_rwnd_limited: Final = wire.integer_writer(semconv.TCP_RWND_LIMITED_US.name)
_sndbuf_limited: Final = wire.integer_writer(semconv.TCP_SNDBUF_LIMITED_US.name)
_delivery_rate: Final = wire.integer_writer(semconv.TCP_DELIVERY_RATE.name)


def server(record: RequestRecord) -> bytes:
    """The phases, the peer's port and the response's size of a SERVER span."""
    parts = [_self(_microseconds(record.self_ns)), _lag(max(0, record.loop_lag_us))]
    if record.admit_ns:
        parts.append(_admit(_microseconds(record.admit_ns - record.start_ns)))
        if record.route_ns:
            parts.append(_route(_microseconds(record.route_ns - record.admit_ns)))
    if record.peer_port:
        parts.append(_peer_port(record.peer_port))
    if record.response_body_size:
        parts.append(_response_size(record.response_body_size))
    return b"".join(parts)


def client(attempt: AttemptRecord, finish: int) -> bytes:
    """The phases on the wire and the stream ranges of a CLIENT span that ends at ``finish``."""
    parts = []
    first = attempt.first_byte_ns
    if attempt.write_ns:
        parts.append(_request_start(attempt.request_start))
        parts.append(_request_end(attempt.request_end))
    if first:
        # A response that overtakes its request leaves nothing to wait for.
        if 0 < attempt.sent_ns <= first:
            parts.append(_wait(_microseconds(first - attempt.sent_ns)))
        parts.append(_relay(_microseconds(finish - first)))
        parts.append(_response_start(attempt.response_start))
        parts.append(_response_end(attempt.response_end))
    return b"".join(parts)


def opening(attempt: AttemptRecord) -> bytes:
    """The phases that a reused connection spares."""
    return b"".join(
        (
            _queue(_microseconds(attempt.queue_ns)) if attempt.queue_ns else b"",
            _dns(_microseconds(attempt.dns_ns)) if attempt.dns_ns else b"",
            _connect(_microseconds(attempt.connect_ns)) if attempt.connect_ns else b"",
            _tls(_microseconds(attempt.tls_ns)) if attempt.tls_ns else b"",
        )
    )


def tcp(reading: Reading) -> bytes:
    """The kernel's account of a connection; what is 0, or a kernel's nonsense, is left out."""
    parts = []
    if reading.rtt_us > 0:
        parts.append(_rtt(reading.rtt_us))
    if reading.min_rtt_us > 0:
        parts.append(_min_rtt(reading.min_rtt_us))
    if reading.segments > 0:
        parts.append(_segments(reading.segments))
    if reading.retransmitted > 0:
        parts.append(_retransmitted(reading.retransmitted))
    if reading.rwnd_limited_us > 0:
        parts.append(_rwnd_limited(reading.rwnd_limited_us))
    if reading.sndbuf_limited_us > 0:
        parts.append(_sndbuf_limited(reading.sndbuf_limited_us))
    if reading.delivery_rate > 0:
        parts.append(_delivery_rate(reading.delivery_rate))
    return b"".join(parts)


def _microseconds(duration_ns: int) -> int:
    """Whole microseconds; a clock set back in between must not make a phase negative."""
    return max(0, duration_ns // 1000)
