"""A trace as a backend returns it, and what makes it one sound tree."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any, Final, Literal

Kind = Literal["UNSPECIFIED", "INTERNAL", "SERVER", "CLIENT", "PRODUCER", "CONSUMER"]

STEP: Final = 5_000_000
"""Nanoseconds that the system's clock may be set by between two spans of an application: each begins by that clock and
ends by the monotonic one (OpenTelemetry's SDKs for Go and others), so that a child may leave its parent by as much. The
proxy's own are forgiven nothing."""


@dataclass(frozen=True, slots=True)
class Span:
    """One span; ids are lower-case hex, ``parent_id`` "" for none, times Unix nanoseconds."""

    trace_id: str
    span_id: str
    parent_id: str
    name: str
    kind: Kind
    service: str
    start: int
    end: int
    status: Literal["UNSET", "OK", "ERROR"]
    attributes: Mapping[str, Any]
    links: tuple[tuple[str, str], ...] = ()  # (trace id, span id)

    def __str__(self) -> str:
        return f"{self.service}: {self.name} ({self.kind} {self.span_id})"


@dataclass(frozen=True, slots=True)
class Trace:
    """All spans of one trace id, in the order of their start.

    ``resolution`` is by how many nanoseconds the backend may have rounded a time.
    """

    spans: tuple[Span, ...]
    resolution: int = 0
    _by_id: dict[str, Span] = field(default_factory=dict, repr=False, compare=False)

    @classmethod
    def of(cls, spans: Iterable[Span], resolution: int = 0) -> Trace:
        """A trace of ``spans``, in any order."""
        ordered = tuple(sorted(spans, key=lambda span: (span.start, -span.end)))
        return cls(ordered, resolution, {span.span_id: span for span in ordered})

    @property
    def services(self) -> Counter[str]:
        """How many spans each service has."""
        return Counter(span.service for span in self.spans)

    def parent(self, span: Span) -> Span | None:
        """The span's parent, None when it is not in the trace."""
        return self._by_id.get(span.parent_id)

    def children(self, span: Span) -> tuple[Span, ...]:
        """The span's children, in the order of their start."""
        return tuple(each for each in self.spans if each.parent_id == span.span_id)

    def select(self, service: str, kind: Kind | None = None, name: str | None = None) -> tuple[Span, ...]:
        """The spans of a service, of one kind and name when they are given."""
        return tuple(
            span
            for span in self.spans
            if span.service == service and kind in (None, span.kind) and name in (None, span.name)
        )

    def faults(self, remote_parent: str = "") -> list[str]:
        """What keeps it from being one tree, in words; empty for a sound trace.

        ``remote_parent`` is the span id that the client sent, and so never exported: the one root has it as parent.
        """
        return list(self._faults(remote_parent))

    def _faults(self, remote_parent: str) -> Iterator[str]:
        for span_id, count in Counter(span.span_id for span in self.spans).items():
            if count > 1:
                yield f"span id {span_id} occurs {count} times"
        if len({span.trace_id for span in self.spans}) != 1:
            yield "its spans are of several traces"
        roots = [span for span in self.spans if span.parent_id == remote_parent]
        if len(roots) != 1:
            yield f"{len(roots)} roots: {', '.join(map(str, roots))}"
        for span in self.spans:
            if span.end < span.start:
                yield f"{span} ends {span.start - span.end} ns before it starts"
            parent = self.parent(span)
            if parent is not None:
                ours = any(each.service.startswith("spanway") for each in (span, parent))  # the wire's as well
                slack = self.resolution + (0 if ours else STEP)
                if span.start < parent.start - slack:
                    yield f"{span} starts {parent.start - span.start} ns before its parent {parent}"
                # A server may end its span when the caller has long had the last byte; nothing else may.
                served = (parent.kind, span.kind) == ("CLIENT", "SERVER")
                if span.end > parent.end + slack and not served:
                    yield f"{span} ends {span.end - parent.end} ns after its parent {parent}"
            elif span.parent_id != remote_parent:
                yield f"{span} is orphaned: nobody exported its parent {span.parent_id}"

    def drawing(self) -> str:
        """The tree as indented lines, for the message of a failed test."""
        if not self.spans:
            return "(no spans)"
        first = min(span.start for span in self.spans)
        lines: list[str] = []

        def draw(span: Span, depth: int) -> None:
            times = f"{(span.start - first) / 1e6:8.3f} +{(span.end - span.start) / 1e6:.3f} ms"
            lines.append(f"{times:24} {'  ' * depth}{span}")
            for child in self.children(span):
                draw(child, depth + 1)

        for span in self.spans:
            if self.parent(span) is None:
                draw(span, 0)
        return "\n".join(lines)
