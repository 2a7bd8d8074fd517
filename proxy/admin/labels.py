"""What a waterfall says of a span in words: its name, its status, its phases, and what went wrong."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any, Final

from proxy.admin.blame import is_proxy, peer
from proxy.admin.units import duration
from proxy.trace import semconv, semconv_wire
from proxy.trace.tree import Node
from proxy.trace.view import SpanView

# In the order in which they happen.
SERVER_PHASES: Final = (("admit", semconv.ADMIT_US), ("route", semconv.ROUTE_US), ("self", semconv.SELF_US))
CLIENT_PHASES: Final = (
    ("queue", semconv.QUEUE_US),
    ("dns", semconv.DNS_US),
    ("connect", semconv.CONNECT_US),
    ("tls", semconv.TLS_US),
    ("wait", semconv.WAIT_US),
    ("relay", semconv.RELAY_US),
)
LAG_WORTH_SAYING_US: Final = 5_000  # an event loop that is this late is felt


def clean(text: object) -> str:
    """Text from elsewhere for a terminal: one line, and no control characters, which could move the cursor or worse."""
    line = " ".join(str(text).split())
    if line.isprintable():
        return line
    return "".join(char if char.isprintable() else "\N{REPLACEMENT CHARACTER}" for char in line)


def label(node: Node, by_id: Mapping[str, Node]) -> str:
    """The span's name, and for a call where it went: ``GET → stock``."""
    span = node.span
    name = clean(span.name) or "(no name)"
    if span.kind != "CLIENT" or not (is_proxy(span) or semconv.HTTP_REQUEST_METHOD.name in span.attributes):
        return name
    return f"{name} → {clean(receiver(node, by_id) or peer(span))}"


def receiver(node: Node, by_id: Mapping[str, Node]) -> str:
    """The service that took a call, "" when it says nothing."""
    return next((by_id[child].span.service for child in node.children if by_id[child].span.kind == "SERVER"), "")


def title(span: SpanView) -> str:
    """The request that a root span stands for, ``POST shop.localhost/checkout``, or the span's name."""
    attributes = span.attributes
    method, path = attributes.get(semconv.HTTP_REQUEST_METHOD.name), attributes.get(semconv.URL_PATH.name)
    if not method or not path:
        return clean(span.name) or "(no name)"
    query = attributes.get(semconv.URL_QUERY.name)
    host = attributes.get(semconv.SERVER_ADDRESS.name, "")
    return clean(f"{method} {host}{path}{'?' if query else ''}{query or ''}")


def status(span: SpanView) -> str:
    """The HTTP status, or what there is instead of one."""
    code = span.attributes.get(semconv.HTTP_RESPONSE_STATUS_CODE.name)
    if code is not None:
        return clean(code)
    if span.status == "ERROR":
        return "ERR"
    return "left" if span.attributes.get(semconv.OUTCOME.name) == semconv.CLIENT_GONE else ""


def severity(span: SpanView) -> str:
    """ "error", "warning" (a 4xx that is no error of the server) or ""."""
    if span.status == "ERROR":
        return "error"
    code = span.attributes.get(semconv.HTTP_RESPONSE_STATUS_CODE.name)
    if isinstance(code, int) and code >= 500:
        return "error"
    return "warning" if isinstance(code, int) and code >= 400 else ""


def phases(node: Node, by_id: Mapping[str, Node]) -> str:
    """A proxy span's phase times, ``127.0.0.1:8080 · connect 210 µs · wait 182 ms · relay 90 µs``; "" for others."""
    span = node.span
    if not is_proxy(span):
        return ""
    attributes = span.attributes
    parts: list[str] = []
    if span.kind == "CLIENT":
        if receiver(node, by_id):  # else its label has the address
            parts.append(clean(peer(span)))
        if resend := attributes.get(semconv.HTTP_REQUEST_RESEND_COUNT.name):
            parts.append(f"retry {clean(resend)}")
        if attributes.get(semconv.REUSED.name):
            parts.append("reused connection")
    elif ingress := attributes.get(semconv.INGRESS_NAME.name):
        parts.append(clean(f"{attributes.get(semconv.INGRESS_NAMESPACE.name, '')}/{ingress}"))
    parts.extend(_times(attributes, CLIENT_PHASES if span.kind == "CLIENT" else SERVER_PHASES))
    lag = attributes.get(semconv.LOOP_LAG_US.name)
    if isinstance(lag, int) and lag >= LAG_WORTH_SAYING_US:
        parts.append(f"loop lag {duration(lag * 1000)}")
    return " · ".join(parts)


def wire(span: SpanView) -> Iterator[str]:
    """What the wire's span says of an attempt: its segments in a line, and who is to blame; nothing for others."""
    attributes = span.attributes
    split = attributes.get(semconv_wire.SPLIT.name)
    if split is None:
        return
    yield clean(split).replace(" us", " µs")
    verdict = attributes.get(semconv_wire.VERDICT.name)
    parts = []
    if verdict:
        where = attributes.get(semconv_wire.VERDICT_PLACE.name)
        parts.append(clean(f"verdict: {verdict}" + (f" ({where})" if where and where not in str(verdict) else "")))
    excess = attributes.get(semconv_wire.EXCESS_US.name)
    if isinstance(excess, int) and excess > 0:
        parts.append(f"{duration(excess * 1000)} beyond the usual")
    lost = attributes.get(semconv_wire.LOST.name)
    if lost:
        parts.append(clean(f"{lost} bytes lost at {attributes.get(semconv_wire.LOST_AT.name, 'an unknown place')}"))
    if attributes.get(semconv_wire.INCOMPLETE.name):
        parts.append("a tap dropped packets")
    if parts:
        yield " · ".join(parts)


def _times(attributes: Mapping[str, Any], wanted: tuple[tuple[str, semconv.Attribute], ...]) -> Iterator[str]:
    for name, attribute in wanted:
        us = attributes.get(attribute.name)
        if isinstance(us, int):
            yield f"{name} {_phase(us)}"


def _phase(us: int) -> str:
    """Phase times are whole microseconds, rounded down: digits behind the point would be invented."""
    if us < 1000:
        return f"{us} µs" if us else "<1 µs"
    return duration(us * 1000)


def failure(span: SpanView) -> str:
    """What went wrong in words, "" when nothing did or the status says it all."""
    if span.status != "ERROR" and semconv.ERROR_TYPE.name not in span.attributes:
        return ""
    for event in reversed(span.events):
        if event.name == "exception":
            kind, message = event.attributes.get("exception.type"), event.attributes.get("exception.message")
            kind = str(kind or "").rpartition(".")[2]
            return clean(": ".join(str(part) for part in (kind, message) if part))
    error = str(span.attributes.get(semconv.ERROR_TYPE.name, ""))
    text = span.status_message or semconv.FAULT_TEXTS.get(error, "")
    if not text and error.isdecimal():
        return ""  # the status column has it
    return clean(": ".join(part for part in (error, text) if part))
