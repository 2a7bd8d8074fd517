"""EndpointSlices into addresses: which endpoints of a Service take requests, and at which port."""

from __future__ import annotations

from collections.abc import Iterable
from typing import TYPE_CHECKING, NamedTuple

from proxy.route.spec import EndpointSpec

if TYPE_CHECKING:
    from proxy.control.objects import EndpointSlice, Service, ServicePort


class _Found(NamedTuple):
    """An endpoint, and the zones that it is meant for."""

    spec: EndpointSpec
    zones: frozenset[str]


def endpoints_of(
    slices: Iterable[EndpointSlice], service: Service, port: ServicePort, zone: str = ""
) -> tuple[EndpointSpec, ...]:
    """The addresses behind a Service's port, over all its slices.

    Ready endpoints; where there is none, those that still serve while they terminate (KEP-1669, as kube-proxy does).
    A target with addresses of both families is one endpoint, by the Service's first family. An address that stands in
    two slices, as it may while they are rearranged, counts once. ``zone`` is where we are, "" if that is unknown.
    """
    first = service.spec.ip_families[0] if service.spec.ip_families else ""
    ready: dict[object, _Found] = {}
    leaving: dict[object, _Found] = {}
    for piece in sorted(slices, key=lambda one: one.address_type != first):
        number = target_port(piece, port)
        if number is None:
            continue
        for endpoint in piece.endpoints:
            if not endpoint.addresses:
                continue
            conditions, target, hints = endpoint.conditions, endpoint.target_ref, endpoint.hints
            spec = EndpointSpec(endpoint.addresses[0], number, endpoint.zone)
            zones = frozenset(one.name for one in hints.for_zones) if hints is not None else frozenset[str]()
            identity: object = spec.host, spec.port
            if target is not None and target.name:
                identity = target.namespace, target.kind, target.name
            if conditions.ready is not False:
                ready.setdefault(identity, _Found(spec, zones))
            elif conditions.serving and conditions.terminating:
                leaving.setdefault(identity, _Found(spec, zones))
    return tuple(found.spec for found in _near(list(ready.values()), zone) or leaving.values())


def _near(ready: list[_Found], zone: str) -> list[_Found]:
    """Those that the control plane means for our zone; all where it means none for it, or has left any without a hint.

    The rule is kube-proxy's (pkg/proxy/topology.go): hints hold for all of a Service's endpoints or for none.
    """
    if not zone or not all(found.zones for found in ready):
        return ready
    return [found for found in ready if zone in found.zones] or ready


def target_port(piece: EndpointSlice, port: ServicePort) -> int | None:
    """The number that a Service's port has in a slice, None if it is not there.

    Slices call a port what the Service calls it. Slices written by hand may call it by the targetPort's name, or not
    at all.
    """
    target = port.port if port.target_port is None else port.target_port
    fallback = None
    for one in piece.ports:
        if one.protocol != "TCP":
            continue
        if one.name == port.name:
            return one.port or (target if isinstance(target, int) else port.port)
        if one.name == target or (not one.name and one.port == target):
            fallback = fallback or one.port
    return fallback
