"""Attacks by way of annotations: what a client sends into groups and variables, and what an Ingress's author writes."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from tests.edge.conftest import clean
from tests.harness.edge import Edge, request
from tests.harness.manifests import documents, ingress, service, site
from tests.harness.wire import Response

PATIENCE = 2.0  # seconds: a hostile expression and a path made for it; what is tested is that it ends at all


def rules(name: str, path: str, **annotations: str) -> dict[str, Any]:
    named = {key.replace("_", "-"): value for key, value in annotations.items()}
    return ingress(name, [(path, "app", "ImplementationSpecific")], host=f"{name}.test", annotations=named)


def objects(edge: Edge) -> list[dict[str, Any]]:
    return [
        *service("app", [edge.a.port]),
        rules("away", "/old(.*)", use_regex="true", permanent_redirect="https://new.test$1"),
        rules("self", "/", permanent_redirect="https://www.$host$request_uri"),
        rules("https", "/", force_ssl_redirect="true"),
        rules("joined", "/j(.*)", rewrite_target="/.$1"),
        rules("split", "/s/(..)(.*)", rewrite_target="/$1/$2"),
        rules("bare", "/b(/.*)?", rewrite_target="$1"),
        rules("many", "/m(.*)", rewrite_target="/" + "$1" * 500, x_forwarded_prefix="/" + "$1" * 500),
        rules("prefixed", "/p/(.*)", rewrite_target="/$1", x_forwarded_prefix="/$1"),
        rules("bombs", "/(x+x+)+y"),
        rules("bomb2", "/(.*a){30}$", use_regex="true"),
        rules("bomb3", "/(a|aa|a?)*b", use_regex="true"),
    ]


@pytest.fixture(scope="module")
def annotated(launch: Callable[..., Edge]) -> Edge:
    edge = launch()
    before = edge.proxy.generation()
    edge.proxy.write("more.yaml", documents(*objects(edge)))
    edge.proxy.applied(before)
    return edge


@pytest.fixture
def edge(annotated: Edge) -> Iterator[Edge]:
    yield from clean(annotated)


def asked(edge: Edge, host: str, target: str, *lines: str) -> Response:
    with edge.client() as client:
        return client.ask(request(*lines, host=host, target=target))


# Open redirects.


@pytest.mark.parametrize(
    "path", [".evil.test/", "@evil.test", ":80@evil.test/", "-evil.test", "%2eevil.test", "\\evil"]
)
def test_a_group_cannot_lengthen_the_host_of_a_redirect(edge: Edge, path: str) -> None:
    location = asked(edge, "away.test", f"/old{path}").fields.one("Location")
    assert location.startswith("https://new.test/"), location


@pytest.mark.parametrize("target", ["//evil.test/", "/\\evil.test", "//evil.test//x", "/%2F/evil.test", "/@evil.test"])
def test_a_path_cannot_become_a_host(edge: Edge, target: str) -> None:
    for host in ("self.test", "https.test"):
        location = asked(edge, host, target).fields.one("Location")
        assert location.split("/")[2] in ("www.self.test", "https.test"), location


@pytest.mark.parametrize("host", ["evil.test/x", "a@evil.test", "evil.test\\x", "https.test, evil.test", "a b"])
def test_no_other_host_is_redirected_to(edge: Edge, host: str) -> None:
    # Nor is one that a trusted proxy claims and that is none.
    assert asked(edge, host, "/").status == 400
    location = asked(edge, "https.test", "/", f"X-Forwarded-Host: {host}").fields.one("Location")
    assert location in ("https://https.test/", "https://evil.test/")
    assert ("evil" in location) == (host == "https.test, evil.test")  # the last of several is the nearest hop's


# Header injection.


@pytest.mark.parametrize("text", ["%0d%0aX-Evil:%201", "%0aX-Evil:1", "%0D%0A%0D%0A<html>", "%C4%8D%C4%8AX-Evil:1"])
def test_groups_carry_no_line_ends(edge: Edge, text: str) -> None:
    response = asked(edge, "away.test", f"/old/{text}")
    assert response.status == 301
    assert "X-Evil" not in response.fields
    for host in ("self.test", "https.test"):
        assert "X-Evil" not in asked(edge, host, f"/{text}?{text}").fields
    seen = edge.passed(request(host="prefixed.test", target=f"/p/{text}"))
    assert "X-Evil" not in seen.fields
    assert len(seen.fields.all("X-Forwarded-Prefix")) == 1


@pytest.mark.parametrize("raw", [b"\r\nX-Evil: 1", b"\nX-Evil: 1", b"\x00", b"\x7f", b"\xc4\x8d\xc4\x8a"])
def test_bytes_that_are_no_path_come_to_no_expression(edge: Edge, raw: bytes) -> None:
    with edge.client() as client:
        client.send(b"GET /old%b HTTP/1.1\r\nHost: away.test\r\n\r\n" % raw)
        assert client.response().status in (400, 505)


# Paths.


@pytest.mark.parametrize("path", ["./etc/passwd", "./", ".", "./..", "./x/../..", "%2e/etc"])
def test_groups_that_join_to_dot_segments_do_not_climb(edge: Edge, path: str) -> None:
    """The path is matched in normal form, and what the groups make is put into normal form again."""
    response = asked(edge, "joined.test", f"/j{path}")
    assert response.status in (400, 404)  # 404 where the dots are gone before anything is matched
    assert edge.a.requests == []


def test_groups_that_join_to_a_dot_segment_below_the_root_are_resolved(edge: Edge) -> None:
    edge.passed(request(host="joined.test", target="/j/x"), target="/x")


@pytest.mark.parametrize("path", ["%41%42", "%2Fetc", "%25%32%65", "a%2Fb"])
def test_groups_that_split_an_escape_are_refused(edge: Edge, path: str) -> None:
    response = asked(edge, "split.test", f"/s/{path}")
    if response.status == 200:  # it was not split
        [seen] = edge.a.requests
        assert "%" not in seen.target or "%2F" in seen.target
    else:
        assert response.status == 400
        assert edge.a.requests == []


def test_a_rewrite_to_nothing_is_the_root(edge: Edge) -> None:
    edge.passed(request(host="bare.test", target="/b?x"), target="/?x")
    edge.a.reset()
    edge.passed(request(host="bare.test", target="/b//evil.test"), target="/evil.test")


def test_groups_cannot_grow_a_request_without_bound(edge: Edge) -> None:
    edge.passed(request(host="many.test", target="/m"))
    edge.a.reset()
    assert asked(edge, "many.test", "/m/" + "x" * 4000).status == 414
    assert edge.a.requests == []


@given(
    st.lists(st.sampled_from(["/", ".", "..", "%2e", "%2F", "%5C", "%25", "a", "\\", ";", "?", "=", "//"]), max_size=9)
)
@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_whatever_is_rewritten_reaches_the_upstream_in_normal_form_or_not_at_all(edge: Edge, pieces: list[str]) -> None:
    edge.a.reset()
    for host, base in (("joined.test", "/j"), ("prefixed.test", "/p/"), ("bare.test", "/b/")):
        response = asked(edge, host, base + "".join(pieces))
        assert response.status in (200, 400, 404)
    for seen in edge.a.requests:
        path = seen.target.partition("?")[0]
        assert path.startswith("/")
        assert not path.startswith("//")
        assert not {".", "..", "%2e", "%2E"} & set(path.split("/"))


# Expressions.


@pytest.mark.parametrize("host", ["bombs.test", "bomb2.test", "bomb3.test"])
@pytest.mark.parametrize("path", ["x" * 7000, "a" * 7000, "ax" * 3500, "ab" * 3500])
def test_hostile_expressions_end(edge: Edge, host: str, path: str) -> None:
    began = time.monotonic()
    asked(edge, host, f"/{path}")
    edge.probe()
    assert time.monotonic() - began < PATIENCE


HOSTILE = (
    "/((a{100}){100}){100}",
    "/a{1001}",
    "/(?=x)",
    "/(a)\\1",
    "/(?P<n",
    "/(" * 100,
    "/[z-a]",
    "/" + "(a|b)" * 300,
    "/\\",
    "/" + "a" * 1030,
    "/[\u00e9]",
)


def test_an_expression_that_cannot_be_had_costs_only_its_own_path(start: Callable[..., Edge]) -> None:
    hosts = [
        ingress(
            f"hostile{number}",
            [(path, "a", "ImplementationSpecific"), ("/fine", "b", "Prefix")],
            host=f"hostile{number}.test",
            annotations={"use-regex": "true"},
        )
        for number, path in enumerate(HOSTILE)
    ]
    edge = start(extra=hosts)
    told = {problem["name"]: problem["message"] for problem in edge.proxy.admin_json("/routes")["problems"]}
    for number in range(len(HOSTILE)):
        assert asked(edge, f"hostile{number}.test", "/fine").status == 200
        assert asked(edge, f"hostile{number}.test", "/a").status == 404
        assert "this path takes no requests" in told[f"hostile{number}"]


def test_a_host_full_of_expressions_is_bounded_as_a_whole(start: Callable[..., Edge]) -> None:
    paths = [(f"/(.*{n}a){{8}}$", "a", "ImplementationSpecific") for n in range(1000)]
    edge = start(extra=[ingress("many", paths, host="many.test", annotations={"use-regex": "true"})])
    problems = edge.proxy.admin_json("/routes")["problems"]
    assert len(problems) > 500
    began = time.monotonic()
    assert asked(edge, "many.test", "/" + "1a" * 3500).status in (200, 404)
    assert time.monotonic() - began < PATIENCE


def test_thousands_of_annotations(start: Callable[..., Edge]) -> None:
    edge = start()
    before = edge.proxy.generation()
    many = {f"nginx.ingress.kubernetes.io/proxy-read-timeou{n}": "x" * 20 for n in range(3000)}
    began = time.monotonic()
    edge.proxy.write("more.yaml", documents(*site("thousands", [edge.a.port], annotations=many)))
    edge.proxy.applied(before)
    assert time.monotonic() - began < 10 * PATIENCE
    assert asked(edge, "thousands.test", "/").status == 200
    assert len(edge.proxy.admin_json("/routes")["problems"]) < 100
