"""Header field names: which the proxy reads, takes away, or passes on as they are.

The scanner looks up each name once, in the spelling that arrived. A name found here needs no grammar check; any other
is checked and lower-cased first. What is not listed is passed on verbatim.
"""

from __future__ import annotations

import re
from typing import Final

PASS: Final = 0  # forward the line as it came
NOTE: Final = 1  # forward it, and remember the value
TAKE: Final = 2  # remember the value; the proxy writes its own, or none
DROP: Final = 3  # neither
FRAME: Final = 4  # TAKE, but a second one is an error (RFC 9110 section 5.3)

Action = tuple[int, bytes]

# RFC 9110 section 5.6.2. Written as what a field name is, so that it also refuses "Host " and obs-fold.
TOKEN: Final = re.compile(rb"[!#$%&'*+\-.^_`|~0-9A-Za-z]+")

# The hop-by-hop fields of RFC 9110 section 7.6.1 and RFC 2616 section 13.5.1, and those that proxies still meet.
HOP_BY_HOP: Final = (b"keep-alive", b"proxy-connection", b"proxy-authorization", b"proxy-authenticate")

# Context headers are consumed whatever formats are configured, so that no stranger's context slips through in a
# format that we do not read but an application does (docs/tracing.md, Trust).
CONTEXT: Final = (
    b"traceparent",
    b"tracestate",
    b"uber-trace-id",
    b"jaeger-debug-id",
    b"jaeger-baggage",
    b"b3",
    b"x-b3-traceid",
    b"x-b3-spanid",
    b"x-b3-parentspanid",
    b"x-b3-sampled",
    b"x-b3-flags",
)

# What a trusted peer may say of the client (`admit.forwarded`).
FORWARDED: Final = (b"x-forwarded-for", b"x-forwarded-proto", b"x-forwarded-host", b"x-forwarded-port")

_REQUEST: Final[dict[bytes, int]] = {
    b"host": FRAME,
    b"content-length": FRAME,
    b"transfer-encoding": FRAME,
    b"connection": TAKE,
    b"upgrade": TAKE,
    b"te": TAKE,
    b"expect": TAKE,
    b"x-forwarded-for": TAKE,
    b"x-forwarded-host": TAKE,
    b"x-forwarded-proto": TAKE,
    b"x-forwarded-port": TAKE,
    b"x-forwarded-scheme": TAKE,
    b"x-forwarded-prefix": TAKE,
    b"x-original-forwarded-for": TAKE,
    b"x-real-ip": TAKE,
    b"forwarded": TAKE,
    b"x-request-id": TAKE,
    b"via": NOTE,
    b"user-agent": NOTE,
    b"accept": NOTE,
    b"http2-settings": DROP,  # RFC 7540 section 3.2.1: part of h2c, which is not spoken here
    b"proxy": DROP,  # httpoxy, CVE-2016-5385
    **dict.fromkeys(HOP_BY_HOP, DROP),
    **dict.fromkeys(CONTEXT, TAKE),
}

_RESPONSE: Final[dict[bytes, int]] = {
    b"content-length": FRAME,
    b"transfer-encoding": FRAME,
    b"connection": TAKE,
    b"upgrade": TAKE,
    b"te": DROP,
    b"keep-alive": DROP,
    b"proxy-connection": DROP,
    b"traceresponse": NOTE,
}

_COMMON: Final = (
    b"accept-charset accept-encoding accept-language accept-ranges access-control-request-headers"
    b" access-control-request-method access-control-allow-origin age allow authorization cache-control"
    b" content-disposition content-encoding content-language content-location content-range content-security-policy"
    b" content-type cookie date dnt etag expires if-match if-modified-since if-none-match if-range if-unmodified-since"
    b" last-modified link location origin pragma priority range referer referrer-policy retry-after sec-ch-ua"
    b" sec-ch-ua-mobile sec-ch-ua-platform sec-fetch-dest sec-fetch-mode sec-fetch-site sec-fetch-user"
    b" sec-websocket-accept sec-websocket-extensions sec-websocket-key sec-websocket-protocol sec-websocket-version"
    b" server set-cookie strict-transport-security trailer upgrade-insecure-requests vary www-authenticate"
    b" x-content-type-options x-frame-options x-powered-by x-requested-with x-xss-protection baggage"
).split()


def _spellings(actions: dict[bytes, int]) -> dict[bytes, Action | None]:
    """Each name as clients write it: lower-case (HTTP/2 gateways), Title-Case (most), UPPER-CASE."""
    table: dict[bytes, Action | None] = {}
    for name in (*_COMMON, *actions):
        action = actions.get(name, PASS)
        row = None if action == PASS else (action, name)
        for spelling in (name, name.title(), name.upper()):
            table[spelling] = row
    for odd, name in ((b"DNT", b"dnt"), (b"ETag", b"etag"), (b"TE", b"te"), (b"WWW-Authenticate", b"www-authenticate")):
        table[odd] = table[name]
    return table


REQUEST_NAMES: Final = _spellings(_REQUEST)
RESPONSE_NAMES: Final = _spellings(_RESPONSE)

# A Connection field may not take these away from the upstream: they carry routing, identity, framing or trust.
UNNOMINATED: Final = frozenset(
    (b"host", b"content-length", b"transfer-encoding", b"authorization", b"cookie", b"x-request-id", b"forwarded")
) | frozenset(CONTEXT)

# Fields that trailers may not carry (RFC 9110 section 6.5.1): framing, routing, authentication, payload processing.
NOT_IN_TRAILERS: Final = (
    frozenset(_REQUEST)
    | frozenset(_RESPONSE)
    | frozenset(
        (
            b"authorization",
            b"cookie",
            b"set-cookie",
            b"www-authenticate",
            b"content-encoding",
            b"content-type",
            b"content-range",
            b"trailer",
            b"cache-control",
            b"expires",
            b"location",
            b"range",
            b"if-match",
            b"if-none-match",
            b"if-modified-since",
            b"if-unmodified-since",
            b"if-range",
            b"max-forwards",
            b"age",
            b"date",
            b"retry-after",
            b"vary",
        )
    )
)


def tokens(value: bytes) -> list[bytes]:
    """A comma-separated list's members, lower-case, without empty ones (RFC 9110 section 5.6.1)."""
    return [item for part in value.lower().split(b",") if (item := part.strip(b" \t"))]


def without(fields: bytes, names: set[bytes]) -> bytes:
    """The field lines, each with its CRLF, whose names are not in ``names`` (lower-case)."""
    lines = fields.split(b"\r\n")[:-1]
    return b"".join([line + b"\r\n" for line in lines if line[: line.index(b":")].lower() not in names])
