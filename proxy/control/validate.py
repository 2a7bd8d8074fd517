"""Objects as the API server would judge them, as far as a table depends on it.

Ingress: pkg/apis/networking/validation (ValidateIngressCreate), rule by rule. Service: pkg/apis/core/validation.
EndpointSlice: pkg/apis/discovery/validation, but for addresses that a cluster could not use and a laptop does, such
as 127.0.0.1.
"""

from __future__ import annotations

import ipaddress
from difflib import get_close_matches
from typing import TYPE_CHECKING, Final

from proxy.control import names
from proxy.control.objects import CLASS_ANNOTATION, EndpointSlice, Ingress, Service
from proxy.control.problem import quoted

if TYPE_CHECKING:
    from proxy.control.objects import HTTPPath, IngressBackend, Object
    from proxy.control.problem import Subject

SERVICE_TYPES: Final = ("ClusterIP", "NodePort", "LoadBalancer", "ExternalName")
ADDRESS_TYPES: Final = ("IPv4", "IPv6", "FQDN")
PROTOCOLS: Final = ("TCP", "UDP", "SCTP")
PATH_TYPES: Final = ("Exact", "Prefix", "ImplementationSpecific")
_SEQUENCES: Final = ("//", "/./", "/../", "%2f", "%2F")
_SUFFIXES: Final = ("/..", "/.")
_LONGEST_PATH: Final = 4096  # characters; half of the longest request line, so no longer one could ever be asked for


def check(item: Object, subject: Subject) -> None:
    """Note every error of an object in ``subject``. What a Secret holds is judged where it is used."""
    if isinstance(item, Ingress):
        check_ingress(item, subject)
    elif isinstance(item, Service):
        check_service(item, subject)
    elif isinstance(item, EndpointSlice):
        check_slice(item, subject)


def check_ingress(ingress: Ingress, subject: Subject) -> None:
    """Note every error of an Ingress's spec in ``subject``."""
    spec = ingress.spec
    annotated = ingress.metadata.annotations.get(CLASS_ANNOTATION)
    if annotated is not None and spec.ingress_class_name is not None and annotated != spec.ingress_class_name:
        subject.error(
            f"metadata.annotations[{CLASS_ANNOTATION}]",
            f"is {quoted(annotated)}, but spec.ingressClassName is {quoted(spec.ingress_class_name)}",
            "remove the annotation, which is deprecated",
        )
    if spec.ingress_class_name is not None:
        _note(subject, "spec.ingressClassName", spec.ingress_class_name, names.subdomain(spec.ingress_class_name))
    if not spec.rules and spec.default_backend is None:
        subject.error("spec", "either defaultBackend or rules must be given")
    if spec.default_backend is not None:
        _backend(spec.default_backend, "spec.defaultBackend", subject)
    for number, rule in enumerate(spec.rules):
        field = f"spec.rules[{number}]"
        if rule.host:
            hint = "hosts are written in lower case" if rule.host != rule.host.lower() else ""
            _note(subject, f"{field}.host", rule.host, names.host(rule.host), hint)
        if rule.http is None:
            continue
        if not rule.http.paths:
            subject.error(f"{field}.http.paths", "must have at least one path")
        for place, path in enumerate(rule.http.paths):
            _path(path, f"{field}.http.paths[{place}]", subject)
    for number, tls in enumerate(spec.tls):
        for place, host in enumerate(tls.hosts):
            wrong = names.host(host) if "*" in host else names.subdomain(host)
            _note(subject, f"spec.tls[{number}].hosts[{place}]", host, wrong)
        if tls.secret_name:
            _note(subject, f"spec.tls[{number}].secretName", tls.secret_name, names.subdomain(tls.secret_name))


def _note(subject: Subject, field: str, value: str, wrong: str, hint: str = "") -> None:
    if wrong:
        subject.error(field, f"{quoted(value)} {wrong}", hint)


def _path(path: HTTPPath, field: str, subject: Subject) -> None:
    if not path.path_type:
        subject.error(f"{field}.pathType", "is missing", f"one of {', '.join(PATH_TYPES)}; Prefix is the usual one")
    elif path.path_type not in PATH_TYPES:
        near = get_close_matches(path.path_type, PATH_TYPES, 1)
        hint = f"did you mean {near[0]}?" if near else f"one of {', '.join(PATH_TYPES)}"
        subject.error(f"{field}.pathType", f"{quoted(path.path_type)} is no path type", hint)
    elif path.path or path.path_type != "ImplementationSpecific":
        _path_text(path.path, path.path_type, f"{field}.path", subject)
    _backend(path.backend, f"{field}.backend", subject)


def _path_text(path: str, path_type: str, field: str, subject: Subject) -> None:
    if not path:
        subject.error(field, f"is missing, which {path_type} does not allow", "write / for every path")
        return
    if not path.startswith("/"):
        subject.error(field, f"{quoted(path)} must begin with /", f"write /{path}" if path.isalnum() else "")
    if len(path) > _LONGEST_PATH:
        subject.error(field, f"must be no more than {_LONGEST_PATH} characters")
    if path_type == "ImplementationSpecific":
        return
    for sequence in _SEQUENCES:
        if sequence in path:
            subject.error(field, f"{quoted(path)} must not contain {sequence}")
    for suffix in _SUFFIXES:
        if path.endswith(suffix):
            subject.error(field, f"{quoted(path)} must not end with {suffix}")


def _backend(backend: IngressBackend, field: str, subject: Subject) -> None:
    service, resource = backend.service, backend.resource
    if service is not None and resource is not None:
        subject.error(field, "cannot name both a service and a resource")
    elif resource is not None:
        for part, value in (("kind", resource.kind), ("name", resource.name)):
            if not value:
                subject.error(f"{field}.resource.{part}", "is missing")
    elif service is None:
        subject.error(
            field,
            "must name a service",
            "in networking.k8s.io/v1: service.name, and service.port.number or service.port.name",
        )
    else:
        port = service.port
        if not service.name:
            subject.error(f"{field}.service.name", "is missing")
        else:
            _note(subject, f"{field}.service.name", service.name, names.label(service.name))
        if port.name and port.number:
            subject.error(f"{field}.service.port", "cannot have both a name and a number")
        elif port.name:
            hint = "a port's number is written as number: 80" if port.name.isdecimal() else ""
            _note(subject, f"{field}.service.port.name", port.name, names.port_name(port.name), hint)
        elif port.number:
            _note(subject, f"{field}.service.port.number", str(port.number), names.port_number(port.number))
        else:
            subject.error(f"{field}.service.port", "needs a name or a number")


def check_service(service: Service, subject: Subject) -> None:
    """Note every error of a Service's spec."""
    spec = service.spec
    if spec.type not in SERVICE_TYPES:
        subject.error("spec.type", f"{quoted(spec.type)} is none of {', '.join(SERVICE_TYPES)}")
    if spec.type == "ExternalName":
        name = spec.external_name.removesuffix(".").lower()
        _note(subject, "spec.externalName", spec.external_name, names.subdomain(name))
    elif not spec.ports and spec.cluster_ip != "None":
        subject.error("spec.ports", "must have at least one port", "only a headless Service may have none")
    seen: set[str] = set()
    for number, port in enumerate(spec.ports):
        field = f"spec.ports[{number}]"
        _note(subject, f"{field}.port", str(port.port), names.port_number(port.port))
        _protocol(port.protocol, field, subject)
        if port.name:
            _note(subject, f"{field}.name", port.name, names.label(port.name))
        elif len(spec.ports) > 1:
            subject.error(f"{field}.name", "is missing", "where there are several ports each needs a name")
        if port.name in seen:
            subject.error(f"{field}.name", f"{quoted(port.name)} stands twice")
        seen.add(port.name)
        if isinstance(port.target_port, str):
            _note(subject, f"{field}.targetPort", port.target_port, names.port_name(port.target_port))
        elif port.target_port is not None:
            _note(subject, f"{field}.targetPort", str(port.target_port), names.port_number(port.target_port))


def check_slice(piece: EndpointSlice, subject: Subject) -> None:
    """Note every error of an EndpointSlice."""
    if piece.address_type not in ADDRESS_TYPES:
        subject.error("addressType", f"{quoted(piece.address_type)} is none of {', '.join(ADDRESS_TYPES)}")
    for number, port in enumerate(piece.ports):
        field = f"ports[{number}]"
        _protocol(port.protocol, field, subject)
        if port.name:
            _note(subject, f"{field}.name", port.name, names.label(port.name))
        if port.port is not None:
            _note(subject, f"{field}.port", str(port.port), names.port_number(port.port))
    for number, endpoint in enumerate(piece.endpoints):
        field = f"endpoints[{number}].addresses"
        if not endpoint.addresses:
            subject.error(field, "must have at least one address")
        for place, address in enumerate(endpoint.addresses):
            wrong = _address(address, piece.address_type)
            _note(subject, f"{field}[{place}]", address, wrong)


def _protocol(protocol: str, field: str, subject: Subject) -> None:
    if protocol not in PROTOCOLS:
        subject.error(f"{field}.protocol", f"{quoted(protocol)} is none of {', '.join(PROTOCOLS)}")


def _address(address: str, kind: str) -> str:
    if kind == "FQDN":
        return names.subdomain(address)
    version = {"IPv4": 4, "IPv6": 6}.get(kind)
    try:
        fits = ipaddress.ip_address(address).version == version
    except ValueError:
        fits = False
    return "" if fits or version is None else f"is no {kind} address"
