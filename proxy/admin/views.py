"""`/routes` as plain data: the table, what the workers say of its endpoints, and what is wrong with it."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any

import msgspec

from proxy.admin.departed import merge_endpoints
from proxy.admin.source import EndpointSample, Problem, WorkerSample
from proxy.route.spec import NOTHING, ActionSpec, BackendSpec, CertificateSpec, RouteSpec, TableSpec
from proxy.settings import Address

_PROBLEM_FIELDS = ("severity", "kind", "namespace", "name", "file", "line", "field", "message", "hint")


def routes(table: TableSpec, samples: Sequence[WorkerSample], problems: Iterable[Problem]) -> dict[str, Any]:
    """The page: generation, workers, routes, backends with their endpoints' health, certificates, problems.

    Of a certificate only its Secret and names; never a key, never a certificate.
    """
    health = {
        (endpoint.backend, endpoint.host, endpoint.port): endpoint
        for endpoint in merge_endpoints([endpoint for sample in samples for endpoint in sample.endpoints])
    }
    defaults = [*table.host_defaults, *((table.default_route,) if table.default_route is not None else ())]
    return {
        "generation": table.generation,
        "workers": [{"pid": sample.pid, "generation": sample.generation} for sample in samples],
        "routes": [_route(route) for route in table.routes],
        "defaults": [_route(route) for route in defaults],
        "backends": [_backend(backend, health) for backend in table.backends],
        "certificates": [_certificate(certificate) for certificate in table.certificates],
        "default_certificate": (None if table.default_certificate is None else _certificate(table.default_certificate)),
        "problems": [{field: getattr(problem, field) for field in _PROBLEM_FIELDS} for problem in problems],
    }


def _route(route: RouteSpec) -> dict[str, Any]:
    return {
        "namespace": route.namespace,
        "ingress": route.name,
        "uid": route.uid,
        "resource_version": route.resource_version,
        "host": route.host or "*",
        "path": route.path,
        "path_type": route.path_type,
        "backend": route.backend,
        "body_limit_bytes": route.body_limit,
        "connect_timeout_s": route.connect_timeout,
        "read_timeout_s": route.read_timeout,
        "send_timeout_s": route.send_timeout,
        "tries": route.tries,
        "sample_ratio": route.sample_ratio,
        "actions": {} if route.actions is None else _actions(route.actions),
    }


def _actions(actions: ActionSpec) -> dict[str, Any]:
    """What a route does beyond forwarding, by the names of `ActionSpec`; only what is not as everywhere."""
    said = msgspec.structs.asdict(actions)
    usual = msgspec.structs.asdict(NOTHING)
    return {name: value for name, value in said.items() if value != usual[name]}


def _backend(backend: BackendSpec, health: dict[tuple[str, str, int], EndpointSample]) -> dict[str, Any]:
    endpoints: list[dict[str, Any]] = []
    for spec in backend.endpoints:
        seen = health.get((backend.key, spec.host, spec.port))
        entry: dict[str, Any] = {"address": str(Address(spec.host, spec.port)), "zone": spec.zone}
        if seen is not None:
            entry |= {
                "ejected": seen.ejected,
                "ejections": seen.ejections,
                "requests": seen.requests,
                "errors": seen.errors,
                "active": seen.in_flight,
                "connections": seen.connections,
                "idle": seen.idle,
                "latency_ms": round(seen.latency * 1000, 3),
            }
        endpoints.append(entry)
    return {
        "backend": backend.key,
        "scheme": backend.scheme,
        "policy": backend.policy,
        "hash_by": backend.hash_by,
        "server_name": backend.server_name,
        "verify": backend.verify,
        "endpoints": endpoints,
    }


def _certificate(certificate: CertificateSpec) -> dict[str, Any]:
    return {"secret": certificate.secret, "hosts": list(certificate.hosts)}
