"""Manifests for tests, as text and as objects."""

from __future__ import annotations

import textwrap
from pathlib import Path

from proxy.control.build import EVERYTHING, Choices, build
from proxy.control.manifests import Manifest, parse
from proxy.control.problem import Problem
from proxy.control.store import Objects
from proxy.route.spec import TableSpec
from proxy.settings import Override


def dedent(text: str) -> str:
    return textwrap.dedent(text).lstrip("\n")


def put(path: Path, text: str) -> None:
    """Write a file in one step: a watcher never sees it half written."""
    new = path.with_name(f".{path.name}")
    new.write_text(text)
    new.replace(path)


def read(text: str) -> Manifest:
    """Of YAML in a file called m.yaml."""
    return parse(dedent(text), "m.yaml")


def objects(*texts: str) -> Objects:
    """Of YAML that has no problems."""
    made = Objects()
    for text in texts:
        manifest = read(text)
        assert not manifest.problems, manifest.problems
        for item, place in manifest.objects:
            made.put(item, place)
    return made


def built(
    *texts: str, overrides: tuple[Override, ...] = (), choices: Choices = EVERYTHING
) -> tuple[TableSpec, list[Problem]]:
    return build(objects(*texts), overrides, 1, choices)


def clean(*texts: str, overrides: tuple[Override, ...] = (), choices: Choices = EVERYTHING) -> TableSpec:
    """The table of manifests about which there is nothing to say."""
    table, problems = built(*texts, overrides=overrides, choices=choices)
    assert not problems, problems
    return table


def said(problems: list[Problem] | tuple[Problem, ...]) -> list[str]:
    """Problems as one line each, without file and object."""
    return [
        f"{one.line} {one.severity} {one.field}: {one.message}" + (f" ({one.hint})" if one.hint else "")
        for one in problems
    ]


def ingress(*paths: str, name: str = "web", host: str = "shop.test", extra: str = "", annotations: str = "") -> str:
    """An Ingress in namespace shop; ``paths`` are like ``"Prefix /api -> api:80"``; ``extra`` is YAML below spec."""
    lines = [
        "apiVersion: networking.k8s.io/v1",
        "kind: Ingress",
        f"metadata: {{name: {name}, namespace: shop, annotations: {{{annotations}}}}}",
        "spec:",
        *(f"  {line}" for line in dedent(extra).splitlines()),
    ]
    if paths:
        lines += ["  rules:", f"    - host: {host}" if host else "    -", "      http:", "        paths:"]
    for text in paths:
        kind, path, _, to = text.split()
        service, _, port = to.partition(":")
        ref = f"number: {port}" if port.isdecimal() else f"name: {port}"
        backend = f"{{service: {{name: {service}, port: {{{ref}}}}}}}"
        lines += [f"          - {{path: {path}, pathType: {kind}, backend: {backend}}}"]
    return "\n".join(lines) + "\n"


def service(name: str = "api", ports: str = "{name: http, port: 80}", extra: str = "") -> str:
    """A Service in namespace shop."""
    return dedent(f"""
        apiVersion: v1
        kind: Service
        metadata: {{name: {name}, namespace: shop}}
        spec: {{ports: [{ports}]{extra}}}
    """)


def endpointslice(
    service: str = "api",
    addresses: str = "10.0.0.1",
    ports: str = "{name: http, port: 8080}",
    name: str = "",
    endpoints: str = "",
    kind: str = "IPv4",
) -> str:
    """A slice of a Service; ``addresses`` by blanks, or ``endpoints`` as YAML."""
    given = endpoints or ", ".join(f"{{addresses: ['{address}']}}" for address in addresses.split())
    return dedent(f"""
        apiVersion: discovery.k8s.io/v1
        kind: EndpointSlice
        metadata:
          name: {name or service}-1
          namespace: shop
          labels: {{kubernetes.io/service-name: {service}}}
        addressType: {kind}
        endpoints: [{given}]
        ports: [{ports}]
    """)


API = service() + "---\n" + endpointslice()
