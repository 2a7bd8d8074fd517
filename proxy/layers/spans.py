"""From a split and its verdict to spans: ``wire`` below the proxy's CLIENT span, and children for what mattered."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
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

REQUEST: Final = "request"
RESPONSE: Final = "response"


def encode(
    record: Record, split: Split, verdict: Verdict, way: Way, described: Mapping[str, Value] | None = None
) -> tuple[bytes, int]:
    """The spans of one attempt as ``ScopeSpans.spans`` fields, and how many they are.

    ``described`` is what Open vSwitch says of the connection, as attributes.
    """
    own_id = otlp.span_id(record.trace_id, record.span_id)
    wire = otlp.span(
        record.trace_id,
        own_id,
        record.span_id,
        semconv_wire.WIRE,
        record.write_ns,
        record.end_ns,
        {**_attributes(record, split, verdict, way), **(described or {})},
        remote=True,
    )
    children = [
        otlp.span(
            record.trace_id,
            otlp.span_id(record.trace_id, record.span_id, split.layout.place_of(segment), direction),
            own_id,
            segment,
            start_ns,
            end_ns,
            attributes,
            remote=False,
        )
        for segment, direction, start_ns, end_ns, attributes in _mattered(record, split)
    ]
    return b"".join((wire, *children)), 1 + len(children)


def _attributes(record: Record, split: Split, verdict: Verdict, way: Way) -> dict[str, Value]:
    lost = {place: size for place, size in split.lost.items() if size}
    attributes: dict[str, Value] = {
        semconv_wire.TRANSPORT.name: "tcp",
        semconv.NETWORK_LOCAL_ADDRESS.name: address_text(record.local),
        semconv.NETWORK_LOCAL_PORT.name: record.local_port,
        semconv.NETWORK_PEER_ADDRESS.name: address_text(record.peer),
        semconv.NETWORK_PEER_PORT.name: record.peer_port,
        semconv_wire.SPLIT.name: " | ".join(f"{name} {duration(ns)}" for name, ns in split.segments.items() if ns),
        semconv_wire.TAPS.name: ", ".join(interface.name for interface in way.interfaces),
        semconv_wire.ANCHOR.name: split.anchor,
        semconv_wire.PACKETS.name: split.packets,
        semconv_wire.BYTES.name: record.request_end
        - record.request_start
        + record.response_end
        - record.response_start,
        semconv_wire.VERDICT.name: verdict.verdict,
        semconv_wire.VERDICT_PLACE.name: verdict.place,
        semconv_wire.EXCESS_US.name: verdict.excess_ns // 1000,
    }
    for place, ns in verdict.places.items():
        if ns or place not in _SELDOM:
            attributes[semconv_wire.place_us(place)] = ns // 1000
    if split.retransmitted:
        attributes[semconv_wire.RETRANSMITTED.name] = split.retransmitted
    if lost:
        attributes[semconv_wire.LOST.name] = sum(lost.values())
        attributes[semconv_wire.LOST_AT.name] = max(lost, key=lost.__getitem__)
    if shut := sum(split.zero_window_ns):
        attributes[semconv_wire.ZERO_WINDOW_US.name] = shut // 1000
    if split.incomplete:
        attributes[semconv_wire.INCOMPLETE.name] = True
    return attributes


def _mattered(record: Record, split: Split) -> Iterator[tuple[str, str, int, int, dict[str, Value]]]:
    """(segment, direction, start, end, attributes) of each segment that is worth a span.

    What a long message visits many times is one span, from its first to its last visit; how much of it was spent there
    is an attribute.
    """
    enough = min(LONG_NS, max((record.end_ns - record.write_ns) // SHARE, SHORT_NS))
    for segment, (start_ns, end_ns) in split.marks().items():
        place = split.layout.place_of(segment)
        spent = split.segments[segment]
        lost = split.lost.get(place, 0)
        if spent < enough and not lost:
            continue
        direction = _direction(segment)
        attributes: dict[str, Value] = {semconv_wire.PLACE.name: place, semconv_wire.TIME_US.name: spent // 1000}
        if direction:
            attributes[semconv_wire.DIRECTION.name] = direction
        if lost:
            attributes[semconv_wire.LOST.name] = lost
        yield segment, direction, start_ns, end_ns, attributes


def _direction(segment: str) -> str:
    """Which way: ``request`` or ``response``; "" for the backend, where one becomes the other."""
    if segment == BACKEND:
        return ""
    return RESPONSE if segment == PROXY_RECEIVE or segment.endswith("<") else REQUEST


def duration(ns: int) -> str:
    """A time in three digits: ``850 ns``, ``12.3 us``, ``1.45 ms``, ``2.10 s``."""
    for unit, size in (("s", 1_000_000_000), ("ms", 1_000_000), ("us", 1000)):
        if ns >= size:
            value = ns / size
            return f"{value:.{max(0, 2 - int(value >= 10) - int(value >= 100))}f} {unit}"
    return f"{ns} ns"
