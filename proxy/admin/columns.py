"""The columns of a waterfall: service, name in its tree, bar, duration, status; how wide each is, and their lines."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from typing import Final

from rich.cells import cell_len, set_cell_size
from rich.style import Style
from rich.text import Text

from proxy.admin import labels
from proxy.admin.bars import bar
from proxy.admin.blame import is_proxy
from proxy.admin.units import duration
from proxy.trace.tree import Node, TraceView
from proxy.trace.view import SpanView

MOST_SERVICE: Final = 14
MOST_SERVICES: Final = 1024  # remembered with their colours: names come from elsewhere
MOST_NAME: Final = 64
LEAST_NAME: Final = 18
LEAST_LABEL: Final = 8
GAP: Final = 2
TICK_ROOM: Final = 12  # columns between two labels of the scale, at least

DIM: Final = Style(dim=True)
ERROR: Final = Style(color="red", bold=True)
SEVERITY: Final = {"error": ERROR, "warning": Style(color="yellow"), "": Style(color="green")}
PROXY: Final = Style(color="cyan", bold=True)
# The terminal's own sixteen colours, which its theme keeps legible; red is for errors.
COLOURS: Final = (
    "green",
    "magenta",
    "blue",
    "yellow",
    "bright_green",
    "bright_magenta",
    "bright_blue",
    "bright_yellow",
)


class Palette:
    """A colour per service, the same in every trace of a session; the proxy has its own."""

    def __init__(self) -> None:
        self._styles: Final[dict[str, Style]] = {}

    def __repr__(self) -> str:
        return f"Palette({', '.join(self._styles)})"

    def of(self, span: SpanView) -> Style:
        """The colour of the span's service; when all are in use they begin anew."""
        if is_proxy(span):
            return PROXY
        style = self._styles.get(span.service)
        if style is None:
            style = Style(color=COLOURS[len(self._styles) % len(COLOURS)])
            if len(self._styles) < MOST_SERVICES:
                self._styles[span.service] = style
        return style


class Row:
    """A node in its place: ``guide`` draws the branches before its name, ``below`` continues them on lines under it."""

    __slots__ = ("below", "guide", "label", "node")

    def __init__(self, node: Node, guide: str, below: str, label: str) -> None:
        self.node: Final = node
        self.guide: Final = guide
        self.below: Final = below
        self.label: Final = label


def rows(nodes: Sequence[Node], by_id: Mapping[str, Node]) -> list[Row]:
    """The nodes with the branches of their tree; ``nodes`` are in drawing order."""
    drawn: list[Row] = []
    last: set[str] = set()  # spans after which no sibling comes
    path: list[bool] = []  # for each depth above: whether a sibling is still to come
    for node in nodes:
        if node.children:
            last.add(node.children[-1])
        del path[max(node.depth - 1, 0) :]
        branches = "".join("│ " if more else "  " for more in path)
        more = node.depth > 0 and node.span.span_id not in last
        guide = branches + (("├ " if more else "└ ") if node.depth else "")
        if node.depth:
            path.append(more)
        below = "".join("│ " if more else "  " for more in path) + ("│ " if node.children else "  ")
        drawn.append(Row(node, guide, below, labels.label(node, by_id)))
    return drawn


class Columns:
    """The widths for one trace, and its lines drawn in them."""

    def __init__(
        self, trace: TraceView, drawn: Sequence[Row], by_id: Mapping[str, Node], palette: Palette, width: int
    ) -> None:
        self._trace: Final = trace
        self._by_id: Final = by_id
        self._palette: Final = palette
        spans = [row.node.span for row in drawn]
        self._service: Final = min(max(cell_len(labels.clean(span.service)) for span in spans), MOST_SERVICE)
        self._time: Final = max(len(duration(span.duration_ns)) for span in spans)
        self._status: Final = max(len(labels.status(span)) for span in spans)
        free = width - self._service - self._time - self._status - GAP * (4 if self._status else 3)
        # The names get what they need, but no more than half: the bars are what one looks at.
        needed = max(cell_len(row.guide) + cell_len(row.label) for row in drawn)
        self._name: Final = max(min(needed, free // 2, MOST_NAME), min(LEAST_NAME, free // 2))
        self._bar: Final = free - self._name

    def __repr__(self) -> str:
        return f"Columns({self._service}, {self._name}, {self._bar}, {self._time}, {self._status})"

    def scale(self) -> Text:
        """The scale over the bars, and what their two weights mean before it."""
        legend = "━ own time ─ waiting"
        room = self._service + GAP + self._name
        line = set_cell_size(legend if cell_len(legend) <= room else "", room + GAP)
        return Text(line + self._ticks(), DIM)

    def _ticks(self) -> str:
        total = self._trace.duration_ns
        if not total:
            return "0"
        ticks = "0"
        for ns in _round_steps(total, max(self._bar // TICK_ROOM, 2)):
            at = round(self._bar * ns / total)
            text = _plain(ns)
            if at + len(text) <= self._bar + GAP + self._time and at > len(ticks):
                ticks = ticks.ljust(at) + text
        return ticks

    def span(self, row: Row) -> Text:
        """One span's line."""
        span = row.node.span
        colour = self._palette.of(span)
        severity = labels.severity(span)
        line = Text()
        line.append(set_cell_size(labels.clean(span.service), self._service) + " " * GAP, colour)
        guide, name = _fit(row.guide, row.label, self._name)
        line.append(guide, DIM)
        line.append(name, SEVERITY["error"] if severity == "error" else "")
        line.append(" " * (self._name - cell_len(guide) - cell_len(name) + GAP))
        waits = [(child.start_ns, child.end_ns) for child in (self._by_id[each].span for each in row.node.children)]
        scale = (self._trace.start_ns, self._trace.end_ns)
        drawn = bar((span.start_ns, span.end_ns), waits, scale, self._bar)
        line.append(drawn, SEVERITY["error"] if severity == "error" else colour)
        line.append(" " * GAP + duration(span.duration_ns).rjust(self._time))
        if status := labels.status(span):
            line.append(" " * GAP + status, SEVERITY[severity])
        return line

    def note(self, text: str, style: Style, below: str = "") -> Text:
        """A remark under a span, from the name's column to the end of the line."""
        line = Text(" " * (self._service + GAP))
        line.append(_fit(below, "", self._name)[0], DIM)
        line.append(text, style)
        return line


def _fit(guide: str, name: str, width: int) -> tuple[str, str]:
    """Both cut to ``width``: the branches of a very deep tree at their left, the name at its right."""
    most = max(width - LEAST_LABEL, width // 2)
    if cell_len(guide) > most:
        guide = "… " + guide[len(guide) - (most - 2) // 2 * 2 :]
    room = width - cell_len(guide)
    return guide, name if cell_len(name) <= room else set_cell_size(name, room - 1).rstrip() + "…"


def _round_steps(total: int, most: int) -> Iterator[int]:
    """Multiples of a round number (1, 2 or 5 times a power of ten), at most ``most``, below ``total``."""
    least = total / (most + 1)
    power = 10 ** math.floor(math.log10(max(least, 1)))
    step = next(power * factor for factor in (1, 2, 5, 10) if power * factor >= least)
    yield from range(step, total, step)


def _plain(ns: int) -> str:
    """A round time without needless digits: ``50 ms``, ``1.5 s``."""
    for unit, size in (("s", 1_000_000_000), ("ms", 1_000_000), ("µs", 1000)):
        if ns >= size:
            return f"{ns / size:g} {unit}"
    return f"{ns} ns"
