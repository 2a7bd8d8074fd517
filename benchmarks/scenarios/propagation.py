"""The controller: how soon every worker serves what has changed in the cluster."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import ClassVar, Final

from benchmarks.lab import Lab
from benchmarks.measure.samples import Reading
from benchmarks.peers.base import Peer, Variant
from benchmarks.peers.catalogue import SPANWAY
from benchmarks.scenarios.base import Level, Metric, Point, Scenario
from tests.kubernetes import changing
from tests.kubernetes.clusters import FakeCluster
from tests.kubernetes.controller import NAMESPACE, Controller
from tests.real import parts
from tests.real.address import own_address

CHANGES: Final = 300
WORKERS: Final = 2
SOON: Final = 0.05  # seconds: the promise, for 99 of 100
LATE: Final = 0.25  # seconds


class Propagation(Scenario):
    """From the watch event to the last worker."""

    name: ClassVar = "propagation"
    title: ClassVar = "Time from a change in the cluster to every worker"
    what: ClassVar = (
        f"'spanway controller' with {WORKERS} workers follows {changing.AMONG:,} Ingresses of a stand-in API server; "
        f"one of them after the other is changed, {CHANGES} in all, {changing.EVERY * 1000:g} ms apart. Its own "
        "histogram says how long each took from the watch event until the last worker had it. The API server and both "
        "workers share the machine's CPUs."
    )
    variants: ClassVar = (SPANWAY,)
    metrics: ClassVar = (
        Metric("soon", f"of the changes, live within {SOON * 1000:g} ms", "", less_is_better=False, main=True),
        Metric("late", f"of the changes, live within {LATE * 1000:g} ms", "", less_is_better=False),
    )
    rounds: ClassVar = 3

    def points(self, _level: Level) -> Sequence[Point]:
        """One."""
        return (Point(),)

    def warm(self, lab: Lab, peer: Peer, point: Point) -> None:
        """Nothing: each round has a controller of its own."""

    def lasts(self, _seconds: float, _point: Point) -> float:
        """A start, and the changes."""
        return 8.0 + CHANGES * 2 * changing.EVERY

    def measure(self, lab: Lab, _peer: Peer, _variant: Variant, _point: Point) -> Reading:
        """One controller's life."""
        folder = _fresh(lab.folder)
        # An API server takes no loopback address of an endpoint. Nobody listens at this one, which is an answer: 502.
        with own_address(parts.find("ip")) as address, FakeCluster(folder / "cluster") as cluster:
            cluster.namespace(NAMESPACE)
            changing.fill(cluster, address, lab.upstream.port)
            controller = Controller(folder / "controller", cluster, workers=WORKERS)
            try:
                controller.serves(changing.LAST, 502)
                soon, late = changing.change(cluster, controller, CHANGES, (SOON, LATE))
            finally:
                controller.stop()
        return Reading({"soon": soon, "late": late}, {})


def _fresh(folder: Path) -> Path:
    number = 1
    while (made := folder / f"propagation-{number}").exists():
        number += 1
    made.mkdir()
    return made
