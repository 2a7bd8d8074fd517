"""Every annotation that does something: its name, what it sets, how it is read, how it differs from ingress-nginx.

The order is that of docs/migrate-from-ingress-nginx.md, whose table is made from these rows.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Final, NamedTuple

import msgspec

from proxy.control import annotation_values as values
from proxy.route.actions import DEFAULT_RETRY
from proxy.route.spec import Policy, RouteSpec, Scheme

OURS: Final = "spanway.io/"
NGINX: Final = "nginx.ingress.kubernetes.io/"
PREFIXES: Final = (OURS, NGINX)

_DEFAULTS: Final = {field.name: field.default for field in msgspec.structs.fields(RouteSpec)}


class Options(msgspec.Struct, frozen=True):
    """What annotations say, and what holds where they say nothing.

    ``scheme`` None leaves it to the Service's appProtocol. Times are seconds, ``body_limit`` is bytes, 0 for none.
    """

    body_limit: int = _DEFAULTS["body_limit"]
    connect_timeout: float = _DEFAULTS["connect_timeout"]
    read_timeout: float = _DEFAULTS["read_timeout"]
    send_timeout: float = _DEFAULTS["send_timeout"]
    tries: int = _DEFAULTS["tries"]
    next_upstream: tuple[str, ...] = DEFAULT_RETRY
    next_timeout: float = 0.0
    sample_ratio: float | None = None
    policy: Policy = "round_robin"
    hash_by: str = ""
    scheme: Scheme | None = None
    service_upstream: bool = False
    ssl_redirect: bool = True
    force_ssl_redirect: bool = False
    permanent: str = ""
    permanent_code: int = 301
    temporal: str = ""
    temporal_code: int = 302
    app_root: str = ""
    www: bool = False
    aliases: tuple[str, ...] = ()
    use_regex: bool = False
    rewrite: str = ""
    upstream_host: str = ""
    prefix: str = ""
    response_headers: tuple[tuple[str, str], ...] = ()
    allow: tuple[str, ...] = ()
    deny: tuple[str, ...] = ()
    logged: bool = True
    recorded: bool = True
    trust_incoming: bool = True
    span_name: str = ""
    canary: bool = False  # an alternative to another Ingress's rules, not rules of its own
    closed: str = ""  # why nothing is served: a protection is asked for that cannot be given


class Row(NamedTuple):
    """One annotation: its name, the field of `Options` it sets, how its value is read, and for the documentation what
    holds without it and where it differs from ingress-nginx ("" for nowhere)."""

    name: str
    field: str
    parse: Callable[[str], Any]
    default: str
    differs: str = ""
    prefixes: tuple[str, ...] = PREFIXES


ROWS: Final = (
    Row(
        "ssl-redirect",
        "ssl_redirect",
        values.flag,
        "true, where the host has TLS",
        "308 to `https://` and the host without a port. The path stays as it is; ingress-nginx takes its last slash "
        "away without `preserve-trailing-slash`. A request below `/.well-known/acme-challenge/` is never redirected, "
        "whichever path it matches",
    ),
    Row("force-ssl-redirect", "force_ssl_redirect", values.flag, "false", "as `ssl-redirect`"),
    Row(
        "rewrite-target",
        "rewrite",
        values.rewrite,
        "",
        "a path with `$1` to `$9`, without a query. The rewritten path is put into normal form; one that then climbs "
        "above the root gets 400",
    ),
    Row(
        "use-regex",
        "use_regex",
        values.flag,
        "false",
        "the engine is RE2, so that no expression can hang it: no look-around, no back references. Of `/a|/b` both "
        "halves are anchored. What an expression sees is the path in normal form, where `%2F` stays escaped",
    ),
    Row(
        "permanent-redirect",
        "permanent",
        values.redirect,
        "",
        "may hold `$1` to `$9`, `$request_uri`, `$uri`, `$args`, `$is_args`, `$host`, `$http_host` and `$scheme`; only "
        "host variables in the place of the host",
    ),
    Row("permanent-redirect-code", "permanent_code", values.redirect_code, "301", "another code is an error, not 301"),
    Row("temporal-redirect", "temporal", values.redirect, "", "as `permanent-redirect`, before which it goes"),
    Row("temporal-redirect-code", "temporal_code", values.redirect_code, "302", "another code is an error, not 302"),
    Row("app-root", "app_root", values.root, "", "an Exact `/` of another Ingress goes before it"),
    Row(
        "from-to-www-redirect",
        "www",
        values.flag,
        "false",
        "the path stays as it is; ingress-nginx takes its last slash away",
    ),
    Row("server-alias", "aliases", values.aliases, "", "hosts only, no regular expressions"),
    Row(
        "whitelist-source-range",
        "allow",
        values.networks,
        "",
        "judged before any redirect, on the client's address behind trusted proxies; 403 `source_refused`",
    ),
    Row("allowlist-source-range", "allow", values.networks, "", "another name of `whitelist-source-range`"),
    Row("denylist-source-range", "deny", values.networks, "", "as `whitelist-source-range`, before which it goes"),
    Row("proxy-body-size", "body_limit", values.size, "1m"),
    Row("proxy-connect-timeout", "connect_timeout", values.seconds, "5", "includes the TLS handshake"),
    Row("proxy-read-timeout", "read_timeout", values.seconds, "60"),
    Row("proxy-send-timeout", "send_timeout", values.seconds, "60"),
    Row(
        "proxy-next-upstream",
        "next_upstream",
        values.next_upstream,
        "error timeout",
        "after a timeout and for `http_...` only if there is another endpoint. A request with a body is repeated up to "
        "64 KiB",
    ),
    Row(
        "proxy-next-upstream-tries",
        "tries",
        values.tries,
        "3",
        "no more than the setting `retry-tries`; 0 is 10",
    ),
    Row("proxy-next-upstream-timeout", "next_timeout", values.limit, "0, no limit"),
    Row(
        "backend-protocol",
        "scheme",
        values.protocol,
        "HTTP, or the Service port's `appProtocol`",
        "HTTP and HTTPS. For the others there is a warning, and HTTP is spoken",
    ),
    Row(
        "service-upstream",
        "service_upstream",
        values.flag,
        "false",
        "one attempt, with `proxy-next-upstream` without effect",
    ),
    Row("load-balance", "policy", values.policy, "round_robin", "also `least_conn`"),
    Row(
        "upstream-hash-by",
        "hash_by",
        values.hash_key,
        "",
        "of nginx's variables `$remote_addr`, `$request_uri`, `$uri`, `$args`, `$host`, `$scheme`, `$request_method`, "
        "`$request_id`, `$http_NAME`, `$arg_NAME`, `$cookie_NAME`",
    ),
    Row(
        "upstream-vhost",
        "upstream_host",
        values.virtual_host,
        "",
        "may hold `$namespace`, `$ingress_name`, `$service_name` and `$service_port`",
    ),
    Row("x-forwarded-prefix", "prefix", values.prefix, "", "also without `rewrite-target`"),
    Row(
        "response-headers",
        "response_headers",
        values.response_headers,
        "",
        "one `Name: value` a line, in place of the application's fields of these names and on Spanway's own answers; "
        "without a value a field is taken away",
        (OURS,),
    ),
    Row("enable-access-log", "logged", values.flag, "true"),
    Row("enable-opentelemetry", "recorded", values.flag, "true", "without it requests are still counted and logged"),
    Row(
        "opentelemetry-trust-incoming-span",
        "trust_incoming",
        values.flag,
        "true",
        "false: a new trace that links to the one that came. True does not make strangers trusted: whose trace is "
        "continued is the setting `trust`",
    ),
    Row(
        "opentelemetry-operation-name",
        "span_name",
        values.span_name,
        "method and path of the rule",
        "names the SERVER span. May hold `$request_method`, `$namespace`, `$ingress_name`, `$service_name`, "
        "`$service_port` and `$location_path`; others have too many values",
    ),
    Row("sample-ratio", "sample_ratio", values.ratio, "the proxy's own sampler", "", (OURS,)),
    Row(
        "canary",
        "canary",
        values.flag,
        "false",
        "a canary takes no requests, and there is a warning: as rules of its own it would take all of them",
    ),
)
