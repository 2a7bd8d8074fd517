from __future__ import annotations

import random
from collections import Counter
from typing import get_args

import pytest
from hypothesis import given
from hypothesis import strategies as st

from proxy.balance.backend import Backend
from proxy.balance.endpoint import Endpoint
from proxy.balance.health import Rules
from proxy.errors import SettingsError
from proxy.route.spec import BackendSpec, Policy

MS = 1_000_000
POLICIES: tuple[Policy, ...] = get_args(Policy)


class Clock:
    def __init__(self) -> None:
        self.now = 1000.0

    def __call__(self) -> float:
        return self.now


class Rig:
    """A backend of ``count`` endpoints that 2 failures eject for 10 s."""

    def __init__(self, count: int, policy: Policy = "round_robin", seed: int = 1) -> None:
        self.clock = Clock()
        self.endpoints = tuple(Endpoint(f"10.0.0.{n}", 80, rules=Rules(2, 10.0)) for n in range(count))
        spec = BackendSpec("ns/shop:80", "ns", "shop", "80", (), policy, "$remote_addr")
        self.backend = Backend(spec, self.endpoints, rng=random.Random(seed), clock=self.clock)

    def eject(self, *numbers: int) -> None:
        for number in numbers:
            for _ in range(2):
                self.endpoints[number].failed(self.clock.now)

    def picks(self, count: int = 300, tried: tuple[Endpoint, ...] = ()) -> Counter[int]:
        """How often each endpoint is picked, by number, by requests of many keys."""
        got: Counter[int] = Counter()
        for number in range(count):
            endpoint = self.backend.pick(b"key %d" % number, tried)
            assert endpoint is not None
            got[self.endpoints.index(endpoint)] += 1
        return got


@pytest.mark.parametrize("policy", POLICIES)
class TestEveryPolicy:
    def test_all_that_are_up_are_used(self, policy: Policy) -> None:
        rig = Rig(4, policy)
        assert set(rig.picks()) == {0, 1, 2, 3}
        rig.eject(1)
        assert set(rig.picks()) == {0, 2, 3}
        rig.eject(0, 3)
        assert set(rig.picks()) == {2}

    def test_none_at_all(self, policy: Policy) -> None:
        assert Rig(0, policy).backend.pick(b"", ()) is None
        assert Rig(0, policy).backend.pick(b"key", ()) is None

    def test_the_only_one_serves_whatever_its_health(self, policy: Policy) -> None:
        rig = Rig(1, policy)
        rig.eject(0)
        assert rig.picks(5, (rig.endpoints[0],)) == {0: 5}
        rig.endpoints[0].succeeded(MS, rig.clock.now + 1)
        assert not rig.endpoints[0].ejected_until

    def test_panic_when_all_are_ejected(self, policy: Policy) -> None:
        rig = Rig(3, policy)
        rig.eject(0, 1, 2)
        assert set(rig.picks()) == {0, 1, 2}
        rig.endpoints[1].succeeded(MS, rig.clock.now + 1)  # one that was sent there answered
        assert set(rig.picks()) == {1}

    def test_those_tried_are_avoided_while_any_other_remains(self, policy: Policy) -> None:
        rig = Rig(3, policy)
        a, b, c = rig.endpoints
        assert set(rig.picks(tried=(a,))) == {1, 2}
        assert set(rig.picks(tried=(a, c))) == {1}
        assert set(rig.picks(tried=(a, b, c))) == {0, 1, 2}
        rig.eject(1)
        assert set(rig.picks(tried=(a,))) == {2}
        assert set(rig.picks(tried=(a, c))) == {1}  # ejected, but not known to fail this very request
        assert set(rig.picks(tried=(a, b, c))) == {0, 1, 2}

    def test_one_trial_after_the_time(self, policy: Policy) -> None:
        rig = Rig(3, policy)
        rig.eject(2)
        rig.clock.now += 9.9
        assert 2 not in rig.picks()
        rig.clock.now += 0.2
        assert rig.picks()[2] == 1
        for endpoint in rig.endpoints:
            endpoint.succeeded(MS, rig.clock.now + 1)
        assert rig.picks()[2] > 50

    def test_a_failed_trial_goes_for_twice_as_long(self, policy: Policy) -> None:
        rig = Rig(3, policy)
        rig.eject(2)
        rig.clock.now += 10
        assert rig.picks()[2] == 1
        rig.endpoints[2].failed(rig.clock.now)
        rig.clock.now += 19.9
        assert 2 not in rig.picks()
        rig.clock.now += 0.2
        assert rig.picks()[2] == 1

    def test_an_unfinished_trial_is_repeated(self, policy: Policy) -> None:
        rig = Rig(3, policy)
        rig.eject(2)
        for _ in range(3):
            rig.clock.now += 10
            assert rig.picks()[2] == 1

    def test_no_trial_by_a_request_that_has_tried_it(self, policy: Policy) -> None:
        rig = Rig(3, policy)
        rig.eject(2)
        rig.clock.now += 10
        assert 2 not in rig.picks(tried=(rig.endpoints[2],))


def test_a_hash_trial_is_made_by_a_key_of_that_endpoint() -> None:
    rig = Rig(3, "hash")
    keys = [b"key %d" % number for number in range(300)]
    owner = {key: rig.backend.pick(key, ()) for key in keys}
    rig.eject(2)
    rig.clock.now += 10
    for key in keys:
        picked = rig.backend.pick(key, ())
        if picked is rig.endpoints[2]:
            assert owner[key] is picked
            break
        assert owner[key] in (picked, rig.endpoints[2])
    else:
        pytest.fail("no trial")


@pytest.mark.parametrize(("policy", "key"), [*((policy, b"key") for policy in POLICIES[:3]), ("hash", b"")])
@pytest.mark.parametrize("seed", range(4))
def test_the_first_request_that_belongs_to_no_other_is_the_trial(policy: Policy, key: bytes, seed: int) -> None:
    rig = Rig(4, policy, seed)
    rig.eject(2)
    rig.clock.now += 10
    assert rig.backend.pick(key, ()) is rig.endpoints[2]
    assert rig.backend.pick(key, ()) is not rig.endpoints[2]


def test_hash_keeps_a_key_where_it_is() -> None:
    rig = Rig(5, "hash")
    assert len({rig.backend.pick(b"ann", ()) for _ in range(100)}) == 1
    first = rig.backend.pick(b"ann", ())
    assert first is not None
    second = rig.backend.pick(b"ann", (first,))
    assert second is rig.backend.pick(b"ann", (first,))
    assert second is not first


def test_round_robin_stays_even_around_an_ejected_endpoint() -> None:
    rig = Rig(4)
    rig.eject(1)
    assert rig.picks(300) == {0: 100, 2: 100, 3: 100}


def test_others_are_those_that_are_up() -> None:
    rig = Rig(3)
    a, b, _ = rig.endpoints
    assert rig.backend.others(a)
    rig.eject(1, 2)
    assert not rig.backend.others(a)
    assert rig.backend.others(b)
    alone = Rig(1)
    assert not alone.backend.others(alone.endpoints[0])


def test_the_key_function_is_there_for_hash_alone() -> None:
    for policy in POLICIES:
        assert (Rig(2, policy).backend.key is not None) is (policy == "hash")


@pytest.mark.parametrize("hash_by", ["", "nothing variable", "$nonsense"])
def test_a_hash_key_that_cannot_be_read_is_refused(hash_by: str) -> None:
    with pytest.raises(SettingsError, match="hash key"):
        Backend(BackendSpec("k", "n", "s", "80", (), "hash", hash_by), ())


def test_repr_shows_how_many_are_up() -> None:
    rig = Rig(3, "least_conn")
    rig.eject(0)
    assert repr(rig.backend) == "Backend(ns/shop:80, LeastConnections(), 2 of 3 endpoints)"


@given(
    st.sampled_from(POLICIES),
    st.integers(1, 5),
    st.lists(st.tuples(st.sampled_from("pfsw"), st.integers(0, 4)), max_size=60),
    st.randoms(use_true_random=False),
)
def test_whatever_happens_there_is_an_endpoint_and_a_good_one_if_there_is_one(
    policy: Policy, count: int, steps: list[tuple[str, int]], rng: random.Random
) -> None:
    rig = Rig(count, policy, rng.randrange(1000))
    for what, number in steps:
        endpoint = rig.endpoints[number % count]
        if what == "f":
            endpoint.failed(rig.clock.now)
        elif what == "s":
            endpoint.succeeded(MS, rig.clock.now)
        elif what == "w":
            rig.clock.now += number * 3.0
        else:
            tried = rig.endpoints[: number % 3]
            due = [e for e in rig.endpoints if e.ejected_until and e.ejected_until <= rig.clock.now]
            picked = rig.backend.pick(b"%d" % number, tried)
            assert picked in rig.endpoints
            good = [e for e in rig.endpoints if not e.ejected_until and e not in tried]
            if good and count > 1:
                assert picked in good or picked in due
