"""A trace in the terminal: one line per span, its bar on a scale that all of them share, and where the time went.

``console.print(Waterfall(trace))`` fits itself to any width from 60 columns on and needs neither colour nor Unicode.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Final

from rich.console import Console, ConsoleOptions, RenderResult
from rich.style import Style
from rich.text import Text

from proxy.admin import labels
from proxy.admin.blame import index, shares
from proxy.admin.columns import DIM, ERROR, SEVERITY, Columns, Palette, rows
from proxy.admin.units import count, duration, share
from proxy.trace.semconv import GENERATION
from proxy.trace.tree import Node, TraceView
from proxy.trace.view import LinkView, SpanView

ROWS: Final = 48  # spans drawn of one trace: a screen; /traces/ID has all
PLACES: Final = 6  # places named in "where the time went"
LINKS: Final = 3  # links named of one span
NARROWEST: Final = 60

# Where the output cannot be Unicode: one character for one, so that nothing moves.
ASCII: Final = str.maketrans("━╺╸╼╾─╶╴│├└→·…✗▸µ", "=====---||`>-~x>u")


class Waterfall:
    """A rich renderable of one trace; ``palette`` keeps colours over several, ``most`` spans are drawn."""

    def __init__(self, trace: TraceView, palette: Palette | None = None, most: int = ROWS) -> None:
        self.trace: Final = trace
        self._palette: Final = palette or Palette()
        self._most: Final = most

    def __repr__(self) -> str:
        return f"Waterfall({self.trace.trace_id}, {len(self.trace.nodes)} spans)"

    def __rich_console__(self, console: Console, options: ConsoleOptions) -> RenderResult:
        width = max(options.max_width, NARROWEST)
        for line in self._lines(width):
            line.rstrip()
            line.truncate(width, overflow="ellipsis")
            if options.ascii_only:
                line.plain = line.plain.translate(ASCII).encode("ascii", "replace").decode()
            line.no_wrap = True
            yield line

    def _lines(self, width: int) -> Iterator[Text]:
        trace = self.trace
        by_id = index(trace)
        drawn = rows(trace.nodes[: self._most], by_id)
        columns = Columns(trace, drawn, by_id, self._palette, width)
        yield from self._head(width)
        yield columns.scale()
        for row in drawn:
            yield columns.span(row)
            for text, style in _notes(row.node, by_id, row.node.span is trace.root):
                yield columns.note(text, style, row.below)
        hidden = len(trace.nodes) - len(drawn) + trace.truncated
        if hidden:
            yield columns.note(f"… {count(hidden, 'more span')}: see /traces/{trace.trace_id}", DIM)
        yield from self._foot()

    def _head(self, width: int) -> Iterator[Text]:
        """The request, its status and time, and the whole trace id to copy: beside them, or below."""
        root = self.trace.root
        status = labels.status(root)
        tail = Text()
        if status:
            tail.append(f"  {status}", SEVERITY[labels.severity(root)])
        tail.append(f"  {duration(root.duration_ns)}", "bold")
        title = Text(labels.title(root))
        title.truncate(width - tail.cell_len, overflow="ellipsis")
        head = Text().append(title.plain, "bold").append_text(tail)
        trace_id = f"trace {self.trace.trace_id}"
        room = width - head.cell_len - len(trace_id) - 2
        if room > 0:
            yield head.append(f" {'─' * room} {trace_id}", DIM)
        else:
            yield head
            yield Text(trace_id, DIM)

    def _foot(self) -> Iterator[Text]:
        """Where most of the time went, in one line, and everybody's share of it in the next.

        The whole is the trace, which may be longer than its root: work may go on after the answer.
        """
        trace = self.trace
        parts = shares(trace)
        if len(trace.nodes) < 2 or not parts:
            return
        most = max(parts, key=lambda part: part.span_ns)
        place = labels.clean(most.place)
        line = Text("▸ where the time went: ")
        # The span's name says more, where the place is its own service.
        line.append(f"{place} · {labels.clean(most.span.name)}" if most.place == most.span.service else place, "bold")
        whole = duration(trace.duration_ns)
        if whole != duration(trace.root.duration_ns):
            whole = f"the trace's {whole}"
        line.append(f"  {duration(most.span_ns)} of {whole} ({share(most.span_ns, trace.duration_ns)})")
        yield line
        if len(parts) > 1:
            line = Text("  ")
            for i, part in enumerate(parts[:PLACES]):
                line.append(" · " if i else "", DIM)
                style = self._palette.of(part.span) if part.place == part.span.service else DIM
                line.append(labels.clean(part.place), style)
                line.append(f" {share(part.ns, trace.duration_ns)}", DIM)
            yield line


def _linked(span: SpanView, link: LinkView) -> str:
    """What a link leads to."""
    generation = link.attributes.get(GENERATION.name)
    if generation is not None:
        return f"the first request of generation {generation}, which came about in trace"
    return "linked to the caller's own trace" if span.kind == "SERVER" else "linked to trace"


def _notes(node: Node, by_id: Mapping[str, Node], root: bool) -> Iterator[tuple[str, Style]]:
    span = node.span
    if text := labels.phases(node, by_id):
        yield text, DIM
    for text in labels.wire(span):
        yield text, DIM
    text = labels.failure(span)
    # Said once, where it happened: what failed below usually passes upward.
    if text and not any(labels.failure(by_id[child].span) == text for child in node.children):
        yield f"✗ {text}", ERROR if labels.severity(span) == "error" else SEVERITY["warning"]
    for link in span.links[:LINKS]:
        yield f"→ {_linked(span, link)} {labels.clean(link.trace_id)}", DIM
    if node.orphan and not root:
        yield "(the span above it is not here)", DIM
