"""Which recorded requests are shown to the wire: all of few, and of many rows with rests between."""

from __future__ import annotations

from itertools import pairwise

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from proxy.trace.allowance import BURST, KEPT_NS, LONGEST_NS, PERIOD_NS, UNTOLD, Allowance, next_row

SECOND = 1_000_000_000
NOW = 1_790_000_000 * SECOND


def listening(rate: int, now_ns: int = NOW) -> Allowance:
    one = Allowance(rate)
    one.listen(now_ns)
    return one


def traffic(one: Allowance, a_second: int, seconds: float, since_ns: int = NOW) -> list[int]:
    """When requests that came evenly were picked; each is over at once."""
    picked = []
    for number in range(round(a_second * seconds)):
        now_ns = since_ns + number * SECOND // a_second
        if one.take(now_ns):
            picked.append(now_ns)
            one.ended()
    return picked


def used_up(rate: int) -> tuple[Allowance, int]:
    """One whose burst is gone, and when that was."""
    one = listening(rate)
    assert len(traffic(one, 1_000_000, (BURST - 1) / 1e6)) == BURST - 1
    assert one.take(NOW + SECOND // 100)
    return one, NOW + SECOND // 100


def test_nobody_is_picked_or_counted_while_nobody_listens() -> None:
    one = Allowance(2000)
    assert not one.take(NOW)
    one.listen(NOW)
    assert one.take(NOW)
    one.close()
    assert not one.take(NOW)
    assert one.spared == 0
    assert one.resting() == 0


@pytest.mark.parametrize("a_second", [1, 50, 99, 100])
def test_what_is_within_the_rate_is_picked_whole(a_second: int) -> None:
    one = listening(100)
    assert len(traffic(one, a_second, 120)) == 120 * a_second
    assert one.spared == 0
    assert one.resting() == 0


def test_a_calm_time_brings_the_next_burst() -> None:
    one, then = used_up(2000)
    assert not one.take(then)
    calm = then + BURST * SECOND // 2000 + PERIOD_NS
    assert len(traffic(one, 1_000_000, 1.0, calm)) >= BURST


def test_of_more_rows_are_picked_with_rests_between() -> None:
    one, _ = used_up(100)
    since = NOW + 10 * SECOND
    picked = traffic(one, 10_000, 60, since)
    rests = [(a, b) for a, b in pairwise(picked) if b - a > SECOND // 10]
    assert 25 <= len(rests) <= 30
    assert len(picked) <= 100 * 70  # ten seconds of them before
    assert all(b - a <= SECOND // 10_000 for a, b in pairwise(picked) if (a, b) not in rests)
    assert one.spared == 600_000 - len(picked)


def test_slightly_more_than_is_allowed_is_mostly_picked() -> None:
    one, _ = used_up(100)
    picked = traffic(one, 130, 300, NOW + SECOND)
    assert 300 * 100 * 0.95 <= len(picked) <= 301 * 100


def test_it_tells_of_a_rest_once_when_nothing_is_under_way() -> None:
    one, then = used_up(100)
    assert one.resting() == 0  # one is
    one.ended()
    until = one.resting()
    assert then < until <= then + 2 * PERIOD_NS
    assert one.resting() == 0
    assert not one.take(until - 1)
    assert one.take(until)
    assert one.resting() == 0  # it shows again


def test_a_request_that_goes_on_for_long_is_waited_for_some_time_only() -> None:
    one, now = used_up(1000)
    assert one.resting() == 0  # the one that is open
    told = 0
    for row in range(1, 2 * UNTOLD):
        now = next_row(now)
        while one.take(now):
            one.ended()
        told += one.resting() > 0
        if row < UNTOLD:
            assert not told
    assert told == UNTOLD


def test_it_is_busy_for_as_long_as_what_goes_on_may_be_joined() -> None:
    one = listening(100)
    assert not one.busy(NOW)
    assert one.take(NOW)
    assert one.busy(NOW + KEPT_NS - 1)
    assert not one.busy(NOW + KEPT_NS)
    one.ended()
    assert not one.busy(NOW)


def test_workers_begin_their_rows_together() -> None:
    ends = set()
    for late in range(5):
        one = listening(500, NOW + late)
        while one.take(NOW + SECOND + late * 1_000_000):
            one.ended()
        ends.add(one.resting())
    assert len(ends) == 1


@given(st.integers(0, 1 << 61))
@example(0)
def test_rows_begin_in_the_order_of_time_and_not_too_far_apart(now_ns: int) -> None:
    one = next_row(now_ns)
    assert now_ns < one <= now_ns + 2 * PERIOD_NS
    assert next_row(one - 1) == one
    assert PERIOD_NS // 2 <= next_row(one) - one <= 2 * PERIOD_NS


def test_rows_have_no_period() -> None:
    gaps, now = set(), NOW
    for _ in range(64):
        later = next_row(now)
        gaps.add(later - now)
        now = later
    assert len(gaps) > 48
    assert max(gaps) - min(gaps) > PERIOD_NS // 4


def test_a_clock_that_is_set_back_does_not_end_it() -> None:
    one, then = used_up(100)
    one.ended()
    assert not one.take(then)
    before = then - 3600 * SECOND
    assert one.take(before)
    picked = traffic(one, 1000, 30, before + SECOND)
    assert 0.8 * 3000 <= len(picked) <= 3200


def test_the_lowest_rate() -> None:
    one, _ = used_up(1)
    assert 30 <= len(traffic(one, 100, 60, NOW + SECOND)) <= 61


def test_one_that_was_closed_with_some_under_way_begins_anew() -> None:
    one = listening(100)
    assert one.take(NOW)
    one.close()
    one.ended()  # it is over all the same
    one.listen(NOW + SECOND)
    assert "0 open" in repr(one)
    assert len(traffic(one, 1_000_000, 0.01, NOW + SECOND)) == BURST


@given(
    st.lists(st.tuples(st.integers(0, 5 * SECOND), st.integers(1, 9000)), min_size=1, max_size=30),
    st.integers(1, 5000),
)
def test_there_are_never_more_than_a_burst_and_the_rate(waves: list[tuple[int, int]], rate: int) -> None:
    one, now, chosen, asked = listening(rate), NOW, 0, 0
    for later, count in waves:
        now += later
        for _ in range(count):
            asked += 1
            if one.take(now):
                chosen += 1
                one.ended()
        assert chosen <= max(BURST, rate) + rate * (now - NOW) / SECOND + 1
        assert one.resting() <= now + LONGEST_NS
    assert chosen + one.spared == asked
