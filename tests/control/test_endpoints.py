from __future__ import annotations

from typing import Literal

import pytest

from proxy.control.claims import Choices
from proxy.route.spec import BackendSpec, EndpointSpec
from proxy.settings import Address, Override
from tests.control.texts import API, built, clean, endpointslice, ingress, said, service

WEB = ingress("Prefix / -> api:http")


def backend(*texts: str, overrides: tuple[Override, ...] = ()) -> BackendSpec:
    [found] = clean(*texts, overrides=overrides).backends
    return found


def addresses(*texts: str) -> list[str]:
    return [f"{one.host}:{one.port}" for one in backend(*texts).endpoints]


def missing(*texts: str) -> str:
    """What is said of a backend without endpoints, without file and line."""
    table, [problem] = built(*texts)
    assert [one.endpoints for one in table.backends] == [()], "its requests get 503 and no other's do"
    assert (problem.severity, problem.namespace, problem.name) == ("warning", "shop", "web")
    return said([problem])[0].split(" ", 2)[2]


def override(
    service: str, namespace: str = "", port: str = "", scheme: Literal["http", "https"] = "http", to: str = "127.0.0.1"
) -> Override:
    return Override(namespace, service, port, scheme, (Address(to, 9000),))


def test_a_port_by_name_and_by_number() -> None:
    for port in ("http", "80"):
        found = backend(ingress(f"Prefix / -> api:{port}"), API)
        assert found == BackendSpec(f"shop/api:{port}", "shop", "api", port, (EndpointSpec("10.0.0.1", 8080),))


def test_the_number_is_the_slice_s_whatever_the_service_calls_its_target() -> None:
    api = service(ports="{name: http, port: 80, targetPort: web}, {name: metrics, port: 9090, targetPort: 9}")
    one = endpointslice(addresses="10.0.0.1", ports="{name: http, port: 8080}, {name: metrics, port: 9}", name="a")
    other = endpointslice(addresses="10.0.0.2", ports="{name: http, port: 8081}", name="b")
    assert addresses(WEB, api, one, other) == ["10.0.0.1:8080", "10.0.0.2:8081"], (
        "a named port may differ from Pod to Pod"
    )
    assert addresses(ingress("Prefix / -> api:9090"), api, one, other) == ["10.0.0.1:9"]


def test_the_unnamed_port() -> None:
    api = service(ports="{port: 80, targetPort: 8080}")
    assert addresses(ingress("Prefix / -> api:80"), api, endpointslice(ports="{port: 8080}")) == ["10.0.0.1:8080"]
    assert addresses(ingress("Prefix / -> api:80"), api, endpointslice(ports="{name: '', port: 7}")) == ["10.0.0.1:7"]


def test_slices_written_by_hand_may_name_the_target_port_or_nothing() -> None:
    api = service(ports="{name: http, port: 80, targetPort: web}")
    assert addresses(WEB, api, endpointslice(ports="{name: web, port: 8080}")) == ["10.0.0.1:8080"]
    api = service(ports="{name: http, port: 80, targetPort: 8080}, {name: x, port: 81, targetPort: 8081}")
    both = endpointslice(ports="{port: 8081}, {port: 8080}")
    assert addresses(WEB, api, both) == ["10.0.0.1:8080"]
    assert "lack a port named http" in missing(WEB, api, endpointslice(ports="{port: 8082}"))


def test_every_port_of_a_slice() -> None:
    assert addresses(
        WEB, service(ports="{name: http, port: 80, targetPort: 8080}"), endpointslice(ports="{name: http}")
    ) == ["10.0.0.1:8080"]
    assert addresses(WEB, service(), endpointslice(ports="{name: http}")) == ["10.0.0.1:80"]


def test_udp_does_not_count() -> None:
    api = service(ports="{name: dns, port: 80, protocol: UDP}, {name: http, port: 80}")
    one = endpointslice(ports="{name: http, port: 53, protocol: UDP}, {name: http, port: 8080}")
    assert addresses(WEB, api, one) == ["10.0.0.1:8080"]
    assert addresses(ingress("Prefix / -> api:80"), api, one) == ["10.0.0.1:8080"]


def test_an_address_in_two_slices_counts_once() -> None:
    assert addresses(
        WEB, service(), endpointslice(addresses="10.0.0.1 10.0.0.2"), endpointslice(addresses="10.0.0.2", name="b")
    ) == [
        "10.0.0.1:8080",
        "10.0.0.2:8080",
    ]


def test_only_the_first_address_of_an_endpoint_and_its_zone() -> None:
    one = endpointslice(endpoints="{addresses: [10.0.0.1, 10.0.0.9], zone: eu-1a}")
    assert backend(WEB, service(), one).endpoints == (EndpointSpec("10.0.0.1", 8080, "eu-1a"),)


def test_slices_of_other_services_and_namespaces_do_not_count() -> None:
    stranger = endpointslice("other", "10.9.9.9")
    foreign = endpointslice(addresses="10.8.8.8", name="c").replace("namespace: shop", "namespace: else")
    assert addresses(WEB, API, stranger, foreign) == ["10.0.0.1:8080"]


@pytest.mark.parametrize(
    ("conditions", "serves"),
    [
        ("{}", True),
        ("{ready: true}", True),
        ("{ready: true, serving: true, terminating: false}", True),
        ("{ready: false}", False),
        ("{ready: false, serving: false, terminating: true}", False),
        ("{ready: false, serving: true, terminating: false}", False),
    ],
)
def test_conditions(conditions: str, serves: bool) -> None:
    one = endpointslice(endpoints=f"{{addresses: [10.0.0.1], conditions: {conditions}}}")
    if serves:
        assert addresses(WEB, service(), one) == ["10.0.0.1:8080"]
    else:
        assert missing(WEB, service(), one).endswith(
            "Service shop/api has no endpoint that is ready; requests get 503 (wait for its Pods)"
        )


def test_terminating_ones_serve_only_where_nothing_else_does() -> None:
    leaving = "{addresses: [10.0.0.1], conditions: {ready: false, serving: true, terminating: true}}"
    assert addresses(WEB, service(), endpointslice(endpoints=leaving)) == ["10.0.0.1:8080"]
    ready = "{addresses: [10.0.0.2], conditions: {ready: true}}"
    assert addresses(WEB, service(), endpointslice(endpoints=f"{leaving}, {ready}")) == ["10.0.0.2:8080"]


def target(name: str) -> str:
    return f"targetRef: {{kind: Pod, namespace: shop, name: {name}}}"


def test_a_pod_of_both_families_is_one_endpoint_by_the_services_first_family() -> None:
    four = endpointslice(endpoints=f"{{addresses: [10.0.0.1], {target('p')}}}, {{addresses: [10.0.0.2]}}", name="a")
    six = endpointslice(
        endpoints=f"{{addresses: ['fd00::1'], {target('p')}}}, {{addresses: ['fd00::3'], {target('q')}}}",
        name="b",
        kind="IPv6",
    )
    first4, first6 = (service(extra=f", ipFamilies: [{families}]") for families in ("IPv4, IPv6", "IPv6, IPv4"))
    assert addresses(WEB, first4, six, four) == ["10.0.0.1:8080", "10.0.0.2:8080", "fd00::3:8080"]
    assert addresses(WEB, first6, six, four) == ["fd00::1:8080", "fd00::3:8080", "10.0.0.2:8080"]
    assert addresses(WEB, service(), four, six) == ["10.0.0.1:8080", "10.0.0.2:8080", "fd00::3:8080"]


def test_headless() -> None:
    headless = service(extra=", clusterIP: None")
    assert addresses(WEB, headless, endpointslice()) == ["10.0.0.1:8080"]
    bare = service(ports="", extra=", clusterIP: None")
    assert addresses(ingress("Prefix / -> api:8080"), bare, endpointslice(ports="{port: 8080}")) == ["10.0.0.1:8080"]
    assert addresses(ingress("Prefix / -> api:8080"), bare, endpointslice(ports="{}")) == ["10.0.0.1:8080"]
    assert missing(WEB, bare, endpointslice()).endswith(
        "has no TCP port named http; requests get 503 (it has no ports)"
    )


def external(ports: str) -> str:
    return service(ports=ports, extra=", type: ExternalName, externalName: Api.Example.org.")


def test_external_names() -> None:
    found = backend(WEB, external("{name: http, port: 80, targetPort: 8080}"))
    assert found.endpoints == (EndpointSpec("api.example.org", 8080),)
    assert found.server_name == "", "nothing asks for it over plain HTTP"
    assert addresses(WEB, external("{name: http, port: 80}")) == ["api.example.org:80"]
    assert addresses(WEB, external("{name: http, port: 80, targetPort: web}")) == ["api.example.org:80"]
    assert addresses(ingress("Prefix / -> api:8443"), external("")) == ["api.example.org:8443"]
    assert "has no TCP port named http" in missing(WEB, external(""))
    assert "has no TCP port 81" in missing(ingress("Prefix / -> api:81"), external("{port: 80}"))
    tls = backend(WEB, external("{name: http, port: 443, appProtocol: https}"))
    assert (tls.scheme, tls.server_name) == ("https", "api.example.org")


def test_what_is_missing_is_said_once_with_the_next_step() -> None:
    assert missing(WEB) == (
        "spec.rules[0].http.paths[0].backend.service.name: Service shop/api does not exist; requests get 503"
        " (add its manifest, or give --upstream shop/api=HOST:PORT)"
    )
    assert missing(WEB, service("apy")).endswith("(did you mean apy?)")
    elsewhere = service().replace("namespace: shop", "namespace: else")
    assert missing(WEB, elsewhere).endswith("(there is one in namespace else, but an Ingress reaches only its own)")
    assert missing(WEB, service()).endswith(
        "Service shop/api has no EndpointSlice; requests get 503 (add one, or give --upstream shop/api=HOST:PORT)"
    )
    assert missing(WEB, service(), endpointslice(endpoints=" ")).endswith("(wait for its Pods)")
    assert missing(ingress("Prefix / -> api:htp"), API) == (
        "spec.rules[0].http.paths[0].backend.service.port: Service shop/api has no TCP port named htp; requests get 503"
        " (it has http (80))"
    )
    assert missing(WEB, service(), endpointslice(ports="{name: web, port: 1}, {port: 2}")).endswith(
        "the EndpointSlices of Service shop/api lack a port named http; requests get 503 (they have 2, web)"
    )
    assert missing(ingress("Prefix / -> api:80"), service(ports="{port: 80}"), endpointslice(ports="")).endswith(
        "the EndpointSlices of Service shop/api lack the unnamed port; requests get 503 (they have no ports)"
    )


def test_an_ingress_hears_of_a_backend_once_and_every_ingress_hears() -> None:
    one = ingress("Prefix /a -> api:80", "Prefix /b -> api:80", "Prefix /c -> api:81")
    other = ingress("Prefix / -> api:80", name="other", host="other.test")
    table, problems = built(one, other)
    assert [(problem.name, problem.field) for problem in problems] == [
        ("other", "spec.rules[0].http.paths[0].backend.service.name"),
        ("web", "spec.rules[0].http.paths[0].backend.service.name"),
        ("web", "spec.rules[0].http.paths[2].backend.service.name"),
    ]
    assert [found.key for found in table.backends] == ["shop/api:80", "shop/api:81"]


def test_a_resource_backend_has_no_endpoints() -> None:
    web = ingress("Prefix / -> api:80").replace(
        "{service: {name: api, port: {number: 80}}}", "{resource: {apiGroup: s.io, kind: Bucket, name: b}}"
    )
    table, [problem] = built(web)
    assert table.backends == (BackendSpec("shop/Bucket.b:", "shop", "Bucket.b", "", ()),)
    assert problem.field == "spec.rules[0].http.paths[0].backend.resource"
    assert problem.message == "resource backends are not supported; requests get 503"


def test_an_override_stands_for_whatever_the_manifests_say() -> None:
    for texts in ((WEB,), (WEB, service()), (WEB, API), (WEB, external(""))):
        found = backend(*texts, overrides=(override("api"),))
        assert found.endpoints == (EndpointSpec("127.0.0.1", 9000),)
        assert (found.key, found.scheme) == ("shop/api:http", "http")


@pytest.mark.parametrize("port", ["80", "http", ""])
@pytest.mark.parametrize("namespace", ["shop", ""])
def test_an_override_fits_by_the_ports_name_or_number(namespace: str, port: str) -> None:
    for web in (WEB, ingress("Prefix / -> api:80")):
        found = backend(web, API, overrides=(override("api", namespace, port),))
        assert found.endpoints == (EndpointSpec("127.0.0.1", 9000),)


def test_an_override_that_does_not_fit_is_said() -> None:
    others = (override("api", "else"), override("api", "", "81"), override("apy", "shop", "80"))
    table, problems = built(WEB, API, overrides=others)
    assert [one.host for one in table.backends[0].endpoints] == ["10.0.0.1"]
    assert [problem.message for problem in problems] == [
        "--upstream else/api: no Ingress names this Service",
        "--upstream api:81: no Ingress names this Service",
        "--upstream shop/apy:80: no Ingress names this Service",
    ]
    assert {(problem.severity, problem.file) for problem in problems} == {("warning", "")}


def test_the_most_telling_override_goes_first() -> None:
    every = (
        override("api", to="1.0.0.1"),
        override("api", port="80", to="1.0.0.2"),
        override("api", "shop", to="1.0.0.3"),
        override("api", "shop", "80", to="1.0.0.4"),
        override("api", to="1.0.0.5"),
    )
    for left, expected in (
        (every, "1.0.0.4"),
        (every[:3], "1.0.0.3"),
        (every[:2], "1.0.0.2"),
        (every[4:] + every[:1], "1.0.0.5"),
    ):
        table, _ = built(WEB, API, overrides=left)
        assert [one.host for one in table.backends[0].endpoints] == [expected]


def test_tls_to_an_override() -> None:
    found = backend(WEB, overrides=(override("api", scheme="https"),))
    assert (found.scheme, found.server_name) == ("https", "")
    found = backend(WEB, overrides=(override("api", scheme="https", to="api.example.org"),))
    assert (found.scheme, found.server_name) == ("https", "api.example.org")
    two = Override("", "api", "", "https", (Address("a.test", 1), Address("b.test", 1)))
    assert backend(WEB, overrides=(two,)).server_name == ""
    plain = ingress("Prefix / -> api:http", annotations="spanway.io/backend-protocol: HTTPS")
    found = backend(plain, overrides=(override("api"),))
    assert found.scheme == "http", "an override says how it is spoken to"


@pytest.mark.parametrize(
    ("protocol", "scheme"),
    [
        ("http", "http"),
        ("https", "https"),
        ("HTTPS", "https"),
        ("kubernetes.io/ws", "http"),
        ("kubernetes.io/wss", "https"),
    ],
)
def test_app_protocols(protocol: str, scheme: str) -> None:
    api = service(ports=f"{{name: http, port: 80, appProtocol: {protocol}}}")
    assert backend(WEB, api, endpointslice()).scheme == scheme
    annotated = ingress("Prefix / -> api:http", annotations="nginx.ingress.kubernetes.io/backend-protocol: HTTP")
    found = backend(annotated, api, endpointslice())
    assert (found.scheme, found.key) == ("http", "shop/api:http;http")


def test_an_app_protocol_to_come() -> None:
    table, [problem] = built(
        WEB, service(ports="{name: http, port: 80, appProtocol: kubernetes.io/h2c}"), endpointslice()
    )
    assert table.backends[0].scheme == "http"
    assert "appProtocol kubernetes.io/h2c is not supported; the upstream is spoken to in HTTP/1.1" in problem.message


def test_ingresses_that_ask_different_things_of_a_service_get_backends_of_their_own() -> None:
    table = clean(
        API,
        ingress("Prefix / -> api:80", name="a", host="a.test"),
        ingress("Prefix / -> api:80", name="b", host="b.test", annotations="spanway.io/load-balance: ewma"),
        ingress("Prefix / -> api:80", name="c", host="c.test", annotations="spanway.io/upstream-hash-by: $uri"),
        ingress("Prefix / -> api:80", name="d", host="d.test", annotations="spanway.io/backend-protocol: HTTPS"),
        ingress("Prefix / -> api:80", name="e", host="e.test", annotations="spanway.io/load-balance: ewma"),
    )
    assert [(found.key, found.policy, found.hash_by, found.scheme) for found in table.backends] == [
        ("shop/api:80", "round_robin", "", "http"),
        ("shop/api:80;ewma", "ewma", "", "http"),
        ("shop/api:80;hash=$uri", "hash", "$uri", "http"),
        ("shop/api:80;https", "round_robin", "", "https"),
    ]
    assert [route.backend for route in table.routes] == [
        "shop/api:80",
        "shop/api:80;ewma",
        "shop/api:80;hash=$uri",
        "shop/api:80;https",
        "shop/api:80;ewma",
    ]


def hinted(*zones: str) -> str:
    """Endpoints 10.0.0.1, .2, ..; each with hints for the zones named by blanks, "" for none."""
    pieces = []
    for number, names in enumerate(zones, 1):
        hints = f", hints: {{forZones: [{', '.join(f'{{name: {name}}}' for name in names.split())}]}}" if names else ""
        pieces.append(f"{{addresses: [10.0.0.{number}], zone: z{number}{hints}}}")
    return ", ".join(pieces)


@pytest.mark.parametrize(
    ("zones", "ours", "hosts"),
    [
        (("a", "b", "a b"), "a", (1, 3)),
        (("a", "b", "a b"), "b", (2, 3)),
        (("a", "b", "a b"), "", (1, 2, 3)),
        (("a", "b", "a b"), "c", (1, 2, 3)),
        (("a", "", "a"), "a", (1, 2, 3)),
        (("", "", ""), "a", (1, 2, 3)),
    ],
    ids=["ours", "another", "unknown", "none for us", "not all", "no hints"],
)
def test_topology_hints_hold_for_all_endpoints_or_for_none(
    zones: tuple[str, ...], ours: str, hosts: tuple[int, ...]
) -> None:
    texts = WEB, service(), endpointslice(endpoints=hinted(*zones))
    [found] = clean(*texts, choices=Choices(zone=ours)).backends
    assert [one.host for one in found.endpoints] == [f"10.0.0.{number}" for number in hosts]


def test_endpoints_that_leave_are_used_whatever_their_zone() -> None:
    leaving = "{addresses: [10.0.0.1], conditions: {ready: false, serving: true, terminating: true}, "
    leaving += "hints: {forZones: [{name: b}]}}"
    [found] = clean(WEB, service(), endpointslice(endpoints=leaving), choices=Choices(zone="a")).backends
    assert [one.host for one in found.endpoints] == ["10.0.0.1"]


def test_a_hint_of_an_endpoint_that_is_not_ready_counts_for_nothing() -> None:
    endpoints = "{addresses: [10.0.0.1], hints: {forZones: [{name: b}]}}, "
    endpoints += "{addresses: [10.0.0.2], conditions: {ready: false}, hints: {forZones: [{name: a}]}}"
    [found] = clean(WEB, service(), endpointslice(endpoints=endpoints), choices=Choices(zone="a")).backends
    assert [one.host for one in found.endpoints] == ["10.0.0.1"]
