"""Growth: with the number of rules, with the number of workers."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from math import ceil
from pathlib import Path
from statistics import median
from typing import Any, ClassVar, Final

from benchmarks.lab import Lab
from benchmarks.load import wrk
from benchmarks.measure.samples import Reading
from benchmarks.peers.base import CONFIG, HOSTS, Peer, Variant
from benchmarks.peers.catalogue import NGINX, PURE, SPANWAY, UNTRACED
from benchmarks.scenarios.base import LEAD_IN, PROGRAMS, Level, Metric, Point, Scenario, Watch, spans_so_far
from benchmarks.scenarios.cost import CONNECTIONS, CPU_METRICS, saturate

WARM: Final = 10.0  # seconds at most in which each rule is to be asked for once
MORE: Final = 1.3  # times as long as it should take


def first(lab: Lab, what: str, point: Point, value: float) -> float:
    """The median of the values so far at the point 1, to which ``value`` belongs if it is of that point."""
    if point.value == 1:
        lab.rounds.setdefault(what, []).append(value)
    return median(lab.rounds.get(what, [value]))


class Rules(Scenario):
    """Does a route cost more among many?"""

    name: ClassVar = "rules"
    title: ClassVar = "CPU time per request with many rules"
    what: ClassVar = (
        f"Prefix rules over up to {HOSTS} hosts, requests for all of them in turn, {CONNECTIONS} connections; each has "
        "been asked for before. nginx has a server for each host and a location for each rule, as ingress-nginx writes "
        "them."
    )
    metrics: ClassVar = (
        *CPU_METRICS,
        Metric("of_one", "of its own with one rule", "x"),
        Metric("resident", "resident memory", "B"),
    )
    variants: ClassVar = (NGINX, SPANWAY, UNTRACED, PURE)
    axis: ClassVar = "rules: "
    curve: ClassVar = True

    def points(self, level: Level) -> Sequence[Point]:
        """By tens; the first is what the others are compared with."""
        counts = (1, 10, 100, 1_000, 10_000, 100_000) if level == Level.FULL else (1, 1_000, 100_000)
        return [Point(f"{count:,}", count) for count in counts]

    def place(self, _lab: Lab, point: Point) -> Mapping[str, Any]:
        """So many rules."""
        return {"rules": int(point.value)}

    def suits(self, variant: Variant, _point: Point) -> bool:
        """Those whose many rules somebody has written."""
        return variant.name.startswith((NGINX, SPANWAY))

    def measure(self, lab: Lab, peer: Peer, variant: Variant, point: Point) -> Reading:
        """A saturated load on every rule in turn."""
        count = int(point.value)
        script = _script(lab, count)
        warm = wrk.run(lab, peer.url, CONNECTIONS, LEAD_IN, script=script)
        if 0 < warm.requests < count:  # each load begins with the first rule: one that is long enough for all
            longer = ceil(min(WARM, MORE * LEAD_IN * count / warm.requests))
            wrk.run(lab, peer.url, CONNECTIONS, longer, script=script)
            if variant.traced:
                spans_so_far(lab.collector)  # it has room for six seconds of them
        before = Watch.begin(lab, peer)
        loaded = wrk.run(lab, peer.url, CONNECTIONS, lab.seconds, script=script)
        noise = before.noise(lab, peer, loaded.seconds)
        values = before.spent(peer, loaded.requests)
        values |= {"rate": loaded.rate, "per_core": 1e6 / values["cpu"], "resident": float(peer.resident())}
        values["of_one"] = values["cpu"] / first(lab, f"one rule: {variant.name}", point, values["cpu"])
        return Reading(values, loaded.errors, noise)


def _script(lab: Lab, count: int) -> Path:
    path = lab.folder / f"rules-{count}.lua"
    path.write_text(f"local rules, hosts = {count}, {min(count, HOSTS)}\n" + (CONFIG / "rules.lua").read_text())
    return path


class Workers(Scenario):
    """Do two do twice as much?"""

    name: ClassVar = "workers"
    title: ClassVar = "Growth with workers"
    what: ClassVar = (
        "So many workers on as many CPUs; of two CPUs the second worker shares the load's. What they could serve on "
        "free cores is derived: their number over the CPU time of a request, relative to one worker. Locks, shared "
        "queues and cache misses between them show; a load generator that shares a core with them does not hide it."
    )
    variants: ClassVar = (*PROGRAMS, UNTRACED)
    metrics: ClassVar = (
        *CPU_METRICS,
        Metric("scaling", "what they could serve, of one", "x", less_is_better=False),
    )
    axis: ClassVar = "workers: "

    def points(self, level: Level) -> Sequence[Point]:
        """One, two, and four where that many are asked for."""
        return [Point(str(count), count) for count in ((1, 2, 4) if level == Level.FULL else (1, 2))]

    def place(self, lab: Lab, point: Point) -> Mapping[str, Any]:
        """A CPU for each, as far as there are any."""
        return {"workers": int(point.value), "cpus": lab.cpus.last(int(point.value))}

    def measure(self, lab: Lab, peer: Peer, variant: Variant, point: Point) -> Reading:
        """A saturated load."""
        reading = saturate(lab, peer, variant, 2 * CONNECTIONS)
        values = dict(reading.values)
        one = first(lab, f"one worker: {variant.name}", point, values["cpu"])
        values["scaling"] = point.value * one / values["cpu"]
        return Reading(values, reading.faults)  # whose CPU was whose is not told by one CPU's clock
