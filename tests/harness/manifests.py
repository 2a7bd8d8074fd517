"""Kubernetes objects for the proxy under test, as JSON documents of one YAML stream."""

from __future__ import annotations

import base64
import json
from collections.abc import Mapping, Sequence
from typing import Any

ANNOTATION = "nginx.ingress.kubernetes.io/"


def documents(*objects: Mapping[str, Any]) -> str:
    """One manifest file with all ``objects``."""
    return "".join(f"---\n{json.dumps(item, indent=1)}\n" for item in objects)


def _meta(name: str, annotations: Mapping[str, str] | None = None) -> dict[str, Any]:
    meta: dict[str, Any] = {"name": name, "namespace": "default", "uid": f"uid-{name}", "resourceVersion": "7"}
    if annotations:
        meta["annotations"] = {key if "/" in key else ANNOTATION + key: value for key, value in annotations.items()}
    return meta


def service(name: str, ports: Sequence[int]) -> list[dict[str, Any]]:
    """A Service with port 80 and the loopback ``ports`` as its endpoints, one EndpointSlice each."""
    objects: list[dict[str, Any]] = [
        {
            "apiVersion": "v1",
            "kind": "Service",
            "metadata": _meta(name),
            "spec": {"ports": [{"name": "http", "port": 80, "protocol": "TCP"}]},
        }
    ]
    for number, port in enumerate(ports):
        meta = _meta(f"{name}-{number}")
        meta["labels"] = {"kubernetes.io/service-name": name}
        objects.append(
            {
                "apiVersion": "discovery.k8s.io/v1",
                "kind": "EndpointSlice",
                "metadata": meta,
                "addressType": "IPv4",
                "ports": [{"name": "http", "port": port, "protocol": "TCP"}],
                "endpoints": [{"addresses": ["127.0.0.1"], "conditions": {"ready": True}}],
            }
        )
    return objects


def ingress(
    name: str,
    paths: Sequence[tuple[str, str, str]],
    *,
    host: str = "",
    annotations: Mapping[str, str] | None = None,
    secret: str = "",
) -> dict[str, Any]:
    """An Ingress: ``paths`` are (path, service, path type); ``secret`` names the certificate of ``host``.

    ``annotations`` are ingress-nginx's unless their names have a prefix.
    """
    rule: dict[str, Any] = {
        "http": {
            "paths": [
                {"path": path, "pathType": kind, "backend": {"service": {"name": to, "port": {"number": 80}}}}
                for path, to, kind in paths
            ]
        }
    }
    if host:
        rule["host"] = host
    spec: dict[str, Any] = {"rules": [rule]}
    if secret:
        # Plain requests are served too, unless the test says otherwise.
        annotations = {"ssl-redirect": "false", **(annotations or {})}
        spec["tls"] = [{"hosts": [host], "secretName": secret}]
    return {
        "apiVersion": "networking.k8s.io/v1",
        "kind": "Ingress",
        "metadata": _meta(name, annotations),
        "spec": spec,
    }


def site(
    name: str,
    ports: Sequence[int],
    *,
    host: str | None = None,
    path: str = "/",
    annotations: Mapping[str, str] | None = None,
    secret: str = "",
) -> list[dict[str, Any]]:
    """Service, EndpointSlices and Ingress of ``<name>.test`` (or ``host``; "" for any): everything below ``path``."""
    host = f"{name}.test" if host is None else host
    rules = [(path, name, "Prefix")]
    return [*service(name, ports), ingress(name, rules, host=host, annotations=annotations, secret=secret)]


def secret(name: str, certificate: bytes, key: bytes) -> dict[str, Any]:
    """A kubernetes.io/tls Secret."""
    return {
        "apiVersion": "v1",
        "kind": "Secret",
        "type": "kubernetes.io/tls",
        "metadata": _meta(name),
        "data": {
            "tls.crt": base64.b64encode(certificate).decode(),
            "tls.key": base64.b64encode(key).decode(),
        },
    }
