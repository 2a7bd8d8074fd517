"""Latency under load that does not wait: an open loop at fixed rates."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, ClassVar, Final

from benchmarks.lab import Lab
from benchmarks.load import openloop, wrk
from benchmarks.measure.collector import endpoints
from benchmarks.measure.samples import Reading
from benchmarks.peers.base import Peer, Variant
from benchmarks.peers.catalogue import DIRECT, NGINX, SPANWAY
from benchmarks.scenarios.base import ADDED, TAIL, Level, Metric, Point, Scenario, Watch
from benchmarks.scenarios.cost import CONNECTIONS

CAPACITY: Final = "capacity of "
LATENCY_METRICS: Final = (
    Metric("p99", "p99", "us", main=True),
    Metric("p50", "p50", "us", main=True),
    Metric("p90", "p90", "us"),
    Metric("p999", "p99.9", "us"),
    Metric("max", "greatest", "us"),
)


def learn_capacity(lab: Lab, peer: Peer) -> None:
    """Keep how many requests a second a peer serves at saturation, once."""
    fact = f"{CAPACITY}{peer.name}"
    if fact not in lab.facts:
        wrk.run(lab, peer.url, CONNECTIONS, 1.0)
        lab.facts[fact] = wrk.run(lab, peer.url, CONNECTIONS, 2.0).rate


def capacity(lab: Lab) -> float:
    """The lesser of nginx's and Spanway's capacities, so that a share of it is a rate that both can serve.

    Where neither is measured: the least of all.
    """
    known = {name.removeprefix(CAPACITY): value for name, value in lab.facts.items() if name.startswith(CAPACITY)}
    return min((known[name] for name in (NGINX, SPANWAY) if name in known), default=min(known.values(), default=1000.0))


class Rate(Scenario):
    """The tail, honestly."""

    name: ClassVar = "rate"
    title: ClassVar = "Latency at a fixed rate"
    what: ClassVar = (
        f"An open loop over {openloop.CONNECTIONS} keep-alive connections: requests are due by the clock, and "
        "latency counts from when a request was due, so that a stall is counted for all it delays (coordinated "
        "omission). The rate is a share of what the slower of nginx and Spanway serves at saturation: the same "
        "rate for all."
    )
    metrics: ClassVar = (
        *LATENCY_METRICS,
        Metric(ADDED, "p50 over no proxy", "us"),
        Metric("asked", "asked", "/s", less_is_better=False),
        Metric("served", "served", "/s", less_is_better=False),
        Metric("cpu", "CPU per request", "us"),
        Metric("lag50", "generator late, p50", "us"),
        Metric("lag99", "generator late, p99", "us"),
    )
    variants: ClassVar = (*TAIL, DIRECT)
    quick: ClassVar = True
    axis: ClassVar = "share of capacity: "

    def points(self, level: Level) -> Sequence[Point]:
        """Half load, and around it."""
        shares = {Level.QUICK: (50,), Level.NORMAL: (20, 50, 80), Level.FULL: (10, 20, 35, 50, 65, 80)}[level]
        return [Point(f"{share} %", share / 100) for share in shares]

    def suits(self, variant: Variant, point: Point) -> bool:
        """Without a proxy at half load only: it is there to show what of the tail is the bench's own."""
        return super().suits(variant, point) and (variant.name != DIRECT or point.value == 0.5)

    def place(self, lab: Lab, _point: Point) -> Mapping[str, Any]:
        """With the collector that decodes later: see `benchmarks.measure.sink`."""
        return endpoints(lab.sink())

    def lasts(self, seconds: float, _point: Point) -> float:
        """Warm-up, load, twice coming to rest."""
        return 1.0 + seconds + 1.5

    def warm(self, lab: Lab, peer: Peer, point: Point) -> None:
        """Learn its capacity."""
        super().warm(lab, peer, point)
        learn_capacity(lab, peer)

    def measure(self, lab: Lab, peer: Peer, _variant: Variant, point: Point) -> Reading:
        """One run."""
        return paced(lab, peer, capacity(lab) * point.value)


def paced(lab: Lab, peer: Peer, rate: float) -> Reading:
    """One open-loop run at ``rate``; the CPU time is that of the warm-up's requests too."""
    before = Watch.begin(lab, peer)
    found = openloop.run(lab, peer, rate, lab.seconds)
    noise = before.noise(lab, peer, lab.seconds + 1.0)
    values = {**found.values(), "asked": rate} | {"cpu": before.spent(peer, found.requests)["cpu"]}
    return Reading(values, found.errors, noise, found.latency)
