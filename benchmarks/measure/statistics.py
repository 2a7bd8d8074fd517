"""Few rounds, honestly: medians with their whole range, and when a difference is more than noise."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from math import comb
from statistics import median
from typing import Literal, Self


@dataclass(frozen=True, slots=True)
class Spread:
    """Median, least and greatest of the rounds. A range that is shown whole hides nothing that a deviation would."""

    median: float
    low: float
    high: float
    rounds: int

    @classmethod
    def of(cls, values: Sequence[float]) -> Self:
        """Of at least one value; raises ValueError of none."""
        if not values:
            raise ValueError("no rounds, no figure")
        return cls(median(values), min(values), max(values), len(values))


Verdict = Literal["same", "better", "worse", "too few rounds"]


def judge(
    before: Sequence[float], after: Sequence[float], *, less_is_better: bool = True, least: float = 0.03
) -> Verdict:
    """Whether ``after`` differs from ``before`` by more than noise.

    It does when the medians are at least ``least`` (a share) apart and no round of one lies within the range of the
    other. Were both of the same kind, ranges of n and m rounds would lie apart that way with chance `chance(n, m)`:
    1 in 126 for five and five. Below three rounds each that chance is too great to say anything.
    """
    if min(len(before), len(after)) < 3:
        return "too few rounds"
    then, now = Spread.of(before), Spread.of(after)
    reference = abs(then.median) or 1.0
    apart = now.low > then.high or now.high < then.low
    if not apart or abs(now.median - then.median) / reference < least:
        return "same"
    return "better" if (now.median < then.median) == less_is_better else "worse"


def chance(before: int, after: int) -> float:
    """How likely two sets of rounds of one kind lie wholly apart, either way round."""
    return 2 / comb(before + after, before)
