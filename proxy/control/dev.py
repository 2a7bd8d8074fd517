"""`spanway dev`: rules from the command line, without any manifest."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final, NamedTuple
from urllib.parse import urlsplit

from proxy.control import names
from proxy.control.endpoints import server_name_of
from proxy.errors import SettingsError
from proxy.route.match import path_key
from proxy.route.spec import BackendSpec, EndpointSpec, RouteSpec, Scheme, TableSpec

if TYPE_CHECKING:
    from collections.abc import Sequence

NAMESPACE: Final = "dev"  # of the routes, where an Ingress would have its own
PATIENCE: Final = 3600.0  # seconds between two reads or writes: somebody may sit at a breakpoint

_FORM: Final = "write HOST[/PATH]=URL, such as shop.localhost/api=http://127.0.0.1:4000, or a URL alone for any host"


class _Target(NamedTuple):
    scheme: Scheme
    endpoint: EndpointSpec

    def __str__(self) -> str:
        host = f"[{self.endpoint.host}]" if ":" in self.endpoint.host else self.endpoint.host
        return f"{self.scheme}://{host}:{self.endpoint.port}"


def rules(args: Sequence[str]) -> TableSpec:
    """The table for ``HOST[/PATH]=URL[,URL..]`` arguments; a URL alone, or a path without host, is for any host.

    A path is a Prefix. Several URLs share the requests of a rule. Bodies have no limit. Raises `SettingsError`.
    """
    routes: dict[tuple[str, bytes], RouteSpec] = {}
    backends: dict[str, BackendSpec] = {}
    for text in args:
        host, path, targets = _rule(text)
        rule = host, path_key(path).rstrip(b"/")
        if rule in routes:
            raise SettingsError(f"{text!r}: {host}{path} has a rule already; put commas between several URLs")
        backend = _backend(text, targets)
        backends[backend.key] = backend
        routes[rule] = RouteSpec(
            namespace=NAMESPACE,
            name=f"{host}{path}",
            uid="",
            resource_version="",
            host=host,
            path=path,
            path_type="Prefix",
            backend=backend.key,
            body_limit=0,
            read_timeout=PATIENCE,
            send_timeout=PATIENCE,
        )
    if not routes:
        raise SettingsError(f"no rule was given; {_FORM}")
    return TableSpec(generation=1, routes=tuple(routes.values()), backends=tuple(backends.values()))


def _rule(text: str) -> tuple[str, str, list[_Target]]:
    """Host, path and targets of one argument."""
    where, equals, urls = text.partition("=")
    if "://" in where or not equals:
        where, urls = "/", text
    host, slash, path = where.partition("/")
    host = host.removesuffix(".").lower()
    path = f"/{path}" if slash else "/"
    if not where:
        raise SettingsError(f"{text!r}: the host is missing; {_FORM}")
    if host and not names.is_address(host.strip("[]")) and (wrong := names.host(host)):
        raise SettingsError(f"{text!r}: the host {host!r} {wrong}; leave its port out, and {_FORM}")
    if "//" in path or "?" in path or "#" in path:
        raise SettingsError(f"{text!r}: {path!r} is no path; {_FORM}")
    return host, path, [_target(url, text) for url in urls.split(",")]


def _target(url: str, text: str) -> _Target:
    try:
        parts = urlsplit(url)
        host, port = parts.hostname, parts.port
    except ValueError as exc:
        raise SettingsError(f"{text!r}: {url!r} is no URL ({exc}); {_FORM}") from None
    if parts.scheme not in ("http", "https") or not host:
        raise SettingsError(f"{text!r}: {url!r} is no http or https URL; {_FORM}")
    if not names.is_address(host) and names.subdomain(host):
        raise SettingsError(f"{text!r}: {host!r} is neither a name nor an address; {_FORM}")
    if parts.path not in ("", "/") or parts.query or parts.fragment:
        raise SettingsError(f"{text!r}: {url!r} has more than host and port; requests keep their own path")
    if parts.username is not None or parts.password is not None:
        raise SettingsError(f"{text!r}: a URL here carries no user or password")
    if port == 0:
        raise SettingsError(f"{text!r}: {url!r} has port 0; give the port that the server listens on")
    scheme: Scheme = "https" if parts.scheme == "https" else "http"
    return _Target(scheme, EndpointSpec(host, port or (443 if scheme == "https" else 80)))


def _backend(text: str, targets: list[_Target]) -> BackendSpec:
    """The backend of one rule. Rules with the same targets share one, and so its connections and balance."""
    scheme = targets[0].scheme
    if any(target.scheme != scheme for target in targets):
        raise SettingsError(f"{text!r}: the URLs of one rule must all be http or all be https")
    endpoints = tuple(dict.fromkeys(target.endpoint for target in targets))
    service = ",".join(dict.fromkeys(map(str, targets)))
    return BackendSpec(
        key=f"{NAMESPACE}/{service}",
        namespace=NAMESPACE,
        service=service,
        port="",
        endpoints=endpoints,
        scheme=scheme,
        server_name=server_name_of(scheme, endpoints),
    )
