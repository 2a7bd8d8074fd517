"""Every generation of the table as a trace: events > build > swap > the first request that it served.

    table generation            from the first event to the first request (or until nobody waits for one any more)
    +- receive Ingress          one per event, the last 32 of them: from its bytes read to the build that took it in
    +- build                    what had changed, compiled and resolved
    +- swap                     from the first message to the last worker
    |  +- swap worker           one per worker
    +- first request            from the swap to the end of the first request; it links to that request's span

It links to the contexts that objects carried in their annotation ``tracing.k8s.io/traceparent``
(kubernetes/enhancements#5915), as the swap is not caused by one write alone; and the first request of a generation, in
each worker, links to it, as no request is caused by a configuration.
"""

from __future__ import annotations

import asyncio
import time
from collections import OrderedDict
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Final, Protocol

from opentelemetry.context import Context
from opentelemetry.trace import Link, SpanContext, SpanKind, TraceFlags, set_span_in_context

from proxy import __version__
from proxy.route.change import Origin
from proxy.trace.w3c import parse_traceparent

if TYPE_CHECKING:
    from opentelemetry.trace import Span, Tracer, TracerProvider
    from opentelemetry.util.types import AttributeValue

    from proxy.control.build import Step
    from proxy.control.publish import Change
    from proxy.control.rolling import Rolling

PATIENCE: Final = 60.0  # seconds that a generation's trace waits for the first request
_OPEN: Final = 64  # generations whose traces are open; the oldest wait no longer


class FirstRequest(Protocol):
    """The first request that a generation served in a worker, as that reports it (`channel.First`)."""

    @property
    def generation(self) -> int: ...
    @property
    def trace_id(self) -> bytes: ...
    @property
    def span_id(self) -> bytes: ...
    @property
    def start_ns(self) -> int: ...
    @property
    def end_ns(self) -> int: ...
    @property
    def status(self) -> int: ...


class Story:
    """The trace of one generation, while it is written."""

    __slots__ = ("_chronicle", "_context", "_first", "_root", "_swapped", "_timer", "generation")

    def __init__(self, chronicle: Chronicle, generation: int, root: Span) -> None:
        self.generation: Final = generation
        self._chronicle = chronicle
        self._root = root
        self._context: Context = set_span_in_context(root)
        self._swapped = 0  # Unix nanoseconds: every worker serves it
        self._first: FirstRequest | None = None
        self._timer: asyncio.TimerHandle | None = None

    def __repr__(self) -> str:
        return f"Story({self.generation}, {'swapped' if self._swapped else 'on its way'})"

    @property
    def origin(self) -> Origin:
        """What the first request links to."""
        context = self._root.get_span_context()
        return Origin(
            context.trace_id.to_bytes(16, "big"), context.span_id.to_bytes(8, "big"), int(context.trace_flags)
        )

    def received(self, change: Change, taken: int) -> None:
        """An event, which a build took in at this time."""
        attributes: dict[str, AttributeValue] = {
            "spanway.object.kind": change.kind,
            "spanway.object.namespace": change.namespace,
            "spanway.object.name": change.name,
            "spanway.event.verb": change.verb,
        }
        if change.resource_version:
            attributes["spanway.object.resource_version"] = change.resource_version
        if change.lag_ns >= 0:
            attributes["spanway.event.lag.us"] = change.lag_ns // 1000
            attributes["spanway.event.lag.source"] = change.lag_source
        link = link_of(change.traceparent)
        name = f"receive {change.kind}"
        self._below(name, change.received_ns, taken, attributes, link, kind=SpanKind.CONSUMER)

    def built(self, step: Step, began: int, ended: int) -> None:
        """The build."""
        attributes: dict[str, AttributeValue] = {
            "spanway.build.ingresses": step.compiled,
            "spanway.build.hosts": len(step.hosts),
            "spanway.build.backends": len(step.backends),
            "spanway.build.certificates": len(step.certificates),
            "spanway.build.problems": len(step.problems),
        }
        self._below("build", began, ended, attributes)

    def swapped(self, rolling: Rolling) -> None:
        """Every worker serves it, or a later one."""
        began = rolling.began_ns
        self._swapped = max((arrival.served_ns for arrival in rolling.arrivals), default=time.time_ns())
        swap = self._below("swap", began, self._swapped, {"spanway.swap.workers": len(rolling.arrivals)})
        above = set_span_in_context(swap)
        for arrival in sorted(rolling.arrivals, key=lambda one: one.index):
            attributes: dict[str, AttributeValue] = {
                "spanway.worker": arrival.index,
                "process.pid": arrival.pid,
                "spanway.swap.whole": arrival.whole,
                "spanway.swap.prepare.us": max(arrival.prepared_ns - arrival.sent_ns, 0) // 1000,
                "spanway.swap.busy.us": arrival.busy_ns // 1000,
            }
            self._below("swap worker", arrival.sent_ns, arrival.served_ns, attributes, above=above)
        self._chronicle.supersede(self.generation)
        if self._first is not None:
            self.end()
        else:
            self._timer = asyncio.get_running_loop().call_later(PATIENCE, self.end)

    def served(self, first: FirstRequest) -> None:
        """A worker has served its first request; of several workers the first to say so counts."""
        if self._first is None:
            self._first = first
            if first.span_id:
                self._chronicle.remember(self.origin.trace_id.hex(), first.trace_id.hex())
            if self._swapped:
                self.end()

    def end(self) -> None:
        """Nothing more is to come."""
        if self._timer is not None:
            self._timer.cancel()
        first, last = self._first, self._swapped or time.time_ns()
        if first is not None:
            attributes: dict[str, AttributeValue] = {"http.response.status_code": first.status} if first.status else {}
            link = None
            if first.span_id:
                link = _link(first.trace_id, first.span_id, 1)
            start = min(self._swapped, first.start_ns) if self._swapped else first.start_ns
            self._below("first request", start, first.end_ns, attributes, link)
            last = max(last, first.end_ns)
        self._root.end(last)
        self._chronicle.close(self)

    def _below(
        self,
        name: str,
        start: int,
        end: int,
        attributes: Mapping[str, AttributeValue],
        link: Link | None = None,
        *,
        kind: SpanKind = SpanKind.INTERNAL,
        above: Context | None = None,
    ) -> Span:
        links = [link] if link is not None else None
        tracer = self._chronicle.tracer
        span = tracer.start_span(name, above or self._context, kind, attributes, links, start_time=start)
        span.end(max(start, end))
        return span


class Chronicle:
    """Writes a trace per generation."""

    def __init__(self, provider: TracerProvider) -> None:
        self.tracer: Final[Tracer] = provider.get_tracer("spanway", __version__)
        self._open: OrderedDict[int, Story] = OrderedDict()
        self._firsts: OrderedDict[str, str] = OrderedDict()

    def __repr__(self) -> str:
        return f"Chronicle({list(self._open.values())})"

    def begin(
        self, generation: int, changes: Sequence[Change], count: int, step: Step, began: int, ended: int
    ) -> Story | None:
        """The trace of a generation that has been built; None where it is not recorded.

        ``changes`` are the events that it takes in, or the last of ``count`` of them. Times are Unix nanoseconds.
        """
        links = {change.traceparent: link for change in changes if (link := link_of(change.traceparent)) is not None}
        attributes: dict[str, AttributeValue] = {"spanway.generation": generation, "spanway.events": count}
        start = min((change.received_ns for change in changes), default=began)
        root = self.tracer.start_span(
            "table generation", Context(), SpanKind.INTERNAL, attributes, list(links.values()), start_time=start
        )
        if not root.is_recording():
            return None
        story = self._open[generation] = Story(self, generation, root)
        for change in changes:
            story.received(change, began)
        story.built(step, began, ended)
        while len(self._open) > _OPEN:
            next(iter(self._open.values())).end()
        return story

    def served(self, first: FirstRequest) -> None:
        """A worker reports the first request of a generation."""
        story = self._open.get(first.generation)
        if story is not None:
            story.served(first)

    def supersede(self, generation: int) -> None:
        """No request begins by an earlier generation any more."""
        for story in [story for story in self._open.values() if story.generation < generation]:
            story.end()

    def remember(self, generation: str, request: str) -> None:
        """Which trace had the first request of a generation, whose trace this is."""
        self._firsts[generation] = request
        while len(self._firsts) > _OPEN:
            self._firsts.popitem(last=False)

    def first(self, generation: str) -> str:
        """The trace (hex) of the first request that a generation served, by that of the generation; "" if unknown."""
        return self._firsts.get(generation, "")

    def close(self, story: Story) -> None:
        """A story has ended."""
        self._open.pop(story.generation, None)

    def end(self) -> None:
        """The proxy ends."""
        for story in list(self._open.values()):
            story.end()


def link_of(traceparent: str) -> Link | None:
    """A link to the context in an annotation; None if it holds none."""
    found = parse_traceparent(traceparent.encode("utf-8", "replace")) if traceparent else None
    return None if found is None else _link(*found)


def _link(trace_id: bytes, span_id: bytes, flags: int) -> Link:
    ids = int.from_bytes(trace_id, "big"), int.from_bytes(span_id, "big")
    return Link(SpanContext(*ids, is_remote=True, trace_flags=TraceFlags(flags)))
