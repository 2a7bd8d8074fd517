"""What is usual: the rolling median of the time at each place, by route. Deterministic: it depends on the splits it was
given and the stamps in them alone."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final

ROUTES: Final = 1024
"""Routes that are remembered; the one that was longest without an attempt makes room."""

SAMPLES: Final = 128
"""Attempts whose median is the usual."""

APART_NS: Final = 1_000_000_000
"""Once there are enough, one attempt a second is taken in: what is usual changes within minutes, not in one burst."""

ENOUGH: Final = 8
"""Attempts before anything is called usual."""


class _Route:
    __slots__ = ("at", "last_ns", "medians", "samples")

    def __init__(self) -> None:
        self.samples: list[dict[str, int]] = []
        self.at = 0  # the one to be replaced next
        self.last_ns = 0
        self.medians: dict[str, int] = {}


class Baseline:
    """Medians by route and place, of at most `ROUTES` routes."""

    __slots__ = ("_routes",)

    def __init__(self) -> None:
        self._routes: dict[int, _Route] = {}  # the one used last is the last

    def __repr__(self) -> str:
        return f"Baseline({len(self._routes)} routes)"

    def __len__(self) -> int:
        """Routes that are known."""
        return len(self._routes)

    def usual(self, route: int) -> Mapping[str, int] | None:
        """The median of each place in nanoseconds; None for a route of which too little is known."""
        known = self._routes.get(route)
        return known.medians if known is not None and len(known.samples) >= ENOUGH else None

    def add(self, route: int, end_ns: int, places: Mapping[str, int]) -> None:
        """Take in one attempt: nanoseconds by place, and when it ended. Most are not needed, and cost little."""
        known = self._routes.pop(route, None)
        if known is None:
            if len(self._routes) >= ROUTES:
                del self._routes[next(iter(self._routes))]
            known = _Route()
        self._routes[route] = known
        samples = known.samples
        if len(samples) < SAMPLES:
            samples.append(dict(places))
            # While they are few, each counts; then every eighth brings the medians up to date.
            if len(samples) > ENOUGH and len(samples) % ENOUGH:
                return
        elif known.last_ns <= end_ns < known.last_ns + APART_NS:
            return
        else:
            samples[known.at] = dict(places)
            known.at = (known.at + 1) % SAMPLES
        known.last_ns = end_ns
        names = {name for sample in samples for name in sample}
        known.medians = {name: _median([sample.get(name, 0) for sample in samples]) for name in sorted(names)}


def _median(values: list[int]) -> int:
    """The lower median: always one of the values."""
    return sorted(values)[(len(values) - 1) // 2]
