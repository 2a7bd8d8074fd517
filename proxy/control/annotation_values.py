"""How the values of annotations are read: one function each, text to typed value.

What is refused here can nowhere become part of a header, a URL or a path: everything that an annotation adds to a
message is judged when it is read.
"""

from __future__ import annotations

import ipaddress
import re
from typing import Final

from proxy.admit.host import parse_host
from proxy.admit.target import normal_path
from proxy.balance.hash_key import compile_key
from proxy.control import names
from proxy.errors import Fault, SettingsError
from proxy.http1.fields import CONTEXT, HOP_BY_HOP, TOKEN
from proxy.route.actions import redirect_parts
from proxy.route.spec import Policy, Scheme
from proxy.route.template import TemplateError, fill, parse, substitute

MOST_TRIES: Final = 10  # stands for "no limit", which nginx writes as 0
LONGEST_TIMEOUT: Final = 7 * 24 * 3600  # seconds
LARGEST_SIZE: Final = 2**63 - 1  # bytes (nginx: NGX_MAX_OFF_T_VALUE); a table holds no greater number
LONGEST_KEY: Final = 256  # characters of a hash key, before variables are filled in
LONGEST_TEXT: Final = 1024  # characters of a URL or path
LONGEST_NAME: Final = 128  # characters of a span's name
MOST_NETWORKS: Final = 1000  # of one list
MOST_ALIASES: Final = 100
MOST_HEADERS: Final = 32
LONGEST_HEADERS: Final = 4096  # characters of all of them

STATIC: Final = ("namespace", "ingress_name", "service_name", "service_port", "location_path")
"""Variables whose values an Ingress fixes."""

_REDIRECTS: Final = (301, 302, 303, 307, 308)  # nginx: return CODE URL
_STATUSES: Final = ("http_403", "http_404", "http_429", "http_500", "http_502", "http_503", "http_504")
_NEXT: Final = ("error", "timeout", "invalid_header", *_STATUSES, "non_idempotent", "off")
_NETWORK: Final = re.compile(r"[0-9A-Fa-f.:]{2,45}(?:/[0-9]{1,3})?")
_VISIBLE: Final = re.compile(r"[!-~]+")
_PATHLIKE: Final = re.compile(r"[A-Za-z0-9\-._~!$&'()*+,;=:@/%{}]+")  # RFC 3986 pchar, "/", and what writes a variable
_FIELD_VALUE: Final = re.compile(r"[\t -~]*")

# What frames a message, belongs to one connection, or joins traces; and cookies, of which there are several.
_NOT_RESPONSE: Final = frozenset(
    (
        *(name.decode("ascii") for name in (*HOP_BY_HOP, *CONTEXT)),
        "connection",
        "content-length",
        "set-cookie",
        "te",
        "traceresponse",
        "trailer",
        "transfer-encoding",
        "upgrade",
        "via",
    )
)


class InvalidValue(Exception):
    """A value that cannot mean anything; the text says what was expected."""


class UnsupportedValue(Exception):
    """A value that means something which Spanway does not do; the text says what is done instead."""


def size(text: str) -> int:
    """nginx's size: bytes, or with k, m, g (ngx_parse_offset)."""
    match = re.fullmatch(r"([0-9]{1,15})([kmg]?)", text.strip().lower())
    if match is None:
        raise InvalidValue("a size is a number of bytes, or a number with k, m or g, such as 8m; 0 is no limit")
    found = int(match[1]) << {"": 0, "k": 10, "m": 20, "g": 30}[match[2]]
    if found > LARGEST_SIZE:
        raise InvalidValue(f"a size is at most {LARGEST_SIZE} bytes; 0 is no limit")
    return found


def seconds(text: str) -> float:
    """ingress-nginx's timeout: whole seconds, without a unit."""
    if not re.fullmatch(r"[0-9]{1,9}", text.strip()) or not 1 <= int(text) <= LONGEST_TIMEOUT:
        raise InvalidValue(f"a timeout is whole seconds without a unit, 1 to {LONGEST_TIMEOUT}, such as 60")
    return float(int(text))


def limit(text: str) -> float:
    """A timeout that may be 0, for none."""
    return 0.0 if text.strip() == "0" else seconds(text)


def tries(text: str) -> int:
    """proxy_next_upstream_tries; 0 is no limit, which here is `MOST_TRIES`."""
    if not re.fullmatch(r"[0-9]{1,9}", text.strip()):
        raise InvalidValue(f"a number of tries is 1 to {MOST_TRIES}, or 0 for as many as there may be")
    return min(int(text), MOST_TRIES) or MOST_TRIES


def next_upstream(text: str) -> tuple[str, ...]:
    """proxy_next_upstream: after what another attempt is made."""
    words = text.split()
    if not words or any(word not in _NEXT for word in words):
        raise InvalidValue(f"a list of {', '.join(_NEXT)}, separated by spaces")
    if "off" in words:
        if len(words) > 1:
            raise InvalidValue("off stands alone")
        return ()
    return tuple(dict.fromkeys(words))


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


def networks(text: str) -> tuple[str, ...]:
    """Addresses and networks in CIDR notation, separated by commas; what stands behind a prefix counts as zero."""
    words = [word.strip() for word in text.split(",", MOST_NETWORKS)]
    if len(words) > MOST_NETWORKS:
        raise InvalidValue(f"a list has at most {MOST_NETWORKS} networks")
    found: dict[str, None] = {}
    for word in words:
        try:
            if not _NETWORK.fullmatch(word):
                raise ValueError
            found[str(ipaddress.ip_network(word, strict=False))] = None
        except ValueError:
            hint = "addresses and networks such as 10.0.0.0/8, 192.0.2.7, 2001:db8::/32, separated by commas"
            raise InvalidValue(f"{word[:50]!r} is no network; write {hint}") from None
    return tuple(found)


def rewrite(text: str) -> str:
    """rewrite-target: a path with groups. It is put into normal form once they are filled in (`admission.act`)."""
    value = _bounded(text)
    if not _PATHLIKE.fullmatch(value):
        raise InvalidValue("a path, such as /$2, with $1 to $9 for the groups of the Ingress path; no query")
    try:
        made = fill(parse(value), [b"x"] * 9)
        normal_path(made if made.startswith(b"/") else b"/" + made)
    except TemplateError as exc:
        raise InvalidValue(str(exc)) from None
    except Fault as exc:
        raise InvalidValue(f"no upstream would be asked for this path: {exc.detail}") from None
    return value


def prefix(text: str) -> str:
    """x-forwarded-prefix: text of a header field, with groups."""
    value = _bounded(text)
    if not _PATHLIKE.fullmatch(value):
        raise InvalidValue("a path, such as /shop, with $1 to $9 for the groups of the Ingress path")
    try:
        parse(value)
    except TemplateError as exc:
        raise InvalidValue(str(exc)) from None
    return value


def redirect(text: str) -> str:
    """permanent-redirect, temporal-redirect: an absolute URL with groups and variables."""
    value = _bounded(text)
    if not _VISIBLE.fullmatch(value):
        raise InvalidValue("a redirect is to an absolute URL, such as https://example.org/new, without spaces")
    try:
        authority, _ = redirect_parts(value)
        if all(isinstance(part, bytes) for part in authority):
            parse_host(fill(authority[1:], ()))
    except TemplateError as exc:
        raise InvalidValue(str(exc)) from None
    except Fault as exc:
        raise InvalidValue(f"a redirect goes to a host: {exc.detail}") from None
    return value


def redirect_code(text: str) -> int:
    """permanent-redirect-code, temporal-redirect-code."""
    if text.strip() not in map(str, _REDIRECTS):
        raise InvalidValue(f"the status of a redirect is one of {', '.join(map(str, _REDIRECTS))}")
    return int(text)


def root(text: str) -> str:
    """app-root: a path, and a query if need be."""
    value = _bounded(text)
    if not value.startswith("/") or not _VISIBLE.fullmatch(value):
        raise InvalidValue("a path such as /app, which / is redirected to")
    return value


def aliases(text: str) -> tuple[str, ...]:
    """server-alias: further hosts, separated by commas."""
    words = [word.strip().lower() for word in text.split(",", MOST_ALIASES)]
    if len(words) > MOST_ALIASES:
        raise InvalidValue(f"an Ingress has at most {MOST_ALIASES} aliases")
    for word in words:
        if word.startswith("~"):
            raise UnsupportedValue("hosts that are regular expressions are not supported: no alias of it is served")
        wrong = names.host(word) if word else "must not be empty"
        if wrong:
            raise InvalidValue(f"{word[:80]!r} {wrong}; write hosts, separated by commas")
    return tuple(dict.fromkeys(words))


def virtual_host(text: str) -> str:
    """upstream-vhost: the Host that the upstream is sent, with what an Ingress fixes as variables."""
    value = _bounded(text)
    try:
        parse(value, STATIC, groups=False)
        host, _ = parse_host(substitute(value, dict.fromkeys(STATIC, "x")).encode("ascii"))
    except TemplateError as exc:
        raise InvalidValue(str(exc)) from None
    except (Fault, UnicodeEncodeError):
        host = b""
    if not host or "$location_path" in value.replace("{", "").replace("}", ""):
        raise InvalidValue("a host, with or without port, such as app.internal or $service_name.$namespace.svc")
    return value


def span_name(text: str) -> str:
    """opentelemetry-operation-name: few names for many requests, so only variables with few values."""
    value = text.strip()
    if not value or len(value) > LONGEST_NAME or not value.isprintable() or not value.isascii():
        raise InvalidValue(f"a span's name is 1 to {LONGEST_NAME} printable ASCII characters")
    try:
        parse(value, ("request_method", *STATIC), groups=False)
    except TemplateError as exc:
        raise InvalidValue(f"{exc}; what differs from request to request is in the span's attributes") from None
    return value


def response_headers(text: str) -> tuple[tuple[str, str], ...]:
    """Header fields of every response, one a line as ``Name: value``; without a value the field is taken away."""
    if len(text) > LONGEST_HEADERS:
        raise InvalidValue(f"all fields together have at most {LONGEST_HEADERS} characters")
    found: dict[str, tuple[str, str]] = {}
    for line in filter(None, (line.strip(" \t") for line in text.split("\n"))):
        name, colon, value = line.partition(":")
        value = value.strip(" \t")
        if not colon or not TOKEN.fullmatch(name.encode("utf-8", "replace")):
            raise InvalidValue(f"{line[:80]!r} is no header field; write one a line, as Name: value")
        if not _FIELD_VALUE.fullmatch(value):
            raise InvalidValue(f"the value of {name} has characters that no header field holds")
        if name.lower() in _NOT_RESPONSE:
            raise InvalidValue(f"{name} is the proxy's own business, or the application's")
        if name.lower() in found:
            raise InvalidValue(f"{name} stands twice")
        found[name.lower()] = name, value
    if not 0 < len(found) <= MOST_HEADERS:
        raise InvalidValue(f"write 1 to {MOST_HEADERS} header fields, one a line, as Name: value")
    return tuple(found.values())


def _bounded(text: str) -> str:
    value = text.strip()
    if len(value) > LONGEST_TEXT:
        raise InvalidValue(f"has at most {LONGEST_TEXT} characters")
    return value
