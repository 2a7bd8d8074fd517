"""Every name that spans use, in one table: OpenTelemetry's HTTP conventions (v1.44, stable) and Spanway's own.

``python -m proxy.trace.semconv docs/tracing.md`` renews the tables of that page; a test keeps it current.
"""

from __future__ import annotations

import sys
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Final, Literal, NamedTuple

from proxy.errors import Kind, Side

SCHEMA_URL: Final = "https://opentelemetry.io/schemas/1.44.0"

Type = Literal["string", "int", "boolean"]
Spans = Literal["SERVER", "CLIENT", "both", "wire", "place"]  # the last two: `semconv_wire`


class Attribute(NamedTuple):
    """One attribute: its name, the type of its value, its unit ("" for none), where it appears and what it says."""

    name: str
    type: Type
    unit: str
    spans: Spans
    meaning: str


# The request and its response.
HTTP_REQUEST_METHOD: Final = Attribute(
    "http.request.method", "string", "", "both", "the method, or `_OTHER` when it is not a known one"
)
HTTP_REQUEST_METHOD_ORIGINAL: Final = Attribute(
    "http.request.method_original", "string", "", "both", "the method as sent, only beside `_OTHER`"
)
HTTP_ROUTE: Final = Attribute(
    "http.route",
    "string",
    "",
    "SERVER",
    "the Ingress path as written; absent without a route and for a default backend",
)
HTTP_RESPONSE_STATUS_CODE: Final = Attribute(
    "http.response.status_code",
    "int",
    "",
    "both",
    "the status sent (SERVER) or received (CLIENT); absent when there was none",
)
HTTP_REQUEST_BODY_SIZE: Final = Attribute(
    "http.request.body.size", "int", "By", "SERVER", "body bytes read from the client, when there were any"
)
HTTP_RESPONSE_BODY_SIZE: Final = Attribute(
    "http.response.body.size", "int", "By", "SERVER", "body bytes sent to the client, when there were any"
)
HTTP_REQUEST_RESEND_COUNT: Final = Attribute(
    "http.request.resend_count",
    "int",
    "",
    "CLIENT",
    "1 for the first retry, 2 for the second; absent on the first attempt",
)
ERROR_TYPE: Final = Attribute(
    "error.type", "string", "", "both", "one of the faults, or the status code; absent on success"
)

# Where to, where from.
URL_SCHEME: Final = Attribute("url.scheme", "string", "", "SERVER", "`http` or `https`, as the client used it")
URL_PATH: Final = Attribute(
    "url.path", "string", "", "SERVER", "the path in normal form, still percent-encoded; at most 8 KiB"
)
URL_QUERY: Final = Attribute(
    "url.query", "string", "", "SERVER", "the query, secrets redacted, when there is one; at most 8 KiB"
)
URL_FULL: Final = Attribute("url.full", "string", "", "CLIENT", "scheme, endpoint, path and query, secrets redacted")
SERVER_ADDRESS: Final = Attribute(
    "server.address", "string", "", "both", "the host that the client asked for (SERVER), the endpoint's (CLIENT)"
)
SERVER_PORT: Final = Attribute(
    "server.port", "int", "", "both", "the port that the client asked for (SERVER), the endpoint's (CLIENT)"
)
CLIENT_ADDRESS: Final = Attribute(
    "client.address", "string", "", "SERVER", "the client, behind whatever trusted proxies the request came through"
)
USER_AGENT_ORIGINAL: Final = Attribute(
    "user_agent.original", "string", "", "SERVER", "the User-Agent field; at most 1 KiB"
)
NETWORK_PROTOCOL_VERSION: Final = Attribute(
    "network.protocol.version", "string", "", "both", "`1.0` or `1.1`; upstreams are spoken to in `1.1`"
)
NETWORK_PEER_ADDRESS: Final = Attribute(
    "network.peer.address", "string", "", "both", "the other end of the TCP connection"
)
NETWORK_PEER_PORT: Final = Attribute("network.peer.port", "int", "", "both", "its port")
NETWORK_LOCAL_ADDRESS: Final = Attribute(
    "network.local.address", "string", "", "CLIENT", "this end of the upstream connection"
)
NETWORK_LOCAL_PORT: Final = Attribute("network.local.port", "int", "", "CLIENT", "its port")

# The configuration that decided.
INGRESS_NAMESPACE: Final = Attribute(
    "spanway.ingress.namespace", "string", "", "SERVER", "namespace of the Ingress that matched"
)
INGRESS_NAME: Final = Attribute("spanway.ingress.name", "string", "", "SERVER", "its name")
INGRESS_UID: Final = Attribute("spanway.ingress.uid", "string", "", "SERVER", "its uid, when it has one")
INGRESS_RESOURCE_VERSION: Final = Attribute(
    "spanway.ingress.resource_version", "string", "", "SERVER", "its resourceVersion, when it has one"
)
GENERATION: Final = Attribute(
    "spanway.generation", "int", "", "SERVER", "generation of the table that routed the request"
)

# What became of it.
OUTCOME: Final = Attribute("spanway.outcome", "string", "", "both", "what happened beyond the status, see below")
REUSED: Final = Attribute("spanway.reused", "boolean", "", "CLIENT", "the upstream connection had served before")

# Where the time went. Whole microseconds, rounded down: 0 is a phase that took less than one.
ADMIT_US: Final = Attribute(
    "spanway.admit.us", "int", "us", "SERVER", "first byte to the end of admission: reading the head, checks, trust"
)
ROUTE_US: Final = Attribute("spanway.route.us", "int", "us", "SERVER", "matching host and path")
SELF_US: Final = Attribute(
    "spanway.self.us",
    "int",
    "us",
    "SERVER",
    "time spent inside the proxy itself, over the whole request, by the wall clock",
)
LOOP_LAG_US: Final = Attribute(
    "spanway.loop_lag.us", "int", "us", "SERVER", "how late the worker's event loop last was"
)
QUEUE_US: Final = Attribute("spanway.queue.us", "int", "us", "CLIENT", "waiting for a free upstream connection")
DNS_US: Final = Attribute("spanway.dns.us", "int", "us", "CLIENT", "resolving the upstream's name")
CONNECT_US: Final = Attribute("spanway.connect.us", "int", "us", "CLIENT", "TCP connect")
TLS_US: Final = Attribute("spanway.tls.us", "int", "us", "CLIENT", "TLS handshake")
WAIT_US: Final = Attribute(
    "spanway.wait.us", "int", "us", "CLIENT", "last request byte sent to first response byte read"
)
RELAY_US: Final = Attribute("spanway.relay.us", "int", "us", "CLIENT", "first to last response byte read")

# The key to packets: half-open ranges of the connection's two streams.
REQUEST_START: Final = Attribute(
    "spanway.request.start", "int", "By", "CLIENT", "offset of the request's first byte in the stream to the upstream"
)
REQUEST_END: Final = Attribute("spanway.request.end", "int", "By", "CLIENT", "offset after its last byte")
RESPONSE_START: Final = Attribute(
    "spanway.response.start",
    "int",
    "By",
    "CLIENT",
    "offset of the response's first byte in the stream from the upstream",
)
RESPONSE_END: Final = Attribute("spanway.response.end", "int", "By", "CLIENT", "offset after its last byte")

# The kernel's account of the TCP connection, towards the client (SERVER) or the upstream (CLIENT): TCP_INFO. What is 0
# is left out.
TCP_RTT_US: Final = Attribute("spanway.tcp.rtt.us", "int", "us", "both", "smoothed round-trip time, at the end")
TCP_MIN_RTT_US: Final = Attribute(
    "spanway.tcp.min_rtt.us", "int", "us", "both", "the shortest one; what the other exceeds it by are queues"
)
TCP_SEGMENTS: Final = Attribute("spanway.tcp.segments", "int", "", "both", "segments with data sent, meanwhile")
TCP_RETRANSMITTED: Final = Attribute("spanway.tcp.retransmitted", "int", "", "both", "of these, sent again")
TCP_RWND_LIMITED_US: Final = Attribute(
    "spanway.tcp.rwnd_limited.us",
    "int",
    "us",
    "both",
    "held up by the receiver's window meanwhile, counted in ticks of 1 to 10 ms",
)
TCP_SNDBUF_LIMITED_US: Final = Attribute(
    "spanway.tcp.sndbuf_limited.us", "int", "us", "both", "held up by our send buffer meanwhile, in the same ticks"
)
TCP_DELIVERY_RATE: Final = Attribute(
    "spanway.tcp.delivery_rate", "int", "By/s", "both", "latest rate at which the receiver took data"
)

ATTRIBUTES: Final[tuple[Attribute, ...]] = tuple(
    value for value in list(globals().values()) if isinstance(value, Attribute)
)

METHOD_OTHER: Final = "_OTHER"
METHOD_OTHER_NAME: Final = "HTTP"  # what the span's name says for it

CLIENT_GONE: Final = Kind.CLIENT_GONE.label
UPGRADED: Final = "upgraded"
CANCELLED: Final = "cancelled"

OUTCOMES: Final[dict[str, str]] = {
    CLIENT_GONE: "SERVER: the client left before the response was complete; no error, and no `error.type`",
    UPGRADED: "SERVER: the connection became a tunnel (101), which has ended",
    CANCELLED: "CLIENT: the proxy gave the attempt up before an answer came, as nobody waited for it any more (the "
    "client left, stalled or broke a limit); no error of the upstream",
}
"""Values of `spanway.outcome`."""

DOWNSTREAM_FAULTS: Final = frozenset(kind.label for kind in Kind if kind.side is Side.DOWNSTREAM)
"""Values of `error.type` that are the client's doing, so that an attempt they end has not failed."""

FAULT_TEXTS: Final[dict[str, str]] = {kind.label: kind.text for kind in Kind}


def _table(head: Iterable[str], rows: Iterable[Iterable[str]]) -> Iterator[str]:
    names = tuple(head)
    yield "| " + " | ".join(names) + " |"
    yield "|" + "---|" * len(names)
    for row in rows:
        yield "| " + " | ".join(cell.replace("|", r"\|") for cell in row) + " |"


def attributes_table() -> str:
    """The attributes as Markdown."""
    return _attributes(ATTRIBUTES)


def wire_table() -> str:
    """The attributes of the wire's spans, and the values of `spanway.wait.verdict`, as Markdown."""
    from proxy.trace import semconv_wire  # which is made of what is above

    verdicts = _table(
        ("`spanway.wait.verdict`", "meaning"), ((f"`{name}`", text) for name, text in semconv_wire.VERDICTS.items())
    )
    return _attributes(semconv_wire.ATTRIBUTES) + "\n\n" + "\n".join(verdicts)


def _attributes(attributes: Iterable[Attribute]) -> str:
    head = ("attribute", "type", "unit", "span", "meaning")
    return "\n".join(_table(head, ((f"`{a.name}`", a.type, a.unit, a.spans, a.meaning) for a in attributes)))


def outcomes_table() -> str:
    """The values of `spanway.outcome` as Markdown."""
    return "\n".join(_table(("`spanway.outcome`", "meaning"), ((f"`{name}`", text) for name, text in OUTCOMES.items())))


def errors_table() -> str:
    """The values of `error.type` as Markdown, from the table of faults."""
    rows = ((f"`{k.label}`", str(k.status or "none"), k.side.value, k.text) for k in Kind if k is not Kind.CLIENT_GONE)
    return "\n".join(_table(("`error.type`", "status sent", "side", "meaning"), rows))


TABLES: Final = {"attributes": attributes_table, "outcomes": outcomes_table, "errors": errors_table, "wire": wire_table}
"""The generated parts of docs/tracing.md, by the name in their markers."""


def section(name: str, source: str, table: str) -> str:
    """A generated part of a page between its markers; ``source`` is the file it comes from."""
    return f"<!-- {name}: from {source} -->\n\n{table}\n\n<!-- end {name} -->"


def sections() -> dict[str, str]:
    """Every table between its markers, by name."""
    return {name: section(name, "proxy/trace/semconv.py", table()) for name, table in TABLES.items()}


def renew(page: str, parts: Mapping[str, str] | None = None) -> str:
    """``page`` with its generated parts (`sections`, unless given) as they should be now.

    Raises `ValueError` if it lacks one.
    """
    for name, part in (sections() if parts is None else parts).items():
        before, begin, rest = page.partition(f"<!-- {name}:")
        _, end, after = rest.partition(f"<!-- end {name} -->")
        if not (begin and end):
            raise ValueError(f"no markers for {name!r} in the page")
        page = before + part + after
    return page


def main(arguments: list[str]) -> None:
    """Print every table; with the path of a page, renew its tables in place."""
    if arguments:
        path = Path(arguments[0])
        path.write_text(renew(path.read_text("utf-8")), "utf-8")
    else:
        sys.stdout.write("\n\n".join(sections().values()) + "\n")


if __name__ == "__main__":
    main(sys.argv[1:])
