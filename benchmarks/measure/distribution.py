"""Latency distributions: exact counts in buckets of one part in 128, so that rounds can be added up and drawn."""

from __future__ import annotations

import math
from bisect import bisect_right
from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any, Final, Self

STEPS: Final = (
    128  # buckets between a number and its double: a bucket is at most 0.8 % wide, as HdrHistogram's 2 digits
)


@dataclass(frozen=True, slots=True)
class Distribution:
    """Counts by bucket. Values are microseconds and positive; a bucket's value is its upper end, never too low."""

    counts: Mapping[int, int]

    @classmethod
    def count(cls, values: Iterable[float]) -> Self:
        """Of single values."""
        return cls(Counter(bucket(value) for value in values))

    @classmethod
    def of(cls, plain: Mapping[str, int]) -> Self:
        """From JSON."""
        return cls({int(name): count for name, count in plain.items()})

    def plain(self) -> dict[str, Any]:
        """For JSON."""
        return {str(name): self.counts[name] for name in sorted(self.counts)}

    def __add__(self, other: Distribution) -> Distribution:
        return Distribution(Counter(self.counts) + Counter(other.counts))

    @property
    def total(self) -> int:
        """How many values."""
        return sum(self.counts.values())

    def percentile(self, share: float) -> float:
        """The least bucket end that at least ``share`` (0 to 1) of the values do not exceed; 0.0 of no values."""
        return self.percentiles((share,))[0]

    def percentiles(self, shares: Iterable[float]) -> list[float]:
        """`percentile` of many, in one walk."""
        buckets = sorted(self.counts)
        sums: list[int] = []
        seen = 0
        for each in buckets:
            seen += self.counts[each]
            sums.append(seen)
        if not seen:
            return [0.0 for _ in shares]
        return [upper(buckets[bisect_right(sums, max(1, math.ceil(share * seen)) - 1)]) for share in shares]


def bucket(value: float) -> int:
    """The bucket of a value; everything up to 1 microsecond is in bucket 0."""
    return 0 if value <= 1.0 else math.ceil(math.log2(value) * STEPS - 1e-9)


def upper(index: int) -> float:
    """The upper end of a bucket, microseconds."""
    return float(2.0 ** (index / STEPS))
