"""The immutable table that a worker routes by: one generation, built once, swapped as a whole."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final

from proxy.errors import SettingsError
from proxy.route.actions import Actions
from proxy.route.match import PathTree
from proxy.route.regex import Pattern, PatternError, RegexPaths

if TYPE_CHECKING:
    from collections.abc import Callable, Container, Mapping

    from proxy.route.spec import RouteSpec, TableSpec
    from proxy.route.stats import RouteStats


class Route:
    """One path of one Ingress rule at run time; what spans, logs and metrics say of it (`trace.record.RouteIdentity`).

    ``index`` is unique within its table. ``path`` is the Ingress path as written, "" for a default backend.
    ``backend`` is whatever object the table was given for the spec's backend key. The rest are copies of the spec's
    fields, one attribute away from the hot path.
    """

    __slots__ = (
        "actions",  # what is done beyond forwarding; None for nothing
        "backend",
        "body_limit",  # bytes, 0 for none
        "connect_timeout",  # seconds
        "generation",
        "host",
        "index",
        "name",
        "namespace",
        "path",
        "read_timeout",  # seconds, between two reads
        "resource_version",
        "sample_ratio",  # 0 to 1, None for the proxy's own sampler
        "send_timeout",  # seconds, between two writes
        "span_name",  # what the SERVER span is called; "" for method and path
        "spec",
        "stats",
        "tries",  # most attempts for one request
        "uid",
    )

    def __init__(
        self,
        spec: RouteSpec,
        index: int,
        generation: int,
        backend: Any,
        stats: RouteStats,
        pattern: Pattern | None = None,
    ) -> None:
        self.spec: Final = spec
        self.actions: Final = None if spec.actions is None else Actions(spec.actions, pattern)
        self.span_name: Final = "" if spec.actions is None else spec.actions.span_name
        self.index: Final = index
        self.generation: Final = generation
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
        return f"Route({self.generation}.{self.index} {spec.namespace}/{spec.name}: {rule} -> {spec.backend})"


def check_backends(spec: TableSpec, known: Container[str]) -> None:
    """Raises `SettingsError` if a route names a backend that is not ``known``, by its key."""
    default = () if spec.default_route is None else (spec.default_route,)
    for rule in (*spec.routes, *spec.host_defaults, *default):
        if rule.backend not in known:
            raise SettingsError(
                f"generation {spec.generation}: the route {rule.namespace}/{rule.name} {rule.host}{rule.path} "
                f"names the backend {rule.backend!r}, which the table does not have; rebuild the table"
            )


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

    __slots__ = ("_any", "_defaults", "_hosts", "_wildcards", "default", "generation", "routes", "spec")

    def __init__(
        self,
        spec: TableSpec,
        backends: Mapping[str, Any],
        stats_of: Callable[[RouteSpec], RouteStats],
    ) -> None:
        self.spec: Final = spec
        self.generation: Final = spec.generation
        check_backends(spec, backends)
        made: list[Route] = []

        def route_of(rule: RouteSpec, pattern: Pattern | None = None) -> Route:
            route = Route(rule, len(made), spec.generation, backends[rule.backend], stats_of(rule), pattern)
            made.append(route)
            return route

        expressions = {rule.host for rule in spec.routes if rule.path_type == "Regex"}
        trees: dict[str, PathTree[Route] | RegexPaths[Route]] = {}
        for rule in spec.routes:
            tree = trees.get(rule.host)
            if tree is None:
                tree = trees[rule.host] = RegexPaths() if rule.host in expressions else PathTree()
            if rule.path_type == "Exact":
                tree.add_exact(route_of(rule))
            elif isinstance(tree, PathTree):
                tree.add_prefix(route_of(rule))
            else:
                pattern = pattern_of(rule)
                tree.add(pattern, route_of(rule, pattern))
        for tree in trees.values():
            tree.seal()
        self._any: Final = trees.pop("", None)
        self._hosts: Final = {host.encode(): tree for host, tree in trees.items() if not host.startswith("*.")}
        # By what follows the label: b".example.org" for *.example.org.
        self._wildcards: Final = {host[1:].encode(): tree for host, tree in trees.items() if host.startswith("*.")}
        self._defaults: dict[bytes, Route] = {}
        for rule in spec.host_defaults:
            self._defaults.setdefault(rule.host.encode(), route_of(rule))
        self.default: Final = route_of(spec.default_route) if spec.default_route is not None else None
        self.routes: Final = tuple(made)

    def __repr__(self) -> str:
        hosts = len(self._hosts) + len(self._wildcards)
        return f"Table(generation {self.generation}, {len(self.routes)} routes, {hosts} hosts)"

    def match(self, host: bytes, path: bytes) -> Route | None:
        """The route for a request, or None.

        ``host`` is lower-case without port and trailing dot, ``path`` is in normal form (`admit.target`).
        """
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
