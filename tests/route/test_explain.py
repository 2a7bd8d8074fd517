from __future__ import annotations

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from proxy.route.explain import MOST_NEAR, covers, explain, render
from proxy.route.spec import CertificateSpec, RouteSpec, TableSpec
from proxy.route.stats import Ledger
from proxy.route.table import Table
from tests.route import oracle
from tests.route.strategies import names, paths, rule, rules, table


@given(st.lists(rules(), max_size=10), names, paths)
def test_agrees_with_match_and_with_the_specification(written: list[RouteSpec], host: str, path: str) -> None:
    spec = table(*written)
    told = explain(spec, "GET", "http", host, path)
    route = Table(spec, dict.fromkeys([rule.backend for rule in written], ""), Ledger().of).match(
        host.encode(), path.encode()
    )
    assert told.route is (None if route is None else route.spec)
    assert told.route is oracle.winner(written, host, path)
    matching = [
        rule for rule in written if oracle.host_rank(rule, host) is not None and oracle.path_matches(rule, path)
    ]
    assert len(told.lost) + (told.route is not None) == len(matching)
    # Losers stand in the order in which they would take over: each is the winner once those before it are gone.
    gone = [told.route]
    for candidate in told.lost:
        left = [rule for rule in written if not any(rule is other for other in gone)]
        assert candidate.route is oracle.winner(left, host, path)
        gone.append(candidate.route)
    for candidate in told.near:
        assert not any(candidate.route is rule for rule in matching)
    assert all(candidate.reason for candidate in (*told.lost, *told.near))
    assert render(told)


@given(rules(), paths)
def test_covers_agrees_with_the_specification(one: RouteSpec, path: str) -> None:
    assert covers(one, path.encode()) == oracle.path_matches(one, path)


def why(spec: TableSpec, url: str) -> dict[str, str]:
    """Loser or near miss -> why."""
    host, _, path = url.partition("/")
    told = explain(spec, "GET", "http", host, f"/{path}")
    return {f"{one.route.path_type} {one.route.host}{one.route.path}": one.reason for one in (*told.lost, *told.near)}


@pytest.mark.parametrize(
    ("written", "url", "loser", "reason"),
    [
        (["Prefix a.test/", "Prefix a.test/api"], "a.test/api/1", 0, "its path / is shorter than /api"),
        (["Prefix a.test/api", "Exact a.test/api"], "a.test/api", 0, "of two equal paths the Exact goes first"),
        (["Prefix *.test/x", "Prefix a.test/"], "a.test/x", 0, "a rule for exactly a.test goes first"),
        (["Prefix /x", "Prefix *.test/"], "a.test/x", 0, "it has no host, and a rule for *.test goes first"),
        (["Prefix /x/", "Prefix /x"], "a.test/x", 1, "it is the same rule again, and Ingress ns/web had it first"),
        (["Prefix *.test/"], "test/", 0, "exactly one label, and test has none before .test"),
        (["Prefix *.test/"], "a.b.test/", 0, "exactly one label, and a.b.test has 2 before .test"),
        (["Prefix *.example.org/"], "a.exampel.org/", 0, "its domain is example.org"),
        (["Prefix shop.test/"], "www.shop.test/", 0, "with and without www are two hosts"),
        (["Prefix www.shop.test/"], "shop.test/", 0, "with and without www are two hosts"),
        (["Prefix shop.test/"], "eu.shop.test/", 0, "not what lies below it; *.shop.test would be"),
        (["Prefix shop.example.org/"], "shpo.example.org/", 0, "its host is shop.example.org"),
        (["Prefix /foo"], "a.test/foobar/x", 0, "a path matches by whole elements: 'foobar' is not 'foo'"),
        (["Exact /foo"], "a.test/foo/", 0, "the trailing slash makes /foo another path"),
        (["Exact /foo/"], "a.test/foo", 0, "the trailing slash makes /foo/ another path"),
        (["Exact /foo"], "a.test/foo/bar", 0, "Exact covers /foo alone and nothing below it; Prefix would"),
        (["Exact /"], "a.test/foo", 0, "Exact covers / alone"),
        (["Prefix /Foo"], "a.test/foo/x", 0, "paths are case-sensitive"),
        (["Prefix /foo/bar"], "a.test/foo", 0, "the path stops before /foo/bar"),
        (["Prefix /foo"], "a.test/bar", 0, "the path is not /foo and not below it"),
    ],
)
def test_says_why(written: list[str], url: str, loser: int, reason: str) -> None:
    assert reason in why(table(*(rule(text) for text in written)), url)[written[loser]]


@pytest.mark.parametrize(
    ("written", "url"),
    [
        (["Prefix other.example.org/"], "shop.test/"),
        (["Prefix *.example.org/"], "localhost/"),
        (["Prefix *.example.org/"], "a.test/"),
        (["Prefix a.test/", "Prefix a.test/quite/else"], "a.test/foo"),
    ],
)
def test_says_nothing_of_rules_that_are_far_off(written: list[str], url: str) -> None:
    assert why(table(*(rule(text) for text in written)), url) == {}


def test_near_misses_are_bounded_and_the_unrelated_come_last() -> None:
    far = [rule(f"Prefix a.test/other{number}") for number in range(MOST_NEAR + 5)]
    near = rule("Exact a.test/foo")
    told = explain(table(*far, near), "GET", "http", "a.test", "/foo/1")
    assert len(told.near) == MOST_NEAR
    assert told.near[0].route is near
    assert told.near_left_out == 6
    assert "and 6 more" in render(told)


def test_the_host_field_stands_for_the_urls_and_neither_case_nor_port_nor_final_dot_matter() -> None:
    spec = table(rule("Prefix shop.test/"))
    for host in ("Shop.Test", "shop.test:8443", "shop.test."):
        assert explain(spec, "GET", "http", host, "/").route is not None
    told = explain(spec, "GET", "http", "127.0.0.1", "/", [("Accept", "*/*"), ("HOST", "shop.test:80")])
    assert told.route is not None
    assert told.host == "shop.test"
    assert explain(spec, "GET", "http", "[::1]:80", "/").host == "[::1]"


def test_default_backends_lose_to_every_rule_and_serve_what_is_left() -> None:
    mine = msgspec.structs.replace(rule("Prefix a.test/"), path="")
    everyone = msgspec.structs.replace(rule("Prefix /"), path="")
    spec = table(rule("Prefix a.test/x"), default=everyone, host_defaults=(mine,))
    told = explain(spec, "GET", "http", "a.test", "/x")
    assert [candidate.route for candidate in told.lost] == [mine, everyone]
    assert "only what no rule matches" in told.lost[0].reason
    told = explain(spec, "GET", "http", "a.test", "/y")
    assert told.route is mine
    assert [candidate.route for candidate in told.lost] == [everyone]
    assert "a default backend serves it" in told.reason
    assert explain(spec, "GET", "http", "b.test", "/y").route is everyone


def test_tls_names_the_secret_that_the_host_is_shown() -> None:
    def certificate(secret: str, *hosts: str) -> CertificateSpec:
        return CertificateSpec(secret, hosts, b"PUBLIC", b"PRIVATE")

    spec = table(rule("Prefix /"))
    wild, exact = certificate("ns/wild", "*.test"), certificate("ns/exact", "a.test")
    spec = msgspec.structs.replace(spec, certificates=(wild, exact))
    assert explain(spec, "GET", "https", "a.test", "/").certificate == "ns/exact"
    assert explain(spec, "GET", "https", "b.test", "/").certificate == "ns/wild"
    assert explain(spec, "GET", "http", "a.test", "/").certificate == ""
    told = explain(spec, "GET", "https", "localhost", "/")
    assert told.certificate == ""
    assert "certificate: none for this host" in render(told)
    spec = msgspec.structs.replace(spec, default_certificate=certificate("ns/default"))
    told = explain(spec, "GET", "https", "localhost", "/")
    assert told.certificate == "ns/default"
    assert "PRIVATE" not in repr(told)


@pytest.mark.parametrize(
    ("limit", "text"),
    [(1 << 20, "1 MiB"), (8 << 10, "8 KiB"), (1536, "1536 bytes"), (2 << 30, "2 GiB"), (1000, "1000 bytes")],
)
def test_a_body_limit_is_shown_in_its_unit(limit: int, text: str) -> None:
    spec = table(msgspec.structs.replace(rule("Prefix shop.test/"), body_limit=limit))
    assert f"limits: body {text}, " in render(explain(spec, "GET", "http", "shop.test", "/"))


def test_rendering() -> None:
    api = msgspec.structs.replace(rule("Prefix shop.test/api", name="api"), body_limit=0)
    spec = table(rule("Prefix shop.test/"), api, rule("Exact shop.test/api/cart"))
    assert render(explain(spec, "POST", "http", "shop.test", "/api/cart/7")) == (
        "POST http://shop.test/api/cart/7\n"
        "\n"
        "Route shop.test, Prefix /api (Ingress ns/api)\n"
        "  It is for exactly this host and has a path, /api, that holds this one; of all rules that match it is the"
        " most specific.\n"
        "  backend: Service ns/s, port 80, by HTTP, round_robin\n"
        "  endpoints: 10.0.0.1:8080\n"
        "  limits: body no limit, connect 5 s, read 60 s, send 60 s, 3 tries\n"
        "\n"
        "Also matches\n"
        "  shop.test, Prefix / (Ingress ns/web)\n"
        "    but its path / is shorter than /api\n"
        "\n"
        "Nearly matches\n"
        "  shop.test, Exact /api/cart (Ingress ns/web)\n"
        "    but Exact covers /api/cart alone and nothing below it; Prefix would\n"
    )


def test_rendering_without_a_route_endpoints_or_backend() -> None:
    assert render(explain(table(), "GET", "http", "shop.test", "/")) == (
        "GET http://shop.test/\n"
        "\n"
        "No route\n"
        "  No rule matches both this host and this path, and no Ingress has a default backend: the answer is 404.\n"
    )
    spec = table(rule("Exact /"))
    empty = msgspec.structs.replace(spec.backends[0], endpoints=(), policy="hash", hash_by="$remote_addr")
    text = render(explain(msgspec.structs.replace(spec, backends=(empty,)), "GET", "http", "a.test", "/"))
    assert "It is for any host and is exactly this path; no other rule matches." in text
    assert "hash of $remote_addr" in text
    assert "endpoints: none, so the answer is 503" in text
    text = render(explain(msgspec.structs.replace(spec, backends=()), "GET", "http", "a.test", "/"))
    assert "which the table does not have" in text
