"""CPU time per request at saturation of one core, and latency at one connection."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, ClassVar, Final

from benchmarks.lab import Lab
from benchmarks.load import wrk
from benchmarks.measure.collector import Collector, endpoints
from benchmarks.measure.samples import Reading
from benchmarks.peers.base import Peer, Variant
from benchmarks.peers.catalogue import DIRECT
from benchmarks.scenarios.base import (
    ADDED,
    EVERYBODY,
    LEAD_IN,
    Metric,
    Point,
    Scenario,
    Watch,
    spans_since,
    spans_so_far,
)

CONNECTIONS: Final = 32
CPU_METRICS: Final = (
    Metric("cpu", "CPU per request", "us", main=True),
    Metric("user", "of it in user mode", "us"),
    Metric("system", "of it in the kernel", "us"),
    Metric("rate", "requests served", "/s", less_is_better=False),
    Metric("per_core", "requests one core can pay for", "/s", less_is_better=False),
)


def saturate(
    lab: Lab,
    peer: Peer,
    variant: Variant,
    connections: int,
    url: str = "",
    lead_in: float = LEAD_IN,
    collector: Collector | None = None,
) -> Reading:
    """Load one peer with ``connections`` and take what a request costs it. ``collector``: another than the lab's."""
    counting = collector or lab.collector
    wrk.run(lab, url or peer.url, connections, lead_in)
    before = Watch.begin(lab, peer)
    spans = spans_so_far(counting) if variant.traced else 0
    loaded = wrk.run(lab, url or peer.url, connections, lab.seconds)
    noise = before.noise(lab, peer, loaded.seconds)
    values = before.spent(peer, loaded.requests)
    values |= {"rate": loaded.rate, "per_core": 1e6 / values["cpu"]}
    faults = dict(loaded.errors)
    if variant.traced:
        expected = variant.spans * loaded.requests * (variant.sampled or 0.0)
        # The load ends in the middle of requests that wrk does not count; of a sampled share only the rest is known.
        arrived = spans_since(counting, spans, expected if variant.strict else 0)
        values["spans"] = arrived / loaded.requests
        if variant.strict and arrived < expected:
            faults["spans that did not arrive"] = int(expected - arrived)
    return Reading(values, faults, noise)


class Cost(Scenario):
    """The first figure: what a request costs."""

    name: ClassVar = "cost"
    title: ClassVar = "CPU time per request"
    what: ClassVar = (
        f"{CONNECTIONS} keep-alive connections as fast as they go, a 430-byte answer, the proxy alone on one core: "
        "CPU time of all its processes, user and kernel, over the requests served."
    )
    metrics: ClassVar = (*CPU_METRICS, Metric("spans", "spans that arrived per request", ""))
    quick: ClassVar = True

    def lasts(self, seconds: float, _point: Point) -> float:
        """Lead-in, load, twice coming to rest, spans arriving."""
        return LEAD_IN + seconds + 2.5

    def measure(self, lab: Lab, peer: Peer, variant: Variant, _point: Point) -> Reading:
        """One saturated load."""
        return saturate(lab, peer, variant, CONNECTIONS)


class Latency(Scenario):
    """What a request waits when nobody else asks."""

    name: ClassVar = "latency"
    title: ClassVar = "Latency at one connection"
    what: ClassVar = (
        "One keep-alive connection, one request at a time (wrk): no queue hides the proxy's own time. 'direct' is "
        "the upstream without a proxy; what a proxy adds is the difference."
    )
    metrics: ClassVar = (
        Metric("p50", "p50", "us", main=True),
        Metric("p90", "p90", "us"),
        Metric("p99", "p99", "us"),
        Metric("p999", "p99.9", "us"),
        Metric(ADDED, "p50 over no proxy", "us"),
        Metric("rate", "requests served", "/s", less_is_better=False),
    )
    variants: ClassVar = (*EVERYBODY, DIRECT)
    quick: ClassVar = True

    def place(self, lab: Lab, _point: Point) -> Mapping[str, Any]:
        """With the collector that decodes later: see `benchmarks.measure.sink`."""
        return endpoints(lab.sink())

    def lasts(self, seconds: float, _point: Point) -> float:
        """Lead-in and load."""
        return LEAD_IN + seconds + 0.3

    def measure(self, lab: Lab, peer: Peer, _variant: Variant, _point: Point) -> Reading:
        """One run over one connection, after a second that is dropped."""
        with lab.unhurried():
            wrk.run(lab, peer.url, 1, LEAD_IN)
            loaded = wrk.run(lab, peer.url, 1, lab.seconds)
        values = {name: float(getattr(loaded, name)) for name in ("p50", "p90", "p99", "p999")}
        return Reading(values | {"rate": loaded.rate}, loaded.errors)
