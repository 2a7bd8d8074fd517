"""What a route counts: plain integers, written once per request.

Compiled, ``counts.pyx`` beside it stands in its place: there all numbers of a route lie in one piece of memory. Of many
routes each request is the first in a while to touch its own, and then what it costs is the pieces.
"""

from __future__ import annotations

from typing import Final

from proxy.route.samples import DURATION_BOUNDS, SELF_BOUNDS

_DURATION_NS: Final = tuple(round(bound * 1e9) for bound in DURATION_BOUNDS)
_SELF_NS: Final = tuple(round(bound * 1e9) for bound in SELF_BOUNDS)


def fetch(counts: Counts, parts: bytes | None) -> None:
    """Have the memory of counters that `Counts.observe` is about to write, and of ``parts`` of the same route that are
    about to be read, come to the processor while it does something else. Here there is nothing to do."""


class Counts:
    """Counters of requests, their durations and the proxy's own share of these, all from 0."""

    __slots__ = ("_buckets", "_duration_ns", "_exemplars", "_faults", "_self_buckets", "_self_ns", "_statuses")

    def __init__(self) -> None:
        self._statuses: dict[int, int] = {}
        self._faults: dict[str, int] = {}
        self._buckets = [0] * (len(DURATION_BOUNDS) + 1)
        self._self_buckets = [0] * (len(SELF_BOUNDS) + 1)
        self._duration_ns = 0
        self._self_ns = 0
        self._exemplars: list[tuple[bytes, int, int] | None] = [None] * (len(DURATION_BOUNDS) + 1)

    def __repr__(self) -> str:
        return f"Counts({self._statuses} {self._faults})"

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

        ``status`` 0 if nothing was sent; ``error_type`` the fault's label or ""; ``trace_id`` 16 bytes; ``end_ns`` Unix
        nanoseconds. The request becomes its bucket's exemplar if it was recorded, as only then can its trace be found.
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

    def statuses(self) -> dict[int, int]:
        """Requests by the status that was sent, a copy."""
        return dict(self._statuses)

    def faults(self) -> dict[str, int]:
        """Requests by the label of their fault, a copy."""
        return dict(self._faults)

    def durations(self) -> tuple[tuple[int, ...], int]:
        """Requests in each bucket of `samples.DURATION_BOUNDS` and above, and the sum of their durations, ns."""
        return tuple(self._buckets), self._duration_ns

    def own(self) -> tuple[tuple[int, ...], int]:
        """Requests in each bucket of `samples.SELF_BOUNDS` and above, and the sum of the proxy's share of them, ns."""
        return tuple(self._self_buckets), self._self_ns

    def exemplars(self) -> tuple[tuple[bytes, int, int] | None, ...]:
        """The last recorded request of each of `durations`: trace id, duration and end, ns."""
        return tuple(self._exemplars)
