"""Why a request takes the route it takes: the winner, what else matched and lost, and what nearly matched.

The winner is what `Table.match` says; the reasons are found by looking at every rule in turn, which a lookup never
does. A test holds the two against each other, and both against the Ingress specification.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

import msgspec

from proxy.route.doing import does
from proxy.route.match import path_key
from proxy.route.near import near_host, near_path
from proxy.route.regex import Pattern, precedence
from proxy.route.spec import BackendSpec, RouteSpec, TableSpec
from proxy.route.stats import RouteStats
from proxy.route.table import Table
from proxy.settings import Address

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

MOST_NEAR: Final = 10  # near misses told; a host may have hundreds of paths


class Candidate(msgspec.Struct, frozen=True):
    """A rule that was not taken, and why, as a clause that follows "but"."""

    route: RouteSpec
    reason: str


class Explanation(msgspec.Struct, frozen=True):
    """What happens to one request.

    ``lost`` are rules whose host and path both match, in the order in which they would take over; ``near`` are rules
    that match but for one thing. ``backend`` is None where there is no route. ``certificate`` is the Secret
    (namespace/name) that a TLS client asking for this host is shown, "" for plain HTTP or none.
    """

    method: str
    scheme: str
    host: str
    path: str
    route: RouteSpec | None
    reason: str
    lost: tuple[Candidate, ...]
    near: tuple[Candidate, ...]
    near_left_out: int
    backend: BackendSpec | None
    certificate: str


def explain(
    table: TableSpec,
    method: str,
    scheme: str,
    host: str,
    path: str,
    headers: Sequence[tuple[str, str]] = (),
) -> Explanation:
    """Explain a request.

    ``host`` is as in a URL, with or without port; a ``Host`` in ``headers`` stands in its place, as in a request.
    ``path`` is in normal form (`admit.target.normal_path`). Neither method nor other header fields choose an Ingress
    rule.
    """
    for name, value in headers:
        if name.lower() == "host":
            host = value.strip()
    host = _host_only(host)
    key = path.encode("utf-8", "surrogatepass")
    route = _winner(table, host, key)
    matching = sorted(
        (rule for rule in table.routes if _tier(rule, host) is not None and covers(rule, key)),
        key=lambda rule: _order(rule, host),
    )
    lost = [Candidate(rule, _why_lost(rule, route, host)) for rule in matching if route and rule is not route]
    lost += [
        Candidate(rule, "a default backend serves only what no rule matches")
        for rule in _defaults(table, host)
        if rule is not route
    ]
    near = list(_near(table, host, key, helpless=route is None or not route.path))
    return Explanation(
        method=method,
        scheme=scheme,
        host=host,
        path=path,
        route=route,
        reason=_why_won(route, host, others=bool(lost)),
        lost=tuple(lost),
        near=tuple(near[:MOST_NEAR]),
        near_left_out=max(0, len(near) - MOST_NEAR),
        backend=next((backend for backend in table.backends if route and backend.key == route.backend), None),
        certificate=_certificate(table, host) if scheme == "https" else "",
    )


def covers(rule: RouteSpec, path: bytes) -> bool:
    """Whether a rule's path matches a request path in normal form (Ingress v1, "Path types")."""
    if rule.path_type == "Regex":
        return Pattern(rule.path).matches(path, path.lower())
    key = path_key(rule.path)
    if rule.path_type == "Exact":
        return path == key
    key = key.rstrip(b"/")
    return not key or path == key or path.startswith(key + b"/")


def _host_only(host: str) -> str:
    if host.startswith("["):
        return host[: host.find("]") + 1].lower()
    return host.partition(":")[0].removesuffix(".").lower()


def _winner(table: TableSpec, host: str, path: bytes) -> RouteSpec | None:
    nothing = RouteStats("", "", "", "")
    keys = {rule.backend for rule in (*table.routes, *table.host_defaults)}
    if table.default_route is not None:
        keys.add(table.default_route.backend)
    route = Table(table, dict.fromkeys(keys, ""), lambda _: nothing).match(host.encode(), path)
    return None if route is None else route.spec


def _tier(rule: RouteSpec, host: str) -> int | None:
    """0 for exactly this host, 1 for its wildcard, 2 for a rule without host, None where the host does not match."""
    if not rule.host:
        return 2
    if rule.host == host:
        return 0
    label, dot, rest = host.partition(".")
    return 1 if label and dot and rule.host == f"*.{rest}" else None


def _order(rule: RouteSpec, host: str) -> tuple[int, int, bool, bytes]:
    """Sorts matching rules by precedence: host, then longest path, then Exact; equal ones keep the table's order.

    Regular expressions go by their text (`route.regex.precedence`).
    """
    tier = _tier(rule, host) or 0
    if rule.path_type == "Regex":
        length, raw = precedence(rule.path)
        return tier, -length, True, bytes(255 - byte for byte in raw)
    return tier, -len(path_key(rule.path).rstrip(b"/")), rule.path_type != "Exact", b""


def _defaults(table: TableSpec, host: str) -> Iterator[RouteSpec]:
    yield from sorted(
        (rule for rule in table.host_defaults if _tier(rule, host) is not None),
        key=lambda rule: _tier(rule, host) or 0,
    )
    if table.default_route is not None:
        yield table.default_route


def _why_won(route: RouteSpec | None, host: str, others: bool) -> str:
    if route is None:
        return "No rule matches both this host and this path, and no Ingress has a default backend: the answer is 404."
    if not route.path:
        return "No rule matches both this host and this path, so a default backend serves it."
    whose = ("is for exactly this host", f"covers this host by its wildcard {route.host}", "is for any host")
    best = "; of all rules that match it is the most specific" if others else "; no other rule matches"
    path = "is exactly this path" if route.path_type == "Exact" else f"has a path, {route.path}, that holds this one"
    if route.path_type == "Regex":
        path = f"has a regular expression, {route.path}, that matches this path"
        best = "; of all that match it is the longest text" if others else best
    return f"It {whose[_tier(route, host) or 0]} and {path}{best}."


def _why_lost(rule: RouteSpec, winner: RouteSpec, host: str) -> str:
    tier = _tier(rule, host)
    if tier != _tier(winner, host):
        if tier == 1:
            return f"its host is a wildcard, and a rule for exactly {host} goes first"
        return f"it has no host, and a rule for {winner.host} goes first"
    if rule.path_type == "Regex" and winner.path_type == "Exact":
        return f"it is a regular expression, and {winner.path} is exactly this path"
    if rule.path_type == "Regex" and rule.path != winner.path:
        return f"regular expressions go by the length of their text, and {winner.path} goes before {rule.path}"
    mine, theirs = path_key(rule.path).rstrip(b"/"), path_key(winner.path).rstrip(b"/")
    if len(mine) < len(theirs):
        return f"its path {rule.path} is shorter than {winner.path}"
    if rule.path_type != winner.path_type:
        return "it is a Prefix, and of two equal paths the Exact goes first"
    return f"it is the same rule again, and Ingress {winner.namespace}/{winner.name} had it first"


def _near(table: TableSpec, host: str, path: bytes, helpless: bool) -> Iterator[Candidate]:
    """Rules that one thing keeps from matching; all paths of the host where nothing else can help (``helpless``)."""
    unrelated = []
    for rule in table.routes:
        if _tier(rule, host) is not None:
            if not covers(rule, path):
                reason = near_path(rule, path)
                if reason:
                    yield Candidate(rule, reason)
                elif helpless and rule.path_type == "Regex":
                    unrelated.append(Candidate(rule, f"the regular expression {rule.path} does not match"))
                elif helpless:
                    unrelated.append(Candidate(rule, f"the path is not {rule.path} and not below it"))
        elif covers(rule, path):
            reason = near_host(rule.host, host)
            if reason:
                yield Candidate(rule, reason)
    yield from unrelated


def _certificate(table: TableSpec, host: str) -> str:
    label, dot, rest = host.partition(".")
    for name in (host, f"*.{rest}" if label and dot else host):
        for certificate in table.certificates:
            if name in certificate.hosts:
                return certificate.secret
    return table.default_certificate.secret if table.default_certificate is not None else ""


def render(explanation: Explanation) -> str:
    """The explanation as plain text, one fact a line."""
    lines = [f"{explanation.method} {explanation.scheme}://{explanation.host}{explanation.path}", ""]
    route, backend = explanation.route, explanation.backend
    if route is None:
        lines += ["No route", f"  {explanation.reason}"]
    else:
        lines += [f"Route {_title(route)}", f"  {explanation.reason}", *_backend_lines(backend, route)]
        lines += [f"  {each}" for each in does(route, explanation.scheme, explanation.host, explanation.path)]
    if explanation.scheme == "https":
        lines.append(f"  certificate: {explanation.certificate or 'none for this host, so a self-signed one is shown'}")
    if explanation.lost:
        lines += ["", "Also matches"]
        lines += [f"  {_title(candidate.route)}\n    but {candidate.reason}" for candidate in explanation.lost]
    if explanation.near:
        lines += ["", "Nearly matches"]
        lines += [f"  {_title(candidate.route)}\n    but {candidate.reason}" for candidate in explanation.near]
        if explanation.near_left_out:
            lines.append(f"  and {explanation.near_left_out} more")
    return "\n".join(lines) + "\n"


def _title(rule: RouteSpec) -> str:
    what = f"{rule.path_type} {rule.path}" if rule.path else "default backend"
    return f"{rule.host or 'any host'}, {what} (Ingress {rule.namespace}/{rule.name})"


def _backend_lines(backend: BackendSpec | None, route: RouteSpec) -> Iterator[str]:
    body = _size(route.body_limit) if route.body_limit else "no limit"
    if backend is None:
        yield f"  backend: {route.backend}, which the table does not have"
        return
    by = backend.scheme.upper()
    spread = f"hash of {backend.hash_by}" if backend.policy == "hash" else backend.policy
    yield f"  backend: Service {backend.namespace}/{backend.service}, port {backend.port}, by {by}, {spread}"
    if backend.endpoints:
        yield f"  endpoints: {', '.join(str(Address(one.host, one.port)) for one in backend.endpoints)}"
    else:
        yield "  endpoints: none, so the answer is 503"
    yield (
        f"  limits: body {body}, connect {route.connect_timeout:g} s, read {route.read_timeout:g} s, "
        f"send {route.send_timeout:g} s, {route.tries} tries"
    )


def _size(number: int) -> str:
    """Bytes as nginx's units have them, where they come out even."""
    for unit, size in (("GiB", 1 << 30), ("MiB", 1 << 20), ("KiB", 1 << 10)):
        if number % size == 0:
            return f"{number // size} {unit}"
    return f"{number} bytes"
