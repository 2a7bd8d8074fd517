"""Annotations that do nothing here: refused for good, asking for what is done anyway, or not supported yet, and why.

The names are those of ingress-nginx's annotations reference, so that one not supported is told from a mistyped one.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final, NamedTuple

# Raw configuration for another program: refused for good.
SNIPPETS: Final = ("configuration-snippet", "server-snippet", "auth-snippet", "stream-snippet", "modsecurity-snippet")
SNIPPETS_WHY: Final = "refused: snippets are configuration of nginx, and a way into it"
SNIPPETS_INSTEAD: Final = "remove it; say what it does by other annotations, or in the application"

# Values that ask for what Spanway does anyway: nothing to report.
ALREADY: Final = {
    "auth-tls-verify-client": "off",
    "enable-cors": "false",
    "enable-global-auth": "false",
    "enable-influxdb": "false",
    "enable-modsecurity": "false",
    "enable-opentracing": "false",
    "enable-owasp-core-rules": "false",
    "enable-rewrite-log": "false",
    "http2-push-preload": "false",
    "preserve-trailing-slash": "true",
    "proxy-buffering": "off",
    "proxy-http-version": "1.1",
    "proxy-redirect-from": "off",
    "proxy-request-buffering": "off",
    "proxy-ssl-verify": "off",
    "ssl-passthrough": "false",
    "upstream-hash-by-subset": "false",
    "use-port-in-redirects": "false",
}

# Without these nothing behind the Ingress is safe to serve: it is closed until they are gone.
PROTECTING: Final = frozenset(("auth-tls-secret", "auth-type", "auth-url"))


class Group(NamedTuple):
    """Annotations that belong together, why they have no effect, and what to do instead."""

    names: Sequence[str]
    why: str
    instead: str


GROUPS: Final = (
    Group(
        [
            "auth-type",
            "auth-secret",
            "auth-secret-type",
            "auth-realm",
            "auth-url",
            "auth-signin",
            "auth-signin-redirect-param",
            "auth-method",
            "auth-request-redirect",
            "auth-response-headers",
            "auth-proxy-set-headers",
            "auth-always-set-cookie",
            "auth-cache-key",
            "auth-cache-duration",
            "auth-keepalive",
            "auth-keepalive-requests",
            "auth-keepalive-share-vars",
            "auth-keepalive-timeout",
            "enable-global-auth",
            "satisfy",
        ],
        "authentication is not supported yet; with `auth-type` or `auth-url` an Ingress is closed (503), not left open",
        "let the application authenticate, or a proxy such as oauth2-proxy between the two",
    ),
    Group(
        [
            "auth-tls-secret",
            "auth-tls-verify-client",
            "auth-tls-verify-depth",
            "auth-tls-error-page",
            "auth-tls-match-cn",
            "auth-tls-pass-certificate-to-upstream",
        ],
        "client certificates are not supported yet; with `auth-tls-secret` an Ingress is closed (503), not left open",
        "let the application end TLS",
    ),
    Group(
        [
            "canary-by-header",
            "canary-by-header-value",
            "canary-by-header-pattern",
            "canary-by-cookie",
            "canary-weight",
            "canary-weight-total",
            "affinity-canary-behavior",
        ],
        "canaries are not supported yet",
        "split traffic by the number of Pods behind one Service",
    ),
    Group(
        [
            "affinity",
            "affinity-mode",
            "session-cookie-name",
            "session-cookie-path",
            "session-cookie-domain",
            "session-cookie-expires",
            "session-cookie-max-age",
            "session-cookie-samesite",
            "session-cookie-conditional-samesite-none",
            "session-cookie-secure",
            "session-cookie-partitioned",
            "session-cookie-change-on-failure",
        ],
        "cookies that choose an endpoint are not supported yet",
        "upstream-hash-by with $cookie_NAME of the application's own cookie, or with $remote_addr",
    ),
    Group(
        [
            "enable-cors",
            "cors-allow-origin",
            "cors-allow-methods",
            "cors-allow-headers",
            "cors-allow-credentials",
            "cors-expose-headers",
            "cors-max-age",
        ],
        "CORS is not supported yet: preflight requests reach the application",
        "let the application answer them; fixed fields can be set with spanway.io/response-headers",
    ),
    Group(
        [
            "limit-rps",
            "limit-rpm",
            "limit-connections",
            "limit-burst-multiplier",
            "limit-whitelist",
            "limit-allowlist",
            "limit-rate",
            "limit-rate-after",
            "global-rate-limit",
            "global-rate-limit-window",
            "global-rate-limit-key",
            "global-rate-limit-ignored-cidrs",
        ],
        "rate limits are not supported yet",
        "limit in front of the proxy, or in the application",
    ),
    Group(
        ("custom-headers",),
        "names a ConfigMap, and reading these takes a permission for every namespace",
        "write the fields into spanway.io/response-headers, one a line",
    ),
    Group(
        ("custom-http-errors", "default-backend", "disable-proxy-intercept-errors"),
        "the application's error pages are passed on",
        "let the application make them; spec.defaultBackend serves what no rule matches",
    ),
    Group(
        ("ssl-passthrough",),
        "TLS ends here, and is not passed through",
        "put the certificate into spec.tls, and use backend-protocol: HTTPS",
    ),
    Group(
        [
            "proxy-ssl-secret",
            "proxy-ssl-verify",
            "proxy-ssl-verify-depth",
            "proxy-ssl-name",
            "proxy-ssl-server-name",
            "proxy-ssl-ciphers",
            "proxy-ssl-protocols",
        ],
        "TLS to upstreams is the same for all: unverified, or verified with --upstream-ca FILE",
        "use the setting upstream-ca",
    ),
    Group(
        ("ssl-ciphers", "ssl-prefer-server-ciphers"),
        "TLS is the same for all hosts: 1.2 and 1.3 with OpenSSL's ciphers",
        "remove it",
    ),
    Group(
        [
            "proxy-buffering",
            "proxy-buffer-size",
            "proxy-buffers-number",
            "proxy-busy-buffers-size",
            "proxy-max-temp-file-size",
            "proxy-request-buffering",
            "client-body-buffer-size",
        ],
        "bodies are streamed in both directions, never buffered and never written to disk",
        "remove it",
    ),
    Group(
        ("proxy-http-version", "connection-proxy-header", "http2-push-preload"),
        "upstreams are spoken to in HTTP/1.1 with keep-alive, browsers have given up push",
        "remove it",
    ),
    Group(
        ("proxy-cookie-domain", "proxy-cookie-path", "proxy-redirect-from", "proxy-redirect-to"),
        "what the application sends in Set-Cookie and Location is passed on as it is",
        "let the application write its public URL, from X-Forwarded-Host, -Proto and -Prefix",
    ),
    Group(
        ("preserve-trailing-slash", "relative-redirects", "use-port-in-redirects"),
        "redirects keep the path as it is, are absolute, and name no port",
        "remove it",
    ),
    Group(
        ("upstream-hash-by-subset", "upstream-hash-by-subset-size"),
        "a hash chooses among all endpoints",
        "remove it",
    ),
    Group(
        ("mirror-target", "mirror-host", "mirror-request-body"),
        "requests are not mirrored",
        "replay recorded traffic instead",
    ),
    Group(
        ("enable-modsecurity", "enable-owasp-core-rules", "modsecurity-transaction-id"),
        "there is no web application firewall",
        "put one in front of the proxy",
    ),
    Group(
        ("enable-opentracing", "opentracing-trust-incoming-span"),
        "OpenTracing has ended",
        "use enable-opentelemetry and opentelemetry-trust-incoming-span",
    ),
    Group(
        [
            "enable-influxdb",
            "influxdb-measurement",
            "influxdb-port",
            "influxdb-host",
            "influxdb-server-name",
            "enable-rewrite-log",
        ],
        "there is no such output",
        "use /metrics, the access log and traces",
    ),
)

OTHERS: Final = {name: group for group in GROUPS for name in group.names}
KNOWN: Final = frozenset(OTHERS)
