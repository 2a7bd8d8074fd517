"""Rules and requests that meet often: few labels, few elements."""

from __future__ import annotations

from hypothesis import strategies as st

from proxy.route.spec import BackendSpec, EndpointSpec, RouteSpec, TableSpec

ELEMENTS = ("a", "A", "b", "ab", "aa", "c.d", "~x")
LABELS = ("a", "b", "ab")

names = st.lists(st.sampled_from(LABELS), min_size=1, max_size=4).map(".".join)
hosts = st.one_of(st.just(""), names, names.map(lambda name: f"*.{name}"))


def _path(elements: list[str], slash: bool) -> str:
    path = "".join(f"/{element}" for element in elements)
    return path + "/" if slash or not path else path


paths = st.builds(_path, st.lists(st.sampled_from(ELEMENTS), max_size=4), st.booleans())


@st.composite
def rules(draw: st.DrawFn) -> RouteSpec:
    return RouteSpec(
        namespace="ns",
        name=f"i{draw(st.integers(0, 999))}",
        uid="",
        resource_version="",
        host=draw(hosts),
        path=draw(paths),
        path_type=draw(st.sampled_from(["Exact", "Prefix"])),
        backend="ns/s:80",
    )


def table(*routes: RouteSpec, default: RouteSpec | None = None, host_defaults: tuple[RouteSpec, ...] = ()) -> TableSpec:
    keys = {rule.backend for rule in (*routes, *host_defaults)} | ({default.backend} if default else set())
    backends = []
    for key in sorted(keys):
        name, _, port = key.partition(":")
        namespace, _, service = name.partition("/")
        backends.append(BackendSpec(key, namespace, service, port, (EndpointSpec("10.0.0.1", 8080),)))
    return TableSpec(7, routes, tuple(backends), (), default, None, host_defaults)


def rule(text: str, backend: str = "ns/s:80", name: str = "web") -> RouteSpec:
    """``"Exact shop.test/a"``, ``"Prefix /"``."""
    kind, _, where = text.partition(" ")
    host, _, path = where.partition("/")
    assert kind in {"Exact", "Prefix"}
    return RouteSpec("ns", name, "", "", host, f"/{path}", "Exact" if kind == "Exact" else "Prefix", backend)
