from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from proxy.balance.health import Health, Rules

MS = 1_000_000


def ejected(health: Health, now: float, failures: int = 5) -> Health:
    for _ in range(failures):
        health.failed(now)
    assert health.ejected_until
    return health


def test_consecutive_failures_eject_and_others_do_not() -> None:
    health = Health(Rules(5, 10.0))
    for _ in range(20):
        for _ in range(4):
            health.failed(100.0)
        health.succeeded(MS, 100.0)
    assert health.ejected_until == 0.0
    for _ in range(4):
        health.failed(100.0)
    assert health.ejected_until == 0.0
    health.failed(100.0)
    assert health.ejected_until == 110.0
    assert (health.requests, health.errors, health.failures, health.ejections) == (105, 85, 5, 1)


def test_zero_never_ejects() -> None:
    health = Health(Rules(0, 10.0))
    for _ in range(1000):
        health.failed(1.0)
    assert health.ejected_until == 0.0


def test_failures_of_requests_from_before_the_ejection_do_not_lengthen_it() -> None:
    health = ejected(Health(Rules(5, 10.0)), 100.0)
    for _ in range(50):
        health.failed(105.0)
    assert health.ejected_until == 110.0
    assert health.ejections == 1


def test_a_successful_trial_brings_it_back() -> None:
    health = ejected(Health(Rules(5, 10.0)), 100.0)
    health.start_trial(111.0)
    assert health.ejected_until == 121.0  # until the trial is over nobody else is sent there
    health.succeeded(5 * MS, 111.1)
    assert health.ejected_until == 0.0
    assert health.failures == 0


def test_failed_trials_double_the_time_up_to_thirty_times() -> None:
    health = ejected(Health(Rules(5, 10.0)), 0.0)
    now, times = 0.0, [health.ejected_until]
    for _ in range(7):
        now = health.ejected_until
        health.start_trial(now)
        health.failed(now)
        times.append(health.ejected_until - now)
    assert times == [10.0, 20.0, 40.0, 80.0, 160.0, 300.0, 300.0, 300.0]
    assert health.ejections == 8


def test_a_failed_trial_is_over() -> None:
    health = ejected(Health(Rules(5, 10.0)), 0.0)
    health.start_trial(10.0)
    for _ in range(3):  # the second and third were sent before the ejection
        health.failed(11.0)
    assert health.ejected_until == 31.0
    assert health.ejections == 2


def test_a_trial_that_never_ends_is_followed_by_another() -> None:
    health = ejected(Health(Rules(5, 10.0)), 0.0)
    health.start_trial(10.0)
    assert health.ejected_until == 20.0
    health.start_trial(20.0)
    health.failed(21.0)
    assert health.ejected_until == 41.0


def test_a_success_from_before_the_ejection_proves_nothing() -> None:
    health = ejected(Health(Rules(5, 10.0)), 100.0)
    health.succeeded(3000 * MS, 102.0)
    assert health.ejected_until == 110.0
    health.succeeded(1000 * MS, 102.0)  # sent after it, as all others were out too
    assert health.ejected_until == 0.0


def test_an_endpoint_that_flaps_goes_for_longer_and_one_that_has_recovered_does_not() -> None:
    health = ejected(Health(Rules(5, 10.0)), 0.0)
    health.start_trial(10.0)
    health.succeeded(MS, 10.0)
    ejected(health, 15.0)
    assert health.ejected_until == 35.0
    health.start_trial(35.0)
    health.succeeded(MS, 35.0)
    ejected(health, 56.0)  # it was well for longer than it was out
    assert health.ejected_until == 66.0


def test_watchers_are_told_of_both_changes_only() -> None:
    told: list[float] = []
    health = Health(Rules(2, 10.0))
    health.watchers.append(lambda: told.append(health.ejected_until))
    health.failed(1.0)
    health.succeeded(MS, 1.0)
    assert told == []
    ejected(health, 1.0, 2)
    health.failed(2.0)
    assert told == [11.0]
    health.start_trial(11.0)
    assert told == [11.0]
    health.succeeded(MS, 11.0)
    health.succeeded(MS, 11.0)
    assert told == [11.0, 0.0]


@given(
    st.lists(st.tuples(st.sampled_from(["ok", "fail", "trial"]), st.floats(0.0, 100.0)), max_size=60), st.integers(1, 4)
)
def test_invariants(steps: list[tuple[str, float]], eject_after: int) -> None:
    health, now = Health(Rules(eject_after, 1.0)), 1.0
    for what, wait in steps:
        now += wait
        if what == "ok":
            health.succeeded(MS, now)
        elif what == "fail":
            before = health.ejected_until
            health.failed(now)
            assert health.ejected_until >= before
        elif health.ejected_until:
            health.start_trial(now)
        assert health.ejected_until <= now + 30.0
        assert health.errors <= health.requests
        assert health.ejected_until or health.failures < eject_after


@pytest.mark.parametrize("eject_after", [1, 3])
def test_any_number_of_failures_may_be_asked_for(eject_after: int) -> None:
    health = Health(Rules(eject_after, 2.0))
    for _ in range(eject_after):
        assert not health.ejected_until
        health.failed(5.0)
    assert health.ejected_until == 7.0
