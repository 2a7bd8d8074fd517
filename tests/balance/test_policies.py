"""Distributions by fixed seeds: what is random here is the same in every run."""

from __future__ import annotations

import random
from collections import Counter

import pytest

from proxy.balance.endpoint import Endpoint
from proxy.balance.policies import LeastConnections, PeakEwma, Policy, RoundRobin

MS = 1_000_000


def make(count: int) -> tuple[Endpoint, ...]:
    return tuple(Endpoint(f"10.0.0.{number}", 80) for number in range(count))


def policies(seed: int = 1) -> list[Policy]:
    rng = random.Random(seed)
    return [RoundRobin(rng), LeastConnections(rng), PeakEwma(rng, lambda: 100.0)]


@pytest.mark.parametrize("policy", policies(), ids=repr)
@pytest.mark.parametrize("count", [1, 2, 3, 10])
def test_equals_share_evenly(policy: Policy, count: int) -> None:
    endpoints = make(count)
    chosen = Counter(policy.choose(endpoints, b"") for _ in range(10_000))
    assert set(chosen) == set(endpoints)
    # Binomial: five standard deviations are at most 5 * 50 of 10,000.
    assert max(chosen.values()) - min(chosen.values()) < 500
    assert not policy.affine


def test_round_robin_takes_turns_from_a_place_of_its_own() -> None:
    endpoints = make(3)
    turns = [RoundRobin(random.Random(seed)) for seed in range(30)]
    firsts = Counter(policy.choose(endpoints, b"") for policy in turns)
    assert set(firsts) == set(endpoints)
    policy = turns[0]
    order = [policy.choose(endpoints, b"") for _ in range(6)]
    assert order[:3] == order[3:]
    assert set(order) == set(endpoints)
    # A list that has become shorter is no trouble.
    assert policy.choose(endpoints[:1], b"") is endpoints[0]


def test_least_connections_prefers_the_less_loaded() -> None:
    endpoints = make(10)
    endpoints[0].in_flight = 5
    policy = LeastConnections(random.Random(2))
    chosen = Counter(policy.choose(endpoints, b"") for _ in range(5000))
    assert endpoints[0] not in chosen  # it loses to whatever it is compared with
    assert set(chosen) == set(endpoints[1:])


@pytest.mark.parametrize("make_policy", [LeastConnections, lambda rng: PeakEwma(rng, lambda: 0.0)])
def test_load_stays_balanced_while_requests_come_and_go(make_policy) -> None:
    """Two random choices keep the fullest within a few of the mean; one alone would not (Mitzenmacher)."""
    rng = random.Random(3)
    endpoints = make(20)
    for endpoint in endpoints:
        endpoint.ewma = 10.0 * MS
    policy = make_policy(rng)
    flying: list[Endpoint] = []
    worst = 0
    for _ in range(20_000):
        endpoint = policy.choose(endpoints, b"")
        endpoint.in_flight += 1
        flying.append(endpoint)
        if len(flying) > 200:
            flying.pop(rng.randrange(len(flying))).in_flight -= 1
        worst = max(worst, endpoint.in_flight)
    assert worst <= 10 + 6


def test_ewma_avoids_the_slow_and_returns_to_the_recovered() -> None:
    endpoints = make(2)
    now = 100.0
    policy = PeakEwma(random.Random(4), lambda: now)
    slow, fast = endpoints
    slow.succeeded(900 * MS, now)
    fast.succeeded(10 * MS, now)
    assert {policy.choose(endpoints, b"") for _ in range(200)} == {fast}
    fast.in_flight = 99  # 10 ms x 100 > 900 ms
    assert {policy.choose(endpoints, b"") for _ in range(200)} == {slow}
    fast.in_flight = 0
    now = 150.0  # the slow one's mean has faded to 6 ms
    for second in range(100, 151):
        fast.succeeded(10 * MS, second)
    assert slow in {policy.choose(endpoints, b"") for _ in range(200)}


def test_ewma_gives_a_new_endpoint_one_request_first() -> None:
    old, new = make(2)
    policy = PeakEwma(random.Random(5), lambda: 100.0)
    old.succeeded(10 * MS, 100.0)
    assert {policy.choose((old, new), b"") for _ in range(100)} == {new}
    new.in_flight = 1
    assert {policy.choose((old, new), b"") for _ in range(100)} == {old}
    other = make(1)[0]
    other.in_flight = 2
    assert {policy.choose((new, other), b"") for _ in range(100)} == {new}
    new.in_flight = 0
    new.succeeded(5 * MS, 100.0)
    assert {policy.choose((old, new), b"") for _ in range(100)} == {new}
