"""Records and packets until they meet: what waits, what is due, and what becomes of it.

A record waits until every packet of its attempt is out of the rings' open blocks, is joined once, judged against what
its route usually takes, and leaves as spans, or as a count by the reason why not. Never a guess, and never a second try.
"""

from __future__ import annotations

import heapq
import time
from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Final, NamedTuple

from proxy.layers.baseline import Baseline
from proxy.layers.packet import Flows, Packets, parse
from proxy.layers.spans import encode
from proxy.layers.split import Joiner, Layout, Missing
from proxy.layers.verdict import judge

if TYPE_CHECKING:
    from proxy.layers.otlp import Value
    from proxy.layers.tally import Tally
    from proxy.layers.ways import Way
    from proxy.trace.handover import Record

WAIT_NS: Final = 60_000_000
"""From an attempt's end until it is tried: the rings' blocks come after 20 ms at the latest, and twice as much to spare."""
MOST: Final = 8192
"""Records that wait; later ones are dropped, and counted. Some 4 MB."""
KEPT_NS: Final = 30_000_000_000
"""Packets of attempts that go on are kept for so long; an attempt that took longer is missing."""

Describe = Callable[["Record", "Way"], "Mapping[str, Value] | None"]
"""What Open vSwitch says of a connection, as attributes; None: nothing yet. Never waits."""


class _Waiting(NamedTuple):
    due_ns: int
    number: int  # of its arrival, so that records are never compared
    record: Record
    slots: tuple[int, ...]
    way: Way | None


class Joining:
    """The joiner and its queue. ``offer`` takes encoded spans and their number."""

    def __init__(self, tally: Tally, offer: Callable[[bytes, int], None], describe: Describe | None) -> None:
        self._tally: Final = tally
        self._offer: Final = offer
        self._describe: Final = describe
        self._flows: Final = Flows()
        self._packets: Final = Packets()
        self._joiner: Final = Joiner(self._flows)
        self._baseline: Final = Baseline()
        self._waiting: list[_Waiting] = []

    def __repr__(self) -> str:
        return f"Joining({len(self._waiting)} waiting)"

    @property
    def pending(self) -> int:
        """Records that wait."""
        return len(self._waiting)

    def hear(self, slot: int, block: memoryview) -> None:
        """A block of a tap's ring."""
        packets = self._packets
        if parse(block, self._flows, packets):
            self._joiner.feed(slot, packets)
        packets.clear()

    def add(self, record: Record, slots: tuple[int, ...], way: Way | None) -> None:
        """A record that has arrived, the taps on its way and the way; no slots where none is open."""
