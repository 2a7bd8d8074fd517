"""What the demo says at its start, and what it has seen at its end."""

from __future__ import annotations

from collections import Counter, deque
from statistics import median
from typing import Final, NamedTuple

from rich.console import Console, ConsoleOptions, Group, RenderableType, RenderResult
from rich.style import Style
from rich.text import Text

from proxy.admin import labels
from proxy.admin.blame import is_proxy, shares
from proxy.admin.columns import DIM, ERROR
from proxy.admin.source import Running
from proxy.admin.units import count, duration, share
from proxy.demo.collector import printable
from proxy.demo.fleet import Fleet
from proxy.demo.traffic import HOST, Traffic
from proxy.trace import semconv, semconv_wire
from proxy.trace.ledger import ExportCounters
from proxy.trace.tree import TraceView

MOST_ROUTES: Final = 256  # by name; the demo has a dozen
RECENT: Final = 10_000  # requests whose self time is kept
PLACES: Final = 6  # named in "time went"
LEAST_TEXT: Final = 40  # columns


class Wait(NamedTuple):
    """One attempt that `spanway wire` has divided: who was to blame, and how long it took beyond the route's usual."""

    verdict: str
    excess_ns: int


class Tally:
    """Adds up traces as they come (`Live.on_trace`)."""

    def __init__(self) -> None:
        self.traces = 0
        self.joined = 0  # with spans of the proxy and of a service
        self.failed = 0
        self.waits: Final[deque[Wait]] = deque(maxlen=RECENT)
        self._places: Final[Counter[str]] = Counter()  # ns
        self._routes: Final[dict[str, tuple[int, int]]] = {}  # requests and ns
        self._self_us: Final[deque[int]] = deque(maxlen=RECENT)
        self._slowest: TraceView | None = None

    def __repr__(self) -> str:
        return f"Tally({self.traces} traces, {self.joined} joined, {self.failed} failed)"

    def add(self, trace: TraceView, stands_for: int = 1) -> None:
        """Count a trace."""
        own = [node.span for node in trace.nodes if is_proxy(node.span)]
        if not any(semconv.HTTP_REQUEST_METHOD.name in span.attributes for span in own):
            return  # a service talking to itself, or the making of a table: no request of the demo's
        self.traces += stands_for
        self.joined += stands_for * (len(own) < len(trace.nodes))
        self.failed += stands_for * (labels.severity(trace.root) == "error")
        for span in own:
            verdict = span.attributes.get(semconv_wire.VERDICT.name)
            excess_us = span.attributes.get(semconv_wire.EXCESS_US.name)
            if isinstance(verdict, str) and isinstance(excess_us, int):
                self.waits.append(Wait(verdict, excess_us * 1000))
        for part in shares(trace):
            self._places[part.place] += part.ns
        name = next((span.name for span in (node.span for node in trace.nodes) if not is_proxy(span)), own[0].name)
        if name in self._routes or len(self._routes) < MOST_ROUTES:
            requests, ns = self._routes.get(name, (0, 0))
            self._routes[name] = requests + 1, ns + trace.duration_ns
        us = own[0].attributes.get(semconv.SELF_US.name)
        if isinstance(us, int):
            self._self_us.append(us)
        if self._slowest is None or trace.duration_ns > self._slowest.duration_ns:
            self._slowest = trace

    @property
    def slowest(self) -> TraceView | None:
        """The slowest trace."""
        return self._slowest

    def slowest_route(self) -> tuple[str, int, float]:
        """The kind of request that takes longest on average: its name, how many there were, and the average in ns."""
        name, (requests, ns) = max(self._routes.items(), key=lambda item: item[1][1] / item[1][0])
        return name, requests, ns / requests

    def places(self) -> list[tuple[str, float]]:
        """The places where the time went with their share of it in percent, the largest first."""
        total = self._places.total() or 1
        return [(place, 100 * ns / total) for place, ns in self._places.most_common(PLACES)]

    def self_us(self) -> float | None:
        """What the proxy itself takes of a request, microseconds, the median."""
        return median(self._self_us) if self._self_us else None


def opening(running: Running, fleet: Fleet, seconds: float | None) -> RenderableType:
    """What has been started, where it is, and how to stop it."""
    tracing = running.settings.tracing
    collector = printable(tracing)
    lines = _Lines()
    for path, name in (("", "shop"), ("/api/cart", "cart"), ("/api/stock", "stock")):
        lines.add(name, f"{HOST}{path}".ljust(26) + f"→ {fleet.addresses[name]}")
    lines.add("proxy", f"http://{HOST}:{running.http[0].port}/products/teapot  (open it, or curl it)")
    lines.add("admin", f"http://{running.admin}  (/traces, /routes, /metrics)")
    if collector:
        text = f"all spans also go to {collector} ({tracing.protocol}); search its UI for the service shop"
    else:
        text = "OTEL_EXPORTER_OTLP_ENDPOINT=http://localhost:4317 ./dev demo sends all spans there too"
    lines.add("Jaeger", text)
    lines.add("stop", "Ctrl-C" + (f", or by itself after {seconds:g} s" if seconds is not None else ""))
    return Group("", Text("Three services behind the proxy, and every request one trace.", "bold"), "", lines, "")


def closing(
    tally: Tally, traffic: Traffic, export: ExportCounters | None = None, collector: str = ""
) -> RenderableType:
    """What was seen; ``export`` is the proxy's account of its spans, if it still could be asked."""
    lines = _Lines()
    statuses = ", ".join(f"{number} with {status}" for status, number in sorted(traffic.statuses.items()))
    unanswered = f", {traffic.failures.total()} not" if traffic.failures else ""
    lines.add("requests", f"{traffic.answered} answered{unanswered}" + (f": {statuses}" if statuses else ""))
    failed = f", {tally.failed} failed" if tally.failed else ""
    lines.add("traces", f"{tally.traces}, {tally.joined} of them with the services' own spans{failed}")
    if tally.slowest is not None:
        name, requests, ns = tally.slowest_route()
        lines.add("slowest", f"{labels.clean(name)}: {duration(ns)} on average, {count(requests, 'request')}")
        lines.add("", f"{labels.title(tally.slowest.root)}: {duration(tally.slowest.duration_ns)} once")
        lines.add("", f"trace {tally.slowest.trace_id}", DIM)
        places = " · ".join(f"{labels.clean(place)} {share(percent, 100)}" for place, percent in tally.places())
        lines.add("time went", places)
    if (us := tally.self_us()) is not None:
        lines.add("the proxy", f"itself took {duration(us * 1000)} of a request (median)")
    if export is not None:
        lost = sum(export.dropped.values()) + export.rejected
        where = f"{export.acknowledged} accepted by {collector}" if collector else "kept in memory: no collector is set"
        trouble = [f"{lost} lost"] if lost else []
        if collector and export.pending and export.last_error:
            trouble.append(f"{export.pending} not accepted yet: {labels.clean(export.last_error)}")
        style = ERROR if trouble else ""
        lines.add("spans", "; ".join([f"{export.recorded} of the proxy, {where}", *trouble]), style)
    return Group(Text("What happened", "bold"), lines)


class _Lines:
    """Labels in a column, and what is said of each beside it, wrapped there."""

    def __init__(self) -> None:
        self._lines: Final[list[tuple[str, Text]]] = []

    def __rich_console__(self, console: Console, options: ConsoleOptions) -> RenderResult:
        indent = 2 + max(len(label) for label, _ in self._lines) + 2
        for label, text in self._lines:
            shown = f"  {label}".ljust(indent)
            for part in text.wrap(console, max(options.max_width - indent, LEAST_TEXT)):
                yield Text().append(shown, DIM).append_text(part)
                shown = " " * indent

    def add(self, label: str, text: str, style: Style | str = "") -> None:
        """One more line."""
        self._lines.append((label, Text(text, style)))
