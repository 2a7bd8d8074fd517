"""The price of tracing: CPU, tail and bytes, with a collector that is there, that works, that is gone, that is slow."""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from typing import Any, ClassVar, Final

from benchmarks.lab import Lab
from benchmarks.load import openloop, wrk
from benchmarks.measure.collector import Collector, Received, endpoints
from benchmarks.measure.samples import Reading
from benchmarks.peers.base import Peer, Variant
from benchmarks.peers.catalogue import NGINX, UNTRACED
from benchmarks.scenarios.base import LEAD_IN, PATIENCE, Level, Metric, Point, Scenario, Watch, settle
from benchmarks.scenarios.cost import CONNECTIONS
from benchmarks.scenarios.rate import capacity, learn_capacity
from tests.real.process import free_ports

SHARE: Final = 0.5  # of capacity, for the tail
SLOW: Final = 2.0  # seconds until a slow collector answers a call
ALIVE, DEAD, LATE, JAEGER = "alive", "dead", f"slow, {SLOW:g} s a call", "Jaeger"


class Price(Scenario):
    """What tracing takes."""

    name: ClassVar = "tracing"
    title: ClassVar = "The price of tracing"
    what: ClassVar = (
        f"CPU per request at saturation ({CONNECTIONS} connections) and the tail at half of capacity (open loop), "
        "with a light collector that counts bytes (OTLP payload before compression); with nobody listening; "
        f"with one that takes {SLOW:g} s to answer each call; with Jaeger decoding each span at once, on the CPU that "
        "load and upstream have."
    )
    metrics: ClassVar = (
        Metric("cpu", "CPU per request", "us", main=True),
        Metric("p99", "p99 at half load", "us", main=True),
        Metric("p999", "p99.9 at half load", "us"),
        Metric("spans", "spans that arrived per request", ""),
        Metric("bytes", "bytes exported per request", "B"),
        Metric("resident", "resident memory", "B"),
    )
    axis: ClassVar = "collector: "

    def points(self, _level: Level) -> Sequence[Point]:
        """All four."""
        return (Point(ALIVE), Point(DEAD, 1.0), Point(LATE, 2.0), Point(JAEGER, 3.0))

    def suits(self, variant: Variant, point: Point) -> bool:
        """A proxy that does not trace has no collector to miss; two such stay as the measure of those that do."""
        measure = variant.traced or variant.name in (NGINX, UNTRACED)
        return super().suits(variant, point) and (point.label == ALIVE or measure)

    def place(self, lab: Lab, point: Point) -> Mapping[str, Any]:
        """Its collector."""
        if point.label == DEAD:
            (port,) = free_ports(1)
            return dict.fromkeys(("grpc", "http"), f"http://127.0.0.1:{port}")
        return endpoints(lab.sink(SLOW) if point.label == LATE else _collector(lab, point))

    def lasts(self, seconds: float, _point: Point) -> float:
        """Two loads."""
        return 2 * seconds + 6.0

    def warm(self, lab: Lab, peer: Peer, point: Point) -> None:
        """Learn its capacity."""
        super().warm(lab, peer, point)
        learn_capacity(lab, peer)

    def measure(self, lab: Lab, peer: Peer, variant: Variant, point: Point) -> Reading:
        """A saturated load, then a paced one."""
        wrk.run(lab, peer.url, CONNECTIONS, LEAD_IN)
        before = Watch.begin(lab, peer)
        received = _received(lab, point)
        loaded = wrk.run(lab, peer.url, CONNECTIONS, lab.seconds)
        noise = before.noise(lab, peer, loaded.seconds)
        values = {"cpu": before.spent(peer, loaded.requests)["cpu"]}
        if variant.traced and point.label in (ALIVE, JAEGER):
            expected = variant.spans * loaded.requests * (variant.sampled or 0.0) if variant.strict else 0.0
            arrived = _arrived(lab, point, received, expected)
            values["spans"] = arrived.spans / loaded.requests
            if arrived.bytes:  # Jaeger does not count them
                values["bytes"] = arrived.bytes / loaded.requests
        settle(peer)
        paced = openloop.run(lab, peer, capacity(lab) * SHARE, lab.seconds)
        values |= {name: paced.values()[name] for name in ("p99", "p999")}
        faults = {**loaded.errors, **{f"paced: {kind}": count for kind, count in paced.errors.items()}}
        return Reading(values | {"resident": float(peer.resident())}, faults, noise, paced.latency)


def _collector(lab: Lab, point: Point) -> Collector:
    return lab.jaeger() if point.label == JAEGER else lab.sink()


def _received(lab: Lab, point: Point) -> Received:
    return _collector(lab, point).received() if point.label in (ALIVE, JAEGER) else Received(0, 0, 0)


def _arrived(lab: Lab, point: Point, before: Received, expected: float) -> Received:
    """What has arrived since ``before``, once it is ``expected`` and no more comes, or patience ends."""
    deadline = time.monotonic() + PATIENCE
    last = Received(-1, 0, 0)
    while True:
        now = _received(lab, point)
        if (now == last and now.spans - before.spans >= expected) or time.monotonic() > deadline:
            return Received(*(after - then for after, then in zip(now, before, strict=True)))
        last = now
        time.sleep(0.5)
