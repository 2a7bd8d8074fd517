from __future__ import annotations

import random

import pytest

from proxy.balance.registry import Registry
from proxy.errors import SettingsError
from proxy.route.spec import BackendSpec, EndpointSpec, Policy, Scheme, TableSpec

MS = 1_000_000


def backend(
    name: str,
    *hosts: str,
    policy: Policy = "round_robin",
    scheme: Scheme = "http",
    server_name: str = "",
    hash_by: str = "",
    zone: str = "",
) -> BackendSpec:
    endpoints = tuple(EndpointSpec(host, 80, zone) for host in hosts)
    return BackendSpec(f"ns/{name}:80", "ns", name, "80", endpoints, policy, hash_by, scheme, server_name)


def table(*backends: BackendSpec) -> TableSpec:
    return TableSpec(1, backends=backends)


def registry() -> Registry:
    return Registry(2, 10.0, rng=random.Random(1), clock=lambda: 0.0)


def hosts(endpoints) -> list[str]:
    return sorted(endpoint.host for endpoint in endpoints)


def test_endpoints_outlive_tables_with_all_they_know() -> None:
    made = registry()
    first = made.backends(table(backend("shop", "a", "b")))["ns/shop:80"]
    a, b = first.endpoints
    a.pool, a.in_flight = object(), 3
    a.succeeded(7 * MS, 1.0)
    second = made.backends(table(backend("shop", "b", "c", "a")))["ns/shop:80"]
    assert second is first, "routes need not change with their endpoints"
    assert second.endpoints[2] is a
    assert second.endpoints[0] is b
    assert (a.in_flight, a.ewma) == (3, 7 * MS)
    assert made.retire() == []


def test_a_backend_that_has_not_changed_is_the_same() -> None:
    made = registry()
    first = made.backends(table(backend("shop", "a", "b"), backend("cart", "c")))
    before = first["ns/shop:80"]._policy
    second = made.backends(table(backend("cart", "c", "d"), backend("shop", "a", "b")))
    assert second["ns/shop:80"] is first["ns/shop:80"]
    assert second["ns/shop:80"]._policy is before
    assert hosts(second["ns/cart:80"].endpoints) == ["c", "d"]
    assert made.current() == tuple(second.values())


def test_those_no_longer_named_are_retired_once() -> None:
    made = registry()
    made.backends(table(backend("shop", "a", "b"), backend("cart", "b", "c")))
    assert made.retire() == []
    made.backends(table(backend("shop", "a")))
    assert hosts(made.retire()) == ["b", "c"]
    assert made.retire() == []
    made.backends(table())
    made.backends(table(backend("shop", "d")))
    assert hosts(made.retire()) == ["a"]  # also after two tables


def test_one_that_comes_back_starts_anew() -> None:
    made = registry()
    (old,) = made.backends(table(backend("shop", "a")))["ns/shop:80"].endpoints
    made.backends(table())
    (new,) = made.backends(table(backend("shop", "a")))["ns/shop:80"].endpoints
    assert new is not old
    assert made.retire() == [old]


def test_what_makes_an_endpoint_another() -> None:
    made = registry()
    backends = made.backends(
        table(
            backend("plain", "a"),
            backend("same", "a", policy="ewma"),
            backend("tls", "a", scheme="https"),
            backend("named", "a", scheme="https", server_name="shop.test"),
        )
    )
    plain, same, tls, named = (each.endpoints[0] for each in backends.values())
    assert plain is same
    assert len({plain, tls, named}) == 3
    assert (tls.scheme, tls.server_name) == ("https", "")
    assert (named.scheme, named.server_name, named.port) == ("https", "shop.test", 80)


def test_an_endpoint_named_twice_counts_once() -> None:
    made = registry().backends(table(backend("shop", "a", "b", "a")))["ns/shop:80"]
    assert hosts(made.endpoints) == ["a", "b"]


def test_every_backend_of_an_endpoint_hears_of_its_ejection() -> None:
    made = registry()
    backends = made.backends(table(backend("one", "a", "b"), backend("two", "a", "c", policy="least_conn")))
    a = backends["ns/one:80"].endpoints[0]
    a.failed(5.0)
    a.failed(5.0)
    assert made._clock() < a.ejected_until
    for each in backends.values():
        picked = {each.pick(b"", ()) for _ in range(50)}
        assert a not in picked
        assert len(picked) == 1


def test_health_is_kept_by_a_backend_built_anew() -> None:
    made = registry()
    a = made.backends(table(backend("shop", "a", "b")))["ns/shop:80"].endpoints[0]
    a.failed(5.0)
    a.failed(5.0)
    after = made.backends(table(backend("shop", "a", "b", "c")))["ns/shop:80"]
    assert hosts({after.pick(b"", ()) for _ in range(50)}) == ["b", "c"]
    a.succeeded(MS, 6.0)
    assert hosts({after.pick(b"", ()) for _ in range(50)}) == ["a", "b", "c"]


def test_old_tables_leave_no_watchers_behind() -> None:
    made = registry()
    for number in range(50):
        made.backends(table(backend("shop", "a", f"b{number}"), backend("cart", "a")))
    a = made.current()[0].endpoints[0]
    assert len(a.watchers) == 2


def test_a_table_that_cannot_be_built_changes_nothing() -> None:
    made = registry()
    before = made.backends(table(backend("shop", "a", "b")))["ns/shop:80"]
    bad = backend("bad", "c", policy="hash", hash_by="$nonsense")
    with pytest.raises(SettingsError, match=r"\$nonsense"):
        made.backends(table(backend("shop", "a"), bad))
    assert made.current() == (before,)
    assert made.retire() == []
    a, b = before.endpoints
    assert len(a.watchers) == 1
    a.failed(5.0)
    a.failed(5.0)
    assert {before.pick(b"", ()) for _ in range(10)} == {b}


def test_zones_follow_the_table() -> None:
    made = registry()
    (a,) = made.backends(table(backend("shop", "a", zone="west")))["ns/shop:80"].endpoints
    assert a.zone == "west"
    made.backends(table(backend("shop", "a", zone="east")))
    assert a.zone == "east"


def test_repr_counts() -> None:
    made = registry()
    made.backends(table(backend("shop", "a", "b"), backend("cart", "b")))
    assert repr(made) == "Registry(2 backends, 2 endpoints)"
