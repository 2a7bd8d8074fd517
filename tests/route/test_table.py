from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from proxy.errors import SettingsError
from proxy.route.spec import RouteSpec, TableSpec
from proxy.route.stats import Ledger
from proxy.route.table import Route, Table
from tests.route import oracle
from tests.route.strategies import names, paths, rule, rules, table


def build(spec: TableSpec) -> Table:
    return Table(spec, {backend.key: backend for backend in spec.backends}, Ledger().of)


def matched(spec: TableSpec, host: str, path: str) -> RouteSpec | None:
    route = build(spec).match(host.encode(), path.encode())
    return None if route is None else route.spec


# The examples of the Ingress documentation, row by row: type, paths, request path, the path that matches or "".
DOCUMENTED = [
    (["Prefix /"], "/any/thing", "Prefix /"),
    (["Exact /foo"], "/foo", "Exact /foo"),
    (["Exact /foo"], "/bar", ""),
    (["Exact /foo"], "/foo/", ""),
    (["Exact /foo/"], "/foo", ""),
    (["Prefix /foo"], "/foo", "Prefix /foo"),
    (["Prefix /foo"], "/foo/", "Prefix /foo"),
    (["Prefix /foo/"], "/foo", "Prefix /foo/"),
    (["Prefix /foo/"], "/foo/", "Prefix /foo/"),
    (["Prefix /aaa/bb"], "/aaa/bbb", ""),
    (["Prefix /aaa/bbb"], "/aaa/bbb", "Prefix /aaa/bbb"),
    (["Prefix /aaa/bbb/"], "/aaa/bbb", "Prefix /aaa/bbb/"),
    (["Prefix /aaa/bbb"], "/aaa/bbb/", "Prefix /aaa/bbb"),
    (["Prefix /aaa/bbb"], "/aaa/bbb/ccc", "Prefix /aaa/bbb"),
    (["Prefix /aaa/bbb"], "/aaa/bbbxyz", ""),
    (["Prefix /", "Prefix /aaa"], "/aaa/ccc", "Prefix /aaa"),
    (["Prefix /", "Prefix /aaa", "Prefix /aaa/bbb"], "/aaa/bbb", "Prefix /aaa/bbb"),
    (["Prefix /", "Prefix /aaa", "Prefix /aaa/bbb"], "/ccc", "Prefix /"),
    (["Prefix /aaa"], "/ccc", ""),
    (["Prefix /foo", "Exact /foo"], "/foo", "Exact /foo"),
]


@pytest.mark.parametrize(("written", "path", "expected"), DOCUMENTED)
def test_documented_examples(written: list[str], path: str, expected: str) -> None:
    found = matched(table(*(rule(text) for text in written)), "h.test", path)
    assert (f"{found.path_type} {found.path}" if found else "") == expected


@pytest.mark.parametrize(
    ("host", "fits"),
    [("bar.foo.com", True), ("baz.bar.foo.com", False), ("foo.com", False), ("foo.com.x", False), ("xfoo.com", False)],
)
def test_a_wildcard_is_one_label(host: str, fits: bool) -> None:
    assert (matched(table(rule("Prefix *.foo.com/")), host, "/") is not None) is fits


def test_paths_are_case_sensitive() -> None:
    spec = table(rule("Prefix /Foo"), rule("Exact /Bar"))
    assert matched(spec, "h", "/foo") is None
    assert matched(spec, "h", "/bar") is None


def test_hosts_go_from_exact_over_wildcard_to_any_and_only_where_the_path_matches_too() -> None:
    exact, wildcard, anyone = rule("Prefix a.foo.com/x"), rule("Prefix *.foo.com/y"), rule("Prefix /z")
    more = rule("Prefix *.foo.com/x/longer")
    default = rule("Prefix /")
    spec = table(anyone, wildcard, exact, more, default=default)
    assert matched(spec, "a.foo.com", "/x/longer") is exact, "the host goes before the longer path"
    assert matched(spec, "a.foo.com", "/y") is wildcard
    assert matched(spec, "a.foo.com", "/z") is anyone
    assert matched(spec, "a.foo.com", "/w") is default
    assert matched(spec, "b.foo.com", "/x/longer") is more
    assert matched(spec, "elsewhere", "/x") is default


def test_a_default_backend_of_a_host_goes_before_the_tables() -> None:
    everyone, mine, wild = rule("Prefix /"), rule("Prefix a.foo.com/"), rule("Prefix *.foo.com/")
    spec = table(rule("Prefix a.foo.com/x"), default=everyone, host_defaults=(mine, wild))
    assert matched(spec, "a.foo.com", "/y") is mine
    assert matched(spec, "b.foo.com", "/y") is wild
    assert matched(spec, "foo.com", "/y") is everyone
    assert matched(spec, "com", "/y") is everyone


def test_the_first_of_two_equal_rules_holds() -> None:
    first, second = rule("Prefix /a", name="first"), rule("Prefix /a/", name="second")
    assert matched(table(first, second), "h", "/a") is first
    assert matched(table(second, first), "h", "/a") is second


def test_without_any_rule_nothing_matches() -> None:
    assert matched(table(), "h", "/") is None


def test_a_route_carries_what_the_hot_path_reads() -> None:
    spec = RouteSpec("shop", "web", "u-1", "42", "a.test", "/api", "Prefix", "shop/web:80", 10, 1.0, 2.0, 3.0, 4, 0.5)
    built = Table(TableSpec(9, (rule("Exact /"), spec)), {"ns/s:80": "one", "shop/web:80": "two"}, Ledger().of)
    route = built.match(b"a.test", b"/api/1")
    assert isinstance(route, Route)
    assert (route.index, route.backend, built.generation) == (1, "two", 9)
    assert (route.namespace, route.name, route.uid, route.resource_version) == ("shop", "web", "u-1", "42")
    assert (route.host, route.path, route.spec) == ("a.test", "/api", spec)
    assert (route.body_limit, route.connect_timeout, route.read_timeout, route.send_timeout) == (10, 1.0, 2.0, 3.0)
    assert (route.tries, route.sample_ratio) == (4, 0.5)
    assert repr(route) == "Route(1 shop/web: Prefix a.test/api -> shop/web:80)"
    assert repr(built) == "Table(generation 9, 2 routes, 1 hosts)"


def test_indexes_are_unique_over_rules_and_defaults() -> None:
    defaults = (rule("Prefix h/"),)
    built = build(table(rule("Prefix /a"), rule("Exact /b"), default=rule("Prefix /"), host_defaults=defaults))
    assert [route.index for route in built.routes] == [0, 1, 2, 3]
    assert built.default in built.routes


def test_a_backend_that_is_missing_is_named() -> None:
    with pytest.raises(SettingsError, match=r"ns/web .*/a names the backend 'ns/s:80'"):
        Table(TableSpec(1, (rule("Prefix /a"),)), {}, Ledger().of)


@given(st.lists(rules(), max_size=12), names, paths)
def test_agrees_with_the_specification(written: list[RouteSpec], host: str, path: str) -> None:
    assert matched(table(*written), host, path) is oracle.winner(written, host, path)
