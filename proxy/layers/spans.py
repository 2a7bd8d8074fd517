"""From a split and its verdict to spans: ``wire`` below the proxy's CLIENT span, and children for what mattered."""

from __future__ import annotations

from collections.abc import Mapping
from functools import lru_cache
from typing import TYPE_CHECKING, Final

from proxy.layers import otlp
from proxy.layers.split import BACKEND, BACKEND_RECEIVE, CLIENT, PROXY_RECEIVE
from proxy.layers.ways import address_text
from proxy.trace import semconv, semconv_wire

if TYPE_CHECKING:
    from proxy.layers.otlp import Value
    from proxy.layers.split import Split
    from proxy.layers.verdict import Verdict
    from proxy.layers.ways import Way
    from proxy.trace.handover import Record

LONG_NS: Final = 1_000_000
"""A place in which this much was spent has a span of its own."""
SHARE: Final = 10
"""So has one with more than one part in so many of the wait, or with loss."""
SHORT_NS: Final = 10_000  # but none that is shorter than a clock is exact

_SELDOM: Final = (CLIENT, BACKEND_RECEIVE)  # places in which most attempts spend no time at all

_PACKETS: Final = otlp.Number(semconv_wire.PACKETS.name)
_BYTES: Final = otlp.Number(semconv_wire.BYTES.name)
_EXCESS_US: Final = otlp.Number(semconv_wire.EXCESS_US.name)
_RETRANSMITTED: Final = otlp.Number(semconv_wire.RETRANSMITTED.name)
_LOST: Final = otlp.Number(semconv_wire.LOST.name)
_ZERO_WINDOW_US: Final = otlp.Number(semconv_wire.ZERO_WINDOW_US.name)
_TIME_US: Final = otlp.Number(semconv_wire.TIME_US.name)
_INCOMPLETE: Final = otlp.attributes({semconv_wire.INCOMPLETE.name: True})

# Below which time, by what it is divided, and its form.
_FORMS: Final = tuple(
    (size * 10**digits, size, f"%.{3 - digits}f {unit}")
    for unit, size in (("us", 1000), ("ms", 1_000_000), ("s", 1_000_000_000))
    for digits in (1, 2, 3)
)

REQUEST: Final = "request"
RESPONSE: Final = "response"


def encode(
    record: Record, split: Split, verdict: Verdict, way: Way, described: Mapping[str, Value] | None = None
) -> tuple[bytes, int]:
    """The spans of one attempt as ``ScopeSpans.spans`` fields, and how many they are.

    ``described`` is what Open vSwitch says of the connection, as attributes.
    """
    ids = otlp.Ids(record.trace_id, record.span_id)
    own_id = ids.of()
    attributes = _attributes(record, split, verdict, way)
    if described:
        attributes += otlp.attributes(described)
    spans = [
        otlp.span(
            record.trace_id,
            own_id,
            record.span_id,
            semconv_wire.WIRE,
            record.write_ns,
            record.end_ns,
            attributes,
            remote=True,
        )
    ]
    for segment, start_ns, end_ns in _mattered(record, split):
        place = split.layout.place_of(segment)
        direction = _direction(segment)
        spans.append(
            otlp.span(
                record.trace_id,
                ids.of(place, direction),
                own_id,
                segment,
                start_ns,
                end_ns,
                _place(place, direction, split.segments[segment], split.lost.get(place, 0)),
                remote=False,
            )
        )
    return b"".join(spans), len(spans)


def _attributes(record: Record, split: Split, verdict: Verdict, way: Way) -> bytes:
    """What the wire span says."""
    size = record.request_end - record.request_start + record.response_end - record.response_start
    parts = [
        _ends(record.local, record.local_port, record.peer, record.peer_port),
        otlp.text(semconv_wire.SPLIT.name, _drawn(split.segments)),
        _known(way, split.anchor),
        _PACKETS.of(split.packets),
        _BYTES.of(size),
        _blamed(verdict.verdict, verdict.place),
        _EXCESS_US.of(verdict.excess_ns // 1000),
    ]
    spent: dict[str, int] = {}
    for place, ns in verdict.places.items():
        if ns or place not in _SELDOM:
            key = _place_us(place)  # of two places, where they differ in nothing but `.` and `-`, say
            spent[key] = spent.get(key, 0) + ns
    parts += [otlp.number_of(key).of(ns // 1000) for key, ns in spent.items()]
    if split.retransmitted:
        parts.append(_RETRANSMITTED.of(split.retransmitted))
    lost = sum(split.lost.values())
    if lost:
        parts.append(_LOST.of(lost))
        parts.append(otlp.word(semconv_wire.LOST_AT.name, max(split.lost, key=split.lost.__getitem__)))
    shut = sum(split.zero_window_ns)
    if shut:
        parts.append(_ZERO_WINDOW_US.of(shut // 1000))
    if split.incomplete:
        parts.append(_INCOMPLETE)
    return b"".join(parts)


@lru_cache(4096)
def _ends(local: bytes, local_port: int, peer: bytes, peer_port: int) -> bytes:
    """What is the same for every attempt on a connection."""
    return otlp.attributes(
        {
            semconv_wire.TRANSPORT.name: "tcp",
            semconv.NETWORK_LOCAL_ADDRESS.name: address_text(local),
            semconv.NETWORK_LOCAL_PORT.name: local_port,
            semconv.NETWORK_PEER_ADDRESS.name: address_text(peer),
            semconv.NETWORK_PEER_PORT.name: peer_port,
        }
    )


@lru_cache(1024)
def _known(way: Way, anchor: str) -> bytes:
    taps = ", ".join([interface.name for interface in way.interfaces])
    return otlp.attributes({semconv_wire.TAPS.name: taps, semconv_wire.ANCHOR.name: anchor})


@lru_cache(1024)
def _blamed(verdict: str, place: str) -> bytes:
    return otlp.attributes({semconv_wire.VERDICT.name: verdict, semconv_wire.VERDICT_PLACE.name: place})


@lru_cache(1024)
def _place_us(place: str) -> str:
    return semconv_wire.place_us(place)


def _drawn(segments: Mapping[str, int]) -> str:
    """A split as text."""
    return " | ".join([f"{name} {duration(ns)}" for name, ns in segments.items() if ns])


def _mattered(record: Record, split: Split) -> list[tuple[str, int, int]]:
    """(segment, start, end) of each segment that is worth a span.

    What a long message visits many times is one span, from its first to its last visit; how much of it was spent there
    is an attribute.
    """
    enough = min(LONG_NS, max((record.end_ns - record.write_ns) // SHARE, SHORT_NS))
    found: dict[str, tuple[int, int]] = {}
    for segment, start_ns, end_ns in split.pieces:
        if split.segments[segment] >= enough or (split.lost and split.lost.get(split.layout.place_of(segment))):
            found[segment] = (found[segment][0] if segment in found else start_ns, end_ns)
    return [(segment, start_ns, end_ns) for segment, (start_ns, end_ns) in found.items()]


def _place(place: str, direction: str, spent_ns: int, lost: int) -> bytes:
    """What the span of a place says."""
    said = otlp.word(semconv_wire.PLACE.name, place) + _TIME_US.of(spent_ns // 1000)
    if direction:
        said += otlp.word(semconv_wire.DIRECTION.name, direction)
    return said + _LOST.of(lost) if lost else said


def _direction(segment: str) -> str:
    """Which way: ``request`` or ``response``; "" for the backend, where one becomes the other."""
    if segment == BACKEND:
        return ""
    return RESPONSE if segment == PROXY_RECEIVE or segment.endswith("<") else REQUEST


def duration(ns: int) -> str:
    """A time in three digits: ``850 ns``, ``12.3 us``, ``1.45 ms``, ``2.10 s``."""
    if ns < 1000:
        return f"{ns} ns"
    for below_ns, size, form in _FORMS:
        if ns < below_ns:
            return form % (ns / size)
    return f"{ns / 1_000_000_000:.0f} s"
