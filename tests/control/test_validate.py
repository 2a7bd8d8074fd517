"""Objects against the API server's rules; the lists are those of its own tests where they apply."""

from __future__ import annotations

import pytest

from tests.control.texts import endpointslice, ingress, read, said, service


def problems(text: str) -> list[str]:
    return [line.split(" ", 1)[1] for line in said(read(text).problems)]


def ingress_with(spec: str, annotations: str = "") -> list[str]:
    head = "apiVersion: networking.k8s.io/v1\nkind: Ingress\n"
    return problems(f"{head}metadata: {{name: a, annotations: {{{annotations}}}}}\nspec: {spec}\n")


def with_path(path: str) -> list[str]:
    found = ingress_with(f"{{rules: [{{http: {{paths: [{path}]}}}}]}}")
    return [text.replace("spec.rules[0].http.paths[0].", "") for text in found]


TO = "backend: {service: {name: x, port: {number: 80}}}"


@pytest.mark.parametrize("path", ["/", "/foo", "/foo/", "/foo/bar.baz/..a", "/caf\u00e9", "/a%20b", "/a b", "/(.*)"])
@pytest.mark.parametrize("kind", ["Exact", "Prefix", "ImplementationSpecific"])
def test_good_paths(kind: str, path: str) -> None:
    assert with_path(f"{{pathType: {kind}, path: '{path}', {TO}}}") == []


@pytest.mark.parametrize("path", ["/foo//bar", "/foo/./bar", "/foo/../bar", "/a%2fb", "/a%2Fb", "/foo/..", "/foo/."])
def test_paths_that_only_implementation_specific_may_have(path: str) -> None:
    assert with_path(f"{{pathType: ImplementationSpecific, path: '{path}', {TO}}}") == []
    for kind in ("Exact", "Prefix"):
        [problem] = with_path(f"{{pathType: {kind}, path: '{path}', {TO}}}")
        assert problem.startswith(f"error path: '{path}' must not ")


@pytest.mark.parametrize("kind", ["Exact", "Prefix", "ImplementationSpecific"])
def test_paths_begin_with_a_slash(kind: str) -> None:
    assert with_path(f"{{pathType: {kind}, path: foo, {TO}}}") == ["error path: 'foo' must begin with / (write /foo)"]
    assert with_path(f"{{pathType: {kind}, path: '*', {TO}}}") == ["error path: '*' must begin with /"]
    [problem] = with_path(f"{{pathType: {kind}, path: /{'x' * 5000}, {TO}}}")
    assert problem == "error path: must be no more than 4096 characters"


def test_only_implementation_specific_may_leave_the_path_out() -> None:
    assert with_path(f"{{pathType: ImplementationSpecific, {TO}}}") == []
    for kind in ("Exact", "Prefix"):
        message = f"error path: is missing, which {kind} does not allow (write / for every path)"
        assert with_path(f"{{pathType: {kind}, {TO}}}") == [message]


def test_path_types() -> None:
    kinds = "Exact, Prefix, ImplementationSpecific"
    assert with_path(f"{{path: /, {TO}}}") == [f"error pathType: is missing (one of {kinds}; Prefix is the usual one)"]
    assert with_path(f"{{path: /, pathType: prefix, {TO}}}") == [
        "error pathType: 'prefix' is no path type (did you mean Prefix?)"
    ]
    assert with_path(f"{{path: /, pathType: Regex, {TO}}}") == [
        f"error pathType: 'Regex' is no path type (one of {kinds})"
    ]


@pytest.mark.parametrize(
    ("backend", "problem"),
    [
        ("{service: {name: x, port: {name: http}}}", ""),
        ("{service: {name: 1x, port: {number: 65535}}}", ""),
        ("{resource: {apiGroup: a.b, kind: Bucket, name: x}}", ""),
        ("{}", "error backend: must name a service (in networking.k8s.io/v1: service.name, and "),
        ("{service: {}, resource: {}}", "error backend: cannot name both a service and a resource"),
        ("{resource: {name: x}}", "error backend.resource.kind: is missing"),
        ("{service: {port: {number: 80}}}", "error backend.service.name: is missing"),
        ("{service: {name: X, port: {number: 80}}}", "error backend.service.name: 'X' must be lower-case"),
        ("{service: {name: x.y, port: {number: 80}}}", "error backend.service.name: 'x.y' must be lower-case"),
        ("{service: {name: x}}", "error backend.service.port: needs a name or a number"),
        ("{service: {name: x, port: {number: 65536}}}", "error backend.service.port.number: '65536' must be between"),
        ("{service: {name: x, port: {number: -1}}}", "error backend.service.port.number: '-1' must be between"),
        ("{service: {name: x, port: {name: a, number: 1}}}", "error backend.service.port: cannot have both"),
        (
            "{service: {name: x, port: {name: '80'}}}",
            "error backend.service.port.name: '80' must contain at least one letter (a port's number is written as",
        ),
    ],
)
def test_backends(backend: str, problem: str) -> None:
    found = with_path(f"{{path: /, pathType: Prefix, backend: {backend}}}")
    assert len(found) == bool(problem)
    assert not problem or found[0].startswith(problem)


@pytest.mark.parametrize("host", ["a", "foo.bar.com", "1foo.bar", "*.foo.com", "*.com", "x" * 200])
def test_good_hosts(host: str) -> None:
    assert problems(ingress("Prefix / -> x:80", host=f"'{host}'")) == []
    assert ingress_with(f"{{defaultBackend: {TO[9:]}, tls: [{{hosts: ['{host}'], secretName: a.b}}]}}") == []


WILDCARD = "a wildcard must be the whole first label, as in *.example.org"


@pytest.mark.parametrize(
    ("host", "problem"),
    [
        ("Foo.bar", "must be lower-case letters, digits, '-' and '.', and begin"),
        ("foo_bar.com", "must be lower-case"),
        ("foo.bar.", "must be lower-case"),
        (".foo", "must be lower-case"),
        ("foo..bar", "must be lower-case"),
        ("foo.bar:80", "must be lower-case"),
        ("foo/bar", "must be lower-case"),
        ("-foo.bar", "must be lower-case"),
        ("x" * 254, "must be no more than 253"),
        ("*", WILDCARD),
        ("*.", WILDCARD),
        ("*foo.com", WILDCARD),
        ("foo.*.com", WILDCARD),
        ("*.*.com", WILDCARD),
        ("foo.bar.*", WILDCARD),
        ("*.Foo.com", WILDCARD),
    ],
)
def test_bad_hosts(host: str, problem: str) -> None:
    for found in (
        problems(ingress("Prefix / -> x:80", host=f"'{host}'")),
        ingress_with(f"{{defaultBackend: {TO[9:]}, tls: [{{hosts: ['{host}']}}]}}"),
    ):
        assert len(found) == 1
        assert problem in found[0]


@pytest.mark.parametrize("host", ["10.0.0.1", "010.000.000.001", "::1", "fd00::1"])
def test_hosts_are_no_addresses(host: str) -> None:
    assert problems(ingress("Prefix / -> x:80", host=f"'{host}'")) == [
        f"error spec.rules[0].host: '{host}' must be a DNS name, not an IP address"
    ]


def test_an_upper_case_host_is_told_how_to_write_it() -> None:
    [problem] = problems(ingress("Prefix / -> x:80", host="Shop.test"))
    assert problem.endswith("(hosts are written in lower case)")


def test_specs() -> None:
    backend = TO[9:]
    assert ingress_with("{}") == ["error spec: either defaultBackend or rules must be given"]
    assert ingress_with(f"{{defaultBackend: {backend}}}") == []
    assert ingress_with("{rules: [{host: a}]}") == []
    assert ingress_with("{rules: [{http: {}}]}") == ["error spec.rules[0].http.paths: must have at least one path"]
    assert ingress_with("{defaultBackend: {}}")[0].startswith("error spec.defaultBackend: must name a service")
    assert ingress_with(f"{{defaultBackend: {backend}, tls: [{{secretName: A}}]}}")[0].startswith(
        "error spec.tls[0].secretName: 'A' must be"
    )
    assert ingress_with(f"{{defaultBackend: {backend}, tls: [{{}}]}}") == []
    assert ingress_with(f"{{defaultBackend: {backend}, ingressClassName: a_b}}")[0].startswith(
        "error spec.ingressClassName: 'a_b' must be"
    )


def test_the_class_annotation_must_agree_with_the_field() -> None:
    spec = f"{{defaultBackend: {TO[9:]}, ingressClassName: a}}"
    assert ingress_with(spec, "kubernetes.io/ingress.class: a") == []
    said = "is 'b', but spec.ingressClassName is 'a' (remove the annotation, which is deprecated)"
    assert ingress_with(spec, "kubernetes.io/ingress.class: b") == [
        f"error metadata.annotations[kubernetes.io/ingress.class]: {said}"
    ]


def test_every_error_is_told_at_once() -> None:
    found = ingress_with("{rules: [{host: A, http: {paths: [{path: x, pathType: Exact}, {}]}}], tls: [{hosts: ['*']}]}")
    assert [text.split(":")[0] for text in found] == [
        "error spec.rules[0].host",
        "error spec.rules[0].http.paths[0].path",
        "error spec.rules[0].http.paths[0].backend",
        "error spec.rules[0].http.paths[1].pathType",
        "error spec.rules[0].http.paths[1].backend",
        "error spec.tls[0].hosts[0]",
    ]


def test_a_broken_ingress_is_left_out() -> None:
    assert read(ingress("Prefix x -> x:80")).objects == ()


@pytest.mark.parametrize(
    ("text", "problem"),
    [
        (service(ports="{port: 80, targetPort: http}"), ""),
        (service(ports="{port: 80, targetPort: 8080, protocol: UDP}"), ""),
        (service(ports="", extra=", clusterIP: None"), ""),
        (service(ports="", extra=", type: ExternalName, externalName: Db.Example.org."), ""),
        (service(ports=""), "error spec.ports: must have at least one port (only a headless Service may have none)"),
        (service(extra=", type: Magic"), "error spec.type: 'Magic' is none of ClusterIP, NodePort, "),
        (service(extra=", type: ExternalName"), "error spec.externalName: '' must be lower-case"),
        (service(ports="{port: 0}"), "error spec.ports[0].port: '0' must be between 1 and 65535"),
        (service(ports="{port: 80, protocol: tcp}"), "error spec.ports[0].protocol: 'tcp' is none of TCP, UDP, SCTP"),
        (service(ports="{port: 80, name: A}"), "error spec.ports[0].name: 'A' must be"),
        (service(ports="{port: 80}, {port: 81, name: a}"), "error spec.ports[0].name: is missing (where there are"),
        (service(ports="{port: 80, name: a}, {port: 81, name: a}"), "error spec.ports[1].name: 'a' stands twice"),
        (service(ports="{port: 80, targetPort: 70000}"), "error spec.ports[0].targetPort: '70000' must be between"),
        (service(ports="{port: 80, targetPort: A}"), "error spec.ports[0].targetPort: 'A' must be"),
        (endpointslice(addresses="10.0.0.1 10.0.0.2"), ""),
        (endpointslice(addresses="127.0.0.1"), ""),
        (endpointslice(addresses="fd00::1", kind="IPv6"), ""),
        (endpointslice(addresses="a.example.org", kind="FQDN"), ""),
        (endpointslice(ports="{}"), ""),
        (endpointslice(kind="IP"), "error addressType: 'IP' is none of IPv4, IPv6, FQDN"),
        (endpointslice(addresses="fd00::1"), "error endpoints[0].addresses[0]: 'fd00::1' is no IPv4 address"),
        (endpointslice(addresses="10.0.0.1", kind="IPv6"), "error endpoints[0].addresses[0]: '10.0.0.1' is no IPv6"),
        (endpointslice(addresses="localhost"), "error endpoints[0].addresses[0]: 'localhost' is no IPv4 address"),
        (endpointslice(addresses="010.0.0.1"), "error endpoints[0].addresses[0]: '010.0.0.1' is no IPv4 address"),
        (endpointslice(addresses="a_b", kind="FQDN"), "error endpoints[0].addresses[0]: 'a_b' must be"),
        (endpointslice(endpoints="{addresses: []}"), "error endpoints[0].addresses: must have at least one address"),
        (endpointslice(ports="{port: 0}"), "error ports[0].port: '0' must be between"),
        (endpointslice(ports="{name: A}"), "error ports[0].name: 'A' must be"),
        (endpointslice(ports="{protocol: X}"), "error ports[0].protocol: 'X' is none of"),
    ],
)
def test_services_and_slices(text: str, problem: str) -> None:
    found = problems(text)
    assert len(found) == bool(problem), found
    assert not problem or found[0].startswith(problem)
