"""When is a trace complete? Its spans come from several processes, each sending when it likes.

A trace is told once: when its root has ended and nothing has been added for a while; or later, if an application that
is known to send spans has not sent its own; or at the latest some seconds after its root. One whose root does not come
is told when nothing has been added for long. Whatever comes after that is dropped.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Final

from proxy.admin.blame import is_proxy, is_wire
from proxy.trace import semconv
from proxy.trace.tree import TraceView, grow
from proxy.trace.view import SpanView

QUIET_S: Final = 1.5  # longer than the proxy holds a batch back (Tracing.delay, 1 s)
LATEST_S: Final = 6.0  # after the root: longer than the SDKs hold a batch back (OTEL_BSP_SCHEDULE_DELAY, 5 s)
ROOTLESS_S: Final = 30.0  # without growth: half of nginx's proxy_read_timeout
MOST_TRACES: Final = 2000  # growing at a time; the oldest is told early when there are more
MOST_SPANS: Final = 5000  # of one trace; further ones are dropped
MOST_TOLD: Final = 10_000  # ids remembered, so that a late span does not make a second trace
MOST_PEERS: Final = 1024

Peer = tuple[object, object]


class _Growing:
    __slots__ = ("changed", "rooted", "spans")

    def __init__(self, now: float) -> None:
        self.changed = now
        self.rooted: float | None = None  # since when
        self.spans: dict[str, SpanView] = {}


class Gatherer:
    """Puts spans together and gives each trace out once; times are seconds of any one clock that only goes forward."""

    def __init__(self, quiet: float = QUIET_S, latest: float = LATEST_S) -> None:
        self._quiet: Final = quiet
        self._latest: Final = latest
        self._growing: Final[dict[str, _Growing]] = {}
        self._told: Final[dict[str, None]] = {}
        self._speaking: Final[set[Peer]] = set()  # upstreams whose own spans have been seen
        self.late = 0  # spans that came after their trace was told

    def __repr__(self) -> str:
        return f"Gatherer({len(self._growing)} traces growing, {len(self._told)} told, {self.late} spans late)"

    def __len__(self) -> int:
        return len(self._growing)

    def add(self, spans: Iterable[SpanView], now: float) -> None:
        """Take in spans, in any order; one that is there already changes nothing."""
        for span in spans:
            if span.trace_id in self._told:
                self.late += 1
                continue
            growing = self._growing.get(span.trace_id)
            if growing is None:
                growing = self._growing[span.trace_id] = _Growing(now)
            if span.span_id in growing.spans or len(growing.spans) >= MOST_SPANS:
                continue
            growing.spans[span.span_id] = span
            growing.changed = now
            # The proxy's SERVER span is the last to end, even where the caller has begun the trace.
            if growing.rooted is None and (not span.parent_id or (is_proxy(span) and span.kind == "SERVER")):
                growing.rooted = now

    @property
    def rooted(self) -> int:
        """The growing traces whose root has come."""
        return sum(growing.rooted is not None for growing in self._growing.values())

    def complete(self, now: float) -> list[TraceView]:
        """The traces that are complete by now, oldest first; they are forgotten here."""
        done = {trace_id: None for trace_id, growing in self._growing.items() if self._is_complete(growing, now)}
        surplus = len(self._growing) - len(done) - MOST_TRACES
        for trace_id in self._growing:
            if surplus <= 0:
                break
            if trace_id not in done:
                done[trace_id] = None
                surplus -= 1
        return [self._tell(trace_id) for trace_id in done]

    def finish(self) -> list[TraceView]:
        """Every trace that is there, complete or not: at the end."""
        return [self._tell(trace_id) for trace_id in list(self._growing)]

    def _is_complete(self, growing: _Growing, now: float) -> bool:
        still = now - growing.changed
        if growing.rooted is None:
            return still >= ROOTLESS_S
        return now - growing.rooted >= self._latest or (still >= self._quiet and not self._awaits(growing))

    def _awaits(self, growing: _Growing) -> bool:
        """Whether an upstream that sends spans has not sent those of this trace."""
        parents = {span.parent_id for span in growing.spans.values() if not is_wire(span)}
        return any(
            span.span_id not in parents and _peer(span) in self._speaking
            for span in growing.spans.values()
            if is_proxy(span) and span.kind == "CLIENT" and semconv.HTTP_RESPONSE_STATUS_CODE.name in span.attributes
        )

    def _tell(self, trace_id: str) -> TraceView:
        spans = self._growing.pop(trace_id).spans
        self._told[trace_id] = None
        if len(self._told) > MOST_TOLD:
            del self._told[next(iter(self._told))]
        for span in spans.values():
            if is_wire(span):
                continue  # of the tap, not of the upstream
            above = spans.get(span.parent_id)
            if above is not None and is_proxy(above) and above.kind == "CLIENT" and len(self._speaking) < MOST_PEERS:
                self._speaking.add(_peer(above))
        return grow(list(spans.values()))


def _peer(span: SpanView) -> Peer:
    return span.attributes.get(semconv.SERVER_ADDRESS.name), span.attributes.get(semconv.SERVER_PORT.name)
