from __future__ import annotations

import pytest

from proxy.control.cluster.faults import Forbidden, TooMany, Unreachable
from proxy.control.cluster.pace import Backoff, Bucket


def waits(backoff: Backoff, number: int) -> list[float]:
    return [backoff.after() for _ in range(number)]


def test_pauses_double_up_to_the_bound() -> None:
    assert waits(Backoff(1.0, 10.0, lambda: 1.0), 6) == [1, 2, 4, 8, 10, 10]


def test_half_of_a_pause_is_chance() -> None:
    assert waits(Backoff(1.0, 10.0, lambda: 0.0), 3) == [0.5, 1, 2]
    mixed = waits(Backoff(), 50)
    assert all(0.25 <= wait <= 10 for wait in mixed)
    assert len(set(mixed)) > 40


def test_success_begins_anew() -> None:
    backoff = Backoff(1.0, 10.0, lambda: 1.0)
    waits(backoff, 5)
    backoff.reset()
    assert backoff.after() == 1


def test_what_the_server_asks_for_is_waited_for_at_least() -> None:
    backoff = Backoff(1.0, 10.0, lambda: 1.0)
    assert backoff.after(TooMany("x", "later", 7.0)) == 7
    assert backoff.after(TooMany("x", "later", 0.0)) == 2


def test_a_refusal_is_not_asked_about_in_a_hurry() -> None:
    backoff = Backoff(1.0, 10.0, lambda: 1.0)
    assert backoff.after(Forbidden("x", "no", 403)) == 30
    assert backoff.after(Unreachable("x", "gone")) == 2


def test_refusals_in_a_row_may_be_asked_about_less_and_less() -> None:
    backoff = Backoff(1.0, 10.0, lambda: 1.0, refusal=100.0)
    no = Forbidden("x", "no", 403)
    assert [backoff.after(no) for _ in range(4)] == [30, 60, 100, 100]
    backoff.reset()
    assert backoff.after(no) == 30


class Clock:
    now = 100.0

    def __call__(self) -> float:
        return self.now


def test_a_bucket_gives_a_burst_and_then_a_rate() -> None:
    clock = Clock()
    bucket = Bucket(2.0, 3, clock)
    assert [bucket.wait() for _ in range(4)] == [0, 0, 0, 0.5]
    clock.now += 0.5
    assert bucket.wait() == 0
    assert bucket.wait() == 0.5
    clock.now += 1000
    assert [bucket.wait() for _ in range(3)] == [0, 0, 0]
    assert bucket.wait() == pytest.approx(0.5)


def test_a_clock_that_goes_back_gives_nothing_and_takes_nothing() -> None:
    clock = Clock()
    bucket = Bucket(1.0, 1, clock)
    assert bucket.wait() == 0
    clock.now -= 3600
    assert bucket.wait() == 1
    clock.now += 1
    assert bucket.wait() == 0
