"""What a route counts: plain integers, written once per request, turned into metrics only when somebody asks."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

import msgspec

if TYPE_CHECKING:
    from collections.abc import Iterable

    from proxy.route.spec import RouteSpec

# Seconds; the advice for http.server.request.duration in the OpenTelemetry semantic conventions.
DURATION_BOUNDS: Final = (0.005, 0.01, 0.025, 0.05, 0.075, 0.1, 0.25, 0.5, 0.75, 1.0, 2.5, 5.0, 7.5, 10.0)
# Seconds; the proxy's own share of a request is tens of microseconds, so its buckets lie a hundred times lower.
SELF_BOUNDS: Final = (1e-05, 2e-05, 3e-05, 5e-05, 7.5e-05, 1e-04, 2.5e-04, 5e-04, 1e-03, 2.5e-03, 5e-03, 1e-02, 1e-01)

_DURATION_NS: Final = tuple(round(bound * 1e9) for bound in DURATION_BOUNDS)
_SELF_NS: Final = tuple(round(bound * 1e9) for bound in SELF_BOUNDS)


class Exemplar(msgspec.Struct, frozen=True, array_like=True):
    """The last recorded request of a bucket."""

    trace_id: bytes  # 16
    seconds: float
    time: float  # Unix seconds of its end


class RouteSample(msgspec.Struct, frozen=True):
    """A route's counters at one moment, as they cross to the supervisor.

    ``buckets`` and ``self_buckets`` are counts per bucket, not cumulative, one more than there are bounds: the last
    is everything above. Sums are seconds. ``exemplars`` has one place for each of ``buckets``.
    """

    namespace: str
    name: str
    host: str
    path: str
    statuses: dict[int, int]  # status sent -> requests; 0: no response was sent
    faults: dict[str, int]  # fault label -> requests
    buckets: tuple[int, ...]
    seconds: float
    self_buckets: tuple[int, ...]
    self_seconds: float
    exemplars: tuple[Exemplar | None, ...]

    @property
    def requests(self) -> int:
        """Requests observed; each is in exactly one bucket."""
        return sum(self.buckets)


class RouteStats:
    """The counters of one route in one worker; they outlive table swaps (`Ledger`)."""

    __slots__ = (
        "_buckets",
        "_duration_ns",
        "_exemplars",
        "_faults",
        "_self_buckets",
        "_self_ns",
        "_statuses",
        "host",
        "name",
        "namespace",
        "path",
    )

    def __init__(self, namespace: str, name: str, host: str, path: str) -> None:
        self.namespace: Final = namespace
        self.name: Final = name
        self.host: Final = host
        self.path: Final = path
        self._statuses: dict[int, int] = {}
        self._faults: dict[str, int] = {}
        self._buckets = [0] * (len(DURATION_BOUNDS) + 1)
        self._self_buckets = [0] * (len(SELF_BOUNDS) + 1)
        self._duration_ns = 0
        self._self_ns = 0
        self._exemplars: list[tuple[bytes, int, int] | None] = [None] * (len(DURATION_BOUNDS) + 1)

    def __repr__(self) -> str:
        return f"RouteStats({self.namespace}/{self.name} {self.host}{self.path}: {self._statuses} {self._faults})"

    def observe(
        self,
        status: int,
        duration_ns: int,
        self_ns: int,
        error_type: str,
        trace_id: bytes,
        recorded: bool,
        end_ns: int,
    ) -> None:
        """Count one finished request.

        ``status`` 0 if nothing was sent; ``error_type`` the fault's label or ""; ``end_ns`` Unix nanoseconds. The
        request becomes its bucket's exemplar if it was recorded, as only then can its trace be found.
        """
        statuses = self._statuses
        statuses[status] = statuses.get(status, 0) + 1
        if error_type:
            self._faults[error_type] = self._faults.get(error_type, 0) + 1
        # A clock that was set back: what only grows must not shrink (OpenMetrics, counters).
        duration_ns = max(duration_ns, 0)
        self_ns = max(self_ns, 0)
        # bisect_left: a value equal to a bound belongs to that bound's bucket ("le", OpenMetrics).
        bucket = 0  # most requests are in the first, and few far from it: no search
        for bound in _DURATION_NS:
            if duration_ns <= bound:
                break
            bucket += 1
        self._buckets[bucket] += 1
        self._duration_ns += duration_ns
        own = 0
        for bound in _SELF_NS:
            if self_ns <= bound:
                break
            own += 1
        self._self_buckets[own] += 1
        self._self_ns += self_ns
        if recorded:
            self._exemplars[bucket] = (trace_id, duration_ns, end_ns)

    def snapshot(self) -> RouteSample:
        """The counters as plain data."""
        return RouteSample(
            namespace=self.namespace,
            name=self.name,
            host=self.host,
            path=self.path,
            statuses=dict(self._statuses),
            faults=dict(self._faults),
            buckets=tuple(self._buckets),
            seconds=self._duration_ns / 1e9,
            self_buckets=tuple(self._self_buckets),
            self_seconds=self._self_ns / 1e9,
            exemplars=tuple(
                None if kept is None else Exemplar(kept[0], kept[1] / 1e9, kept[2] / 1e9) for kept in self._exemplars
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


def merge(samples: Iterable[RouteSample]) -> list[RouteSample]:
    """The samples of several workers added up per route; of two exemplars the later stays."""
    merged: dict[tuple[str, str, str, str], RouteSample] = {}
    for sample in samples:
        key = (sample.namespace, sample.name, sample.host, sample.path)
        before = merged.get(key)
        merged[key] = sample if before is None else _sum(before, sample)
    return list(merged.values())


def _sum(one: RouteSample, other: RouteSample) -> RouteSample:
    statuses, faults = dict(one.statuses), dict(one.faults)
    for status, count in other.statuses.items():
        statuses[status] = statuses.get(status, 0) + count
    for label, count in other.faults.items():
        faults[label] = faults.get(label, 0) + count
    return msgspec.structs.replace(
        one,
        statuses=statuses,
        faults=faults,
        buckets=tuple(map(sum, zip(one.buckets, other.buckets, strict=True))),
        seconds=one.seconds + other.seconds,
        self_buckets=tuple(map(sum, zip(one.self_buckets, other.self_buckets, strict=True))),
        self_seconds=one.self_seconds + other.self_seconds,
        exemplars=tuple(
            max((kept for kept in pair if kept is not None), key=lambda kept: kept.time, default=None)
            for pair in zip(one.exemplars, other.exemplars, strict=True)
        ),
    )
