"""Medians with their range, and when a difference is one."""

from __future__ import annotations

import itertools
import random

import pytest
from hypothesis import given
from hypothesis import strategies as st

from benchmarks.measure.distribution import Distribution, bucket, upper
from benchmarks.measure.statistics import Spread, chance, judge

FIGURES = st.lists(st.floats(0.1, 1e6), min_size=3, max_size=7)


def test_a_spread_is_the_whole_range() -> None:
    assert Spread.of([3.0, 1.0, 2.0, 10.0]) == Spread(2.5, 1.0, 10.0, 4)
    with pytest.raises(ValueError, match="no rounds"):
        Spread.of([])


def test_overlapping_ranges_are_noise() -> None:
    assert judge([10, 11, 12], [11.9, 13, 14]) == "same"


def test_ranges_apart_are_a_difference() -> None:
    assert judge([10, 11, 12], [12.1, 13, 14]) == "worse"
    assert judge([10, 11, 12], [7, 8, 9]) == "better"
    assert judge([10, 11, 12], [7, 8, 9], less_is_better=False) == "worse"


def test_a_difference_too_small_to_matter_is_none() -> None:
    assert judge([100.0, 100.1, 100.2], [101.0, 101.1, 101.2]) == "same"


def test_two_rounds_say_nothing() -> None:
    assert judge([1, 1], [9, 9, 9]) == "too few rounds"


@given(FIGURES, FIGURES)
def test_the_verdict_does_not_depend_on_the_order_of_rounds(before: list[float], after: list[float]) -> None:
    assert judge(before, after) == judge(before[::-1], sorted(after))


def test_the_chance_of_a_false_alarm_is_as_said() -> None:
    orders = list(itertools.combinations(range(6), 3))
    apart = [one for one in orders if max(one) < 3 or min(one) > 2]
    assert chance(3, 3) == len(apart) / len(orders)
    source = random.Random(7)
    alarms = sum(
        judge([source.gauss(100, 5) for _ in range(3)], [source.gauss(100, 5) for _ in range(3)]) != "same"
        for _ in range(4000)
    )
    assert alarms / 4000 <= chance(3, 3)


@given(st.floats(1.0, 1e9))
def test_a_bucket_is_narrow_and_never_too_low(value: float) -> None:
    end = upper(bucket(value))
    assert value <= end * (1 + 1e-9)
    assert end <= value * 1.0056 or value <= 1.0


@given(st.lists(st.floats(1.0, 1e7), min_size=1, max_size=300), st.sampled_from([0.0, 0.5, 0.9, 0.99, 0.999, 1.0]))
def test_percentiles_are_those_of_the_sorted_values(values: list[float], share: float) -> None:
    ordered = sorted(values)
    exact = ordered[max(0, -(-share * len(ordered) // 1).__int__() - 1)]
    found = Distribution.count(values).percentile(share)
    assert exact * (1 - 1e-9) <= found <= exact * 1.0056


def test_rounds_add_up() -> None:
    one, other = Distribution.count([1.0] * 99), Distribution.count([1000.0])
    both = one + other
    assert both.total == 100
    assert both.percentile(0.99) == 1.0
    assert both.percentile(0.991) == pytest.approx(1000, rel=0.006)
    assert Distribution.of(both.plain()) == both
    assert Distribution({}).percentile(0.5) == 0.0
