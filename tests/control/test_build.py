from __future__ import annotations

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from proxy.control.annotations import Options
from proxy.control.build import Choices, build
from proxy.control.objects import (
    BackendPort,
    HTTPPath,
    HTTPRule,
    Ingress,
    IngressBackend,
    IngressRule,
    IngressSpec,
    Metadata,
    ServiceBackend,
)
from proxy.control.store import Objects
from proxy.route.match import path_key
from proxy.route.spec import RouteSpec, TableSpec
from proxy.route.stats import Ledger
from proxy.route.table import Table
from tests.control.texts import API, built, clean, ingress, objects, read, said


def rules(table: TableSpec) -> list[str]:
    return [f"{route.name}: {route.path_type} {route.host}{route.path} -> {route.backend}" for route in table.routes]


def older(text: str, time: str) -> str:
    return text.replace("metadata: {", f"metadata: {{creationTimestamp: '{time}', ")


def test_an_ingress_becomes_routes() -> None:
    text = ingress("Prefix / -> api:80", "Exact /a -> api:http", "ImplementationSpecific /b/ -> api:80").replace(
        "metadata: {", "metadata: {uid: u-1, resourceVersion: '42', "
    )
    table = clean(API, text)
    assert table.generation == 1
    assert table.routes[0] == RouteSpec("shop", "web", "u-1", "42", "shop.test", "/", "Prefix", "shop/api:80")
    assert rules(table) == [
        "web: Prefix shop.test/ -> shop/api:80",
        "web: Exact shop.test/a -> shop/api:http",
        "web: Prefix shop.test/b/ -> shop/api:80",
    ]
    assert (table.default_route, table.host_defaults, table.certificates, table.default_certificate) == (
        None,
        (),
        (),
        None,
    )


def test_a_rule_without_host_and_a_path_left_out() -> None:
    text = ingress("ImplementationSpecific / -> api:80", host="").replace("path: /, ", "")
    assert rules(clean(API, text)) == ["web: Prefix / -> shop/api:80"]


def test_annotations_reach_routes_and_backends() -> None:
    annotations = (
        "nginx.ingress.kubernetes.io/proxy-body-size: 8m, nginx.ingress.kubernetes.io/proxy-read-timeout: '5',"
        "nginx.ingress.kubernetes.io/proxy-connect-timeout: '6', nginx.ingress.kubernetes.io/proxy-send-timeout: '7',"
        "nginx.ingress.kubernetes.io/proxy-next-upstream-tries: '2', spanway.io/sample-ratio: '0.25',"
        "nginx.ingress.kubernetes.io/load-balance: ewma"
    )
    table = clean(API, ingress("Prefix / -> api:80", annotations=annotations))
    route = table.routes[0]
    assert (route.body_limit, route.read_timeout, route.connect_timeout, route.send_timeout) == (8 << 20, 5, 6, 7)
    assert (route.tries, route.sample_ratio) == (2, 0.25)
    assert table.backends[0].policy == "ewma"


def test_an_operator_s_choices() -> None:
    choices = Choices(defaults=Options(tries=1, body_limit=0), verify_upstreams=True)
    table = clean(API, ingress("Prefix / -> api:80"), choices=choices)
    assert (table.routes[0].tries, table.routes[0].body_limit, table.backends[0].verify) == (1, 0, True)


def test_tries_are_capped_by_the_operator_and_it_is_said() -> None:
    text = ingress("Prefix / -> api:80", annotations="spanway.io/proxy-next-upstream-tries: '6'")
    table, problems = built(API, text, choices=Choices(most_tries=5))
    assert table.routes[0].tries == 5
    assert [problem.severity for problem in problems] == ["warning"]
    assert clean(API, text, choices=Choices(most_tries=6)).routes[0].tries == 6


def test_annotation_problems_have_their_line() -> None:
    text = """
        apiVersion: networking.k8s.io/v1
        kind: Ingress
        metadata:
          name: web
          namespace: shop
          annotations:
            example.org/other: x
            nginx.ingress.kubernetes.io/proxy-body-size: huge
        spec: {defaultBackend: {service: {name: api, port: {number: 80}}}}
    """
    table, [problem] = built(API, text)
    assert (problem.severity, problem.file, problem.line) == ("error", "m.yaml", 8)
    assert str(problem) == (
        "m.yaml:8: error: Ingress shop/web: metadata.annotations[nginx.ingress.kubernetes.io/proxy-body-size]:"
        " 'huge' cannot be used (a size is a number of bytes, or a number with k, m or g, such as 8m; 0 is no limit)"
    )
    assert table.default_route is not None, "the rest stands, for a controller that serves what it can"


def conflict(*texts: str) -> tuple[list[str], list[str]]:
    table, problems = built(API, *texts)
    assert all(problem.severity == "warning" for problem in problems)
    return rules(table), [f"{problem.name}: {problem.field}: {problem.message}" for problem in problems]


TAKEN = "spec.rules[0].http.paths[0].path: Prefix shop.test / already belongs to Ingress"


def test_of_two_equal_rules_the_oldest_object_s_holds() -> None:
    a = older(ingress("Prefix / -> api:80", name="a"), "2026-01-02T00:00:00Z")
    b = older(ingress("Prefix / -> api:http", name="b"), "2026-01-01T00:00:00Z")
    for texts in ((a, b), (b, a)):
        assert conflict(*texts) == (
            ["b: Prefix shop.test/ -> shop/api:http"],
            [f"a: {TAKEN} shop/b, which goes first; this path takes no requests"],
        )


def test_without_a_time_the_name_decides_and_a_time_goes_before_none() -> None:
    a, b = ingress("Prefix / -> api:80", name="a"), ingress("Prefix / -> api:80", name="b")
    assert conflict(b, a)[0] == ["a: Prefix shop.test/ -> shop/api:80"]
    assert conflict(a, older(b, "2026-01-01T00:00:00Z"))[0] == ["b: Prefix shop.test/ -> shop/api:80"]


def test_namespaces_go_before_names() -> None:
    z = ingress("Prefix / -> api:80", name="z").replace("namespace: shop", "namespace: alpha")
    table, _ = built(API, ingress("Prefix / -> api:80", name="a"), z)
    assert [(route.namespace, route.name) for route in table.routes] == [("alpha", "z")]


@pytest.mark.parametrize(
    ("one", "other", "same"),
    [
        ("Prefix /a", "Prefix /a/", True),
        ("Prefix /a", "ImplementationSpecific /a", True),
        ("Prefix /a%7Eb", "Prefix /a~b", True),
        ("Exact /a", "Exact /a/", False),
        ("Exact /a", "Prefix /a", False),
        ("Prefix /a", "Prefix /A", False),
    ],
)
def test_what_makes_two_rules_the_same(one: str, other: str, same: bool) -> None:
    found, problems = conflict(ingress(f"{one} -> api:80", name="a"), ingress(f"{other} -> api:80", name="b"))
    assert (len(found), len(problems)) == ((1, 1) if same else (2, 0))


def test_the_same_rule_twice_in_one_ingress() -> None:
    table, problems = built(API, ingress("Prefix /a -> api:80", "Prefix /a/ -> api:80"))
    assert (len(table.routes), problems) == (1, []), "harmless"
    table, [problem] = built(API, ingress("Prefix /a -> api:80", "Prefix /a/ -> api:http"))
    assert rules(table) == ["web: Prefix shop.test/a -> shop/api:80"]
    assert problem.field == "spec.rules[0].http.paths[1].path"
    assert "is the same rule as /a above, with another backend; it takes no requests" in problem.message


DEFAULT = "defaultBackend: {service: {name: api, port: {number: 80}}}"


def test_a_default_backend_serves_what_no_rule_matches() -> None:
    table = clean(API, ingress(name="fallback", extra=DEFAULT), ingress("Prefix / -> api:http"))
    assert table.default_route == RouteSpec("shop", "fallback", "", "", "", "", "Prefix", "shop/api:80")
    assert table.host_defaults == ()
    assert [backend.key for backend in table.backends] == ["shop/api:80", "shop/api:http"]


def test_a_default_backend_with_rules_serves_their_hosts_first() -> None:
    a = ingress("Prefix /a -> api:http", name="a", host="a.test", extra=DEFAULT)
    b = ingress(
        "Prefix /b -> api:http",
        name="b",
        host="'*.b.test'",
        extra=DEFAULT.replace("80", "http").replace("number", "name"),
    )
    table = clean(API, a, b)
    assert [(route.name, route.host, route.path) for route in table.host_defaults] == [
        ("b", "*.b.test", ""),
        ("a", "a.test", ""),
    ]
    assert table.default_route is not None
    assert table.default_route.name == "a", "no other Ingress is for every host"

    def name(host: bytes, path: bytes) -> str:
        keys = {backend.key: "" for backend in table.backends}
        route = Table(table, keys, Ledger().of).match(host, path)
        return "" if route is None else f"{route.name} {route.path}"

    assert name(b"a.test", b"/a") == "a /a"
    assert name(b"a.test", b"/x") == "a "
    assert name(b"x.b.test", b"/x") == "b "
    assert name(b"elsewhere", b"/x") == "a "


def test_the_default_for_every_host() -> None:
    a = ingress("Prefix /a -> api:80", name="a", host="a.test", extra=DEFAULT)
    b, c = (ingress(name=name, extra=DEFAULT) for name in "bc")
    d = ingress("Prefix /a -> api:80", name="d", host="", extra=DEFAULT)
    table, problems = built(API, a, b, c, d)
    assert table.default_route is not None
    assert table.default_route.name == "b", "those that are for every host go first, the oldest of them wins"
    assert [(problem.name, problem.field, problem.message) for problem in problems] == [
        (name, "spec.defaultBackend", "Ingress shop/b already has the default for every host, and goes first")
        for name in "cd"
    ]


def test_two_defaults_for_one_host() -> None:
    a, b = (ingress(f"Prefix /{name} -> api:80", name=name, extra=DEFAULT) for name in "ab")
    table, [problem] = built(API, a, b)
    assert [route.name for route in table.host_defaults] == ["a"]
    assert problem.message == "shop.test already has the defaultBackend of Ingress shop/a, which goes first"


def test_a_host_without_paths() -> None:
    text = ingress(extra=f"rules: [{{host: a.test}}]\n{DEFAULT}")
    table = clean(API, text)
    assert (table.routes, [route.host for route in table.host_defaults]) == ((), ["a.test"])
    _, problems = built(API, ingress(extra="rules: [{host: a.test}]"))
    assert said(problems) == [
        "5 warning spec.rules[0]: has no paths, and there is no defaultBackend to take its host's requests"
    ]


def test_a_canary_takes_no_requests() -> None:
    canary = ingress("Prefix / -> new:80", name="a-canary", annotations="nginx.ingress.kubernetes.io/canary: 'true'")
    table, [problem] = built(API, canary, ingress("Prefix / -> api:80"))
    assert [route.name for route in table.routes] == ["web"]
    assert "canaries are not supported yet: this Ingress takes no requests" in problem.message


CLASS = """
    apiVersion: networking.k8s.io/v1
    kind: IngressClass
    metadata: {name: spanway, annotations: {ingressclass.kubernetes.io/is-default-class: '%s'}}
    spec: {controller: spanway.io/ingress-controller}
"""
ANNOTATED = "kubernetes.io/ingress.class: %s"


@pytest.mark.parametrize(
    ("field", "annotation", "default", "taken"),
    [
        ("spanway", "", "false", True),
        ("nginx", "", "true", False),
        ("", "spanway", "false", True),
        ("", "nginx", "true", False),
        ("", "", "false", False),
        ("", "", "true", True),
    ],
)
def test_classes(field: str, annotation: str, default: str, taken: bool) -> None:
    text = ingress(
        "Prefix / -> api:80",
        extra=f"ingressClassName: {field}" if field else "",
        annotations=ANNOTATED % annotation if annotation else "",
    )
    mine = Choices(ingress_class="spanway")
    assert len(clean(API, CLASS % default, text, choices=mine).routes) == taken
    assert len(clean(API, text).routes) == 1, "without a class every Ingress is served"


def test_the_annotation_goes_before_the_field() -> None:
    """An API server refuses such an object, but one may be older than that rule."""
    spec = IngressSpec("nginx", IngressBackend(ServiceBackend("api", BackendPort("", 80))))
    item = Ingress(Metadata("a", "shop", annotations={"kubernetes.io/ingress.class": "spanway"}), spec)
    found = Objects()
    found.put(item)
    assert build(found, (), 1, Choices(ingress_class="spanway"))[0].default_route is not None
    assert build(found, (), 1, Choices(ingress_class="nginx"))[0].default_route is None


def test_an_ingress_of_another_class_is_not_judged() -> None:
    text = ingress("Prefix / -> api:80", extra="ingressClassName: nginx", annotations="spanway.io/colour: blue")
    assert built(text, choices=Choices(ingress_class="spanway")) == (TableSpec(1), [])


def test_the_table_crosses_as_msgpack() -> None:
    table = clean(API, ingress("Prefix / -> api:80", extra=DEFAULT))
    assert msgspec.msgpack.decode(msgspec.msgpack.encode(table), type=TableSpec) == table


def test_objects_come_and_go() -> None:
    found = objects(API, ingress("Prefix / -> api:80"))
    assert repr(found) == "Objects(1 Ingress, 0 IngressClass, 1 Service, 1 EndpointSlice, 0 Secret)"
    found.remove("EndpointSlice", ("shop", "api-1"))
    found.remove("EndpointSlice", ("shop", "api-1"))
    assert found.slices_of(("shop", "api")) == ()
    table, [problem] = build(found, (), 2)
    assert (table.generation, table.backends[0].endpoints) == (2, ())
    assert "has no EndpointSlice" in problem.message
    found.remove("Ingress", ("shop", "web"))
    assert build(found, (), 3) == (TableSpec(3), [])


def test_a_slice_that_changes_its_service_moves() -> None:
    found = objects(API)
    [(item, place)] = read(API.replace("service-name: api", "service-name: other")).objects[1:]
    found.put(item, place)
    assert found.slices_of(("shop", "api")) == ()
    assert found.slices_of(("shop", "other")) == (item,)


HOSTS = st.sampled_from(["", "a.test", "*.test", "A.Test", "b.a.test"])
PATHS = st.builds(
    HTTPPath,
    st.sampled_from(["", "/", "/a", "/a/", "/a//b", "/%zz", "\u00e9"]),
    st.sampled_from(["Exact", "Prefix", "ImplementationSpecific", ""]),
    st.sampled_from(
        [
            IngressBackend(),
            IngressBackend(ServiceBackend("api", BackendPort("http"))),
            IngressBackend(ServiceBackend("x")),
        ]
    ),
)
INGRESSES = st.builds(
    Ingress,
    st.builds(Metadata, st.sampled_from("abc"), st.sampled_from(["shop", "else"])),
    st.builds(
        IngressSpec,
        default_backend=st.sampled_from(
            [None, IngressBackend(), IngressBackend(ServiceBackend("api", BackendPort("", 80)))]
        ),
        rules=st.lists(
            st.builds(
                IngressRule, HOSTS, st.one_of(st.none(), st.builds(HTTPRule, st.lists(PATHS, max_size=3).map(tuple)))
            ),
            max_size=3,
        ).map(tuple),
    ),
)


@given(st.lists(INGRESSES, max_size=5))
def test_whatever_the_api_server_holds_makes_a_whole_table(ingresses: list[Ingress]) -> None:
    """Objects older than a rule of the API server's stay as they are: nothing may be taken for checked here."""
    found = objects(API)
    for item in ingresses:
        found.put(item)
    table, _ = build(found, (), 1)
    keys = {backend.key: "" for backend in table.backends}
    assert len(keys) == len(table.backends)
    made = Table(table, keys, Ledger().of)
    for route in table.routes:
        host = route.host.replace("*", "x") or "nowhere"
        key = path_key(route.path)
        found_route = made.match(host.encode(), key)
        assert found_route is not None
        # It takes the requests written like it, unless an Exact rule for the same path does.
        assert found_route.spec is route or found_route.spec.path_type == "Exact"
        assert found_route.host == route.host
    same = [
        (route.host, route.path_type, route.path.rstrip("/")) for route in table.routes if route.path_type == "Prefix"
    ]
    assert len(same) == len(set(same))
