"""What Open vSwitch itself has reported of a connection by IPFIX: proof that its packets passed a bridge.

A sample names the port at which a packet came in, the point of the pipeline that sampled it, and its connection; its
times are whole milliseconds. So it says which way packets took, never for how long: neighbours on one connection share
a millisecond more often than not, and then share their samples too.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Iterable, Mapping
from itertools import pairwise
from typing import TYPE_CHECKING, Final, NamedTuple

from proxy.layers.switching import OVS
from proxy.layers.ways import address_text
from proxy.trace import semconv_wire

if TYPE_CHECKING:
    from proxy.layers.ipfix import Sample
    from proxy.layers.otlp import Value
    from proxy.layers.ways import Way
    from proxy.trace.handover import Record

SLACK_US: Final = 3000
"""Around an attempt: samples are stamped up to a millisecond early (they are cut to one) and two and a half late."""
MOST: Final = 4096
"""Connections that are remembered; the one that was sampled longest ago goes first."""
EACH: Final = 256
"""Of each, milliseconds with their port and point: more than pass until an attempt is joined."""
TOGETHER: Final = 65_536
"""Of all of them: 32 MB at the most."""
_MOST_NAMES: Final = 8  # that one attribute lists
_LONGEST: Final = 64  # characters of one: a device's has 15, a port of another kind may have more

Key = tuple[str, int, str, int]
"""A direction of a connection: source, port, destination, port."""


class _Seen(NamedTuple):
    """What is kept of a sample, or of several that are the same in all of this."""

    start_us: int
    end_us: int
    point: str  # domain/point
    in_port: str
    out_port: str


class Proofs:
    """The samples of late, by connection."""

    __slots__ = ("_held", "_seen")

    def __init__(self) -> None:
        self._seen: Final[OrderedDict[Key, dict[_Seen, int]]] = OrderedDict()
        self._held = 0

    def __repr__(self) -> str:
        return f"Proofs({len(self._seen)} connections, {self._held} times)"

    def __len__(self) -> int:
        """Directions of connections that are remembered."""
        return len(self._seen)

    def take(self, samples: Iterable[Sample]) -> None:
        """Take in what one datagram brought."""
        for sample in samples:
            key = (sample.source, sample.source_port, sample.destination, sample.destination_port)
            seen = self._seen.pop(key, None) or {}
            self._held -= len(seen)
            one = _Seen(
                sample.start_us,
                sample.end_us,
                f"{sample.domain}/{sample.point}",
                sample.in_interface[:_LONGEST],
                sample.out_interface[:_LONGEST],
            )
            seen[one] = seen.get(one, 0) + sample.packets
            if len(seen) > EACH:
                del seen[next(iter(seen))]
            self._held += len(seen)
            self._seen[key] = seen
            while len(self._seen) > MOST or self._held > TOGETHER:
                _, gone = self._seen.popitem(last=False)
                self._held -= len(gone)

    def of(self, record: Record, way: Way) -> Mapping[str, Value]:
        """What proves an attempt's way, as attributes; none where nothing of its time was sampled."""
        local, peer = address_text(record.local), address_text(record.peer)
        since_us, until_us = record.write_ns // 1000 - SLACK_US, record.end_ns // 1000 + SLACK_US
        up, down = (
            self._seen.get((local, record.local_port, peer, record.peer_port), {}),
            self._seen.get((peer, record.peer_port, local, record.local_port), {}),
        )
        there, back = (
            [seen for seen in each if seen.start_us <= until_us and seen.end_us >= since_us] for each in (up, down)
        )
        if not there and not back:
            return {}
        entered = [seen.in_port for seen in there] + [seen.out_port for seen in back]
        left = [seen.out_port for seen in there] + [seen.in_port for seen in back]
        return {
            name: value
            for name, value in (
                (semconv_wire.IPFIX_PACKETS.name, sum(up[seen] for seen in there) + sum(down[seen] for seen in back)),
                (semconv_wire.IPFIX_BRIDGE.name, _names(_bridges(way, {*entered, *left}))),
                (semconv_wire.IPFIX_POINT.name, _names(seen.point for seen in (*there, *back))),
                (semconv_wire.IPFIX_IN_PORT.name, _names(entered)),
                (semconv_wire.IPFIX_OUT_PORT.name, _names(left)),
            )
            if value
        }


def _names(names: Iterable[str]) -> str:
    """Each once, in their order."""
    return ", ".join(list(dict.fromkeys(filter(None, names)))[:_MOST_NAMES])


def _bridges(way: Way, ports: set[str]) -> Iterable[str]:
    """The bridges of Open vSwitch's on a way that have one of these ports."""
    for place, ends in zip(way.between, pairwise(way.interfaces), strict=True):
        if place.startswith(OVS) and any(end.name in ports for end in ends):
            yield place.removeprefix(OVS)
