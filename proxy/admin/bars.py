"""A span as a bar of text: where it worked itself, and where it waited for a child.

Box-drawing characters have light and heavy halves, so a cell shows two moments in three states and the bar reads the
same without colour: ``━`` own time, ``─`` waiting for a child, blank outside the span.
"""

from __future__ import annotations

import itertools
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

Interval = tuple[int, int]  # ns, half-open

NOTHING, WAITING, OWN = 0, 1, 2
# By the states of the left and the right half of a cell.
GLYPHS: Final = ((" ", "╶", "╺"), ("╴", "─", "╼"), ("╸", "╾", "━"))


def union(intervals: Iterable[Interval], within: Interval) -> list[Interval]:
    """The intervals cut to ``within``, sorted, and joined where they touch."""
    joined: list[Interval] = []
    low, high = within
    for start, end in sorted((max(start, low), min(end, high)) for start, end in intervals):
        if start >= end:
            continue
        if joined and start <= joined[-1][1]:
            joined[-1] = (joined[-1][0], max(end, joined[-1][1]))
        else:
            joined.append((start, end))
    return joined


def bar(span: Interval, children: Iterable[Interval], scale: Interval, width: int) -> str:
    """Draw ``span`` on ``scale`` with ``width`` characters; ``children`` are when it waited.

    However short it is, at least half a cell is drawn.
    """
    halves = states(span, union(children, span), scale, 2 * width)
    return "".join(GLYPHS[halves[i]][halves[i + 1]] for i in range(0, 2 * width, 2))


def states(span: Interval, waits: Sequence[Interval], scale: Interval, steps: int) -> list[int]:
    """The state of each of ``steps`` equal parts of ``scale``; ``waits`` are sorted, disjoint and within ``span``."""
    drawn = [NOTHING] * steps
    start, end = span
    whole = max(scale[1] - scale[0], 1)

    def step(moment: int) -> int:
        return (moment - scale[0]) * steps // whole

    first = min(max(step(start), 0), steps - 1)
    last = min(max(step(end - 1), first), steps - 1)
    index = 0
    for i in range(first, last + 1):
        # Times are multiplied by `steps` to stay in whole numbers.
        low = max(scale[0] * steps + i * whole, start * steps)
        high = min(scale[0] * steps + (i + 1) * whole, end * steps)
        while index < len(waits) and waits[index][1] * steps <= low:
            index += 1
        waited = 0
        for begin, finish in itertools.islice(waits, index, None):
            if begin * steps >= high:
                break
            waited += min(finish * steps, high) - max(begin * steps, low)
        drawn[i] = WAITING if 2 * waited > max(high - low, 0) else OWN
    return drawn
