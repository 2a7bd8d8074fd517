"""One host resolved from everything that Ingresses claim of it.

Of two that want the same the older has it; what the other cannot have is a problem of that other's, and leaves
everything else as it is.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from typing import TYPE_CHECKING, NamedTuple

from msgspec.structs import replace

from proxy.control.actions import by_https, to_host
from proxy.control.annotations import NGINX
from proxy.control.problem import Problem, quoted
from proxy.route.actions import VARIABLES
from proxy.route.regex import Pattern, affordable
from proxy.route.spec import HostSpec, RouteSpec
from proxy.route.template import parse

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


def resolve(host: str, claimants: Sequence[Claims], *, tls: bool = False) -> Resolved:
    """The rules of a host; ``claimants`` are in order of precedence, ``tls`` says that it is in a TLS section.

    That of "" leaves its default to `fallback`.
    """
    conflicts: list[Conflict] = []
    owners: dict[tuple[str, bytes], tuple[Claims, Rule]] = {}
    default: RouteSpec | None = None
    for claims in claimants:
        for rule in claims.rules.get(host, ()):
            _, first = owners.setdefault(rule.same, (claims, rule))
            if first is not rule:
                conflicts += _taken(claims, rule, first.route)
        wanted = claims.defaults.get(host)
        if wanted is not None and default is not None:
            owner = f"{default.namespace}/{default.name}"
            message = f"{host} already has the defaultBackend of Ingress {owner}, which goes first"
            conflicts.append(_conflict(claims, "spec.defaultBackend", message, "keep one of them"))
        if default is None and wanted is not None:
            default = by_https(wanted) if tls and claims.redirects else wanted
    routes, dropped = _routes(list(owners.values()), tls)
    return Resolved(HostSpec(host, tuple(routes), default), (*conflicts, *dropped))


def _routes(owners: list[tuple[Claims, Rule]], tls: bool) -> tuple[list[RouteSpec], list[Conflict]]:
    """The routes of a host's rules, and what it costs them that they share it."""
    dropped: list[Conflict] = []
    good: dict[str, Pattern] = {}
    bad: dict[str, str] = {}
    regex = any(rule.regex for _, rule in owners)
    if regex:
        good, bad = affordable(rule.route.path for _, rule in owners if not rule.literal)
    routes = []
    for claims, rule in owners:
        route = rule.route
        if regex and not rule.literal:
            if route.path in bad:
                hint = "RE2 has no look-around and no back references" if "RE2" in bad[route.path] else ""
                message = f"{quoted(route.path)} {bad[route.path]}; this path takes no requests"
                dropped.append(_conflict(claims, rule.field, message, hint))
                continue
            missing = _missing(route, good[route.path].groups)
            if missing:
                message = f"the path has {good[route.path].groups} groups, so that in {missing} is always empty"
                dropped.append(_conflict(claims, rule.field, message, "add parentheses to the path"))
            route = replace(route, path_type="Regex")
        routes.append(by_https(route) if tls and claims.redirects else route)
    return routes, dropped


def _missing(route: RouteSpec, groups: int) -> str:
    """The first template of a route that names a group its path does not have, and the group; "" if there is none."""
    actions = route.actions
    if actions is None:
        return ""
    templates = (("rewrite-target", actions.rewrite), ("x-forwarded-prefix", actions.prefix))
    for name, template in (*templates, ("its redirect", actions.redirect)):
        for part in parse(template, VARIABLES):
            if isinstance(part, int) and part > groups:
                return f"{name} ${part}"
    return ""


def borrowed(host: str, claimants: Sequence[Claims], of: Callable[[str], HostSpec]) -> HostSpec:
    """The rules of a host that no Ingress has a rule for, but may be another name of one; ``of`` resolves that one.

    An alias goes before a redirect from or to www. A default is no rule.
    """
    for claims in claimants:
        lender = claims.lends.get(host)
        if lender:
            spec = of(lender)
            default = None if spec.default is None else replace(spec.default, host=host)
            return HostSpec(host, tuple(replace(route, host=host) for route in spec.routes), default)
    for claims in claimants:
        target = claims.www.get(host)
        if target:
            return HostSpec(host, (to_host(claims.rules[target][0].route, target, host),))
    return HostSpec(host)


def needless(host: str, claimants: Sequence[Claims]) -> Iterable[Conflict]:
    """Aliases and redirects of a host that has rules of its own, which go first."""
    for claims in claimants:
        wishes = ((claims.lends, "server-alias"), (claims.www, "from-to-www-redirect"))
        for name in [name for names, name in wishes if host in names]:
            message = f"has no effect for {host}, which has rules of its own"
            yield _conflict(claims, f"metadata.annotations[{NGINX}{name}]", message, "")


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
