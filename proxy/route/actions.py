"""What a route does with a request beyond forwarding it, compiled from `ActionSpec` once per table. Pure: no I/O.

A request asks `refusal`, then `answer`, then `rewritten`; its response takes `response_lines`. The client's address is
judged first, so that who is not let in is told nothing. Of the answers a redirect to another URL goes first, as in
ingress-nginx's configuration, then the one to https, then the application's root.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from ipaddress import ip_network
from typing import TYPE_CHECKING, Final, NamedTuple

from proxy.errors import Kind
from proxy.net.addresses import Ranges
from proxy.route.template import Part, TemplateError, fill, parse

if TYPE_CHECKING:
    from proxy.route.regex import Pattern
    from proxy.route.spec import ActionSpec

ACME: Final = b"/.well-known/acme-challenge/"  # RFC 8555 section 8.3: asked for by plain HTTP, so never redirected
DEFAULT_RETRY: Final = ("error", "timeout")  # nginx: proxy_next_upstream

_URL: Final = re.compile(r"(https?|\$scheme)://([^/?#\\@]*)([/?#].*)?", re.IGNORECASE)


class Asked(NamedTuple):
    """A request as the client sees it: ``authority`` with its port if there is one, path and target in normal form."""

    scheme: str
    authority: bytes
    host: bytes
    path: bytes
    query: bytes
    target: bytes


# What stands for a host, and what never does.
HOST_VARIABLES: Final[Mapping[str, Callable[[Asked], bytes]]] = {
    "host": lambda asked: asked.host,
    "http_host": lambda asked: asked.authority,
    "best_http_host": lambda asked: asked.authority,
}
VARIABLES: Final[Mapping[str, Callable[[Asked], bytes]]] = {
    **HOST_VARIABLES,
    "request_uri": lambda asked: asked.target,
    "uri": lambda asked: asked.path,
    "args": lambda asked: asked.query,
    "query_string": lambda asked: asked.query,
    "is_args": lambda asked: b"?" if asked.query else b"",
    "scheme": lambda asked: asked.scheme.encode("ascii"),
}


def redirect_parts(url: str) -> tuple[tuple[Part, ...], tuple[Part, ...]]:
    """An absolute URL as two templates: scheme and authority, and what follows. Raises `TemplateError`.

    The authority ends with the first group or variable that is no host: what a client sends may fill a path, but never
    lengthen a host (``https://example.org$1`` and a path that gives ``.example.net``).
    """
    found = _URL.fullmatch(url)
    if found is None or not url.isascii():
        raise TemplateError("a redirect is to an absolute URL, such as https://example.org/new")
    scheme, authority, rest = parse(f"{found[1].lower()}://", VARIABLES), found[2], found[3] or ""
    parts = parse(authority, VARIABLES)
    end = next((place for place, each in enumerate(parts) if not _hostlike(each)), len(parts))
    if not end:
        raise TemplateError("a redirect needs a host, which no group and no such variable can be")
    return (*scheme, *parts[:end]), (*parts[end:], *parse(rest, VARIABLES))


def _hostlike(part: Part) -> bool:
    return isinstance(part, bytes) or part in HOST_VARIABLES


class Actions:
    """See the module. ``pattern`` is the route's path where that is an expression, for its groups."""

    __slots__ = (
        "_allow",
        "_app_root",
        "_code",
        "_deny",
        "_https",
        "_pattern",
        "_prefix",
        "_redirect",
        "_rewrite",
        "closed",  # str: why no request is served
        "logged",  # bool: access-log records are written
        "own_lines",  # bytes: response_lines for an answer of the proxy's own
        "recorded",  # bool: there are spans
        "response_lines",  # bytes: fields of every response, each line with its CRLF
        "response_names",  # set of bytes, lower-case: fields of the upstream's that these replace
        "retry_on",  # frozenset of str: nginx's words
        "retry_statuses",  # frozenset of int: statuses of an upstream after which another is asked
        "retry_timeout",  # float: seconds, 0 for no limit
        "trust_incoming",  # bool: a trusted client's trace is continued
        "upstream_host",  # bytes: Host for the upstream, b"" for the client's
    )

    def __init__(self, spec: ActionSpec, pattern: Pattern | None = None) -> None:
        self.closed: Final = spec.closed
        self._allow = Ranges(ip_network(each) for each in spec.allow) if spec.allow else None
        self._deny = Ranges(ip_network(each) for each in spec.deny) if spec.deny else None
        self._redirect = redirect_parts(spec.redirect) if spec.redirect else None
        self._code = spec.redirect_code
        self._https = spec.https
        self._app_root = spec.app_root.encode("ascii")
        self._rewrite = parse(spec.rewrite) if spec.rewrite else None
        self._prefix = parse(spec.prefix) if spec.prefix else None
        self._pattern = pattern
        self.upstream_host: Final = spec.upstream_host.encode("ascii")
        self.response_names: Final = {name.lower().encode("ascii") for name, _ in spec.response_headers}
        lines = [f"{name}: {value}\r\n".encode("ascii") for name, value in spec.response_headers if value]
        self.response_lines: Final = b"".join(lines)
        self.own_lines: Final = b"".join([line for line in lines if line.partition(b":")[0].lower() not in _OWN])
        self.retry_on: Final = frozenset(spec.retry_on)
        self.retry_statuses: Final = frozenset(int(word[5:]) for word in spec.retry_on if word.startswith("http_"))
        self.retry_timeout: Final = spec.retry_timeout
        self.recorded: Final = spec.recorded
        self.trust_incoming: Final = spec.trust_incoming
        self.logged: Final = spec.logged

    def __repr__(self) -> str:
        done = {
            "closed": self.closed,
            "allow": self._allow,
            "deny": self._deny,
            "redirect": self._redirect,
            "https": self._https,
            "app_root": self._app_root,
            "rewrite": self._rewrite,
        }
        return f"Actions({', '.join(f'{name}={value!r}' for name, value in done.items() if value)})"

    def refusal(self, client: str) -> Kind | None:
        """Why a client may not ask here: the kind of fault, None if it may. ``client`` is its resolved address."""
        if self.closed:
            return Kind.ROUTE_CLOSED
        if self._deny is not None and self._deny.holds(client):
            return Kind.SOURCE_REFUSED
        if self._allow is not None and not self._allow.holds(client):
            return Kind.SOURCE_REFUSED
        return None

    @property
    def answers(self) -> bool:
        """Whether `answer` has to be asked at all."""
        return bool(self._redirect or self._https or self._app_root)

    def answer(self, asked: Asked) -> tuple[int, bytes] | None:
        """The redirect that a request is answered with: its status and Location; None to forward the request.

        A request without a host (HTTP/1.0) is forwarded where the redirect would need one.
        """
        if self._redirect is not None:
            authority, rest = self._redirect
            tail = fill(rest, self._groups(asked.path), VARIABLES, asked)
            if tail and tail[:1] not in (b"/", b"?", b"#"):
                tail = b"/" + tail
            return self._code, fill(authority, (), VARIABLES, asked) + tail
        if not asked.host:
            return None
        if self._https and asked.scheme == "http" and not asked.path.startswith(ACME):
            return self._https, b"https://" + asked.host + asked.target
        if self._app_root and asked.path == b"/":
            return 302, b"%b://%b%b" % (asked.scheme.encode("ascii"), asked.authority, self._app_root)
        return None

    @property
    def rewrites(self) -> bool:
        """Whether the upstream is asked for another path."""
        return self._rewrite is not None

    def rewritten(self, path: bytes) -> bytes:
        """The path for the upstream; not in normal form, since groups may join to dot segments or split an escape."""
        made = path if self._rewrite is None else fill(self._rewrite, self._groups(path))
        return made if made.startswith(b"/") else b"/" + made

    def forwarded_prefix(self, path: bytes) -> bytes:
        """The X-Forwarded-Prefix line with its CRLF, b"" for none."""
        if self._prefix is None:
            return b""
        return b"X-Forwarded-Prefix: %b\r\n" % fill(self._prefix, self._groups(path))

    def _groups(self, path: bytes) -> tuple[bytes | None, ...]:
        return () if self._pattern is None else self._pattern.captures(path)


# Fields that an answer of the proxy's own has anyway, and that say what it is.
_OWN: Final = frozenset((b"server", b"date", b"content-type", b"location", b"allow"))
