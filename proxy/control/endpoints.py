"""From "this Service, that port" to addresses: Services, EndpointSlices, ExternalName and `--upstream`."""

from __future__ import annotations

from collections import Counter
from difflib import get_close_matches
from typing import TYPE_CHECKING, Final, NamedTuple

from proxy.control.names import is_address
from proxy.control.objects import Service, ServicePort
from proxy.control.problem import Problem
from proxy.control.slices import endpoints_of, target_port
from proxy.control.view import Dependents, View
from proxy.route.spec import BackendSpec, EndpointSpec, Scheme

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from proxy.control.annotations import Options
    from proxy.control.objects import BackendPort, EndpointSlice, IngressBackend, ServiceBackend, Topic
    from proxy.control.problem import Subject
    from proxy.control.store import Objects
    from proxy.settings import Override

_MOST_NAMES: Final = 50  # Services of a namespace among which a misspelt name is looked for, some 0.5 ms

# Service appProtocol -> how the upstream is spoken to (KEP-3726, IANA service names).
_SCHEMES: Final[dict[str, Scheme]] = {
    "": "http",
    "http": "http",
    "kubernetes.io/ws": "http",
    "https": "https",
    "kubernetes.io/wss": "https",
}


class _Finding(NamedTuple):
    """Why a backend is not as it was meant: the part of the Ingress backend that says so, what is wrong, what to do."""

    part: str
    message: str
    hint: str = ""


class _Wanted(NamedTuple):
    """What an Ingress asks for."""

    namespace: str
    service: ServiceBackend
    options: Options


class _Resolved(NamedTuple):
    spec: BackendSpec
    findings: tuple[_Finding, ...]
    override: int = -1  # the place of the one that serves


class Backends:
    """Every backend that is asked for, each resolved once, and again when something that it depends on is touched."""

    def __init__(self, objects: Objects, overrides: Sequence[Override], verify: bool, zone: str = "") -> None:
        """``zone`` is our own, for topology hints; "" is unknown."""
        self._objects = objects
        self._overrides = overrides
        self._verify = verify
        self._zone = zone
        self._wanted: dict[str, _Wanted] = {}
        self._resolved: dict[str, _Resolved] = {}
        self._dependents: Dependents[str] = Dependents()
        self._serving: Counter[int] = Counter()  # backends by their override
        self.changed: set[str] = set()  # keys that are new, other or gone; for its owner to empty

    def __repr__(self) -> str:
        return f"Backends({len(self._resolved)}, {len(self.changed)} changed)"

    def of(
        self,
        namespace: str,
        backend: IngressBackend,
        options: Options,
        subject: Subject,
        field: str,
        named: dict[str, None],
    ) -> str:
        """The key of the backend that an Ingress names; what is missing of it becomes warnings of ``subject``.

        ``named`` are the keys that the Ingress has named before: it hears of each once.
        """
        if backend.service is None:
            key = self._resource(namespace, backend)
        else:
            key = _key(namespace, backend.service, options)
            if key not in self._resolved:
                self._wanted[key] = _Wanted(namespace, backend.service, options)
                self._resolve(key)
        if key not in named:
            named[key] = None
            for finding in self._resolved[key].findings:
                subject.warning(f"{field}.{finding.part}", finding.message, finding.hint)
        return key

    def spec(self, key: str) -> BackendSpec | None:
        """A backend as the table has it; None for one that nobody asks for."""
        found = self._resolved.get(key)
        return None if found is None else found.spec

    def asks(self, topic: Topic) -> bool:
        """Whether a backend depends on this."""
        return self._dependents.asked(topic)

    def touch(self, topics: Iterable[Topic]) -> set[str]:
        """Resolve again what depends on these; returns the keys of which something else is to be said than before."""
        told: set[str] = set()
        for key in self._dependents.on(topics):
            before = self._resolved[key]
            self._resolve(key)
            if self._resolved[key].findings != before.findings:
                told.add(key)
        return told

    def forget(self, key: str) -> None:
        """Nobody asks for this one any more."""
        self._serving[self._resolved.pop(key).override] -= 1
        self._wanted.pop(key, None)
        self._dependents.assign(key, ())
        self.changed.add(key)

    def unused(self) -> list[Problem]:
        """The overrides that no Ingress has asked for."""
        found = []
        for override in (one for place, one in enumerate(self._overrides) if self._serving[place] <= 0):
            port = f":{override.port}" if override.port else ""
            name = f"{override.namespace}/{override.service}".lstrip("/") + port
            found.append(Problem("warning", f"--upstream {name}: no Ingress names this Service", "check its name"))
        return found

    def _resource(self, namespace: str, backend: IngressBackend) -> str:
        """A backend that is no Service: nothing we could reach."""
        name = f"{backend.resource.kind}.{backend.resource.name}" if backend.resource is not None else "none"
        key = f"{namespace}/{name}:"
        if key not in self._resolved:
            finding = _Finding("resource", "resource backends are not supported; requests get 503", "name a service")
            self._resolved[key] = _Resolved(BackendSpec(key, namespace, name, "", ()), (finding,))
            self.changed.add(key)
        return key

    def _resolve(self, key: str) -> None:
        view = View(self._objects)
        before = self._resolved.get(key)
        found = self._resolved[key] = self._made(key, self._wanted[key], view)
        self._dependents.assign(key, view.asked)
        if before is None or before.spec != found.spec:
            self.changed.add(key)
        if before is not None:
            self._serving[before.override] -= 1
        self._serving[found.override] += 1

    def _made(self, key: str, asked: _Wanted, view: View) -> _Resolved:
        namespace, wanted, options = asked
        service = view.service((namespace, wanted.name))
        port = None if service is None else _port(service, wanted.port)
        findings: tuple[_Finding, ...] = ()
        server_name = ""
        place = self._override(namespace, wanted, port)
        if place >= 0:
            override = self._overrides[place]
            endpoints = tuple(EndpointSpec(one.host, one.port) for one in override.endpoints)
            scheme: Scheme = override.scheme
            server_name = server_name_of(scheme, endpoints)
        else:
            scheme, spoken = _scheme(port, options)
            if service is None:
                endpoints, findings = (), (_missing(namespace, wanted.name, view),)
            elif service.spec.type == "ExternalName":
                endpoints, findings = _external(service, port, wanted.port)
                server_name = server_name_of(scheme, endpoints)
            elif port is None:
                endpoints, findings = (), (_no_port(service, wanted.port),)
            elif options.service_upstream and service.spec.cluster_ip not in ("", "None"):
                endpoints = (EndpointSpec(service.spec.cluster_ip, port.port),)
            else:
                slices = view.slices((namespace, wanted.name))
                endpoints = endpoints_of(slices, service, port, self._zone)
                findings = () if endpoints else (_no_endpoints(slices, service, port),)
            findings += spoken
        spec = BackendSpec(
            key=key,
            namespace=namespace,
            service=wanted.name,
            port=str(wanted.port),
            endpoints=endpoints,
            policy=options.policy,
            hash_by=options.hash_by,
            scheme=scheme,
            server_name=server_name,
            verify=self._verify,
        )
        return _Resolved(spec, findings, place)

    def _override(self, namespace: str, wanted: ServiceBackend, port: ServicePort | None) -> int:
        """The place of the most telling of the overrides that fit, one with namespace and port before one with less.

        -1 if none does.
        """
        ports = {"", wanted.port.name, str(wanted.port.number)}
        if port is not None:
            ports |= {port.name, str(port.port)}
        every = self._overrides
        fitting = [
            place
            for place, one in enumerate(every)
            if one.service == wanted.name and one.namespace in ("", namespace) and one.port in ports
        ]
        return max(fitting, key=lambda place: (every[place].namespace != "", every[place].port != ""), default=-1)


def _missing(namespace: str, name: str, view: View) -> _Finding:
    elsewhere = view.homes(name)
    known = [] if elsewhere else view.names(namespace)
    near = get_close_matches(name, known, 1) if len(known) <= _MOST_NAMES else []
    if elsewhere:
        hint = f"there is one in namespace {elsewhere[0]}, but an Ingress reaches only its own"
    elif near:
        hint = f"did you mean {near[0]}?"
    else:
        hint = f"add its manifest, or give --upstream {namespace}/{name}=HOST:PORT"
    return _Finding("service.name", f"Service {namespace}/{name} does not exist; requests get 503", hint)


def _key(namespace: str, service: ServiceBackend, options: Options) -> str:
    """``namespace/service:port``, and what its Ingress asks for beyond the default, as two may differ in that."""
    key = f"{namespace}/{service.name}:{service.port}"
    if options.policy == "hash":
        key += f";hash={options.hash_by}"
    elif options.policy != "round_robin":
        key += f";{options.policy}"
    if options.service_upstream:
        key += ";service"
    return key if options.scheme is None else f"{key};{options.scheme}"


def _port(service: Service, wanted: BackendPort) -> ServicePort | None:
    for port in service.spec.ports:
        if port.protocol == "TCP" and (port.name == wanted.name if wanted.name else port.port == wanted.number):
            return port
    if not service.spec.ports and service.spec.cluster_ip == "None" and wanted.number:
        return ServicePort(wanted.number)  # headless Services may leave their ports out
    return None


def _scheme(port: ServicePort | None, options: Options) -> tuple[Scheme, tuple[_Finding, ...]]:
    if options.scheme is not None:
        return options.scheme, ()
    spoken = port.app_protocol if port is not None else ""
    if spoken.lower() in _SCHEMES:
        return _SCHEMES[spoken.lower()], ()
    return "http", (
        _Finding("service.port", f"appProtocol {spoken} is not supported; the upstream is spoken to in HTTP/1.1"),
    )


def server_name_of(scheme: Scheme, endpoints: Sequence[EndpointSpec]) -> str:
    """What TLS asks endpoints for that are known by a name (RFC 6066): that name; "" (the request's host) elsewhere."""
    hosts = {one.host for one in endpoints}
    if scheme == "http" or len(hosts) != 1 or is_address(host := hosts.pop()):
        return ""
    return host


def _external(
    service: Service, port: ServicePort | None, wanted: BackendPort
) -> tuple[tuple[EndpointSpec, ...], tuple[_Finding, ...]]:
    """ExternalName: the name itself; the port as the Service maps it, or as the Ingress says where it has none."""
    number = wanted.number
    if port is not None:
        number = port.target_port if isinstance(port.target_port, int) and port.target_port else port.port
    elif service.spec.ports or not number:
        return (), (_no_port(service, wanted),)
    return (EndpointSpec(service.spec.external_name.rstrip(".").lower(), number),), ()


def _no_port(service: Service, wanted: BackendPort) -> _Finding:
    ports = [f"{port.name} ({port.port})" if port.name else str(port.port) for port in service.spec.ports]
    what = f"named {wanted.name}" if wanted.name else str(wanted.number)
    name = f"{service.metadata.namespace}/{service.metadata.name}"
    hint = f"it has {', '.join(ports)}" if ports else "it has no ports"
    return _Finding("service.port", f"Service {name} has no TCP port {what}; requests get 503", hint)


def _no_endpoints(slices: Sequence[EndpointSlice], service: Service, port: ServicePort) -> _Finding:
    name = f"{service.metadata.namespace}/{service.metadata.name}"
    if not slices:
        message = f"Service {name} has no EndpointSlice; requests get 503"
        return _Finding("service.name", message, f"add one, or give --upstream {name}=HOST:PORT")
    if all(target_port(piece, port) is None for piece in slices):
        ports = sorted({one.name or str(one.port) for piece in slices for one in piece.ports})
        what = f"a port named {port.name}" if port.name else "the unnamed port"
        hint = f"they have {', '.join(ports)}" if ports else "they have no ports"
        return _Finding("service.port", f"the EndpointSlices of Service {name} lack {what}; requests get 503", hint)
    return _Finding(
        "service.name", f"Service {name} has no endpoint that is ready; requests get 503", "wait for its Pods"
    )
