"""Waterfalls while they happen: reads recent spans as they come, and draws each trace once it is complete.

Nobody can read more than a trace a second. So what is drawn is chosen (failed before slow before usual, and what has
not been seen before what has), and what is left out is counted. What is not even decoded, under heavy traffic, is
chosen by trace id, so that the traces that are left stay whole.
"""

from __future__ import annotations

import asyncio
import io
import math
import sys
import time
from collections import Counter
from collections.abc import Callable
from typing import Final, NamedTuple

from rich.console import Console
from rich.text import Text

from proxy.admin import labels
from proxy.admin.columns import DIM, Palette
from proxy.admin.gather import Gatherer
from proxy.admin.source import Cursor, Running, Source
from proxy.admin.units import count, duration
from proxy.admin.waterfall import Waterfall
from proxy.settings import KIB
from proxy.trace.tree import TraceView
from proxy.trace.view import decode

POLL_S: Final = 0.25
EVERY_S: Final = 1.0  # a waterfall, in the long run
BURST: Final = 5  # waterfalls at once, after a pause: one page of a browser makes several requests
REMARK_S: Final = 5.0  # between two lines about what was left out
PATIENCE_S: Final = 3.0  # how long a trace waits for its turn
WAITING: Final = 64  # traces that wait at most
BUDGET: Final = 128 * KIB  # of spans decoded per poll, some 500: a few milliseconds
NAMES: Final = 512  # kinds of requests remembered as seen
DEEPEST: Final = 3  # hex digits of the trace id that choose, at most: one trace of 4096

FAILED: Final = 12.0  # a failed trace is as interesting as one that took 2 ** 12 ms


class _Waiting(NamedTuple):
    since: float
    trace: TraceView


class Live:
    """Draws the traces of ``source`` on ``console``.

    A waterfall every ``every`` seconds in the long run, ``burst`` at once. ``on_trace`` is told of every complete
    trace, drawn or not, with how many it stands for (1, or a power of 16 under heavy traffic). ``more`` is where all
    of them are, for the line about what was left out.
    """

    def __init__(
        self,
        source: Source,
        console: Console,
        *,
        every: float = EVERY_S,
        burst: int = BURST,
        more: str = "",
        on_trace: Callable[[TraceView, int], None] | None = None,
        gatherer: Gatherer | None = None,
    ) -> None:
        self._source: Final = source
        self._console: Final = console
        self._every: Final = every
        self._burst: Final = burst
        self._more: Final = more
        self._on_trace: Final = on_trace
        self._gatherer: Final = gatherer or Gatherer()
        self._palette: Final = Palette()
        self._cursor = Cursor()
        self._depth = 0  # hex digits that must be zero
        self._calm = 0  # polls in a row that were far below the budget
        self._waiting: list[_Waiting] = []
        self._tokens = float(burst)
        self._refilled = 0.0
        self._remarked = -REMARK_S
        self._seen: Final[Counter[str]] = Counter()
        self._left_out = 0
        self._left_failed = 0
        self._left_slowest: TraceView | None = None
        self.drawn = 0

    def __repr__(self) -> str:
        return f"Live({self.drawn} drawn, {len(self._waiting)} waiting, {self._left_out} left out, {self._gatherer!r})"

    @property
    def growing(self) -> int:
        """Traces whose root has come and that are not told yet; `finish` accounts for them."""
        return self._gatherer.rooted

    async def run(self) -> None:
        """Draw until cancelled. What is kept from before is not drawn: one wants to see what happens from now on."""
        self._cursor, _ = await self._source.batches_since(self._cursor)
        while True:
            await asyncio.sleep(POLL_S)
            await self.step(time.monotonic())

    async def step(self, now: float) -> None:
        """One poll; ``now`` is seconds of a clock that only goes forward."""
        self._cursor, batches = await self._source.batches_since(self._cursor)
        self._gatherer.add(decode(batches, "0" * self._depth), now)
        self._regulate(sum(map(len, batches)))
        for trace in self._gatherer.complete(now):
            self._take(trace, now)
        self._draw(now)

    def finish(self) -> None:
        """Account for every trace that is there, complete or not, without drawing it."""
        for trace in self._gatherer.finish():
            self._account(trace)
        self._waiting.clear()

    def _regulate(self, size: int) -> None:
        """Decode a sixteenth from now on where there was too much; everything again after a while of calm."""
        decoded = size >> (4 * self._depth)
        self._calm = self._calm + 1 if decoded * 32 < BUDGET else 0
        if decoded > BUDGET and self._depth < DEEPEST:
            self._depth += 1
            self._calm = 0
        elif self._depth and self._calm * POLL_S >= REMARK_S:
            self._depth -= 1
            self._calm = 0

    def _take(self, trace: TraceView, now: float) -> None:
        self._account(trace)
        self._waiting.append(_Waiting(now, trace))
        if len(self._waiting) > WAITING:
            self._leave(min(self._waiting, key=self._interest))

    def _account(self, trace: TraceView) -> None:
        if self._on_trace is not None:
            self._on_trace(trace, 16**self._depth)
        self._left_out += 16**self._depth - 1

    def _draw(self, now: float) -> None:
        """Whatever there are tokens for: all that wait if they are few, the most interesting if they are many."""
        self._tokens = min(self._tokens + (now - self._refilled) / self._every, self._burst)
        self._refilled = now
        chosen: list[TraceView] = []
        while self._waiting and self._tokens >= 1:
            self._tokens -= 1
            best = max(self._waiting, key=self._interest)
            self._waiting.remove(best)
            self._remember(best.trace)
            chosen.append(best.trace)
        for trace in sorted(chosen, key=lambda trace: trace.start_ns):  # chosen by interest, told in their order
            self._console.print(Waterfall(trace, self._palette))
            self._console.print()
            self.drawn += 1
        for late in [waiting for waiting in self._waiting if now - waiting.since >= PATIENCE_S]:
            self._leave(late)
        if self._left_out and now - self._remarked >= REMARK_S:
            self._remarked = now
            self._console.print(self._remark())
            self._console.print()
            self._left_out = self._left_failed = 0
            self._left_slowest = None

    def _interest(self, waiting: _Waiting) -> float:
        """Slower is more interesting, though not in proportion; halved, cut to thirds ... for what has been drawn."""
        trace = waiting.trace
        own = FAILED if labels.severity(trace.root) == "error" else math.log2(1 + trace.duration_ns / 1e6)
        return own / (1 + self._seen[_name(trace)])

    def _remember(self, trace: TraceView) -> None:
        if len(self._seen) >= NAMES:
            self._seen.clear()
        self._seen[_name(trace)] += 1

    def _leave(self, waiting: _Waiting) -> None:
        self._waiting.remove(waiting)
        trace = waiting.trace
        self._left_out += 1
        self._left_failed += labels.severity(trace.root) == "error"
        if self._left_slowest is None or trace.duration_ns > self._left_slowest.duration_ns:
            self._left_slowest = trace

    def _remark(self) -> Text:
        about = "about " if self._depth else ""
        text = f"… {about}{count(self._left_out, 'more trace')} not drawn"
        details = []
        if self._left_failed:
            details.append(f"{self._left_failed} failed")
        if self._left_slowest is not None:
            details.append(
                f"slowest {labels.title(self._left_slowest.root)} {duration(self._left_slowest.duration_ns)}"
            )
        if details:
            text += f" ({', '.join(details)})"
        return Text(f"{text}: {self._more}" if self._more else text, DIM)


def _name(trace: TraceView) -> str:
    """The kind of request: the same name and status are the same kind."""
    return f"{trace.root.name} {labels.status(trace.root)}"


def terminal() -> Console:
    """A console on standard output that never fails for a character the output cannot show."""
    if isinstance(sys.stdout, io.TextIOWrapper):
        sys.stdout.reconfigure(errors="replace")
    return Console(highlight=False)


async def waterfalls(running: Running) -> None:
    """A companion that draws on standard output."""
    more = f"http://{running.admin}/traces" if running.admin is not None else ""
    await Live(running.source, terminal(), more=more).run()
