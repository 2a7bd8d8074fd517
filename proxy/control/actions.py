"""From what an Ingress's annotations say to what one of its routes does, and what a host adds to that."""

from __future__ import annotations

from typing import NamedTuple

from msgspec.structs import replace

from proxy.control.annotation_rows import Options
from proxy.route.actions import DEFAULT_RETRY
from proxy.route.spec import NOTHING, ActionSpec, RouteSpec
from proxy.route.template import substitute

HTTPS_CODE = 308  # ingress-nginx: http-redirect-code


class Meant(NamedTuple):
    """What of a rule the annotations' variables stand for."""

    namespace: str
    ingress: str
    service: str
    port: str
    path: str


def actions_of(options: Options, rule: Meant) -> ActionSpec | None:
    """What the route of a rule does beyond forwarding, None for nothing. Of two redirects the temporal one holds
    (ingress-nginx)."""
    values = {
        "namespace": rule.namespace,
        "ingress_name": rule.ingress,
        "service_name": rule.service,
        "service_port": rule.port,
        "location_path": rule.path,
    }
    redirect, code = "", 0
    if options.temporal:
        redirect, code = options.temporal, options.temporal_code
    elif options.permanent:
        redirect, code = options.permanent, options.permanent_code
    made = ActionSpec(
        closed=options.closed,
        allow=options.allow,
        deny=options.deny,
        redirect=redirect,
        redirect_code=code,
        https=HTTPS_CODE if options.force_ssl_redirect else 0,
        app_root=options.app_root,
        # A target that is the path itself is none (ingress-nginx: needsRewrite).
        rewrite="" if options.rewrite == rule.path else options.rewrite,
        upstream_host=substitute(options.upstream_host, values),
        prefix=options.prefix,
        response_headers=options.response_headers,
        retry_on=DEFAULT_RETRY if options.service_upstream else options.next_upstream,
        retry_timeout=options.next_timeout,
        recorded=options.recorded,
        trust_incoming=options.trust_incoming,
        span_name=substitute(options.span_name, values),
        logged=options.logged,
    )
    return None if made == NOTHING else made


def by_https(route: RouteSpec) -> RouteSpec:
    """A route whose plain requests are redirected to https."""
    return replace(route, actions=replace(route.actions or NOTHING, https=HTTPS_CODE))


def www(host: str) -> str:
    """The other name of a host: with ``www.``, or without."""
    return host.removeprefix("www.") if host.startswith("www.") else f"www.{host}"


def to_host(route: RouteSpec, host: str, other: str) -> RouteSpec:
    """The route of everything at ``other`` to the same path at ``host`` (ingress-nginx: from-to-www-redirect)."""
    keeps = replace(route.actions or NOTHING, https=0, app_root="", rewrite="", prefix="")
    actions = replace(keeps, redirect=f"$scheme://{host}$request_uri", redirect_code=HTTPS_CODE)
    return replace(route, host=other, path="/", path_type="Prefix", actions=actions)
