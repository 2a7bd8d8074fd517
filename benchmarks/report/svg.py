"""Pictures as inline SVG: bars of ratios, curves over a logarithmic axis, distributions by percentile.

Colours of text and axes are the page's (currentColor), so that the pictures follow its light or dark.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from html import escape
from itertools import pairwise
from typing import Final

from benchmarks.measure.distribution import Distribution
from benchmarks.report.figures import number
from benchmarks.report.series import Line, Row, colour, title

WIDTH: Final = 820
LABELS: Final = 210  # pixels for names
VALUES: Final = 200  # pixels for figures
ROW: Final = 24
SHARES: Final = (0.5, 0.9, 0.99, 0.999, 0.9999)  # the percentiles that have a line
STEPS: Final = 90  # points of a percentile curve
LEFT, RIGHT, TOP, BOTTOM = 64, 190, 14, 40  # margins of the plots with two axes
HEIGHT: Final = 300


def bars(rows: Sequence[Row], unit: str, reference: str) -> str:
    """A bar for each variant as long as its ratio to the reference, with the rounds' whole range as a whisker."""
    longest = max((row.length.high for row in rows), default=1.0) or 1.0
    scale = (WIDTH - LABELS - VALUES) / max(longest, 1.0)
    height = len(rows) * ROW + 22
    parts = [_open(height, f"ratios to {reference}")]
    one = LABELS + scale
    parts.append(f'<line x1="{one:.1f}" y1="0" x2="{one:.1f}" y2="{height - 18}" class="axis" stroke-dasharray="3 3"/>')
    parts.append(f'<text x="{one:.1f}" y="{height - 4}" class="small" text-anchor="middle">{escape(reference)}</text>')
    for index, row in enumerate(rows):
        top = index * ROW + 2
        middle = top + ROW / 2 - 2
        wide = max(1.0, row.length.median * scale)
        invalid = ' opacity="0.25"' if row.invalid else ""
        shape = f'<rect x="{LABELS}" y="{top}" width="{wide:.1f}" height="{ROW - 7}" rx="2"'
        parts.append(
            f'<text x="{LABELS - 8}" y="{middle + 4:.1f}" text-anchor="end">{escape(title(row.variant))}</text>'
        )
        parts.append(f'{shape} fill="{colour(row.variant)}"{invalid}/>')
        low, high = (LABELS + each * scale for each in (row.length.low, row.length.high))
        parts.append(f'<line x1="{low:.1f}" y1="{middle:.1f}" x2="{high:.1f}" y2="{middle:.1f}" class="whisker"/>')
        words = f"{row.length.median:.2f} x" + (f"  ({number(row.value.median)} {unit})" if unit else "")
        shown = f"invalid: {row.invalid}" if row.invalid else words
        style = ' class="invalid"' if row.invalid else ""
        parts.append(f'<text x="{max(high, LABELS + wide) + 8:.1f}" y="{middle + 4:.1f}"{style}>{escape(shown)}</text>')
    return "".join([*parts, "</svg>"])


def curves(lines: Sequence[Line], axis: str, unit: str) -> str:
    """A line for each variant over a logarithmic axis, from zero up."""
    xs = sorted({x for line in lines for x, _ in line.points})
    top = max((spread.high for line in lines for _, spread in line.points), default=1.0) * 1.05
    first, last = (math.log10(max(each, 1e-9)) for each in (xs[0], xs[-1]))
    plot = _Plot((first, max(last, first + 1e-6)), (0.0, top))
    parts = [_open(HEIGHT, axis)]
    parts += [plot.rule(value, number(value)) for value in _ticks(top)]
    parts += [plot.mark(math.log10(max(x, 1e-9)), f"{x:,.0f}") for x in xs]
    ends = []
    for line in lines:
        places = [plot.at(math.log10(max(x, 1e-9)), spread.median) for x, spread in line.points]
        parts.append(_path(places, colour(line.variant)))
        for (x, spread), (left, _) in zip(line.points, places, strict=True):
            low, high = (plot.at(math.log10(max(x, 1e-9)), each)[1] for each in (spread.low, spread.high))
            parts.append(f'<line x1="{left:.1f}" y1="{low:.1f}" x2="{left:.1f}" y2="{high:.1f}" class="whisker"/>')
        ends.append((places[-1][1], line.variant))
    parts += _names(ends)
    parts.append(plot.captions(axis, unit))
    return "".join([*parts, "</svg>"])


def percentiles(found: Mapping[str, Distribution], unit: str = "us") -> str:
    """Latency by percentile, both on logarithmic scales: the tail is the right half."""
    deepest = -math.log10(1 - SHARES[-1])
    shares = [1 - 10 ** (-deepest * step / STEPS) for step in range(1, STEPS + 1)]
    drawn = {name: each.percentiles(shares) for name, each in found.items()}
    least = min(min(values) for values in drawn.values())
    most = max(max(values) for values in drawn.values())
    plot = _Plot((0.0, deepest), (math.log10(max(least, 1.0)), math.log10(max(most, least * 1.1))))
    parts = [_open(HEIGHT, "latency by percentile")]
    for exponent in range(math.floor(plot.y[0]), math.ceil(plot.y[1]) + 1):
        for digit in (1, 2, 5):
            value = digit * 10.0**exponent
            if plot.y[0] <= math.log10(value) <= plot.y[1]:
                parts.append(plot.rule(math.log10(value), number(value)))
    parts += [plot.mark(-math.log10(1 - share), f"{share * 100:.10g} %") for share in SHARES]
    ends = []
    for name, values in drawn.items():
        # Beyond one value in the total there is nothing to be said of a percentile.
        known = [(s, v) for s, v in zip(shares, values, strict=True) if (1 - s) * found[name].total >= 1]
        places = [plot.at(-math.log10(1 - share), math.log10(max(value, 1.0))) for share, value in known]
        parts.append(_path(places, colour(name)))
        ends.append((places[-1][1], name))
    parts += _names(ends)
    parts.append(plot.captions("percentile", unit))
    return "".join([*parts, "</svg>"])


class _Plot:
    """Two linear scales within the margins."""

    def __init__(self, x: tuple[float, float], y: tuple[float, float]) -> None:
        self.x = x
        self.y = y

    def __repr__(self) -> str:
        return f"_Plot({self.x}, {self.y})"

    def at(self, x: float, y: float) -> tuple[float, float]:
        """A point in pixels."""
        across = (x - self.x[0]) / (self.x[1] - self.x[0])
        up = (y - self.y[0]) / ((self.y[1] - self.y[0]) or 1.0)
        return LEFT + across * (WIDTH - LEFT - RIGHT), HEIGHT - BOTTOM - up * (HEIGHT - TOP - BOTTOM)

    def rule(self, y: float, words: str) -> str:
        """A horizontal line and its figure."""
        _, down = self.at(self.x[0], y)
        line = f'<line x1="{LEFT}" y1="{down:.1f}" x2="{WIDTH - RIGHT}" y2="{down:.1f}" class="axis"/>'
        return f'{line}<text x="{LEFT - 6}" y="{down + 4:.1f}" class="small" text-anchor="end">{words}</text>'

    def mark(self, x: float, words: str) -> str:
        """A vertical line and its figure."""
        across, _ = self.at(x, self.y[0])
        line = f'<line x1="{across:.1f}" y1="{TOP}" x2="{across:.1f}" y2="{HEIGHT - BOTTOM}" class="axis"/>'
        below = f'y="{HEIGHT - BOTTOM + 14}" class="small" text-anchor="middle"'
        return f'{line}<text x="{across:.1f}" {below}>{escape(words)}</text>'

    @staticmethod
    def captions(x: str, y: str) -> str:
        """What the axes are of."""
        middle = LEFT + (WIDTH - LEFT - RIGHT) / 2
        below = f'<text x="{middle:.0f}" y="{HEIGHT - 6}" class="small" text-anchor="middle">{escape(x)}</text>'
        return f'{below}<text x="4" y="{TOP}" class="small">{escape(y)}</text>'


def _open(height: float, label: str) -> str:
    return f'<svg viewBox="0 0 {WIDTH} {height:.0f}" role="img" aria-label="{escape(label)}">'


def _path(places: Sequence[tuple[float, float]], stroke: str) -> str:
    points = " ".join(f"{x:.1f},{y:.1f}" for x, y in places)
    return f'<polyline points="{points}" fill="none" stroke="{stroke}" stroke-width="2" stroke-linejoin="round"/>'


def _names(ends: Sequence[tuple[float, str]]) -> list[str]:
    """A name at the right end of each line, moved apart where they would overlap."""
    ordered = sorted(ends)
    heights = [height for height, _ in ordered]
    for index, (above, below) in enumerate(pairwise(range(len(heights)))):
        heights[index + 1] = max(heights[below], heights[above] + 15)
    over = max(0.0, (heights[-1] if heights else 0.0) - (HEIGHT - BOTTOM + 10))
    return [
        f'<text x="{WIDTH - RIGHT + 8}" y="{height - over + 4:.1f}" fill="{colour(name)}" class="name">'
        f"{escape(title(name))}</text>"
        for height, (_, name) in zip(heights, ordered, strict=True)
    ]


def _ticks(top: float) -> list[float]:
    """Some four round figures from zero to ``top``."""
    raw = top / 4 or 1.0
    power = 10 ** math.floor(math.log10(raw))
    step = next(power * each for each in (1, 2, 5, 10) if power * each >= raw)
    return [step * count for count in range(int(top / step) + 1)]
