from __future__ import annotations

import json
from collections import Counter
from pathlib import Path

import pytest
import yaml
from hypothesis import given
from hypothesis import strategies as st

from proxy.control import manifests
from proxy.control.manifests import Cache, load, parse
from proxy.control.objects import KINDS, EndpointSlice, Ingress, IngressClass, Secret, Service
from tests.control.texts import API, dedent, endpointslice, ingress, read, said, service

EVERY_KIND = f"""
apiVersion: networking.k8s.io/v1
kind: IngressClass
metadata: {{name: spanway}}
spec: {{controller: spanway.io/ingress-controller}}
---
{ingress("Prefix / -> api:http")}
---
{API}
---
apiVersion: v1
kind: Secret
metadata: {{name: cert, namespace: shop}}
type: kubernetes.io/tls
data: {{tls.crt: aGk=, tls.key: aGk=}}
---
apiVersion: apps/v1
kind: Deployment
metadata: {{name: api}}
"""


def test_every_kind() -> None:
    manifest = read(EVERY_KIND)
    assert manifest.problems == ()
    assert [type(item) for item, _ in manifest.objects] == [IngressClass, Ingress, Service, EndpointSlice, Secret]
    assert manifest.others == Counter(Deployment=1)
    found = {type(item): item for item, _ in manifest.objects}
    assert found[IngressClass].metadata.namespace == ""
    one = found[Ingress]
    assert isinstance(one, Ingress)
    assert one.spec.rules[0].http is not None
    path = one.spec.rules[0].http.paths[0]
    assert (path.path, path.path_type) == ("/", "Prefix")
    assert path.backend.service is not None
    assert str(path.backend.service.port) == "http"
    piece = found[EndpointSlice]
    assert isinstance(piece, EndpointSlice)
    assert piece.address_type == "IPv4"
    assert piece.ports[0].port == 8080
    secret = found[Secret]
    assert "aGk" not in repr(secret) + repr(manifest)


def test_the_namespace_is_default_where_none_is_given() -> None:
    manifest = read("{apiVersion: v1, kind: Service, metadata: {name: a}, spec: {ports: [{port: 80}]}}")
    assert [item.metadata.namespace for item, _ in manifest.objects] == ["default"]


def test_lists_with_lines() -> None:
    manifest = read("""
        apiVersion: v1
        kind: List
        items:
          - apiVersion: v1
            kind: Service
            metadata: {name: a}
            spec: {ports: [{port: 80}]}
          - apiVersion: v1
            kind: ServiceList
            items:
              - metadata: {name: b}
                spec: {ports: [{port: 80}]}
              - metadata: {name: c}
                spec:
                  ports:
                    - port: 0
    """)
    assert [(item.metadata.name, place.line()) for item, place in manifest.objects] == [("a", 4), ("b", 11)]
    assert said(manifest.problems) == ["16 error spec.ports[0].port: '0' must be between 1 and 65535"]


def test_json() -> None:
    value = {"apiVersion": "v1", "kind": "Service", "metadata": {"name": "a"}, "spec": {"ports": [{"port": "x"}]}}
    for text in (json.dumps(value), json.dumps(value, indent=2), json.dumps(value, indent="\t")):
        assert [problem.field for problem in read(text).problems] == ["spec.ports[0].port"]
    assert parse(json.dumps(value, indent=2), "a.json").problems[0].line == 10


NEXT = (
    "(write apiVersion: networking.k8s.io/v1, a pathType for every path, and backend.service.name and"
    " backend.service.port.number for serviceName and servicePort)"
)
NAME = "letters, digits, '-' and '.', and begin and end with a letter or digit (RFC 1123)"
NAMESPACE = "letters, digits and '-', and begin and end with a letter or digit (RFC 1123)"
BETA = "networking.k8s.io/v1beta1"
SLICES = "(write an EndpointSlice: Endpoints are deprecated since Kubernetes 1.33)"
QUOTES = "(check the indentation and quotes of this line)"
OLD = "apiVersion: extensions/v1beta1\nkind: Ingress\nmetadata: {name: a}"


@pytest.mark.parametrize(
    ("text", "problems"),
    [
        ("- 1", ["1 error : must be an object with apiVersion, kind and metadata"]),
        ("text", ["1 error : must be an object with apiVersion, kind and metadata"]),
        ("kind: Service", ["1 error : must say its apiVersion and kind"]),
        ("{apiVersion: 1, kind: Service}", ["1 error : must say its apiVersion and kind"]),
        ("{apiVersion: v1, kind: List, items: 1}", ["1 error : items must be a list"]),
        (
            OLD,
            [f"1 error apiVersion: 'extensions/v1beta1' is not served any more {NEXT}"],
        ),
        (
            f"apiVersion: {BETA}\nkind: IngressClass\nmetadata: {{name: a}}",
            [
                f"1 error apiVersion: {BETA!r} is not served any more (write apiVersion: networking.k8s.io/v1)",
            ],
        ),
        (
            "{apiVersion: v1, kind: Ingress, metadata: {name: a}}",
            [f"1 error apiVersion: 'v1' has no Ingress {NEXT}"],
        ),
        (
            "{apiVersion: v2, kind: Secret, metadata: {name: a}}",
            ["1 error apiVersion: 'v2' has no Secret (write apiVersion: v1)"],
        ),
        (
            "{apiVersion: v1, kind: Endpoints, metadata: {name: a}}",
            [
                f"1 warning : Endpoints are not read {SLICES}",
            ],
        ),
        (
            "{apiVersion: v1, kind: Secret}",
            ["1 error metadata.name: is missing (generateName makes names in a cluster only)"],
        ),
        (
            "apiVersion: v1\nkind: Secret\nmetadata:\n  name: A_b\n  namespace: x.y",
            [
                f"4 error metadata.name: 'A_b' must be lower-case {NAME}",
                f"5 error metadata.namespace: 'x.y' must be lower-case {NAMESPACE}",
            ],
        ),
        (
            "apiVersion: v1\nkind: Secret\nmetadata:\n  name: a\n  annotations:\n    b: x\n    c/d: true",
            ["7 error metadata.annotations[c/d]: must be a text, not true or false (put the value in quotes)"],
        ),
        (
            "apiVersion: v1\nkind: Secret\nmetadata: {name: a}\ndata:\n  tls.crt: 5",
            ["5 error data[tls.crt]: must be a text, not a whole number (put the value in quotes)"],
        ),
        (
            "apiVersion: v1\nkind: Secret\nmetadata: {name: a}\ndata: [1]",
            ["4 error data: must be a mapping, not a list"],
        ),
        ("{apiVersion: v1, kind: Secret, metadata: a}", ["1 error metadata: must be a mapping, not a text"]),
        (
            "{apiVersion: v1, kind: Service, metadata: {name: a}, spec: {ports: [{name: x}]}}",
            ["1 error spec.ports[0]: port is missing"],
        ),
        (
            "{apiVersion: v1, kind: Service, metadata: {name: a}, spec: {ports: [{port: 80, targetPort: 1.5}]}}",
            ["1 error spec.ports[0].targetPort: must be a number or a text, not a number"],
        ),
        (
            "apiVersion: v1\nkind: Secret\nmetadata: {name: a}\n---\nb: 'x",
            [
                f"5 error : not YAML: found unexpected end of stream while scanning a quoted scalar {QUOTES}",
            ],
        ),
    ],
)
def test_what_is_wrong_is_said_with_its_line_and_the_next_step(text: str, problems: list[str]) -> None:
    manifest = read(text)
    assert said(manifest.problems) == problems
    assert {problem.file for problem in manifest.problems} == {"m.yaml"}


def test_unknown_fields_of_an_ingress_are_said() -> None:
    manifest = read("""
        apiVersion: networking.k8s.io/v1
        kind: Ingress
        metadata: {name: a, extra: 1}
        spec:
          backend: {serviceName: x}
          rules:
            - host: a.test
              http:
                paths:
                  - path: /
                    pathType: Prefix
                    pathtype: Prefix
                    backend: {service: {name: x, port: {numbr: 1, number: 80}}}
        status: {loadBalancer: {}}
    """)
    ignored = "is no field of networking.k8s.io/v1 and is ignored"
    assert said(manifest.problems) == [
        f"5 warning spec.backend: {ignored} (it has ingressClassName, defaultBackend, rules, tls)",
        f"12 warning spec.rules[0].http.paths[0].pathtype: {ignored} (did you mean pathType?)",
        f"13 warning spec.rules[0].http.paths[0].backend.service.port.numbr: {ignored} (did you mean number?)",
    ]
    assert len(manifest.objects) == 1


def test_a_broken_object_does_not_hide_the_others() -> None:
    manifest = read(f"{OLD}\n---\n{service()}\n---\n- 1\n---\n{endpointslice()}\n---\n[")
    assert [type(item) for item, _ in manifest.objects] == [Service, EndpointSlice]
    assert len(manifest.problems) == 3


def test_kinds_of_other_projects_are_passed_over() -> None:
    manifest = read(
        "{apiVersion: serving.knative.dev/v1, kind: Service}\n---\n"
        "{apiVersion: config.openshift.io/v1, kind: Ingress}\n---\n{apiVersion: v1, kind: PodList, items: [1]}"
    )
    assert manifest.problems == ()
    assert manifest.others == {
        "Service (serving.knative.dev/v1)": 1,
        "Ingress (config.openshift.io/v1)": 1,
        "PodList": 1,
    }


def test_an_object_defined_twice_counts_as_it_stands_later(tmp_path: Path) -> None:
    (tmp_path / "1.yaml").write_text(service(ports="{port: 80}"))
    (tmp_path / "2.yaml").write_text("# later\n" + service(ports="{port: 81}"))
    reading = load([tmp_path])
    assert reading.objects.services["shop", "api"].spec.ports[0].port == 81
    [problem] = reading.problems
    assert (problem.severity, problem.file, problem.line) == ("warning", str(tmp_path / "2.yaml"), 2)
    assert f"is also defined at {tmp_path / '1.yaml'}:1; this one, the later, is used" in problem.message


def test_files_that_have_not_changed_are_not_parsed_again(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("a", "b", "c"):
        (tmp_path / f"{name}.yaml").write_text(service(name))
    parsed: list[str] = []

    def counted(text: str, file: str) -> manifests.Manifest:
        parsed.append(Path(file).stem)
        return parse(text, file)

    monkeypatch.setattr(manifests, "parse", counted)
    cache: Cache = {}
    assert len(load([tmp_path], cache).objects.services) == 3
    assert len(load([tmp_path], cache).objects.services) == 3
    assert parsed == ["a", "b", "c"]
    (tmp_path / "b.yaml").write_text(service("bb"))
    (tmp_path / "c.yaml").unlink()
    assert sorted(load([tmp_path], cache).objects.services) == [("shop", "a"), ("shop", "bb")]
    assert parsed == ["a", "b", "c", "b"]
    assert len(cache) == 2


SCALAR = st.one_of(
    st.none(), st.booleans(), st.integers(-5, 70000), st.sampled_from(["", "a", "*", "/", "IPv4", "TCP", "10.0.0.1"])
)
FIELDS = st.sampled_from(
    """
    apiVersion kind metadata name namespace annotations labels spec rules host http paths path pathType backend service
    port number defaultBackend resource tls hosts secretName ports endpoints addresses addressType conditions data type
    items targetPort externalName
    """.split()  # noqa: SIM905 - as a list it would be a column
)
ANY = st.recursive(
    SCALAR,
    lambda inner: st.one_of(st.lists(inner, max_size=3), st.dictionaries(FIELDS, inner, max_size=5)),
    max_leaves=25,
)


@given(
    st.sampled_from(["Ingress", "IngressClass", "Service", "EndpointSlice", "Secret", "List", "ServiceList"]),
    st.dictionaries(FIELDS, ANY, max_size=4),
)
def test_an_object_of_any_shape_is_read_or_refused(kind: str, value: dict[str, object]) -> None:
    version, _ = KINDS.get(kind, ("v1", None))
    value = {"metadata": {"name": "a"}, **value, "apiVersion": version, "kind": kind}
    manifest = parse(yaml.safe_dump(value), "m.yaml")
    for problem in manifest.problems:
        assert problem.message
        assert str(problem)
        assert problem.line >= 1


def test_what_a_secret_holds_is_in_no_message() -> None:
    for text in (
        "data: {tls.key: HUSH, tls.crt: [HUSH]}",
        "data: {tls.key: HUSH}\nstringData: HUSH",
        "data: {tls.key: HUSH}\ndata: HUSH",
        'data: {tls.key: "HUSH',
        "data:\n  tls.key: |\n  HUSH\n",
        "data: {tls.key: *HUSHED}",
        "type: [HUSH]\ndata: {tls.key: HUSH}",
    ):
        manifest = read(f"apiVersion: v1\nkind: Secret\nmetadata: {{name: a}}\n{text}\n")
        assert manifest.problems
        assert "HUSH" not in str(manifest.problems).replace("*HUSHED", "")


def test_demo_manifests_are_good() -> None:
    found = load([Path(manifests.__file__).parents[1] / "demo" / "manifests"])
    assert found.problems == []
    assert found.objects.ingresses


def test_dedent_is_what_these_tests_think() -> None:
    assert dedent("\n    a:\n      b\n") == "a:\n  b\n"
