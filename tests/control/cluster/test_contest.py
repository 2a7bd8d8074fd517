from __future__ import annotations

import pytest

from proxy.control.cluster import contest
from proxy.control.cluster.addresses import Point
from proxy.control.cluster.contest import CALM, LONGEST, TOLD, Contests

OURS, THEIRS = (Point(ip="192.0.2.1"),), (Point(hostname="lb.example.org"), Point(ip="192.0.2.9"))
WEB, API = ("shop", "web"), ("shop", "api")


class Time:
    now = 100.0

    def __call__(self) -> float:
        return self.now


@pytest.fixture
def time() -> Time:
    return Time()


@pytest.fixture
def contests(time: Time) -> Contests:
    return Contests(time)


def test_once_is_put_right_at_once_and_said_to_nobody(contests: Contests) -> None:
    assert not contests.overwritten(WEB, THEIRS)
    assert contests.pause(WEB) == 0
    assert contests.pause(API) == 0
    assert contests.problems(OURS) == []


def test_pauses_grow_to_their_bound(contests: Contests, time: Time) -> None:
    pauses = []
    for _ in range(20):
        contests.overwritten(WEB, THEIRS)
        pauses.append(contests.pause(WEB))
        time.now += pauses[-1]
    assert pauses[0] == 0
    assert contest.FIRST / 2 <= pauses[1] <= contest.FIRST
    assert all(one <= LONGEST for one in pauses)
    assert pauses[-1] >= LONGEST / 2
    assert contests.pause(WEB) == 0, "its turn has come"


def test_it_is_said_once_and_names_both(contests: Contests) -> None:
    assert [contests.overwritten(WEB, THEIRS) for _ in range(TOLD + 2)] == [False, False, True, False, False]
    [problem] = contests.problems(OURS)
    assert (problem.kind, problem.namespace, problem.name) == ("Ingress", "shop", "web")
    assert str(problem).startswith(
        "warning: Ingress shop/web: status.loadBalancer: is overwritten again and again: "
        "192.0.2.1 by us, lb.example.org, 192.0.2.9 by another (another installation"
    )
    assert contests.overwritten(WEB, ()), "another one"
    assert "nothing by another" in contests.problems(OURS)[0].message
    contests.overwritten(WEB, tuple(Point(ip=f"192.0.2.{number}") for number in range(9)))
    assert "and 6 more by another" in contests.problems(OURS)[0].message
    assert repr(contests) == "Contests(1, 1 told)"


def test_it_is_over_after_a_calm(contests: Contests, time: Time) -> None:
    for _ in range(TOLD):
        contests.overwritten(WEB, THEIRS)
    time.now += CALM + 1
    assert contests.problems(OURS) == []
    assert not contests.overwritten(WEB, THEIRS)
    assert contests.pause(WEB) == 0


def test_what_is_forgotten_begins_anew(contests: Contests) -> None:
    for key in (WEB, API):
        for _ in range(TOLD):
            contests.overwritten(key, THEIRS)
    contests.forget([WEB, ("shop", "unknown")])
    assert [problem.name for problem in contests.problems(OURS)] == ["api"]
    contests.clear()
    assert contests.problems(OURS) == []
