"""When taps can be set aside: while no worker of the proxy shows anything, and all with traffic have said until when.

A tap costs every packet that passes it, whether its filter takes it or not: the kernel makes a head of its own for each
that leaves an interface before it asks, 0.1 to 0.2 us of processor time. At full load that is 3 to 5 % of what a proxy
can do, and what it shows to the wire then are rows of requests with pauses between (`trace.allowance`).
"""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Awaitable, Callable
from typing import TYPE_CHECKING, Final, NamedTuple

if TYPE_CHECKING:
    from proxy.trace.handover import Head

_log: Final = logging.getLogger(__name__)

STEP: Final = 0.05  # seconds between two looks
AGAIN: Final = 1.0  # seconds after what has failed

LONGEST_NS: Final = 5_000_000_000
"""No worker rests longer (`allowance.LONGEST_NS`); where one seems to, its clock or ours was set."""
SILENT_NS: Final = 10_000_000_000
"""A worker that has said nothing for so long is no more: it says something every second (`handover.LOOK`)."""
IDLE_NS: Final = 6_000_000_000
"""A worker that has shown nothing for so long, which is longer than any rest, is not waited for while another rests:
the first that it shows then may be missing. Else one proxy without traffic would have all others pay for taps."""
AFTER_NS: Final = 50_000_000
"""So long after a worker has said so acknowledgements may still be on their way (`join.LATE_NS`)."""
EARLY_NS: Final = 50_000_000
"""So long before a worker shows something again taps are put back: the kernel takes 8 to 16 ms for that, and its answer
as long where this process has time. Twice as long as it took the last time, where that is more."""
EARLIEST_NS: Final = 300_000_000
"""And at most so long, or no rest would ever be worth it again."""
WORTH_NS: Final = 100_000_000
"""For less of a rest nothing is done."""
KEPT_NS: Final = 60_000_000_000
"""So long it is remembered when taps were aside; an attempt that is joined began some 34 s before at most
(`joining.KEPT_NS`, `joining.LOOKS`)."""
_WORKERS: Final = 4096  # that are known; while there are more, nothing is set aside


class _Said(NamedTuple):
    rest_ns: int  # until when it rests
    first_ns: int  # when it said that first
    last_ns: int
    shown_ns: int  # when it showed something last, or had something under way


class Resting:
    """The workers that may hand over, until when each of them rests, and when taps were set aside for that.

    All times are Unix nanoseconds. ``seconds`` is how long taps were set aside so far.
    """

    def __init__(self) -> None:
        self._workers: dict[bytes, _Said] = {}
        self._early_ns = EARLIEST_NS  # as long as nothing is known of it
        self._times: list[tuple[int, int]] = []
        self._since_ns = 0  # when they were, if they are
        self._begun = 0.0  # of the same, by the monotonic clock
        self.seconds = 0.0

    def __repr__(self) -> str:
        return f"Resting({len(self._workers)} workers, {'aside' if self.aside else 'attending'})"

    @property
    def aside(self) -> bool:
        """Whether taps are, or are on their way there or back."""
        return self._since_ns > 0

    def heard(self, said: Head, shown: bool, now_ns: int) -> None:
        """A worker has said something, and shows something with that, or not."""
        before = self._workers.get(said.worker)
        if before is None and len(self._workers) >= _WORKERS:
            return
        first_ns, shown_ns = now_ns, now_ns if shown or said.busy else 0
        if before is not None:
            first_ns = before.first_ns if before.rest_ns == said.rest_ns else now_ns
            shown_ns = max(shown_ns, before.shown_ns)
        self._workers[said.worker] = _Said(said.rest_ns, first_ns, now_ns, shown_ns)

    def until_ns(self, now_ns: int) -> int:
        """Until when no tap is needed, a moment before somebody shows something again; 0: they are, or soon will be."""
        silent = [name for name, each in self._workers.items() if abs(now_ns - each.last_ns) > SILENT_NS]
        for name in silent:
            del self._workers[name]
        resting = self._resting(now_ns)
        if not resting:
            return 0
        until_ns = min(each.rest_ns for each in resting) - self._early_ns
        settled_ns = max(each.first_ns for each in resting) + AFTER_NS
        return until_ns if now_ns >= settled_ns and until_ns >= now_ns + WORTH_NS else 0

    def _resting(self, now_ns: int) -> list[_Said]:
        """Those that rest; none where one that is not idle does not."""
        if len(self._workers) >= _WORKERS:
            return []
        resting = []
        for each in self._workers.values():
            if now_ns < each.rest_ns <= now_ns + LONGEST_NS:
                resting.append(each)
            elif abs(now_ns - each.shown_ns) < IDLE_NS:
                return []
        return resting

    def left_ns(self, now_ns: int) -> int:
        """How long taps may still be aside, by what has been said by now."""
        resting = self._resting(now_ns)
        return min(each.rest_ns for each in resting) - self._early_ns - now_ns if resting else 0

    def covers(self, since_ns: int, until_ns: int) -> bool:
        """Whether taps were aside, on their way there or on their way back, at any time within these."""
        if self.aside and until_ns >= self._since_ns:
            return True
        return any(aside_ns <= until_ns and back_ns >= since_ns for aside_ns, back_ns in self._times)

    async def keep(self, attend: Callable[[bool], Awaitable[None]], behind: Callable[[], bool]) -> None:
        """Set taps aside whenever it can be, until cancelled: ``attend`` puts them back with True, and ``behind`` says
        that there is too much to do for being back in time, or nothing to be set aside.

        What fails is logged, and goes on a second later: taps that are not known to be back are aside."""
        while True:
            await asyncio.sleep(STEP)
            try:
                if self.aside:
                    await self._back(attend)
                elif self.until_ns(time.time_ns()) and not behind():
                    await self._once(attend, behind)
            except Exception:
                _log.exception("taps cannot be set aside, or put back")
                await asyncio.sleep(AGAIN)

    async def _once(self, attend: Callable[[bool], Awaitable[None]], behind: Callable[[], bool]) -> None:
        self._begun, self._since_ns = time.monotonic(), time.time_ns()
        try:
            await attend(False)
            while (left_ns := self.left_ns(time.time_ns())) > 0 and not behind():  # noqa: ASYNC110 - and a time
                await asyncio.sleep(min(STEP, left_ns / 1e9))
        finally:
            await self._back(attend)

    async def _back(self, attend: Callable[[bool], Awaitable[None]]) -> None:
        begun = time.monotonic()
        await attend(True)
        done, now_ns = time.monotonic(), time.time_ns()
        self._early_ns = min(max(int(2e9 * (done - begun)), EARLY_NS), EARLIEST_NS)
        self.seconds += done - self._begun
        self._times.append((min(self._since_ns, now_ns), now_ns))
        # Where the clock was set back, what is to come has never been.
        self._times = [each for each in self._times if now_ns - KEPT_NS <= each[1] <= now_ns]
        self._since_ns = 0
