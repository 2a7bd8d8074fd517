"""One worker process as the supervisor sees it, and how a generation gets into all of them.

Two steps: every worker prepares the next table beside the one it serves, then all are told at once to serve it. So
the workers differ for the time that a message takes, not for the time that a table takes to build. A worker that is
slow or dead keeps nobody: whoever has prepared is told after `TOGETHER` at the latest, and a worker that is behind
gets all that it has missed as one change when it answers again, or the whole table if it has to begin anew.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable
from functools import partial
from typing import TYPE_CHECKING, Final, TypeVar

from proxy.channel import Applied, Channel, Commit, First, Order, Prepare, Prepared, Report, encoded
from proxy.route.change import merged

if TYPE_CHECKING:
    import msgspec

    from proxy.route.change import TableChange

_log = logging.getLogger(__name__)

TOGETHER: Final = 0.02  # seconds that those who are ready wait for those who are not

_R = TypeVar("_R", bound=Report)
Parts = tuple["msgspec.Raw", ...]
Whole = Callable[[], Awaitable[tuple[int, Parts]]]
"""The newest generation and its whole table."""


class Arrival:
    """A generation in one worker. Times are Unix nanoseconds, 0 for what has not happened."""

    __slots__ = ("busy_ns", "index", "pid", "prepared_ns", "sent_ns", "served_ns", "whole")

    def __init__(self, index: int, pid: int, sent_ns: int, *, whole: bool) -> None:
        self.index = index
        self.pid = pid
        self.sent_ns = sent_ns
        self.whole = whole  # the whole table was sent
        self.prepared_ns = 0
        self.busy_ns = 0  # what preparing it cost the worker's loop
        self.served_ns = 0

    def __repr__(self) -> str:
        return f"Arrival({self.index}, pid {self.pid}, served at {self.served_ns})"


class Rollout:
    """One generation on its way into all workers. `settled` when those who keep up have it, ``done`` when all have."""

    def __init__(self, change: TableChange, parts: Parts, clock: Callable[[], int]) -> None:
        self.change = change
        self.parts = parts
        self.arrivals: list[Arrival] = []
        self.clock = clock
        loop = asyncio.get_running_loop()
        self.began_ns = clock()
        self.done: asyncio.Future[None] = loop.create_future()
        self.go = asyncio.Event()
        self._loop = loop
        self._preparing: set[Link] = set()
        self._serving: set[Link] = set()  # those who keep up and do not serve it yet
        self._settled = asyncio.Event()
        self._timer: asyncio.TimerHandle | None = None

    def __repr__(self) -> str:
        return f"Rollout({self.change.generation}, {self.arrivals}, done={self.done.done()})"

    @property
    def generation(self) -> int:
        """Which generation it is."""
        return self.change.generation

    def expect(self, link: Link) -> None:
        """This worker keeps up: wait for it, for a while."""
        self._preparing.add(link)
        self._serving.add(link)

    def prepared(self, link: Link) -> None:
        """A worker is ready, or will not be."""
        self._preparing.discard(link)
        if not self._preparing:
            self._start()
        elif self._timer is None:
            self._timer = self._loop.call_later(TOGETHER, self._start)

    def served(self, link: Link) -> None:
        """A worker serves it, or is gone."""
        self._serving.discard(link)
        if not self._serving:
            self._settled.set()

    def _start(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
        self.go.set()
        for link in self._preparing:  # they are behind from now on
            self.served(link)
        self._preparing = set()
        if not self._serving:
            self._settled.set()

    async def settled(self) -> None:
        """Wait until every worker that keeps up serves it."""
        if self._serving:
            await self._settled.wait()


class Link:
    """See the module. ``whole`` gives the newest table, ``changed`` is called when this worker serves another."""

    def __init__(
        self,
        index: int,
        pid: int,
        channel: Channel,
        whole: Whole,
        changed: Callable[[], None],
        first: Callable[[First], None],
    ) -> None:
        self.index = index
        self.pid = pid
        self.channel = channel
        self.generation = 0
        self._refused = 0  # the newest generation that it could not serve
        self._whole = whole
        self._changed = changed
        self._first = first
        self._next = 0
        self._waiting: dict[int, asyncio.Future[Report]] = {}
        self._change: TableChange | None = None  # all that has not been sent yet
        self._rollout: Rollout | None = None  # the newest
        self._bringing: asyncio.Task[None] | None = None
        self._since = 0.0  # loop time at which the newest step of that began
        self._ended = False  # the worker is gone

    def __repr__(self) -> str:
        return f"Link({self.index}, pid {self.pid}, generation {self.generation})"

    async def ask(self, make: Callable[[int], Order], kind: type[_R], patience: float | None = None) -> _R | None:
        """Send the order that ``make`` makes of its number, and wait for its report.

        None if the worker does not answer within ``patience`` seconds, or dies.
        """
        if self._ended:
            return None  # nobody listens any more, and a closed transport swallows what is written
        self._next += 1
        number = self._next
        answer: asyncio.Future[Report] = asyncio.get_running_loop().create_future()
        self._waiting[number] = answer
        try:
            self.channel.send(make(number))
            async with asyncio.timeout(patience):
                report = await answer
        except (TimeoutError, ConnectionError):
            return None
        finally:
            self._waiting.pop(number, None)
        return report if isinstance(report, kind) else None

    async def listen(self) -> None:
        """Hand reports to those who wait for them, until the worker is gone."""
        try:
            while True:
                report = await self.channel.report()
                if isinstance(report, First):
                    self._first(report)
                    continue
                answer = self._waiting.get(report.id)
                if answer is not None and not answer.done():
                    answer.set_result(report)
        except (asyncio.IncompleteReadError, ConnectionError):
            for answer in self._waiting.values():
                if not answer.done():
                    answer.set_exception(ConnectionError("the worker has ended"))
        finally:
            self._ended = True
            self.channel.close()

    # Generations

    def offer(self, rollout: Rollout) -> None:
        """Bring a generation to this worker, after those that are on their way."""
        change = rollout.change
        self._change = change if self._change is None else merged(self._change, change)
        self._rollout = rollout
        if self._bringing is None:
            rollout.expect(self)
            self._since = asyncio.get_running_loop().time()
            self._bringing = asyncio.get_running_loop().create_task(self._bring())

    def follows(self, patience: float) -> bool:
        """Whether it serves a table, and has been busy with the next one for less than ``patience`` seconds."""
        loop = asyncio.get_running_loop()
        return bool(self.generation) and self._bringing is not None and loop.time() - self._since < patience

    def current(self, generation: int, patience: float) -> bool:
        """Whether it serves this table, is on the way to it, or serves an older one since it could not serve this.

        Every replica gets the same table: what is wrong with one must not take them all.
        """
        kept = bool(self.generation) and self._refused >= generation
        return self.generation >= generation or kept or self.follows(patience)

    async def idle(self) -> None:
        """Wait until there is nothing to bring to this worker."""
        while self._bringing is not None:
            await asyncio.wait([self._bringing])

    async def _bring(self) -> None:
        try:
            while self._change is not None and self._rollout is not None:
                change, rollout = self._change, self._rollout
                self._change = None
                # One who serves each of a long row of tables a moment late keeps up.
                self._since = asyncio.get_running_loop().time()
                try:
                    await self._carry(change, rollout)
                finally:
                    rollout.prepared(self)
                    rollout.served(self)
                    self._changed()
        finally:
            self._bringing = None

    async def _carry(self, change: TableChange, rollout: Rollout) -> None:
        """Bring one change, or the whole table where that does not fit or does not do."""
        if change.generation <= self.generation:
            return
        error = "it does not fit"
        if change.base in (0, self.generation):
            parts = rollout.parts if change is rollout.change else encoded(change)
            error = await self._send(parts, rollout, whole=not change.base)
        if error and change.base:
            generation, parts = await self._whole()
            if generation > self.generation:
                error = await self._send(parts, rollout, whole=True)
        if error:
            self._refused = change.generation
            _log.error("worker %d keeps generation %d: %s", self.index, self.generation, error)

    async def _send(self, parts: Parts, rollout: Rollout, *, whole: bool) -> str:
        """Prepare and commit; returns what is wrong with the change, "" for nothing (also if the worker dies)."""
        arrival = Arrival(self.index, self.pid, rollout.clock(), whole=whole)
        try:
            for part in parts[:-1]:
                self.channel.send(Prepare(0, part, last=False))
                await self.channel.drain()
        except ConnectionError:
            return ""
        prepared = await self.ask(partial(Prepare, change=parts[-1]), Prepared)
        if prepared is None or prepared.error:
            return "" if prepared is None else prepared.error
        arrival.prepared_ns = rollout.clock()
        arrival.busy_ns = prepared.busy_ns
        rollout.prepared(self)
        await rollout.go.wait()
        applied = await self.ask(Commit, Applied)
        if applied is not None:
            arrival.served_ns = applied.at_ns
            self.generation = applied.generation
            if not rollout.done.done():
                rollout.arrivals.append(arrival)
        return ""
