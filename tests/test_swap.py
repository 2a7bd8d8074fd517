"""Tables are swapped by what differs: what stays is shared, and the result is that of a whole table."""

from __future__ import annotations

from typing import Any

import msgspec
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from proxy.balance.endpoint import Endpoint
from proxy.errors import SettingsError
from proxy.route.change import Origin, TableChange, differing, hosts_of, parts, whole
from proxy.route.spec import BackendSpec, EndpointSpec, HostSpec, RouteSpec, TableSpec
from proxy.route.table import Route, Table
from proxy.swap import Swap
from proxy.worker import Worker
from tests.rig import GET, OK, rig, table


def route(host: str, path: str, backend: str = "b1", version: str = "1") -> RouteSpec:
    return RouteSpec("ns", "web", "u", version, host, path, "Prefix", backend)


def backend(key: str, *addresses: str, policy: Any = "round_robin", hash_by: str = "") -> BackendSpec:
    return BackendSpec(key, "ns", key, "80", tuple(EndpointSpec(one, 80) for one in addresses), policy, hash_by)


def swap(worker: Worker, change: TableChange) -> None:
    found = list(parts(change, 2))
    made = Swap(worker, None, found[0])
    for part in found:
        made.take(part)
    made.commit()


def matched(worker: Worker, host: str, path: str = "/") -> Route:
    found = worker.table.match(host.encode(), path.encode())
    assert found is not None
    return found


START = TableSpec(
    1,
    (route("a.test", "/"), route("a.test", "/x"), route("b.test", "/", "b2")),
    (backend("b1", "10.0.0.1"), backend("b2", "10.0.0.2")),
)


def test_what_is_not_touched_is_shared() -> None:
    with rig(spec=START) as r:
        worker = r.worker
        a, x, b = matched(worker, "a.test"), matched(worker, "a.test", "/x"), matched(worker, "b.test")
        before = worker.table
        changed = HostSpec("a.test", (route("a.test", "/"), route("a.test", "/x", version="2")))
        swap(worker, TableChange(2, 1, {"a.test": changed}))
        assert (worker.table.generation, before.generation) == (2, 1)
        assert matched(worker, "b.test") is b
        assert matched(worker, "a.test") is a, "a rule that is the same is the same route"
        new = matched(worker, "a.test", "/x")
        assert (new.resource_version, new.stats is x.stats) == ("2", True)
        assert new.index not in {a.index, x.index, b.index}, "encoded spans are kept by it"
        assert before.match(b"a.test", b"/x") is x, "the table before is what it was"


def test_a_host_that_goes_takes_its_counters_with_it() -> None:
    with rig(spec=START) as r:
        assert len(r.worker.ledger.samples()) == 4
        swap(r.worker, TableChange(2, 1, {"a.test": None}))
        assert [sample.host for sample in r.worker.ledger.samples()] == ["b.test", ""]
        assert r.worker.table.match(b"a.test", b"/") is None
        swap(r.worker, TableChange(3, 2, {"a.test": None}))
        assert repr(r.worker.table) == "Table(generation 3, 1 routes, 1 hosts)"


def test_endpoints_change_under_routes_that_stay() -> None:
    with rig(spec=START) as r:
        before = matched(r.worker, "a.test")
        swap(r.worker, TableChange(2, 1, backends={"b1": backend("b1", "10.0.0.7", "10.0.0.1")}))
        after = matched(r.worker, "a.test")
        assert after is before
        assert [endpoint.host for endpoint in after.backend.endpoints] == ["10.0.0.7", "10.0.0.1"]
        swap(r.worker, TableChange(3, 2, backends={"b1": backend("b1")}))
        assert after.backend.pick(b"", ()) is None


def test_a_change_of_another_table_is_refused_and_changes_nothing() -> None:
    with rig(spec=START) as r:
        before = r.worker.table
        with pytest.raises(SettingsError, match="a change of generation 4, but 1 is served; the whole table is due"):
            Swap(r.worker, None, TableChange(5, 4))
        made = Swap(r.worker, None, TableChange(2, 1))
        with pytest.raises(SettingsError, match="names the backend 'b9'"):
            made.take(TableChange(2, 1, {"a.test": HostSpec("a.test", (route("a.test", "/", "b9"),))}))
        made = Swap(r.worker, None, TableChange(2, 1))
        with pytest.raises(SettingsError, match="nonsense"):
            made.take(TableChange(2, 1, backends={"b3": backend("b3", "h", policy="hash", hash_by="$nonsense")}))
        assert r.worker.table is before
        assert len(r.worker.registry.current()) == 2
        assert repr(made).startswith("Swap(1 to 2, Plan(")


def test_a_pool_that_is_opened_too_late_is_not_kept() -> None:
    """A request was routed to an endpoint that no table names any more by the time it dials."""
    with rig() as r:
        (endpoint,) = r.endpoints
        assert isinstance(endpoint, Endpoint)
        r.worker.apply(table(2, ports=()))
        assert r.worker.open_pool(endpoint).retired
        r.pass_time(1)
        assert r.worker.pools == []


HOSTS = st.sampled_from(["", "a.test", "b.test", "*.test"])
ROUTES = st.builds(route, HOSTS, st.sampled_from(["/", "/x"]), st.sampled_from(["b1", "b2"]), st.sampled_from("12"))
TABLES = st.builds(
    lambda routes, defaults, default, first, second: TableSpec(
        1,
        tuple({(one.host, one.path): one for one in routes}.values()),
        (backend("b1", *first), backend("b2", *second)),
        host_defaults=tuple({one.host: msgspec.structs.replace(one, path="") for one in defaults if one.host}.values()),
        default_route=default,
    ),
    st.lists(ROUTES, max_size=5),
    st.lists(ROUTES, max_size=2),
    st.one_of(st.none(), st.just(route("", ""))),
    st.sets(st.sampled_from(["10.0.0.1", "10.0.0.2", "10.0.0.3"])),
    st.sets(st.sampled_from(["10.0.0.1", "10.0.0.3"])),
)


@settings(max_examples=40, deadline=None)
@given(st.lists(st.tuples(TABLES, st.booleans()), min_size=1, max_size=5))
def test_any_sequence_of_swaps_serves_what_a_whole_table_would(tables: list[tuple[TableSpec, bool]]) -> None:
    with rig(spec=TableSpec(1)) as r:
        worker, before = r.worker, TableSpec(1)
        for number, (one, anew) in enumerate(tables):
            spec = msgspec.structs.replace(one, generation=number + 2)
            change = whole(spec)
            if not anew:
                backends = {each.key: each for each in before.backends}
                change = TableChange(
                    number + 2,
                    number + 1,
                    differing(hosts_of(before), hosts_of(spec)),
                    differing(backends, {each.key: each for each in spec.backends}),
                )
            swap(worker, change)
            before = spec
            fresh = Table(spec, NAMED, worker.ledger.of)
            for host in (b"a.test", b"b.test", b"c.test", b"x.y"):
                for path in (b"/", b"/x", b"/x/y", b"/z"):
                    mine, theirs = worker.table.match(host, path), fresh.match(host, path)
                    assert (mine and mine.spec) == (theirs and theirs.spec)
                    if mine is not None:
                        wanted = next(each for each in spec.backends if each.key == mine.spec.backend)
                        assert mine.backend.spec == wanted
                        assert {each.host for each in mine.backend.endpoints} == {
                            each.host for each in wanted.endpoints
                        }
            assert len({each.index for each in worker.table.routes}) == len(worker.table.routes)
            named = {(each.namespace, each.name, each.host, each.path) for each in worker.table.routes}
            counted = {(each.namespace, each.name, each.host, each.path) for each in worker.ledger.samples()[:-1]}
            assert counted == named
            endpoints = {id(each) for backend in worker.registry.current() for each in backend.endpoints}
            assert len(worker.registry._endpoints) == len(endpoints), "no endpoint stays that no backend has"
            for current in worker.registry.current():
                for each in current.endpoints:
                    assert each.watchers.count(current.refresh) == 1


NAMED: dict[str, Any] = {"b1": "", "b2": ""}


def test_the_first_request_of_a_generation_links_to_its_trace() -> None:
    with rig() as r:
        told: list[Any] = []
        r.worker.on_first = lambda exchange: told.append((exchange.generation, exchange.status))
        client, upstream = r.exchange(GET)
        r.worker.settle()
        assert told == [], "the first table came without a trace"
        r.send(client, GET)  # begins by generation 1, and ends by 2
        swap(r.worker, TableChange(2, 1, origin=Origin(b"t" * 16, b"s" * 8, 1)))
        r.send(upstream, OK)
        r.worker.settle()
        assert told == []
        for _ in range(2):
            r.send(client, GET)
            r.send(upstream, OK)
        r.worker.settle()
        assert told == [(2, 200)]
        assert b"".join(blob for blob, _ in r.exporter.blobs).count(b"t" * 16) == 1
