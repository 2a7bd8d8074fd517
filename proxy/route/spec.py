"""The table as data: what the control plane builds and every worker receives.

Plain frozen structs without behaviour, so that a snapshot crosses a process border as msgpack. `route.table` turns
one into lookups; `control.build` makes one from Kubernetes objects; `route.change` is what makes one of another. They
cannot be part of a cycle, so the garbage collector passes them over.
"""

from __future__ import annotations

from typing import Literal

import msgspec

Policy = Literal["round_robin", "least_conn", "ewma", "hash"]
Scheme = Literal["http", "https"]
PathType = Literal["Exact", "Prefix", "Regex"]


class EndpointSpec(msgspec.Struct, frozen=True, array_like=True, gc=False):
    """One address that serves a backend: an IP address (or, from `--upstream` and ExternalName, a name) and a port."""

    host: str
    port: int
    zone: str = ""


class BackendSpec(msgspec.Struct, frozen=True, array_like=True, gc=False):
    """A service port and the endpoints behind it.

    ``key`` is ``namespace/service:port`` and unique in a table. ``server_name`` is what TLS asks the upstream for
    (SNI and, with ``verify``, the certificate's name); empty means the request's host.
    """

    key: str
    namespace: str
    service: str
    port: str
    endpoints: tuple[EndpointSpec, ...]
    policy: Policy = "round_robin"
    hash_by: str = ""  # nginx variable syntax, e.g. "$remote_addr", "$request_uri", "$http_x_user", "$arg_id"
    scheme: Scheme = "http"
    server_name: str = ""
    verify: bool = False  # ingress-nginx: proxy-ssl-verify is off by default


class ActionSpec(msgspec.Struct, frozen=True, array_like=True, gc=False):
    """What a route does beyond forwarding; a route that does nothing of it has none (`route.actions`).

    Networks are in CIDR notation. ``redirect``, ``rewrite`` and ``prefix`` are templates (`route.template`) with the
    groups of the route's path, if that is an expression. ``redirect_code`` and ``https`` are statuses, 0 for none.
    """

    closed: str = ""  # why no request is served here: it asks for a protection that cannot be given
    allow: tuple[str, ...] = ()  # only these networks; () for all
    deny: tuple[str, ...] = ()  # not these, whatever ``allow`` says
    redirect: str = ""  # an absolute URL
    redirect_code: int = 0
    https: int = 0  # plain requests are redirected to https with this status
    app_root: str = ""  # where "/" is redirected to: a path
    rewrite: str = ""  # the path for the upstream
    upstream_host: str = ""  # Host for the upstream
    prefix: str = ""  # X-Forwarded-Prefix
    response_headers: tuple[tuple[str, str], ...] = ()  # name and value; without a value the field is taken away
    retry_on: tuple[str, ...] = ("error", "timeout")  # nginx: proxy_next_upstream
    retry_timeout: float = 0.0  # seconds from the first attempt in which there may be another; 0 for no limit
    recorded: bool = True  # False: no spans
    trust_incoming: bool = True  # False: a trace that comes along is linked to, not continued
    span_name: str = ""  # of the SERVER span; $request_method is filled in
    logged: bool = True  # False: no access-log records


NOTHING = ActionSpec()


class RouteSpec(msgspec.Struct, frozen=True, array_like=True, gc=False):
    """One path of one Ingress rule.

    ``host`` is lower-case, "" for any host, or ``*.example.org``. ``path`` is the Ingress path as written, which is
    the span's ``http.route``; ``path_type`` Regex says that it is a regular expression (`route.regex`). Times are
    seconds; ``body_limit`` is bytes, 0 for none; ``sample_ratio`` None means the proxy's own sampler.
    """

    namespace: str
    name: str
    uid: str
    resource_version: str
    host: str
    path: str
    path_type: PathType
    backend: str
    body_limit: int = 1024 * 1024  # ingress-nginx: proxy-body-size 1m
    connect_timeout: float = 5.0  # ingress-nginx: proxy-connect-timeout
    read_timeout: float = 60.0  # nginx: proxy_read_timeout, between two reads
    send_timeout: float = 60.0  # nginx: proxy_send_timeout, between two writes
    tries: int = 3  # ingress-nginx: proxy-next-upstream-tries
    sample_ratio: float | None = None
    actions: ActionSpec | None = None


class HostSpec(msgspec.Struct, frozen=True, array_like=True, gc=False):
    """The rules of one host: lower-case, ``*.example.org``, or "" for those without a host.

    ``routes`` are in order of precedence. ``default`` takes what no rule matches; that of "" is the table's own.
    """

    host: str
    routes: tuple[RouteSpec, ...] = ()
    default: RouteSpec | None = None


class CertificateSpec(msgspec.Struct, frozen=True, array_like=True, gc=False):
    """A certificate chain and its key (PEM), and the names (lower-case, exact or ``*.``) it is served for."""

    secret: str  # namespace/name
    hosts: tuple[str, ...]
    certificate: bytes
    key: bytes

    def __repr__(self) -> str:
        return f"CertificateSpec({self.secret}, {self.hosts})"  # never the key


class TableSpec(msgspec.Struct, frozen=True, array_like=True, gc=False):
    """One generation of the whole configuration."""

    generation: int
    routes: tuple[RouteSpec, ...] = ()
    backends: tuple[BackendSpec, ...] = ()
    certificates: tuple[CertificateSpec, ...] = ()
    default_route: RouteSpec | None = None  # the Ingress defaultBackend, when there is one; its path is ""
    default_certificate: CertificateSpec | None = None
    host_defaults: tuple[RouteSpec, ...] = ()  # defaultBackends that serve the hosts their own Ingress names first
