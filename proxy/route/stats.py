"""The counters of each route of a worker, turned into metrics only when somebody asks."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from proxy.route.counts import Counts
from proxy.route.samples import Exemplar, RouteSample

if TYPE_CHECKING:
    from collections.abc import Iterable

    from proxy.route.spec import RouteSpec


class RouteStats(Counts):
    """The counters of one route in one worker; they outlive table swaps (`Ledger`)."""

    __slots__ = ("host", "name", "namespace", "path")

    def __init__(self, namespace: str, name: str, host: str, path: str) -> None:
        super().__init__()
        self.namespace: Final = namespace
        self.name: Final = name
        self.host: Final = host
        self.path: Final = path

    def __repr__(self) -> str:
        return f"RouteStats({self.namespace}/{self.name} {self.host}{self.path}: {self.statuses()} {self.faults()})"

    def snapshot(self) -> RouteSample:
        """The counters as plain data."""
        buckets, duration_ns = self.durations()
        self_buckets, self_ns = self.own()
        return RouteSample(
            namespace=self.namespace,
            name=self.name,
            host=self.host,
            path=self.path,
            statuses=self.statuses(),
            faults=self.faults(),
            buckets=buckets,
            seconds=duration_ns / 1e9,
            self_buckets=self_buckets,
            self_seconds=self_ns / 1e9,
            exemplars=tuple(
                None if kept is None else Exemplar(kept[0], kept[1] / 1e9, kept[2] / 1e9) for kept in self.exemplars()
            ),
        )


class Ledger:
    """A worker's counters over table swaps: a route that stays keeps counting, one that goes is forgotten.

    ``unrouted`` counts the requests that reached no route. ``of`` is what a `Table` is built with.
    """

    __slots__ = ("_stats", "unrouted")

    def __init__(self) -> None:
        self._stats: dict[tuple[str, str, str, str], RouteStats] = {}
        self.unrouted: Final = RouteStats("", "", "", "")

    def __repr__(self) -> str:
        return f"Ledger({len(self._stats)} routes)"

    def of(self, spec: RouteSpec) -> RouteStats:
        """The counters for a route. An Exact and a Prefix rule for one path share them: metrics name the path only."""
        key = (spec.namespace, spec.name, spec.host, spec.path)
        stats = self._stats.get(key)
        if stats is None:
            stats = self._stats[key] = RouteStats(*key)
        return stats

    def forget(self, gone: Iterable[RouteStats]) -> None:
        """Forget counters. Call it when the table that counts into them serves no request any more."""
        for stats in gone:
            self._stats.pop((stats.namespace, stats.name, stats.host, stats.path), None)

    def samples(self) -> list[RouteSample]:
        """Every route's counters, and the unrouted requests' last."""
        return [*(stats.snapshot() for stats in self._stats.values()), self.unrouted.snapshot()]
