"""What a scenario is: a question, the points at which it is asked, and how one peer is measured at one of them."""

from __future__ import annotations

import contextlib
import time
from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from enum import IntEnum
from typing import Any, ClassVar, Final

from benchmarks.lab import Lab
from benchmarks.load import wrk
from benchmarks.measure.collector import Collector
from benchmarks.measure.cpu import TreeClock
from benchmarks.measure.machine import CpuTimes
from benchmarks.measure.samples import Reading
from benchmarks.peers.base import Peer, Variant
from benchmarks.peers.catalogue import DIRECT, NGINX, PURE, SPANWAY, UNTRACED

ADDED: Final = "added"  # a metric that is made of a whole round: p50 less that without a proxy
LEAD_IN: Final = 1.0  # seconds under the same load before every measurement, dropped
QUIET: Final = 1_500_000  # CPU nanoseconds in `STEP` seconds: below, a proxy's work for a load is done
STEP: Final = 0.25
PATIENCE: Final = 8.0  # seconds for spans to leave after a load
EVERYBODY: Final = (
    NGINX, "haproxy", SPANWAY, "spanway-10", "spanway-1", UNTRACED, PURE, "spanway-pure-0",
    "envoy", "envoy-traced", "traefik", "traefik-traced", "caddy", "caddy-traced",
)  # fmt: skip
# Where the question is the tail, and tracing may show in it.
TAIL: Final = (NGINX, "haproxy", SPANWAY, UNTRACED, PURE, "envoy-traced", "traefik-traced", "caddy-traced")
# Where the question is not about tracing: each program once, as it is mostly used.
PROGRAMS: Final = (NGINX, "haproxy", SPANWAY, PURE, "envoy", "traefik", "caddy")


class Level(IntEnum):
    """How much is measured."""

    QUICK = 0
    NORMAL = 1
    FULL = 2


@dataclass(frozen=True, slots=True)
class Metric:
    """One figure of a scenario. ``main`` ones are drawn and compared first."""

    name: str
    title: str
    unit: str
    less_is_better: bool = True
    main: bool = False


@dataclass(frozen=True, slots=True)
class Point:
    """One place on a scenario's axis."""

    label: str = ""
    value: float = 0.0


class Scenario(ABC):
    """A question.

    ``quick`` scenarios are the core that --quick asks. ``fresh`` ones start a new peer for each measurement, the
    others measure peers that run through all rounds in turn. ``curve`` says that the points are numbers on a
    (logarithmic) axis.
    """

    name: ClassVar[str]
    title: ClassVar[str]
    what: ClassVar[str]  # one sentence for the page
    metrics: ClassVar[tuple[Metric, ...]]
    variants: ClassVar[tuple[str, ...]] = EVERYBODY
    quick: ClassVar[bool] = False
    full_only: ClassVar[bool] = False
    fresh: ClassVar[bool] = False
    curve: ClassVar[bool] = False
    axis: ClassVar[str] = ""
    rounds: ClassVar[int] = 0  # at most so many, where a round is long; 0: as many as there are

    def __repr__(self) -> str:
        return f"<scenario {self.name}>"

    def points(self, _level: Level) -> Sequence[Point]:
        """Where it is measured."""
        return (Point(),)

    def place(self, _lab: Lab, _point: Point) -> Mapping[str, Any]:
        """Which fields of `Place` a peer of this point has otherwise than all others."""
        return {}

    def within(self, _lab: Lab, _point: Point) -> contextlib.AbstractContextManager[None]:
        """Where its peers are started and warmed up: elsewhere than in this network namespace."""
        return contextlib.nullcontext()

    def suits(self, variant: Variant, _point: Point) -> bool:
        """Whether a variant can be asked."""
        return variant.name != DIRECT or DIRECT in self.variants

    def lasts(self, seconds: float, _point: Point) -> float:
        """About how many seconds one measurement takes, for the progress display."""
        return seconds + 3.0

    def warm(self, lab: Lab, peer: Peer, _point: Point) -> None:
        """What a peer does before its first round; its figures are dropped."""
        wrk.run(lab, peer.url, 32, 2 * LEAD_IN)

    @abstractmethod
    def measure(self, lab: Lab, peer: Peer, variant: Variant, point: Point) -> Reading:
        """One round of one peer."""


@dataclass(frozen=True, slots=True)
class Watch:
    """A proxy's CPU clock and its CPU's, before something."""

    clock: TreeClock
    ticks: CpuTimes

    @classmethod
    def begin(cls, lab: Lab, peer: Peer) -> Watch:
        """Wait until the peer rests, and read the clocks."""
        return cls(settle(peer), CpuTimes.read(lab.cpus.proxy))

    def noise(self, lab: Lab, peer: Peer, seconds: float) -> dict[str, float]:
        """Who else used the proxy's CPU since; to be asked at the end of the load, before `spent`."""
        busy, stolen = CpuTimes.read(lab.cpus.proxy).shares_since(self.ticks)
        used = peer.clock().since(self.clock).cpu_ns / 1e9 / seconds
        return {"used": used, "foreign": max(0.0, busy - used), "stolen": stolen}

    def spent(self, peer: Peer, units: float) -> dict[str, float]:
        """CPU microseconds per unit until the peer rests again: spans still queued when a load ends are its price.

        Raises RuntimeError when there was no unit.
        """
        if not units:
            raise RuntimeError("nothing was served")
        spent = settle(peer).since(self.clock)
        whole = spent.cpu_ns / 1000 / units
        return {"cpu": whole, "user": whole * (1 - spent.system_share), "system": whole * spent.system_share}


def settle(peer: Peer) -> TreeClock:
    """Wait until the peer has no more work from the last load; its clock then."""
    deadline = time.monotonic() + PATIENCE
    before = peer.clock()
    while True:
        time.sleep(STEP)
        now = peer.clock()
        if now.cpu_ns - before.cpu_ns < QUIET or time.monotonic() > deadline:
            return now
        before = now


def spans_since(collector: Collector, before: int, expected: float) -> int:
    """How many spans have arrived since there were ``before``, once it is ``expected`` or patience ends."""
    deadline = time.monotonic() + PATIENCE
    while True:
        count = collector.received().spans - before
        if count >= expected or time.monotonic() > deadline:
            return count
        time.sleep(STEP)


def spans_so_far(collector: Collector) -> int:
    """How many spans the collector has, once no more arrive."""
    deadline = time.monotonic() + PATIENCE
    before = collector.received().spans
    while True:
        time.sleep(STEP)
        now = collector.received().spans
        if now == before or time.monotonic() > deadline:
            return now
        before = now
