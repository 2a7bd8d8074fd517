"""A route's counters at one moment, as plain data: what crosses to the supervisor and is added up there."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

import msgspec

if TYPE_CHECKING:
    from collections.abc import Iterable

# Seconds; the advice for http.server.request.duration in the OpenTelemetry semantic conventions.
DURATION_BOUNDS: Final = (0.005, 0.01, 0.025, 0.05, 0.075, 0.1, 0.25, 0.5, 0.75, 1.0, 2.5, 5.0, 7.5, 10.0)
# Seconds; the proxy's own share of a request is tens of microseconds, so its buckets lie a hundred times lower.
SELF_BOUNDS: Final = (1e-05, 2e-05, 3e-05, 5e-05, 7.5e-05, 1e-04, 2.5e-04, 5e-04, 1e-03, 2.5e-03, 5e-03, 1e-02, 1e-01)


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
