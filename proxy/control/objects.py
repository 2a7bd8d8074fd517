"""The five kinds of Kubernetes objects that make a table, typed as far as it needs them.

Field names and defaults are the API's (Kubernetes 1.34 reference: networking.k8s.io/v1, core/v1, discovery.k8s.io/v1).
The structs decode from JSON and from plain dicts alike; fields that are not named here are skipped. None can be part
of a cycle, so the garbage collector passes them over (``gc=False``): there may be a hundred thousand.
"""

from __future__ import annotations

from typing import Final, TypeAlias

from msgspec import Struct, field

from proxy.control.documents import Lines

SERVICE_NAME_LABEL: Final = "kubernetes.io/service-name"  # on an EndpointSlice: its Service
DEFAULT_CLASS_ANNOTATION: Final = "ingressclass.kubernetes.io/is-default-class"
TRACEPARENT_ANNOTATION: Final = "tracing.k8s.io/traceparent"  # the trace of whoever wrote the object (KEP-5915)
CLASS_ANNOTATION: Final = "kubernetes.io/ingress.class"  # before IngressClass; goes before spec.ingressClassName


class Metadata(Struct, frozen=True, rename="camel", gc=False):
    """ObjectMeta."""

    name: str = ""
    namespace: str = ""
    uid: str = ""
    resource_version: str = ""
    creation_timestamp: str = ""  # RFC 3339; as text it sorts by time, since Kubernetes writes UTC and whole seconds
    labels: dict[str, str] = {}
    annotations: dict[str, str] = {}


class BackendPort(Struct, frozen=True, rename="camel", gc=False):
    """ServiceBackendPort: one of the two."""

    name: str = ""
    number: int = 0

    def __str__(self) -> str:
        return self.name or str(self.number)


class ServiceBackend(Struct, frozen=True, rename="camel", gc=False):
    """IngressServiceBackend."""

    name: str = ""
    port: BackendPort = BackendPort()


class ObjectReference(Struct, frozen=True, rename="camel", gc=False):
    """TypedLocalObjectReference."""

    kind: str = ""
    name: str = ""
    api_group: str = ""


class IngressBackend(Struct, frozen=True, rename="camel", gc=False):
    """One of the two."""

    service: ServiceBackend | None = None
    resource: ObjectReference | None = None


class HTTPPath(Struct, frozen=True, rename="camel", gc=False):
    """HTTPIngressPath."""

    path: str = ""
    path_type: str = ""
    backend: IngressBackend = IngressBackend()


class HTTPRule(Struct, frozen=True, rename="camel", gc=False):
    """HTTPIngressRuleValue."""

    paths: tuple[HTTPPath, ...] = ()


class IngressRule(Struct, frozen=True, rename="camel", gc=False):
    """One host's paths. Without ``http`` the host takes everything to the default backend."""

    host: str = ""
    http: HTTPRule | None = None


class IngressTLS(Struct, frozen=True, rename="camel", gc=False):
    """Which Secret ends TLS for which hosts."""

    hosts: tuple[str, ...] = ()
    secret_name: str = ""


class IngressSpec(Struct, frozen=True, rename="camel", gc=False):
    """IngressSpec."""

    ingress_class_name: str | None = None
    default_backend: IngressBackend | None = None
    rules: tuple[IngressRule, ...] = ()
    tls: tuple[IngressTLS, ...] = ()


class Ingress(Struct, frozen=True, rename="camel", gc=False):
    """networking.k8s.io/v1 Ingress."""

    metadata: Metadata = Metadata()
    spec: IngressSpec = IngressSpec()


class IngressClassSpec(Struct, frozen=True, rename="camel", gc=False):
    """IngressClassSpec."""

    controller: str = ""


class IngressClass(Struct, frozen=True, rename="camel", gc=False):
    """networking.k8s.io/v1 IngressClass (not namespaced)."""

    metadata: Metadata = Metadata()
    spec: IngressClassSpec = IngressClassSpec()


class ServicePort(Struct, frozen=True, rename="camel", gc=False):
    """ServicePort; ``target_port`` None is ``port`` itself."""

    port: int
    name: str = ""
    target_port: int | str | None = None
    protocol: str = "TCP"
    app_protocol: str = ""


class ServiceSpec(Struct, frozen=True, rename="camel", gc=False):
    """ServiceSpec."""

    type: str = "ClusterIP"
    cluster_ip: str = field(name="clusterIP", default="")
    external_name: str = ""
    ip_families: tuple[str, ...] = ()
    ports: tuple[ServicePort, ...] = ()
    selector: dict[str, str] = {}


class Service(Struct, frozen=True, rename="camel", gc=False):
    """v1 Service."""

    metadata: Metadata = Metadata()
    spec: ServiceSpec = ServiceSpec()


class Conditions(Struct, frozen=True, rename="camel", gc=False):
    """EndpointConditions; None is "unknown", which the API says to take for ready."""

    ready: bool | None = None
    serving: bool | None = None
    terminating: bool | None = None


class TargetReference(Struct, frozen=True, rename="camel", gc=False):
    """ObjectReference of an endpoint, mostly its Pod."""

    kind: str = ""
    namespace: str = ""
    name: str = ""
    uid: str = ""


class ForZone(Struct, frozen=True, rename="camel", gc=False):
    """A zone that an endpoint is meant for."""

    name: str = ""


class EndpointHints(Struct, frozen=True, rename="camel", gc=False):
    """Who should use an endpoint, as the control plane has distributed them (trafficDistribution)."""

    for_zones: tuple[ForZone, ...] = ()


class SliceEndpoint(Struct, frozen=True, rename="camel", gc=False):
    """Endpoint: its addresses are interchangeable, and consumers use the first."""

    addresses: tuple[str, ...] = ()
    conditions: Conditions = Conditions()
    target_ref: TargetReference | None = None
    zone: str = ""
    hints: EndpointHints | None = None


class SlicePort(Struct, frozen=True, rename="camel", gc=False):
    """EndpointPort; ``name`` is the Service port's name, ``port`` None is every port."""

    name: str = ""
    port: int | None = None
    protocol: str = "TCP"
    app_protocol: str = ""


class EndpointSlice(Struct, frozen=True, rename="camel", gc=False):
    """discovery.k8s.io/v1 EndpointSlice."""

    metadata: Metadata = Metadata()
    address_type: str = ""
    endpoints: tuple[SliceEndpoint, ...] = ()
    ports: tuple[SlicePort, ...] = ()


class Secret(Struct, frozen=True, rename="camel", gc=False):
    """v1 Secret; ``data`` is base64, ``string_data`` plain and stronger. What it holds never shows in its repr."""

    metadata: Metadata = Metadata()
    type: str = "Opaque"
    data: dict[str, str] = {}
    string_data: dict[str, str] = {}

    def __repr__(self) -> str:
        return f"Secret({self.metadata.namespace}/{self.metadata.name}, type={self.type!r})"


Object: TypeAlias = Ingress | IngressClass | Service | EndpointSlice | Secret
Key: TypeAlias = tuple[str, str]  # namespace, name
Topic: TypeAlias = tuple[str, Key]
"""Something that a compilation may ask the store for, and that may change: a kind and an object's key; ``slices`` and
the key of their Service; ``names`` and a namespace (which Services it has); ``homes`` and a name (which namespaces have
a Service of that name); ``classes`` (which IngressClasses there are)."""

# Kind -> the API version that is read, and the type.
KINDS: Final[dict[str, tuple[str, type[Object]]]] = {
    "Ingress": ("networking.k8s.io/v1", Ingress),
    "IngressClass": ("networking.k8s.io/v1", IngressClass),
    "Service": ("v1", Service),
    "EndpointSlice": ("discovery.k8s.io/v1", EndpointSlice),
    "Secret": ("v1", Secret),
}


class Place:
    """Where an object comes from: a file and the lines in it, or nowhere (the API server)."""

    __slots__ = ("_lines", "file")

    def __init__(self, file: str = "", lines: Lines | None = None) -> None:
        self.file = file
        self._lines = lines

    def line(self, path: str = "") -> int:
        """The line of a field, or of the closest one above it; 0 where there are no lines."""
        return 0 if self._lines is None else self._lines.at(path)

    def __repr__(self) -> str:
        return f"{self.file}:{self.line()}"


NOWHERE: Final = Place()


def key_of(item: Object) -> Key:
    """Namespace and name; the namespace of an IngressClass is ""."""
    return ("" if isinstance(item, IngressClass) else item.metadata.namespace), item.metadata.name


def service_of(piece: EndpointSlice) -> Key:
    """The Service that an EndpointSlice belongs to; its name is "" where the label is missing."""
    return piece.metadata.namespace, piece.metadata.labels.get(SERVICE_NAME_LABEL, "")
