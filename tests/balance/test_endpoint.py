from __future__ import annotations

import math

from hypothesis import given
from hypothesis import strategies as st

from proxy.balance.endpoint import Endpoint
from proxy.balance.health import Rules

MS = 1_000_000


def test_a_new_endpoint_knows_nothing() -> None:
    endpoint = Endpoint("10.0.0.1", 80, zone="z", scheme="https", server_name="shop.test")
    assert (endpoint.zone, endpoint.scheme, endpoint.server_name) == ("z", "https", "shop.test")
    assert (endpoint.in_flight, endpoint.requests, endpoint.errors, endpoint.failures, endpoint.ejections) == (0,) * 5
    assert endpoint.ewma == endpoint.latency(1000.0) == endpoint.ejected_until == 0.0
    assert endpoint.pool is None


def test_names() -> None:
    assert Endpoint("10.0.0.1", 80).name == "10.0.0.1:80"
    assert Endpoint("2001:db8::1", 80).name == "[2001:db8::1]:80"


def test_repr_shows_its_state() -> None:
    endpoint = Endpoint("10.0.0.1", 80, rules=Rules(1, 10.0))
    endpoint.in_flight = 3
    assert repr(endpoint) == "Endpoint(10.0.0.1:80, 3 in flight, 0.0 ms, 0 failures)"
    endpoint.failed(5.0)
    assert "ejected until 15.0" in repr(endpoint)


def test_the_mean_rises_at_once_and_falls_with_time() -> None:
    endpoint = Endpoint("h", 1)
    endpoint.succeeded(10 * MS, 100.0)
    assert endpoint.ewma == 10 * MS
    endpoint.succeeded(500 * MS, 100.0)
    assert endpoint.ewma == 500 * MS
    endpoint.succeeded(10 * MS, 100.0)  # the same tick of a coarse clock
    assert endpoint.ewma == 500 * MS
    endpoint.succeeded(10 * MS, 110.0)  # a time constant later
    assert math.isclose(endpoint.ewma, (10 + 490 / math.e) * MS)
    for second in range(100):
        endpoint.succeeded(10 * MS, 111.0 + second)
    assert 10 * MS < endpoint.ewma < 10.1 * MS


def test_what_is_not_used_fades() -> None:
    endpoint = Endpoint("h", 1)
    endpoint.succeeded(100 * MS, 50.0)
    assert endpoint.latency(50.0) == endpoint.latency(49.8) == 100 * MS
    assert math.isclose(endpoint.latency(60.0), 100 * MS / math.e)
    assert endpoint.ewma == 100 * MS


def test_a_success_counts_for_health_too() -> None:
    endpoint = Endpoint("h", 1, rules=Rules(2, 10.0))
    endpoint.failed(1.0)
    endpoint.succeeded(MS, 1.0)
    endpoint.failed(1.0)
    assert not endpoint.ejected_until
    assert (endpoint.requests, endpoint.errors) == (3, 2)


@given(st.lists(st.tuples(st.integers(1, 10**11), st.floats(0, 100)), min_size=1, max_size=50))
def test_the_mean_stays_within_its_samples(samples: list[tuple[int, float]]) -> None:
    endpoint, now = Endpoint("h", 1), 0.0
    for latency, wait in samples:
        now += wait
        endpoint.succeeded(latency, now)
        seen = [each for each, _ in samples]
        assert min(seen) * (1 - 1e-9) <= endpoint.ewma <= max(seen) * (1 + 1e-9)
