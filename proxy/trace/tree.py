"""Traces from spans: trees as they are drawn, and one line per trace for lists.

Spans come from several processes, late, twice or never; whatever comes, every span appears exactly once.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final

import msgspec

from proxy.trace.view import KINDS, NO_SERVICE, SpanView, attributes, decode, name_of, requests

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

SPANS_MOST: Final = 5000  # of one trace; the later ones are counted, not shown
_ERROR: Final = 2  # Status.StatusCode.STATUS_CODE_ERROR


class Node(msgspec.Struct, frozen=True):
    """A span in its place. ``children`` are span ids in order of their start, ``depth`` is 0 for a root.

    ``orphan``: it names a parent that is not among the spans (it was not recorded, has not arrived yet, or is the
    caller's own). ``cycle``: its parents lead back to itself; it is drawn as a root to break the circle.
    """

    span: SpanView
    depth: int
    orphan: bool
    cycle: bool
    children: list[str]


class TraceView(msgspec.Struct, frozen=True):
    """One trace: its nodes in drawing order, each followed by its children.

    ``truncated`` spans beyond `SPANS_MOST` are left out. ``services`` are in order of their first span.
    """

    trace_id: str
    start_ns: int
    end_ns: int
    nodes: list[Node]
    services: list[str]
    errors: int
    truncated: int

    @property
    def duration_ns(self) -> int:
        """From the first span's start to the last one's end."""
        return max(self.end_ns - self.start_ns, 0)

    @property
    def root(self) -> SpanView:
        """The span that stands for the trace: the first without a parent, else the first of all."""
        roots = [node for node in self.nodes if node.depth == 0]
        return next((node.span for node in roots if not node.span.parent_id), roots[0].span)


class TraceSummary(msgspec.Struct, frozen=True):
    """One line for one trace. ``name``, ``service``, ``kind`` and what follows ``services`` are the root span's."""

    trace_id: str
    name: str
    service: str
    kind: str
    start_ns: int
    duration_ns: int
    spans: int
    errors: int
    services: list[str]
    method: str
    route: str
    path: str
    status_code: int
    error_type: str


def assemble(spans: Iterable[SpanView]) -> list[TraceView]:
    """The traces that ``spans`` belong to, newest start first."""
    groups: dict[str, list[SpanView]] = {}
    for span in spans:
        groups.setdefault(span.trace_id, []).append(span)
    return sorted(map(grow, groups.values()), key=lambda trace: (-trace.start_ns, trace.trace_id))


def grow(spans: Sequence[SpanView]) -> TraceView:
    """The tree of one trace's spans, of which there is at least one."""
    unique: dict[str, SpanView] = {}
    for span in spans:
        unique.setdefault(span.span_id, span)  # a retried export call may have delivered a span twice
    ordered = sorted(unique.values(), key=_by_start)
    kept = {span.span_id: span for span in ordered[:SPANS_MOST]}

    children: dict[str, list[SpanView]] = {span_id: [] for span_id in kept}
    roots: list[SpanView] = []
    for span in kept.values():
        if span.parent_id in kept and span.parent_id != span.span_id:
            children[span.parent_id].append(span)
        else:
            roots.append(span)
    circular = _break_cycles(kept, children, roots)
    roots.sort(key=_by_start)

    nodes: list[Node] = []
    stack = [(span, 0) for span in reversed(roots)]
    while stack:
        span, depth = stack.pop()
        below = children[span.span_id]
        itself = span.parent_id == span.span_id
        cycle = itself or span.span_id in circular
        orphan = depth == 0 and bool(span.parent_id) and not cycle
        nodes.append(Node(span, depth, orphan, cycle, [child.span_id for child in below]))
        stack.extend((child, depth + 1) for child in reversed(below))
    return TraceView(
        trace_id=ordered[0].trace_id,
        start_ns=ordered[0].start_ns,
        end_ns=max(span.end_ns for span in kept.values()),
        nodes=nodes,
        services=list(dict.fromkeys(span.service for span in kept.values())),
        errors=sum(span.status == "ERROR" for span in kept.values()),
        truncated=len(ordered) - len(kept),
    )


def _break_cycles(kept: dict[str, SpanView], children: dict[str, list[SpanView]], roots: list[SpanView]) -> set[str]:
    """Make the earliest span of every cycle a root, taking it from its parent; the ids of those spans."""
    reached: set[str] = set()

    def reach(start: SpanView) -> None:
        stack = [start.span_id]
        while stack:
            span_id = stack.pop()
            reached.add(span_id)
            stack.extend(child.span_id for child in children[span_id])

    for root in roots:
        reach(root)
    circular: set[str] = set()
    for span in kept.values():
        if span.span_id in reached:
            continue
        # No root above it: going up ends in a cycle. What hangs below the cycle must stay below it.
        path: dict[str, SpanView] = {}
        here = span
        while here.span_id not in path:
            path[here.span_id] = here
            here = kept[here.parent_id]
        circle = list(path.values())[list(path).index(here.span_id) :]
        first = min(circle, key=_by_start)
        children[first.parent_id].remove(first)
        roots.append(first)
        circular.add(first.span_id)
        reach(first)
    return circular


def _by_start(span: SpanView) -> tuple[int, str]:
    return span.start_ns, span.span_id


class _Gathering:
    """What a summary needs of one trace while its spans go by undecoded."""

    __slots__ = ("end", "errors", "root", "root_key", "root_service", "seen", "services", "start")

    def __init__(self) -> None:
        self.seen: set[bytes] = set()
        self.services: dict[str, int] = {}  # with the start of its first span
        self.errors = 0
        self.start = self.end = 0
        self.root: Any = None
        self.root_key = (True, 0, b"")
        self.root_service = NO_SERVICE

    def add(self, span: Any, service: str) -> None:
        if span.span_id in self.seen:
            return
        self.seen.add(span.span_id)
        start, end = span.start_time_unix_nano, span.end_time_unix_nano
        key = (any(span.parent_span_id), start, span.span_id)
        if self.root is None or key < self.root_key:
            self.root, self.root_key, self.root_service = span, key, service
        self.start = start if len(self.seen) == 1 else min(self.start, start)
        self.end = max(self.end, end)
        self.services[service] = min(self.services.get(service, start), start)
        self.errors += span.status.code == _ERROR

    def summary(self, trace_id: bytes) -> TraceSummary:
        of_root = attributes(self.root.attributes)
        status = of_root.get("http.response.status_code")
        return TraceSummary(
            trace_id=trace_id.hex(),
            name=self.root.name,
            service=self.root_service,
            kind=name_of(KINDS, self.root.kind),
            start_ns=self.start,
            duration_ns=max(self.end - self.start, 0),
            spans=len(self.seen),
            errors=self.errors,
            services=sorted(self.services, key=lambda name: (self.services[name], name)),
            method=_text(of_root.get("http.request.method")),
            route=_text(of_root.get("http.route")),
            path=_text(of_root.get("url.path")),
            status_code=status if isinstance(status, int) else 0,
            error_type=_text(of_root.get("error.type")),
        )


def summaries(batches: Iterable[bytes], limit: int = 100) -> list[TraceSummary]:
    """The newest ``limit`` traces among encoded batches, newest start first. Only root spans are decoded in full."""
    traces: dict[bytes, _Gathering] = {}
    for request in requests(batches):
        for resource_spans in request.resource_spans:
            service = NO_SERVICE
            for pair in resource_spans.resource.attributes:
                if pair.key == "service.name":
                    service = pair.value.string_value or NO_SERVICE
            for scope_spans in resource_spans.scope_spans:
                for span in scope_spans.spans:
                    gathering = traces.get(span.trace_id)
                    if gathering is None:
                        gathering = traces[span.trace_id] = _Gathering()
                    gathering.add(span, service)
    newest = sorted(traces.items(), key=lambda item: (-item[1].start, item[0]))[: max(limit, 0)]
    return [gathering.summary(trace_id) for trace_id, gathering in newest]


def matches(batches: Iterable[bytes], prefix: str) -> list[str]:
    """The ids of the traces whose id begins with ``prefix`` (hex, any case), in order of their appearance."""
    prefix = prefix.strip().lower()
    found: dict[bytes, None] = {}
    for request in requests(batches):
        for resource_spans in request.resource_spans:
            for scope_spans in resource_spans.scope_spans:
                found.update((span.trace_id, None) for span in scope_spans.spans)
    return [trace_id for trace_id in map(bytes.hex, found) if trace_id.startswith(prefix)]


def find(batches: Sequence[bytes], trace_id: str) -> TraceView | None:
    """The trace with this id, or the only one whose id begins so (hex, any case); None if there is none or several."""
    trace_id = trace_id.strip().lower()
    if not trace_id:
        return None
    traces = assemble(decode(batches, trace_id))
    return traces[0] if len(traces) == 1 else None


def summary_document(summary: TraceSummary) -> dict[str, Any]:
    """A summary for JSON. Nanoseconds are text: they do not fit the numbers of JavaScript."""
    document: dict[str, Any] = msgspec.to_builtins(summary)
    document["start_ns"] = str(summary.start_ns)
    document["duration_us"] = document.pop("duration_ns") / 1000
    return document


def trace_document(trace: TraceView) -> dict[str, Any]:
    """A trace for JSON: spans in drawing order with offset and duration in microseconds, resources by service."""
    resources: dict[str, Any] = {}
    spans = []
    for node in trace.nodes:
        span = node.span
        resources.setdefault(span.service, span.resource)
        document = msgspec.to_builtins(span)
        del document["resource"], document["trace_id"]
        document["start_ns"] = str(span.start_ns)
        document["end_ns"] = str(span.end_ns)
        document["offset_us"] = (span.start_ns - trace.start_ns) / 1000
        document["duration_us"] = span.duration_ns / 1000
        for event, original in zip(document["events"], span.events, strict=True):
            event["offset_us"] = (original.time_ns - trace.start_ns) / 1000
            event["time_ns"] = str(original.time_ns)
        document |= {"depth": node.depth, "orphan": node.orphan, "cycle": node.cycle, "children": node.children}
        spans.append(document)
    return {
        "trace_id": trace.trace_id,
        "start_ns": str(trace.start_ns),
        "duration_us": trace.duration_ns / 1000,
        "services": trace.services,
        "errors": trace.errors,
        "truncated": trace.truncated,
        "resources": resources,
        "spans": spans,
    }


def _text(value: object) -> str:
    return value if isinstance(value, str) else ""
