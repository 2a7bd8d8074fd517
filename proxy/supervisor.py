"""The supervisor process: the table's source, the workers' counters and spans, the admin listener, the drain."""

from __future__ import annotations

import asyncio
import logging
import signal
import time
from collections.abc import Callable, Coroutine, Sequence
from functools import partial
from typing import TYPE_CHECKING, Final, Protocol

from msgspec.structs import replace

from proxy.admin.control import ControlSample, Followed
from proxy.admin.source import Companion, Cursor, Readiness, WorkerSample
from proxy.channel import AskBatches, AskSample, Batches, Channel, Drain, First, Sampled, encoded
from proxy.link import Link, Parts, Rollout
from proxy.route.change import Origin, TableChange, whole
from proxy.route.spec import TableSpec
from proxy.saying import say
from proxy.trace.ring import Ring
from proxy.workers import next_worker

if TYPE_CHECKING:
    import socket

    from proxy.admin.cluster import ClusterSample
    from proxy.control.problem import Problem
    from proxy.settings import Address, Settings
    from proxy.trace.export import Exporter

_log = logging.getLogger(__name__)

_ANSWER: Final = 2.0  # seconds for a worker's answer; one that is busier is left out of this scrape
_LEAVE: Final = 10.0  # seconds for companions to put away what they started
_MANY: Final = 500  # specs that are encoded in a thread: below that it takes less than a millisecond
_MOST_OPEN: Final = 63  # generations that are waited for at a time, beside the newest
_RECEIVED: Final = 8 * 1024 * 1024  # bytes of spans kept of those that applications sent here
_RECEIVER: Final = "receiver"
_SELF: Final = "supervisor"
_TICK: Final = 0.25  # seconds between two looks at a batch of our own spans
_FLUSH: Final = 5.0  # seconds for the last of them
_BEHIND: Final = 5.0  # seconds that a worker may take to a newer table and still be ready


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


class Publishing(Protocol):
    """What makes generations; `control.publish.Publisher` does."""

    def sample(self) -> ControlSample:
        """Its counters."""
        ...

    def followed(self, trace_id: str) -> Followed | None:
        """What has become of the objects that carried a trace's context."""
        ...


class Supervisor:
    """Implements `admin.source.Source` and `admin.source.Running`."""

    def __init__(self, settings: Settings, http: tuple[Address, ...], https: tuple[Address, ...], workers: int) -> None:
        self.settings = settings
        self.http = http
        self.https = https
        self.admin: Address | None = None
        self.received = Ring(_RECEIVED)
        self.ring = Ring(settings.tracing.ring)  # our own spans
        self.publisher: Publishing | None = None
        self._exporter: Exporter | None = None
        self.controller: Controlling | None = None
        self._workers = workers
        self._links: dict[int, Link] = {}
        self._table = TableSpec(0)
        self._origin: Origin | None = None
        self._rollout: Rollout | None = None  # the newest
        self._open: list[Rollout] = []  # those that some worker does not serve yet
        self._parts: tuple[int, Parts] | None = None  # the newest whole table that somebody asked for
        self._problems: Sequence[Problem] = ()
        self._draining = False
        self._exits = 0
        self._code = 0
        self._stopping = asyncio.Event()
        self._changed = asyncio.Condition()
        self._tasks: set[asyncio.Task[None]] = set()
        self.on_first: Callable[[First], None] | None = None
        self.on_end: Callable[[], None] | None = None

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
        if self._exporter is not None:
            self._exporter.seal()
        positions[_SELF], own = self.ring.since(before.get(_SELF, 0))
        return Cursor(positions), found + received + own

    def table(self) -> TableSpec:
        """See `admin.source.Source`."""
        return self._table

    def problems(self) -> Sequence[Problem]:
        """See `admin.source.Source`."""
        return self._problems if self.controller is None else [*self._problems, *self.controller.problems()]

    def cluster(self) -> ClusterSample | None:
        """See `admin.source.Source`."""
        return None if self.controller is None else self.controller.sample()

    def control(self) -> ControlSample:
        """See `admin.source.Source`."""
        sample = ControlSample() if self.publisher is None else self.publisher.sample()
        return sample if self._exporter is None else replace(sample, export=self._exporter.counters())

    def followed(self, trace_id: str) -> Followed | None:
        """See `admin.source.Source`."""
        found = None if self.publisher is None else self.publisher.followed(trace_id)
        if found is None:
            return None
        return replace(found, served=self._serving_at(found.generation) >= self._workers)

    def exits(self) -> int:
        """See `admin.source.Source`."""
        return self._exits

    def readiness(self) -> Readiness:
        """See `admin.source.Source`."""
        reasons: list[str] = []
        if self._draining:
            reasons.append("the proxy is draining")
        generation = self._table.generation
        if not generation:
            reasons.append("no configuration has been read yet")
            reasons += self.controller.waits() if self.controller is not None else ()
        serving = sum(link.current(generation, _BEHIND) for link in self._links.values())
        if serving < self._workers:
            serving = self._serving_at(generation)
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
        rollout = await self.swap(table, whole(table), problems)
        for link in list(self._links.values()):
            await link.idle()
        await rollout.settled()

    async def swap(self, table: TableSpec, change: TableChange, problems: Sequence[Problem]) -> Rollout:
        """Begin to serve a table, which ``change`` makes of the one before, in every worker."""
        parts = encoded(change) if len(change) < _MANY else await asyncio.to_thread(encoded, change)
        self._problems = problems
        self._table = table
        self._origin = change.origin
        self._rollout = rollout = Rollout(change, parts, time.time_ns)
        for given_up in self._open[:-_MOST_OPEN]:  # some worker hangs: nobody waits for so many
            given_up.done.set_result(None)
        self._open = [*self._open[-_MOST_OPEN:], rollout]
        for link in list(self._links.values()):
            link.offer(rollout)
        return rollout

    def report(self, problems: Sequence[Problem]) -> None:
        """Keep what is wrong with files whose table was not taken over."""
        self._problems = problems

    async def _whole(self) -> tuple[int, Parts]:
        """The newest table, for a worker that begins."""
        table, origin = self._table, self._origin
        if self._parts is None or self._parts[0] != table.generation:
            parts = await asyncio.to_thread(lambda: encoded(whole(table, origin)))
            self._parts = table.generation, parts
            return self._parts
        return self._parts

    def _arrived(self) -> None:
        """A worker serves another table than before, or has kept the one it had."""
        for rollout in self._open:
            if self._serving_at(rollout.generation) >= self._workers and not rollout.done.done():
                rollout.done.set_result(None)
        self._open = [rollout for rollout in self._open if not rollout.done.done()]
        self._keep(self._notify())

    def _serving_at(self, generation: int) -> int:
        """How many workers serve this generation or a later one."""
        return sum(link.generation >= generation for link in self._links.values())

    async def _notify(self) -> None:
        async with self._changed:
            self._changed.notify_all()

    def _served_first(self, first: First) -> None:
        if self.on_first is not None:
            self.on_first(first)

    async def serving(self) -> None:
        """Wait until every worker serves the table."""
        async with self._changed:
            await self._changed.wait_for(lambda: self.readiness().ready or self._stopping.is_set())

    async def ending(self) -> None:
        """Wait until the proxy begins to drain."""
        await self._stopping.wait()

    def trace(self, exporter: Exporter) -> None:
        """Export our own spans, which somebody else offers, until the end."""
        self._exporter = exporter
        exporter.start()
        self._keep(self._tick(exporter))

    async def _tick(self, exporter: Exporter) -> None:
        while True:
            exporter.tick(asyncio.get_running_loop().time())
            await asyncio.sleep(_TICK)

    # The process

    def spawn(self, companion: Companion) -> None:
        """Run a companion until it ends or the proxy does; a companion that fails stops the proxy."""
        self._keep(self._accompany(companion))

    def _keep(self, work: Coroutine[None, None, None]) -> None:
        task = asyncio.get_running_loop().create_task(work)
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
        self._keep(self._employ(index, pid, sock))

    async def _employ(self, index: int, pid: int, sock: socket.socket) -> None:
        link = Link(index, pid, await Channel.open(sock), self._whole, self._arrived, self._served_first)
        self._links[index] = link
        if self._rollout is not None:
            link.offer(self._rollout)
        await link.listen()
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
            say(f"workers {sorted(self._links)} did not finish within {limit:g} s and are ended")
        tasks = list(self._tasks)
        for task in tasks:
            task.cancel()
        if tasks:
            await asyncio.wait(tasks, timeout=_LEAVE)
        if self.on_end is not None:
            self.on_end()
        if self._exporter is not None:
            await asyncio.to_thread(self._exporter.close, _FLUSH)
        return self._code
