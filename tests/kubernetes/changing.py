"""One change after another among a thousand Ingresses, and how soon every worker had each; a benchmark asks as well."""

from __future__ import annotations

import time
from typing import Final

from tests.harness import poll
from tests.harness.kube_store import Object
from tests.kubernetes.clusters import FakeCluster, ingress_class, site
from tests.kubernetes.controller import Controller

AMONG: Final = 1_000  # Ingresses
EVERY: Final = 0.01  # seconds between two changes
LAST: Final = f"i{AMONG - 1}.test"  # the host of the last of them
_METRIC: Final = "spanway_propagation_duration_seconds"


def only_ingress(number: int, path: str = "/") -> Object:
    """An Ingress of its own host, for a Service that all share."""
    made = site(f"i{number}", "192.0.2.1", [80], path=path)[-1]
    made["spec"]["rules"][0]["http"]["paths"][0]["backend"]["service"]["name"] = "steady"
    return made


def fill(cluster: FakeCluster, address: str, port: int) -> None:
    """All of them, and the Service, whose endpoint is at ``address`` and ``port``."""
    cluster.apply(ingress_class(), *site("steady", address, [port]))
    cluster.client.create(*[only_ingress(number) for number in range(AMONG)])


def change(cluster: FakeCluster, controller: Controller, changes: int, limits: tuple[float, ...]) -> list[float]:
    """Make so many changes, and wait for the last of them.

    The shares of them that every worker had within each of ``limits`` (seconds since the watch event, bounds of the
    histogram's buckets).
    """
    before = [_within(controller, limit) for limit in (None, *limits)]
    for number in range(changes):
        cluster.client.apply(only_ingress(number, f"/v{number}"))
        time.sleep(EVERY)
    poll.until(lambda: _within(controller, None) >= before[0] + changes, "every change", 60)
    whole, *within = (_within(controller, limit) - then for limit, then in zip((None, *limits), before, strict=True))
    return [part / whole for part in within]


def _within(controller: Controller, limit: float | None) -> float:
    if limit is None:
        return controller.count(f"{_METRIC}_count")
    return controller.count(f"{_METRIC}_bucket", le=str(limit))
