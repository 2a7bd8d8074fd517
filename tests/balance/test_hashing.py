from __future__ import annotations

import random
from collections import Counter

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from proxy.balance.endpoint import Endpoint
from proxy.balance.hashing import HashRing

KEYS = [b"user-%d" % number for number in range(2000)]
NUMBERS = st.sets(st.integers(0, 60), min_size=2, max_size=12)


def ring(*numbers: int) -> tuple[HashRing, tuple[Endpoint, ...]]:
    endpoints = tuple(Endpoint(f"10.0.0.{number}", 8080) for number in numbers)
    return HashRing(endpoints, random.Random(1)), endpoints


def owners(*numbers: int) -> dict[bytes, str]:
    made, endpoints = ring(*numbers)
    return {key: made.choose(endpoints, key).name for key in KEYS}


@settings(deadline=None, max_examples=30)
@given(NUMBERS, st.randoms(use_true_random=False))
def test_only_the_keys_of_a_lost_endpoint_move(numbers: set[int], rng: random.Random) -> None:
    lost = rng.choice(sorted(numbers))
    before, after = owners(*sorted(numbers)), owners(*(numbers - {lost}))
    for key in KEYS:
        assert after[key] == before[key] or before[key] == f"10.0.0.{lost}:8080"


@settings(deadline=None, max_examples=30)
@given(NUMBERS)
def test_a_new_endpoint_takes_its_share_and_nothing_else_moves(numbers: set[int]) -> None:
    before, after = owners(*sorted(numbers)), owners(*sorted(numbers), 99)
    moved = [key for key in KEYS if before[key] != after[key]]
    assert all(after[key] == "10.0.0.99:8080" for key in moved)
    assert len(moved) < 2.0 * len(KEYS) / (len(numbers) + 1)


@settings(deadline=None, max_examples=30)
@given(NUMBERS, st.randoms(use_true_random=False))
def test_an_ejected_endpoint_is_as_good_as_lost(numbers: set[int], rng: random.Random) -> None:
    made, endpoints = ring(*sorted(numbers))
    out = rng.choice(endpoints)
    rest = tuple(endpoint for endpoint in endpoints if endpoint is not out)
    without = HashRing(rest, random.Random(1))
    for key in KEYS[:500]:
        assert made.choose(rest, key) is without.choose(rest, key)


def test_all_workers_agree_whatever_the_order() -> None:
    assert owners(1, 2, 3, 4) == owners(4, 2, 1, 3)
    # The places are part of the contract between versions too: a rolling update must not shuffle sessions.
    assert [owners(1, 2, 3)[key] for key in KEYS[:24]] == PINNED


PINNED = [f"10.0.0.{number}:8080" for number in "313333333211221221131331"]


@pytest.mark.parametrize("count", [2, 5, 20])
def test_keys_spread_evenly(count: int) -> None:
    made, endpoints = ring(*range(count))
    shares = Counter(made.choose(endpoints, b"key %d" % number) for number in range(20_000))
    assert set(shares) == set(endpoints)
    # 160 places each: a share's standard deviation is about 8 % of it.
    assert max(shares.values()) < 1.3 * 20_000 / count
    assert min(shares.values()) > 0.7 * 20_000 / count


def test_similar_keys_do_not_stick_together() -> None:
    made, endpoints = ring(1, 2, 3)
    shares = Counter(made.choose(endpoints, bytes([192, 0, 2, number])) for number in range(256))
    assert min(shares.values()) > 40


def test_without_a_key_it_goes_by_turns() -> None:
    made, endpoints = ring(1, 2, 3)
    assert {made.choose(endpoints, b"") for _ in range(3)} == set(endpoints)


def test_one_place_is_computed_once_per_endpoint() -> None:
    made, endpoints = ring(1, 2)
    points = endpoints[0].points
    assert points is not None
    assert len(points) == 160
    HashRing(endpoints, random.Random(1))
    assert endpoints[0].points is points
    assert repr(made) == "HashRing(320 places)"


def test_no_endpoints_no_places() -> None:
    assert repr(HashRing((), random.Random(1))) == "HashRing(0 places)"
