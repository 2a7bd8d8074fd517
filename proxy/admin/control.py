"""What `/metrics` says of the way from an event to the workers: builds, generations, propagation."""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Iterator
from typing import Final

import msgspec
from prometheus_client import Metric
from prometheus_client.core import CounterMetricFamily, HistogramMetricFamily

from proxy.trace.ledger import ExportCounters

# Seconds. A build of 10,000 Ingresses takes some 0.7 s, one change among them some 10 ms.
BUILD_BOUNDS: Final = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0)
PROPAGATION_BOUNDS: Final = (0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0)


class Histogram(msgspec.Struct, frozen=True):
    """Durations in seconds; ``buckets`` are counts per bucket, one more than ``bounds``, the last everything above."""

    bounds: tuple[float, ...] = ()
    buckets: tuple[int, ...] = (0,)
    seconds: float = 0.0


class ControlSample(msgspec.Struct, frozen=True):
    """The control plane at one moment. Counts are since the start."""

    events: tuple[tuple[str, str, int], ...] = ()  # kind, verb, number
    builds: Histogram = Histogram()
    propagation: Histogram = Histogram()
    failures: int = 0  # builds that came to nothing, by a mistake of Spanway's own
    export: ExportCounters = ExportCounters()  # of the supervisor's own spans


Seen = tuple[str, str, str, str]
"""An object as it was taken in: kind, namespace, name, resourceVersion."""


class Followed(msgspec.Struct, frozen=True):
    """What has become of the objects that carried a trace's context (annotation ``tracing.k8s.io/traceparent``)."""

    objects: tuple[Seen, ...]  # of which the table has a part
    generation: int  # the newest that has any of them, 0 for none
    idle: tuple[Seen, ...] = ()  # that the table has no part of: of another class, or named by nothing
    served: bool = False  # by every worker
    traces: tuple[str, ...] = ()  # of the generations that they made, hex
    first: str = ""  # trace id of the first request that one of those served, hex


class Tally:
    """Counts durations, in seconds, per bucket."""

    __slots__ = ("_bounds", "_buckets", "_seconds")

    def __init__(self, bounds: tuple[float, ...]) -> None:
        self._bounds: Final = bounds
        self._buckets = [0] * (len(bounds) + 1)
        self._seconds = 0.0

    def __repr__(self) -> str:
        return f"Tally({sum(self._buckets)}, {self._seconds:.3f} s)"

    def add(self, seconds: float) -> None:
        """Count one; a bound belongs to the bucket below it ("le", OpenMetrics)."""
        self._buckets[bisect_left(self._bounds, seconds)] += 1
        self._seconds += seconds

    def histogram(self) -> Histogram:
        """The counts so far."""
        return Histogram(self._bounds, tuple(self._buckets), self._seconds)


def families(sample: ControlSample) -> Iterator[Metric]:
    """The sample as metric families."""
    events = CounterMetricFamily(
        "spanway_config_events",
        "Changes of objects taken in; 'listed': as part of a whole list.",
        labels=("kind", "verb"),
    )
    for kind, verb, number in sample.events:
        events.add_metric((kind, verb), number)
    yield events
    yield CounterMetricFamily(
        "spanway_build_failures", "Builds that failed by a mistake of Spanway's own.", value=sample.failures
    )
    yield _histogram("spanway_build_duration_seconds", "Time to build what had changed.", sample.builds)
    yield _histogram(
        "spanway_propagation_duration_seconds",
        "Time from an event received to its generation served by every worker.",
        sample.propagation,
    )


def _histogram(name: str, text: str, found: Histogram) -> Metric:
    total, lines = 0, list[tuple[str, float]]()
    for place, number in enumerate(found.buckets):
        total += number
        lines.append((repr(found.bounds[place]) if place < len(found.bounds) else "+Inf", total))
    return HistogramMetricFamily(name, text, buckets=lines, sum_value=found.seconds, unit="seconds")
