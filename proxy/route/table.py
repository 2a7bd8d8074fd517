"""The table that a worker routes by: one generation, swapped as a whole, and never changed while it serves.

The next generation is made of it (`Table.successor`): it shares the trees and routes of every host that stays.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final, TypeAlias

from proxy.errors import SettingsError
from proxy.route.actions import Actions
from proxy.route.change import TableChange, whole
from proxy.route.match import PathTree
from proxy.route.regex import Pattern, PatternError, RegexPaths

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Mapping

    from proxy.route.spec import RouteSpec, TableSpec
    from proxy.route.stats import RouteStats


class Route:
    """One path of one Ingress rule at run time; what spans, logs and metrics say of it (`trace.record.RouteIdentity`).

    ``index`` is unique among all routes that a worker has had: a route may serve in many generations. ``path`` is the
    Ingress path as written, "" for a default backend. ``backend`` is whatever object the table was given for the
    spec's backend key. The rest are copies of the spec's fields, one attribute away from the hot path.
    """

    __slots__ = (
        "actions",  # what is done beyond forwarding; None for nothing
        "backend",
        "body_limit",  # bytes, 0 for none
        "connect_timeout",  # seconds
        "host",
        "index",
        "name",
        "namespace",
        "path",
        "pattern",  # the path as an expression, None where it is none
        "read_timeout",  # seconds, between two reads
        "resource_version",
        "sample_ratio",  # 0 to 1, None for the proxy's own sampler
        "send_timeout",  # seconds, between two writes
        "span_name",  # what the SERVER span is called; "" for method and path
        "span_parts",  # what `trace.encode` keeps here
        "spec",
        "stats",
        "tries",  # most attempts for one request
        "uid",
    )

    def __init__(self, spec: RouteSpec, index: int, backend: Any, stats: RouteStats) -> None:
        self.spec: Final = spec
        self.pattern: Final = pattern_of(spec) if spec.path_type == "Regex" else None
        self.actions: Final = None if spec.actions is None else Actions(spec.actions, self.pattern)
        self.span_parts: bytes | None = None
        self.span_name: Final = "" if spec.actions is None else spec.actions.span_name
        self.index: Final = index
        self.backend: Final = backend
        self.stats: Final = stats
        self.namespace: Final = spec.namespace
        self.name: Final = spec.name
        self.uid: Final = spec.uid
        self.resource_version: Final = spec.resource_version
        self.host: Final = spec.host
        self.path: Final = spec.path
        self.body_limit: Final = spec.body_limit
        self.connect_timeout: Final = spec.connect_timeout
        self.read_timeout: Final = spec.read_timeout
        self.send_timeout: Final = spec.send_timeout
        self.tries: Final = spec.tries
        self.sample_ratio: Final = spec.sample_ratio

    def __repr__(self) -> str:
        spec = self.spec
        rule = f"{spec.path_type} {spec.host or '*'}{spec.path}" if spec.path else f"default {spec.host or '*'}"
        return f"Route({self.index} {spec.namespace}/{spec.name}: {rule} -> {spec.backend})"


Paths: TypeAlias = PathTree | RegexPaths


def _tree(routes: list[Route]) -> Paths | None:
    """The paths of a host's rules, None where it has none."""
    if not routes:
        return None
    tree = PathTree()
    expressions: RegexPaths = RegexPaths()
    paths: Paths = tree
    for route in routes:
        if route.spec.path_type == "Exact":
            tree.add_exact(route)
            expressions.add_exact(route)
        elif route.pattern is None:
            tree.add_prefix(route)
        else:
            paths = expressions
            expressions.add(route.pattern, route)
    paths.seal()
    return paths


def pattern_of(rule: RouteSpec) -> Pattern:
    """A rule's path as an expression; raises `SettingsError` if it is none."""
    try:
        return Pattern(rule.path)
    except PatternError as error:
        raise SettingsError(f"Ingress {rule.namespace}/{rule.name}: the path {rule.path!r} {error}") from None


class Table:
    """All rules of one generation.

    A request takes the first rule that both its host and its path match, looking at rules for exactly its host, then
    at those for its one-label wildcard, then at those without a host; within each, the longest path, and of equal
    ones the Exact (Ingress v1). What no rule matches goes to the default backend of the Ingress that names the host,
    then to the table's. Of two rules that are the same the first in ``spec.routes`` holds.

    Where a host's paths are expressions, `route.regex` says which is the first. Raises `SettingsError` if a route
    names a backend that ``backends`` does not have, or if its path is no expression.
    """

    __slots__ = ("_any", "_defaults", "_hosts", "_next", "_routes", "_wildcards", "default", "generation")

    def __init__(
        self,
        spec: TableSpec,
        backends: Mapping[str, Any],
        stats_of: Callable[[RouteSpec], RouteStats],
    ) -> None:
        self.generation = spec.generation
        self.default: Route | None = None
        self._any: Paths | None = None
        self._hosts: dict[bytes, Paths] = {}
        self._wildcards: dict[bytes, Paths] = {}  # by what follows the label: b".example.org"
        self._defaults: dict[bytes, Route] = {}
        self._routes: dict[str, tuple[Route, ...]] = {}  # by the rule's host, its default last
        self._next = 0  # index
        self.take(whole(spec), backends.get, stats_of)

    def __repr__(self) -> str:
        hosts = len(self._hosts) + len(self._wildcards)
        return f"Table(generation {self.generation}, {len(self.routes)} routes, {hosts} hosts)"

    @property
    def routes(self) -> tuple[Route, ...]:
        """Every route, by index."""
        return tuple(sorted((route for routes in self._routes.values() for route in routes), key=lambda one: one.index))

    @property
    def hosts(self) -> set[str]:
        """The hosts that have rules or a default, "" for the rules without a host."""
        return set(self._routes)

    def successor(self, generation: int) -> Table:
        """The next generation, so far the same, for `take` to change before it serves."""
        made = Table.__new__(Table)
        made.generation = generation
        made.default = self.default
        made._any = self._any
        made._hosts = self._hosts.copy()
        made._wildcards = self._wildcards.copy()
        made._defaults = self._defaults.copy()
        made._routes = self._routes.copy()
        made._next = self._next
        return made

    def take(
        self,
        change: TableChange,
        backend_of: Callable[[str], Any],
        stats_of: Callable[[RouteSpec], RouteStats],
    ) -> list[RouteStats]:
        """Change hosts of a table that does not serve yet; returns the counters of routes that are gone.

        ``backend_of`` is asked for a backend by its key. Raises `SettingsError` if it has none.
        """
        gone: list[RouteStats] = []
        for host, spec in change.hosts.items():
            before = self._routes.pop(host, ())
            known: dict[tuple[str, str], Route] = {(route.spec.path_type, route.path): route for route in before}
            now: list[Route] = []
            default = None
            if spec is not None:
                now = [self._route(rule, known, backend_of, stats_of) for rule in spec.routes]
                if spec.default is not None:
                    default = self._route(spec.default, known, backend_of, stats_of)
            self._place(host, _tree(now), default)
            if default is not None:
                now.append(default)
            if now:
                self._routes[host] = tuple(now)
            counting = {id(route.stats) for route in now}
            gone += [route.stats for route in before if id(route.stats) not in counting]
        return gone

    def drop(self, hosts: Iterable[str]) -> list[RouteStats]:
        """Take hosts out of a table that does not serve yet; returns their counters."""
        gone: list[RouteStats] = []
        for host in hosts:
            gone += [route.stats for route in self._routes.pop(host, ())]
            self._place(host, None, None)
        return gone

    def _route(
        self,
        rule: RouteSpec,
        known: dict[tuple[str, str], Route],
        backend_of: Callable[[str], Any],
        stats_of: Callable[[RouteSpec], RouteStats],
    ) -> Route:
        """The route that is there already, where it is the same in every respect; else a new one."""
        backend = backend_of(rule.backend)
        if backend is None:
            raise SettingsError(
                f"generation {self.generation}: the route {rule.namespace}/{rule.name} {rule.host}{rule.path} "
                f"names the backend {rule.backend!r}, which the table does not have; rebuild the table"
            )
        before = known.get((rule.path_type, rule.path))
        if before is not None and before.backend is backend and before.spec == rule:
            return before
        index = self._next
        self._next = index + 1
        return Route(rule, index, backend, stats_of(rule))

    def _place(self, host: str, tree: Paths | None, default: Route | None) -> None:
        if not host:
            self._any = tree
            self.default = default
            return
        name = host.encode()
        trees, key = (self._wildcards, name[1:]) if name.startswith(b"*.") else (self._hosts, name)
        if tree is None:
            trees.pop(key, None)
        else:
            trees[key] = tree
        if default is None:
            self._defaults.pop(name, None)
        else:
            self._defaults[name] = default

    def match(self, host: bytes, path: bytes) -> Route | None:
        """The route for a request, or None.

        ``host`` is lower-case without port and trailing dot, ``path`` is in normal form (`admit.target`).
        """
        route: Route | None
        tree = self._hosts.get(host)
        if tree is not None:
            route = tree.find(path)
            if route is not None:
                return route
        if self._wildcards:
            dot = host.find(b".")
            if dot > 0:
                tree = self._wildcards.get(host[dot:])
                if tree is not None:
                    route = tree.find(path)
                    if route is not None:
                        return route
        if self._any is not None:
            route = self._any.find(path)
            if route is not None:
                return route
        if self._defaults:
            route = self._defaults.get(host)
            if route is None and (dot := host.find(b".")) > 0:
                route = self._defaults.get(b"*" + host[dot:])
            if route is not None:
                return route
        return self.default
