"""The supervisor process: the table's source, the workers' counters and spans, the admin listener, the drain."""

from __future__ import annotations

import asyncio
import logging
import signal
import sys
from collections.abc import Callable, Sequence
from functools import partial
from typing import TYPE_CHECKING, Final, Protocol, TypeVar

from proxy.admin.source import Companion, Cursor, Readiness, WorkerSample
from proxy.channel import (
    Applied,
    Apply,
    AskBatches,
    AskSample,
    Batches,
    Channel,
    Drain,
    Order,
    Report,
    Sampled,
)
from proxy.route.spec import TableSpec
from proxy.trace.ring import Ring
from proxy.workers import next_worker

if TYPE_CHECKING:
    import socket

    from proxy.admin.cluster import ClusterSample
    from proxy.control.problem import Problem
    from proxy.settings import Address, Settings

_log = logging.getLogger(__name__)

_ANSWER: Final = 2.0  # seconds for a worker's answer; one that is busier is left out of this scrape
_LEAVE: Final = 10.0  # seconds for companions to put away what they started
_APPLY: Final = 30.0  # seconds to build and serve a table
_RECEIVED: Final = 8 * 1024 * 1024  # bytes of spans kept of those that applications sent here
_RECEIVER: Final = "receiver"

_R = TypeVar("_R", bound=Report)


class Link:
    """One worker process as the supervisor sees it."""

    def __init__(self, index: int, pid: int, channel: Channel) -> None:
        self.index = index
        self.pid = pid
        self.channel = channel
        self.generation = 0
        self._next = 0
        self._waiting: dict[int, asyncio.Future[Report]] = {}

    def __repr__(self) -> str:
        return f"Link({self.index}, pid {self.pid}, generation {self.generation})"

    async def ask(self, make: Callable[[int], Order], kind: type[_R], patience: float) -> _R | None:
        """Send the order that ``make`` makes of its number, and wait for its report.

        None if the worker does not answer within ``patience`` seconds, or dies.
        """
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
                answer = self._waiting.get(report.id)
                if answer is not None and not answer.done():
                    answer.set_result(report)
        except (asyncio.IncompleteReadError, ConnectionError):
            for answer in self._waiting.values():
                if not answer.done():
                    answer.set_exception(ConnectionError("the worker has ended"))
        finally:
            self.channel.close()


class Controlling(Protocol):
    """What follows a cluster; `control.cluster.controller.Controller` does."""

    def problems(self) -> Sequence[Problem]:
        """What is wrong beside what the table's build found."""
        ...

    def waits(self) -> tuple[str, ...]:
        """Why there is no table yet, one sentence each."""
        ...

    def sample(self) -> ClusterSample:
        """Its counters."""
        ...


class Supervisor:
    """Implements `admin.source.Source` and `admin.source.Running`."""

    def __init__(self, settings: Settings, http: tuple[Address, ...], https: tuple[Address, ...], workers: int) -> None:
        self.settings = settings
        self.http = http
        self.https = https
        self.admin: Address | None = None
        self.received = Ring(_RECEIVED)
        self.controller: Controlling | None = None
        self._workers = workers
        self._links: dict[int, Link] = {}
        self._table = TableSpec(0)
        self._problems: Sequence[Problem] = ()
        self._draining = False
        self._exits = 0
        self._code = 0
        self._stopping = asyncio.Event()
        self._changed = asyncio.Condition()
        self._tasks: set[asyncio.Task[None]] = set()

    def __repr__(self) -> str:
        return f"Supervisor(generation {self._table.generation}, {list(self._links.values())})"

    # Source

    async def samples(self) -> list[WorkerSample]:
        """See `admin.source.Source`."""
        links = list(self._links.values())
        reports = await asyncio.gather(*(link.ask(AskSample, Sampled, _ANSWER) for link in links))
        return [report.sample for report in reports if report is not None]

    async def batches(self) -> list[bytes]:
        """See `admin.source.Source`."""
        return (await self.batches_since(Cursor()))[1]

    async def batches_since(self, cursor: Cursor) -> tuple[Cursor, list[bytes]]:
        """See `admin.source.Source`."""
        links = list(self._links.values())
        before = cursor.positions
        reports = await asyncio.gather(
            *(link.ask(partial(AskBatches, cursor=before.get(str(link.pid), 0)), Batches, _ANSWER) for link in links)
        )
        positions: dict[str, int] = {}
        found: list[bytes] = []
        for link, report in zip(links, reports, strict=True):
            if report is None:
                positions[str(link.pid)] = before.get(str(link.pid), 0)
            else:
                positions[str(link.pid)] = report.cursor
                found += report.batches
        positions[_RECEIVER], received = self.received.since(before.get(_RECEIVER, 0))
        return Cursor(positions), found + received

    def table(self) -> TableSpec:
        """See `admin.source.Source`."""
        return self._table

    def problems(self) -> Sequence[Problem]:
        """See `admin.source.Source`."""
        return self._problems if self.controller is None else [*self._problems, *self.controller.problems()]

    def cluster(self) -> ClusterSample | None:
        """See `admin.source.Source`."""
        return None if self.controller is None else self.controller.sample()

    def exits(self) -> int:
        """See `admin.source.Source`."""
        return self._exits

    def readiness(self) -> Readiness:
        """See `admin.source.Source`."""
        reasons: list[str] = []
        if self._draining:
            reasons.append("the proxy is draining")
        generation = self._table.generation
        if generation == 0:
            reasons.append("no configuration has been read yet")
            reasons += self.controller.waits() if self.controller is not None else ()
        serving = sum(1 for link in self._links.values() if link.generation == generation)
        if serving < self._workers:
            reasons.append(f"{serving} of {self._workers} workers serve generation {generation}")
        return Readiness(not reasons, tuple(reasons))

    # Running

    @property
    def source(self) -> Supervisor:
        """See `admin.source.Running`."""
        return self

    def stop(self, code: int = 0) -> None:
        """Drain and end with this exit code."""
        self._code = code
        self._stopping.set()

    async def apply(self, table: TableSpec, problems: Sequence[Problem]) -> None:
        """Serve a new table in every worker; returns when all do. Problems are kept for /routes."""
        self._problems = problems
        self._table = table
        await asyncio.gather(*(self._apply_to(link) for link in list(self._links.values())))

    def report(self, problems: Sequence[Problem]) -> None:
        """Keep what is wrong with files whose table was not taken over."""
        self._problems = problems

    async def _apply_to(self, link: Link) -> None:
        table = self._table
        report = await link.ask(partial(Apply, table=table), Applied, _APPLY)
        if report is not None and report.error:
            _log.error("worker %d keeps generation %d: %s", link.index, report.generation, report.error)
        if report is not None:
            link.generation = report.generation
        await self._notify()

    async def _notify(self) -> None:
        async with self._changed:
            self._changed.notify_all()

    async def serving(self) -> None:
        """Wait until every worker serves the table."""
        async with self._changed:
            await self._changed.wait_for(lambda: self.readiness().ready or self._stopping.is_set())

    async def ending(self) -> None:
        """Wait until the proxy begins to drain."""
        await self._stopping.wait()

    # The process

    def spawn(self, companion: Companion) -> None:
        """Run a companion until it ends or the proxy does; a companion that fails stops the proxy."""
        task = asyncio.get_running_loop().create_task(self._accompany(companion))
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    async def _accompany(self, companion: Companion) -> None:
        try:
            await companion(self)
        except Exception:
            _log.exception("%r failed", companion)
            self.stop(1)

    def hire(self, news: socket.socket) -> None:
        """Take in the workers that have started since (`loop.add_reader`)."""
        try:
            started = next_worker(news)
        except BlockingIOError:
            return
        if started is None:
            self.stop(1)
            return
        index, pid, sock = started
        task = asyncio.get_running_loop().create_task(self._employ(index, pid, sock))
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    async def _employ(self, index: int, pid: int, sock: socket.socket) -> None:
        link = Link(index, pid, await Channel.open(sock))
        self._links[index] = link
        listening = asyncio.get_running_loop().create_task(link.listen())
        if self._table.generation:
            await self._apply_to(link)
        await listening
        if self._links.get(index) is link:
            del self._links[index]
        if not self._draining:
            self._exits += 1
        await self._notify()

    async def run(self, news: socket.socket) -> int:
        """Serve until told to stop, then drain; returns the exit code. `apply`, companions and admin run beside."""
        loop = asyncio.get_running_loop()
        news.setblocking(False)
        loop.add_reader(news, self.hire, news)
        loop.add_signal_handler(signal.SIGTERM, self.stop)
        # Files are watched and the access log is the workers': nothing to do, and nothing to die of.
        for number in (signal.SIGHUP, signal.SIGUSR1):
            loop.add_signal_handler(number, lambda: None)
        await self._stopping.wait()
        return await self._drain()

    async def _drain(self) -> int:
        self._draining = True
        await self._notify()
        for link in list(self._links.values()):
            link.channel.send(Drain())
        limit = self.settings.timeouts.drain + 10.0
        try:
            async with asyncio.timeout(limit), self._changed:
                await self._changed.wait_for(lambda: not self._links)
        except TimeoutError:
            _say(f"workers {sorted(self._links)} did not finish within {limit:g} s and are ended")
        tasks = list(self._tasks)
        for task in tasks:
            task.cancel()
        if tasks:
            await asyncio.wait(tasks, timeout=_LEAVE)
        return self._code


def _say(text: str) -> None:
    sys.stderr.write(f"spanway: {text}\n")
    sys.stderr.flush()
