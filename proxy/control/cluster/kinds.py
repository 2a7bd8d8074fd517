"""Where the API keeps the kinds that are followed, and what a path in it is."""

from __future__ import annotations

from typing import Final, NamedTuple
from urllib.parse import quote


class Resource(NamedTuple):
    """A kind's place in the API: ``/apis/GROUP/VERSION`` (or ``/api/v1``) and its plural."""

    kind: str
    base: str
    plural: str
    namespaced: bool = True

    def path(self, namespace: str = "", name: str = "", subresource: str = "") -> str:
        """The path of all objects, of one namespace's, or of one."""
        parts = [self.base]
        if namespace and self.namespaced:
            parts += ["namespaces", quote(namespace, safe="")]
        parts.append(self.plural)
        parts += [quote(part, safe="") for part in (name, subresource) if part]
        return "/".join(parts)

    @property
    def version(self) -> str:
        """The apiVersion that objects carry: ``v1``, ``networking.k8s.io/v1``."""
        return self.base.removeprefix("/apis/").removeprefix("/api/")

    @property
    def title(self) -> str:
        """As RBAC and its messages say it: ``ingresses.networking.k8s.io``, ``services``."""
        group = self.version.rpartition("/")[0]
        return f"{self.plural}.{group}" if group else self.plural


INGRESS: Final = Resource("Ingress", "/apis/networking.k8s.io/v1", "ingresses")
INGRESS_CLASS: Final = Resource("IngressClass", "/apis/networking.k8s.io/v1", "ingressclasses", namespaced=False)
SERVICE: Final = Resource("Service", "/api/v1", "services")
ENDPOINT_SLICE: Final = Resource("EndpointSlice", "/apis/discovery.k8s.io/v1", "endpointslices")
SECRET: Final = Resource("Secret", "/api/v1", "secrets")
EVENT: Final = Resource("Event", "/api/v1", "events")
LEASE: Final = Resource("Lease", "/apis/coordination.k8s.io/v1", "leases")

# apiVersion by kind, for references to an object (an Event's involvedObject).
VERSIONS: Final = {each.kind: each.version for each in (INGRESS, INGRESS_CLASS, SERVICE, ENDPOINT_SLICE, SECRET)}


class Scope(NamedTuple):
    """What one list and watch covers: a kind, in one namespace or ("") in all, and maybe one object only."""

    resource: Resource
    namespace: str = ""
    name: str = ""

    @property
    def path(self) -> str:
        """The collection's path; a single object is a field selector on it, which RBAC's resourceNames understand."""
        return self.resource.path(self.namespace)

    @property
    def selector(self) -> dict[str, str]:
        """The query parameters that narrow the collection."""
        return {"fieldSelector": f"metadata.name={self.name}"} if self.name else {}

    def __str__(self) -> str:
        where = f" in namespace {self.namespace}" if self.namespace else ""
        return f"{self.resource.title}{f' {self.name}' if self.name else ''}{where}"
