"""Where a trace's time went: every nanosecond between its start and its end given to exactly one span.

The critical path, walked backwards from the end: at each moment the time belongs to the child that ended last before
it, and where no child was running to the span itself. So the parts add up to the whole, also where children ran side by
side, which plain "self times" do not.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final, NamedTuple

from proxy.trace.resource import SCOPE_NAME
from proxy.trace.semconv_wire import PLACE, SPLIT
from proxy.trace.tree import Node, TraceView
from proxy.trace.view import SpanView

BETWEEN: Final = "between services"
BACKEND: Final = "backend"  # the wire's place in which the application's own time is


class Share(NamedTuple):
    """A part of a trace's time: which place, which span took most of it, and how long (ns) they took."""

    place: str
    span: SpanView
    span_ns: int
    ns: int


def is_proxy(span: SpanView) -> bool:
    """Whether Spanway itself made the span."""
    return span.scope == SCOPE_NAME


def is_wire(span: SpanView) -> bool:
    """Whether a span is one of `spanway wire`: another view of what its CLIENT span and the receiver's tell."""
    return span.kind == "INTERNAL" and (SPLIT.name in span.attributes or PLACE.name in span.attributes)


def receivers(node: Node, by_id: Mapping[str, Node]) -> tuple[list[str], list[str]]:
    """The ids of the spans that tell what a span's time was spent on, and of those that tell of what is left.

    Where a receiver tells of its part, the wire's places have the rest; without one the wire is a child as any.
    """
    below = [child for child in node.children if not is_wire(by_id[child].span)]
    if not below:
        return node.children, []
    wires = [by_id[child] for child in node.children if is_wire(by_id[child].span)]
    return below, [place for wire in wires for place in wire.children]


def index(trace: TraceView) -> dict[str, Node]:
    """The nodes by span id."""
    return {node.span.span_id: node for node in trace.nodes}


def critical(trace: TraceView) -> dict[str, int]:
    """Nanoseconds of the critical path by span id; together they are the trace's duration less the gaps at its top.

    Gaps are moments in which no root span was running, as in a trace whose root has not arrived, or where work went on
    after the answer.
    """
    by_id = index(trace)
    own = dict.fromkeys(by_id, 0)
    roots = [node.span.span_id for node in trace.nodes if node.depth == 0]
    # Work: a span (None for the trace itself), the time that is its share, and the children it may pass time to.
    # Last, the spans that tell of what these leave.
    stack: list[tuple[str | None, list[str], int, int, list[str]]] = [(None, roots, trace.start_ns, trace.end_ns, [])]
    while stack:
        span_id, children, begin, end, rest = stack.pop()
        moment = end
        for child in sorted(children, key=lambda each: by_id[each].span.end_ns, reverse=True):
            span = by_id[child].span
            finish, start = min(span.end_ns, moment), max(span.start_ns, begin)
            if finish <= start:
                continue
            if rest:
                stack.append((span_id, rest, finish, moment, []))
            elif span_id is not None:
                own[span_id] += moment - finish
            below, beside = receivers(by_id[child], by_id)
            stack.append((child, below, start, finish, beside))
            moment = start
        if rest:
            stack.append((span_id, rest, begin, moment, []))
        elif span_id is not None:
            own[span_id] += moment - begin
    return own


def place(node: Node, by_id: Mapping[str, Node]) -> str:
    """Whom the time of a span is to be put down to.

    Its service; but what a call takes beyond what its receiver says it took is "between services", and a proxy's call
    whose receiver says nothing is that upstream's.
    """
    span = node.span
    if span.kind in ("CLIENT", "PRODUCER"):
        if any(by_id[child].span.kind in ("SERVER", "CONSUMER") for child in node.children):
            return BETWEEN
        if is_proxy(span):
            return f"upstream {peer(span)}"
    if is_wire(span):
        where = span.attributes.get(PLACE.name)
        if where is None:
            return "between the proxy and its upstream"
        return (where == BACKEND and _application(node, by_id)) or f"wire: {where}"
    return span.service


def _application(node: Node, by_id: Mapping[str, Node]) -> str:
    """The service that answered the call in which a place of the wire is; "" where it says nothing of it itself."""
    wire = by_id.get(node.span.parent_id)
    call = None if wire is None else by_id.get(wire.span.parent_id)
    below = () if call is None else (by_id[child].span for child in call.children)
    return next((span.service for span in below if span.kind in ("SERVER", "CONSUMER")), "")


def peer(span: SpanView) -> str:
    """Where a CLIENT span's call went, ``host:port`` as far as it says."""
    host, port = span.attributes.get("server.address"), span.attributes.get("server.port")
    return f"{host}:{port}" if host and port else str(host or "unknown")


def shares(trace: TraceView) -> list[Share]:
    """The time by place, the largest first; nothing that took no time."""
    by_id = index(trace)
    totals: dict[str, Share] = {}
    for span_id, ns in critical(trace).items():
        if not ns:
            continue
        node = by_id[span_id]
        where = place(node, by_id)
        before = totals.get(where)
        if before is None:
            totals[where] = Share(where, node.span, ns, ns)
        elif ns > before.span_ns:
            totals[where] = Share(where, node.span, ns, before.ns + ns)
        else:
            totals[where] = before._replace(ns=before.ns + ns)
    return sorted(totals.values(), key=lambda share: -share.ns)
