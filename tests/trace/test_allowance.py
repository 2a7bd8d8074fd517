"""Which recorded requests are shown to the wire: a burst, then so many a second, evenly."""

from __future__ import annotations

from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from proxy.trace.allowance import BURST, Allowance

PERIOD = 0.25  # between two refills


def picked(one: Allowance, asking: int) -> list[int]:
    return [number for number in range(asking) if one.take()]


def test_nobody_is_picked_or_counted_while_nobody_listens() -> None:
    one = Allowance(2000)
    assert picked(one, 10) == []
    one.refill(5.0)
    one.close()
    assert picked(one, 10) == []
    assert one.spared == 0


def test_what_is_within_the_rate_is_picked_whole() -> None:
    one = Allowance(2000)
    for number in range(100):
        one.refill(number * PERIOD)
        assert len(picked(one, 500)) == 500
    assert one.spared == 0


def test_a_burst_is_picked_whole_and_a_calm_time_brings_the_next() -> None:
    one = Allowance(2000)
    one.refill(0.0)
    assert len(picked(one, BURST)) == BURST
    one.refill(BURST / 2000)
    assert len(picked(one, BURST)) == BURST


def test_of_more_every_so_manieth_is_picked() -> None:
    one = Allowance(2000)
    now, asking = 0.0, 10_000
    for _ in range(8):
        one.refill(now)
        picked(one, asking)
        now += PERIOD
    one.refill(now)
    chosen = picked(one, asking)
    assert abs(len(chosen) - 500) <= 1
    assert {later - earlier for earlier, later in pairwise(chosen)} == {20}
    assert one.spared > 0


@pytest.mark.parametrize("wave", [(4000, 0), (8000, 0, 0, 0), (1000, 3000), (20_000, 0, 0)])
def test_traffic_in_waves_is_not_picked_whole(wave: tuple[int, ...]) -> None:
    one = Allowance(2000)
    chosen, periods = 0, 400
    for number in range(periods):
        one.refill(number * PERIOD)
        chosen += len(picked(one, wave[number % len(wave)]))
    assert chosen <= BURST + 2000 * PERIOD * periods


@given(st.lists(st.integers(0, 20_000), min_size=1, max_size=40), st.integers(1, 5000))
def test_there_are_never_more_than_a_burst_and_the_rate(asking: list[int], rate: int) -> None:
    one = Allowance(rate)
    chosen = 0
    for number, count in enumerate(asking):
        one.refill(number * PERIOD)
        chosen += len(picked(one, count))
        assert chosen <= BURST + rate * PERIOD * number
    assert chosen + one.spared == sum(asking)
