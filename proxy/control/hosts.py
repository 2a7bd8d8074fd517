"""One host resolved from everything that Ingresses claim of it.

Of two that want the same the older has it; what the other cannot have is a problem of that other's, and leaves
everything else as it is.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING, NamedTuple

from proxy.control.problem import Problem
from proxy.route.spec import HostSpec, RouteSpec

if TYPE_CHECKING:
    from proxy.control.claims import Claims, Rule
    from proxy.control.objects import Key


class Conflict(NamedTuple):
    """What an Ingress cannot have."""

    ingress: Key
    problem: Problem


class Resolved(NamedTuple):
    """A host's rules, and who could not have what."""

    spec: HostSpec
    conflicts: tuple[Conflict, ...]


def resolve(host: str, claimants: Sequence[Claims]) -> Resolved:
    """The rules of a host; ``claimants`` are in order of precedence. That of "" leaves its default to `fallback`."""
    conflicts: list[Conflict] = []
    owners: dict[tuple[str, bytes], RouteSpec] = {}
    default: RouteSpec | None = None
    for claims in claimants:
        for rule in claims.rules.get(host, ()):
            first = owners.setdefault(rule.same, rule.route)
            if first is not rule.route:
                conflicts += _taken(claims, rule, first)
        wanted = claims.defaults.get(host)
        if wanted is not None and default is not None:
            owner = f"{default.namespace}/{default.name}"
            message = f"{host} already has the defaultBackend of Ingress {owner}, which goes first"
            conflicts.append(_conflict(claims, "spec.defaultBackend", message, "keep one of them"))
        default = default or wanted
    return Resolved(HostSpec(host, tuple(owners.values()), default), tuple(conflicts))


def _taken(claims: Claims, rule: Rule, owner: RouteSpec) -> Iterable[Conflict]:
    """A rule that is there already; nobody minds the same one twice in one Ingress."""
    route = rule.route
    if (owner.namespace, owner.name) != (route.namespace, route.name):
        wanted = f"{route.path_type} {route.host or 'any host'} {owner.path}"
        message = f"{wanted} already belongs to Ingress {owner.namespace}/{owner.name}, which goes first"
        hint = "give one of them another host or path"
        yield _conflict(claims, rule.field, f"{message}; this path takes no requests", hint)
    elif owner.backend != route.backend:
        message = f"is the same rule as {owner.path} above, with another backend; it takes no requests"
        yield _conflict(claims, rule.field, message, "remove one of them")


def fallback(claimants: Iterable[Claims]) -> tuple[RouteSpec | None, tuple[Conflict, ...]]:
    """The default for every host, of the Ingresses that have one, in order of precedence.

    Those that are for no host in particular go first, and only they miss it.
    """
    every = list(claimants)
    winner = min(every, key=lambda claims: not claims.everywhere, default=None)  # of equals the first, the oldest
    if winner is None:
        return None, ()
    message = f"Ingress {winner.owner} already has the default for every host, and goes first"
    return winner.fallback, tuple(
        _conflict(claims, "spec.defaultBackend", message, "keep one of them")
        for claims in every
        if claims.everywhere and claims is not winner
    )


def certificate(host: str, claimants: Sequence[Claims]) -> tuple[Key | None, tuple[Conflict, ...]]:
    """The Secret that is shown for a host; ``claimants`` are in order of precedence."""
    owner: tuple[Key, Claims] | None = None
    conflicts: list[Conflict] = []
    for claims in claimants:
        for named in claims.certificates.get(host, ()):
            owner = owner or (named.secret, claims)
            if owner[0] != named.secret:
                taken = f"{host} already has Secret {'/'.join(owner[0])} by Ingress {owner[1].owner}, which goes first"
                conflicts.append(_conflict(claims, named.field, taken, "name one Secret for it"))
    return (None if owner is None else owner[0]), tuple(conflicts)


def _conflict(claims: Claims, field: str, message: str, hint: str) -> Conflict:
    subject = claims.subject()
    subject.warning(field, message, hint)
    return Conflict(claims.key, subject.problems[0])
