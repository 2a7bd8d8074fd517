"""What an Ingress's status says: the addresses that clients reach this controller by.

The rules are ingress-nginx's (`statusAddressFromService` in its internal/ingress/status): of a LoadBalancer what its
provider reports, and its external IPs; of a NodePort its external IPs, else its cluster IP; of a ClusterIP that IP; of
an ExternalName that name.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final

import msgspec

from proxy.control.names import is_address

if TYPE_CHECKING:
    from collections.abc import Iterable


class Point(msgspec.Struct, frozen=True, order=True):
    """IngressLoadBalancerIngress: an address or a name; its ports, which nobody fills in, are left out."""

    hostname: str = ""
    ip: str = ""

    def document(self) -> dict[str, str]:
        """As it is written."""
        return {name: value for name, value in (("hostname", self.hostname), ("ip", self.ip)) if value}


Points = tuple[Point, ...]


class _Reported(msgspec.Struct, frozen=True):
    hostname: str | None = None
    ip: str | None = None


class _Balancer(msgspec.Struct, frozen=True):
    ingress: tuple[_Reported, ...] | None = None


class _Status(msgspec.Struct, frozen=True, rename="camel"):
    load_balancer: _Balancer | None = None


class _Spec(msgspec.Struct, frozen=True, rename="camel"):
    type: str | None = None
    cluster_ip: str | None = msgspec.field(name="clusterIP", default=None)
    external_ips: tuple[str, ...] | None = msgspec.field(name="externalIPs", default=None)
    external_name: str | None = None


class _Service(msgspec.Struct, frozen=True):
    spec: _Spec | None = None
    status: _Status | None = None


class _Ingress(msgspec.Struct, frozen=True):
    status: _Status | None = None


_services: Final = msgspec.json.Decoder(_Service)
_ingresses: Final = msgspec.json.Decoder(_Ingress)


def of_texts(texts: Iterable[str]) -> Points:
    """The points of --publish-address: IP addresses and host names."""
    return _ordered(Point(ip=text) if is_address(text) else Point(hostname=text) for text in texts)


def of_service(raw: bytes | msgspec.Raw) -> Points:
    """The points of a Service, as the API server sent it; none where it has none yet, or cannot be read."""
    try:
        service = _services.decode(raw)
    except (msgspec.DecodeError, UnicodeDecodeError):
        return ()
    spec = service.spec or _Spec()
    external = [Point(ip=ip) for ip in spec.external_ips or ()]
    internal = [Point(ip=spec.cluster_ip)] if spec.cluster_ip and spec.cluster_ip != "None" else []
    match spec.type:
        case "ExternalName":
            return (Point(hostname=spec.external_name),) if spec.external_name else ()
        case "LoadBalancer":
            return _ordered([*_reported(service.status), *external])
        case "NodePort":
            return _ordered(external or internal)
        case _:
            return tuple(internal)


def of_ingress(raw: bytes | msgspec.Raw) -> Points:
    """What an Ingress's status says now."""
    try:
        return _ordered(_reported(_ingresses.decode(raw).status))
    except (msgspec.DecodeError, UnicodeDecodeError):
        return ()


def patch(points: Points, version: str) -> dict[str, Any]:
    """The merge patch that writes points, unless the Ingress is no longer at this resourceVersion ("" for any)."""
    written = [point.document() for point in points]
    document: dict[str, Any] = {"status": {"loadBalancer": {"ingress": written or None}}}
    return {"metadata": {"resourceVersion": version}, **document} if version else document


def _reported(status: _Status | None) -> list[Point]:
    balancer = status.load_balancer if status is not None else None
    return [Point(one.hostname or "", one.ip or "") for one in (balancer.ingress if balancer else None) or ()]


def _ordered(points: Iterable[Point]) -> Points:
    """Sorted and each once, so that two that mean the same are equal."""
    return tuple(sorted(set(points)))
