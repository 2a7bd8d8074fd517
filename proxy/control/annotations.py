"""Annotations as typed data: one row each, no templates, nothing ignored in silence.

Semantics and defaults are those of ingress-nginx (its annotations reference). Every row is read under both prefixes;
``spanway.io/`` goes before ``nginx.ingress.kubernetes.io/``, which exists for those who migrate. What an annotation
cannot mean is an error of its object. What Spanway does not do yet, and what it never will, is a warning.

To support one more: give `Options` a field and `ROWS` a row, and take its name out of `KNOWN`.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Mapping
from difflib import get_close_matches
from typing import Any, Final, NamedTuple

import msgspec

from proxy.balance.hash_key import compile_key
from proxy.control.problem import Subject, quoted
from proxy.errors import SettingsError
from proxy.route.spec import Policy, RouteSpec, Scheme

OURS: Final = "spanway.io/"
NGINX: Final = "nginx.ingress.kubernetes.io/"
PREFIXES: Final = (OURS, NGINX)

MOST_TRIES: Final = 10  # stands for "no limit", which nginx writes as 0
LONGEST_TIMEOUT: Final = 7 * 24 * 3600  # seconds
LONGEST_KEY: Final = 256  # characters of a hash key, before variables are filled in

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
    sample_ratio: float | None = None
    policy: Policy = "round_robin"
    hash_by: str = ""
    scheme: Scheme | None = None
    canary: bool = False  # an alternative to another Ingress's rules, not rules of its own


class InvalidValue(Exception):
    """A value that cannot mean anything; the text says what was expected."""


class UnsupportedValue(Exception):
    """A value that means something which Spanway does not do; the text says what is done instead."""


class Row(NamedTuple):
    """One annotation: its name, the field of `Options` it sets, and how its value is read."""

    name: str
    field: str
    parse: Callable[[str], Any]
    prefixes: tuple[str, ...] = PREFIXES


def size(text: str) -> int:
    """nginx's size: bytes, or with k, m, g (ngx_parse_offset)."""
    match = re.fullmatch(r"([0-9]{1,15})([kmg]?)", text.strip().lower())
    if match is None:
        raise InvalidValue("a size is a number of bytes, or a number with k, m or g, such as 8m; 0 is no limit")
    return int(match[1]) << {"": 0, "k": 10, "m": 20, "g": 30}[match[2]]


def seconds(text: str) -> float:
    """ingress-nginx's timeout: whole seconds, without a unit."""
    if not re.fullmatch(r"[0-9]{1,9}", text.strip()) or not 1 <= int(text) <= LONGEST_TIMEOUT:
        raise InvalidValue(f"a timeout is whole seconds without a unit, 1 to {LONGEST_TIMEOUT}, such as 60")
    return float(int(text))


def tries(text: str) -> int:
    """proxy_next_upstream_tries; 0 is no limit, which here is `MOST_TRIES`."""
    if not re.fullmatch(r"[0-9]{1,9}", text.strip()):
        raise InvalidValue(f"a number of tries is 1 to {MOST_TRIES}, or 0 for as many as there may be")
    return min(int(text), MOST_TRIES) or MOST_TRIES


def ratio(text: str) -> float:
    """A probability."""
    if not re.fullmatch(r"(?:0|1)?(?:\.[0-9]{0,12})?", text.strip()) or text.strip() in ("", "."):
        raise InvalidValue("a ratio is a number from 0 to 1, such as 0.01")
    value = float(text)
    if value > 1:
        raise InvalidValue("a ratio is a number from 0 to 1, such as 0.01")
    return value


def protocol(text: str) -> Scheme:
    """backend-protocol; case does not matter to ingress-nginx either."""
    value = text.strip().upper()
    if value in ("HTTP", "HTTPS"):
        return "https" if value == "HTTPS" else "http"
    if value in ("AUTO_HTTP", "GRPC", "GRPCS", "FCGI"):
        raise UnsupportedValue(f"{value} is not supported yet: the upstream is spoken to in HTTP/1.1")
    raise InvalidValue("a backend protocol is HTTP or HTTPS")


def policy(text: str) -> Policy:
    """load-balance; ingress-nginx knows the first two."""
    match text.strip():
        case "round_robin":
            return "round_robin"
        case "ewma":
            return "ewma"
        case "least_conn":
            return "least_conn"
    raise InvalidValue("a policy is round_robin, ewma or least_conn; for a hash use upstream-hash-by")


def hash_key(text: str) -> str:
    """upstream-hash-by: nginx variables and text between them (`balance.hash_key`)."""
    value = text.strip()
    if not value or len(value) > LONGEST_KEY or not value.isprintable():
        raise InvalidValue("a hash key is made of nginx variables, such as $remote_addr or $http_x_user")
    try:
        compile_key(value)
    except SettingsError as exc:
        raise InvalidValue(str(exc)) from None
    return value


def flag(text: str) -> bool:
    """A switch (strconv.ParseBool, as far as anybody writes it)."""
    value = text.strip().lower()
    if value not in ("true", "false"):
        raise InvalidValue('a switch is "true" or "false"')
    return value == "true"


ROWS: Final = (
    Row("proxy-body-size", "body_limit", size),
    Row("proxy-connect-timeout", "connect_timeout", seconds),
    Row("proxy-read-timeout", "read_timeout", seconds),
    Row("proxy-send-timeout", "send_timeout", seconds),
    Row("proxy-next-upstream-tries", "tries", tries),
    Row("backend-protocol", "scheme", protocol),
    Row("load-balance", "policy", policy),
    Row("upstream-hash-by", "hash_by", hash_key),
    Row("canary", "canary", flag),
    Row("sample-ratio", "sample_ratio", ratio, (OURS,)),
)

# Raw configuration for another program: refused for good.
SNIPPETS: Final = ("configuration-snippet", "server-snippet", "auth-snippet", "stream-snippet", "modsecurity-snippet")

# Values that ask for what Spanway does anyway: nothing to report.
ALREADY: Final = {
    "auth-tls-verify-client": "off",
    "enable-access-log": "true",
    "enable-cors": "false",
    "enable-global-auth": "false",
    "enable-modsecurity": "false",
    "enable-opentelemetry": "true",
    "enable-owasp-core-rules": "false",
    "enable-rewrite-log": "false",
    "force-ssl-redirect": "false",
    "from-to-www-redirect": "false",
    "http2-push-preload": "false",
    "proxy-buffering": "off",
    "proxy-http-version": "1.1",
    "proxy-next-upstream": "error timeout",
    "proxy-redirect-from": "off",
    "proxy-request-buffering": "off",
    "proxy-ssl-verify": "off",
    "service-upstream": "false",
    "ssl-passthrough": "false",
    "ssl-redirect": "false",
    "upstream-hash-by-subset": "false",
    "use-regex": "false",
}

# What else ingress-nginx reads (its annotations reference), to tell a mistyped name from one not supported yet.
KNOWN: Final = frozenset(
    """
    affinity affinity-canary-behavior affinity-mode allowlist-source-range app-root
    auth-always-set-cookie auth-cache-duration auth-cache-key auth-keepalive auth-keepalive-requests
    auth-keepalive-share-vars auth-keepalive-timeout auth-method auth-proxy-set-headers auth-realm auth-request-redirect
    auth-response-headers auth-secret auth-secret-type auth-signin auth-signin-redirect-param auth-type auth-url
    auth-tls-error-page auth-tls-match-cn auth-tls-pass-certificate-to-upstream auth-tls-secret auth-tls-verify-depth
    canary-by-cookie canary-by-header canary-by-header-pattern canary-by-header-value canary-weight canary-weight-total
    client-body-buffer-size connection-proxy-header custom-headers custom-http-errors default-backend
    cors-allow-credentials cors-allow-headers cors-allow-methods cors-allow-origin cors-expose-headers cors-max-age
    denylist-source-range disable-proxy-intercept-errors enable-influxdb enable-opentracing
    global-rate-limit global-rate-limit-ignored-cidrs global-rate-limit-key global-rate-limit-window
    limit-allowlist limit-burst-multiplier limit-connections limit-rate limit-rate-after limit-rpm limit-rps
    limit-whitelist mirror-host mirror-request-body mirror-target modsecurity-transaction-id
    opentelemetry-operation-name opentelemetry-trust-incoming-span opentracing-trust-incoming-span
    permanent-redirect permanent-redirect-code preserve-trailing-slash relative-redirects rewrite-target satisfy
    proxy-buffer-size proxy-buffers-number proxy-busy-buffers-size proxy-cookie-domain proxy-cookie-path
    proxy-max-temp-file-size proxy-next-upstream-timeout proxy-redirect-to proxy-ssl-ciphers proxy-ssl-name
    proxy-ssl-protocols proxy-ssl-secret proxy-ssl-server-name proxy-ssl-verify-depth server-alias
    session-cookie-change-on-failure session-cookie-conditional-samesite-none session-cookie-domain
    session-cookie-expires session-cookie-max-age session-cookie-name session-cookie-partitioned session-cookie-path
    session-cookie-samesite session-cookie-secure ssl-ciphers ssl-prefer-server-ciphers
    temporal-redirect temporal-redirect-code upstream-hash-by-subset-size upstream-vhost whitelist-source-range
    x-forwarded-prefix
    """.split()  # noqa: SIM905 - as a list it would be a column of a hundred lines
) | frozenset(ALREADY)

_BY_NAME: Final = {row.name: row for row in ROWS}


def options_of(
    annotations: Mapping[str, str], defaults: Options, subject: Subject, most_tries: int = MOST_TRIES
) -> Options:
    """The options that an Ingress's annotations give, ``defaults`` where they give none or cannot be used.

    More than ``most_tries`` attempts are made for no request, whatever an annotation says.
    """
    found: dict[str, Any] = {}
    for prefix, name, value in _ours(annotations):
        field = f"metadata.annotations[{prefix}{name}]"
        row = _BY_NAME.get(name)
        if row is None or prefix not in row.prefixes:
            _report(name, prefix, value, field, subject)
            continue
        try:
            parsed = row.parse(value)
        except InvalidValue as exc:
            subject.error(field, f"{quoted(value)} cannot be used", str(exc))
        except UnsupportedValue as exc:
            subject.warning(field, str(exc))
        else:
            if row.field == "tries" and parsed > most_tries:
                _report_tries(value, field, most_tries, subject)
                parsed = most_tries
            found.setdefault(row.field, parsed)  # the first prefix goes first
    if found.get("hash_by"):
        found["policy"] = "hash"  # ingress-nginx: upstream-hash-by goes before load-balance
    return msgspec.structs.replace(defaults, **found)


def _ours(annotations: Mapping[str, str]) -> Iterator[tuple[str, str, str]]:
    for prefix in PREFIXES:
        for name, value in annotations.items():
            if name.startswith(prefix):
                yield prefix, name[len(prefix) :], value


def _report_tries(value: str, field: str, most: int, subject: Subject) -> None:
    if int(value):  # 0 is as many as there may be, and gets them
        hint = f"write {most} or less, or raise the setting retry-tries"
        subject.warning(
            field, f"{quoted(value)} is more than the setting retry-tries allows: it counts as {most}", hint
        )


def _report(name: str, prefix: str, value: str, field: str, subject: Subject) -> None:
    """An annotation under our prefixes that sets nothing."""
    if name in SNIPPETS:
        subject.warning(
            field,
            "refused: snippets are configuration of nginx, and a way into it",
            "say what it does by other annotations, or in the application",
        )
    elif ALREADY.get(name) == value.strip().lower():
        return
    elif name in KNOWN:
        subject.warning(field, "is not supported yet and has no effect", "requests are served as without it")
    else:
        names = [row.name for row in ROWS if prefix in row.prefixes]
        near = get_close_matches(name, [*names, *KNOWN], 1, 0.8)
        hint = f"did you mean {prefix}{near[0]}?" if near else f"known are {', '.join(sorted(names))}"
        subject.warning(field, "is unknown and has no effect", hint)
