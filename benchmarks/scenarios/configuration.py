"""Configuration: how long one change among many takes, and what a swap does to the requests meanwhile."""

from __future__ import annotations

import itertools
import statistics
import threading
import time
from collections.abc import Mapping, Sequence
from typing import Any, ClassVar, Final

from benchmarks.lab import Lab
from benchmarks.load import openloop
from benchmarks.measure.samples import Reading
from benchmarks.peers import change
from benchmarks.peers.base import Peer, Variant, ask
from benchmarks.peers.catalogue import NGINX, PURE, SPANWAY, UNTRACED
from benchmarks.scenarios.base import Level, Metric, Point, Scenario, settle
from benchmarks.scenarios.rate import LATENCY_METRICS, capacity, learn_capacity

CHANGES: Final = 5  # in one measurement
POLL: Final = 0.002  # seconds between two looks at whether a change is served
PATIENCE: Final = 60.0  # seconds for one change
EVERY: Final = 1.0  # seconds between two swaps under load
SHARE: Final = 0.3  # of capacity: applying a change needs CPU as well, on the same core
NUMBERS: Final = itertools.count(1)


class Apply(Scenario):
    """From the file to the first request."""

    name: ClassVar = "apply"
    title: ClassVar = "Time to apply one change"
    what: ClassVar = (
        "One route is changed among so many Ingresses (nginx: as many servers, and a reload); the time from the "
        "new file to the first request that is routed by it, and the CPU time of all the proxy's processes. "
        "Spanway looks at its files every 0.5 s, which is part of the time; nginx is told."
    )
    metrics: ClassVar = (
        Metric("applied", "until served", "ms", main=True),
        Metric("cpu", "CPU per change", "ms", main=True),
        Metric("slowest", "slowest", "ms"),
        Metric("resident", "resident memory", "B"),
    )
    variants: ClassVar = (NGINX, SPANWAY, PURE)
    axis: ClassVar = "Ingresses: "
    curve: ClassVar = True

    def points(self, level: Level) -> Sequence[Point]:
        """By tens."""
        counts = (1, 100, 1_000, 10_000) if level == Level.FULL else (1_000, 10_000)
        return [Point(f"{count:,}", count) for count in counts]

    def suits(self, variant: Variant, _point: Point) -> bool:
        """Those whose change somebody has written."""
        return variant.name.startswith((NGINX, SPANWAY))

    def place(self, _lab: Lab, point: Point) -> Mapping[str, Any]:
        """So many Ingresses."""
        return {"ingresses": int(point.value)}

    def warm(self, _lab: Lab, peer: Peer, _point: Point) -> None:
        """One change that is not counted."""
        _change(peer)

    def lasts(self, _seconds: float, point: Point) -> float:
        """Parsing all of them takes about a millisecond each."""
        return CHANGES * (1.0 + point.value / 1_000)

    def measure(self, _lab: Lab, peer: Peer, _variant: Variant, _point: Point) -> Reading:
        """Some changes, one after the other."""
        before = settle(peer)
        times = [_change(peer) for _ in range(CHANGES)]
        spent = settle(peer).since(before)
        values = {"applied": statistics.median(times) * 1000, "slowest": max(times) * 1000}
        return Reading(values | {"cpu": spent.cpu_ns / 1e6 / CHANGES, "resident": float(peer.resident())})


def _change(peer: Peer) -> float:
    """Move the route to another path; seconds until a request is routed there."""
    number = next(NUMBERS)
    started = time.monotonic()
    change.write(peer, number)
    while True:
        try:
            ask(peer.address, change.PATH % number, change.HOST)
            return time.monotonic() - started
        except (AssertionError, OSError):
            if time.monotonic() - started > PATIENCE:
                raise RuntimeError(f"{peer.name} does not serve a change after {PATIENCE:.0f} s") from None
            time.sleep(POLL)


class Swap(Scenario):
    """What the requests of the others notice."""

    name: ClassVar = "swap"
    title: ClassVar = "Latency while the configuration is swapped"
    what: ClassVar = (
        f"An open loop at {SHARE:.0%} of capacity among 1,000 Ingresses; with swaps one route changes every "
        f"{EVERY:g} s. The process that builds the new table shares the proxy's core here. Failed requests are a "
        "figure, not a fault: nginx's old workers close idle connections, and a request may be on its way."
    )
    metrics: ClassVar = (
        *LATENCY_METRICS,
        Metric("failed", "failed requests", ""),
        Metric("swaps", "swaps", "", less_is_better=False),
    )
    variants: ClassVar = (NGINX, SPANWAY, UNTRACED, PURE)

    def points(self, _level: Level) -> Sequence[Point]:
        """Without, and with."""
        return (Point("without swaps"), Point("with swaps", 1.0))

    def suits(self, variant: Variant, _point: Point) -> bool:
        """Those whose change somebody has written."""
        return variant.name.startswith((NGINX, SPANWAY))

    def place(self, _lab: Lab, _point: Point) -> Mapping[str, Any]:
        """A thousand."""
        return {"ingresses": 1_000}

    def warm(self, lab: Lab, peer: Peer, point: Point) -> None:
        """Learn its capacity."""
        super().warm(lab, peer, point)
        learn_capacity(lab, peer)

    def measure(self, lab: Lab, peer: Peer, _variant: Variant, point: Point) -> Reading:
        """One open loop, beside the changes."""
        over = threading.Event()
        swaps = [0]

        def swap() -> None:
            while not over.wait(EVERY):
                change.write(peer, next(NUMBERS))
                swaps[0] += 1

        thread = threading.Thread(target=swap, daemon=True)
        if point.value:
            thread.start()
        try:
            found = openloop.run(lab, peer, capacity(lab) * SHARE, max(lab.seconds, 3.0))
        finally:
            over.set()
            if point.value:
                thread.join()
        values = found.values() | {"failed": float(sum(found.errors.values())), "swaps": float(swaps[0])}
        settle(peer)
        return Reading(values, {}, {}, found.latency)
