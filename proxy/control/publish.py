"""Changes of objects into generations of the table: what arrives together is built together, and served by all workers.

The one way into the workers, for a cluster's events and for files alike. Builds run in a thread, so that the
supervisor goes on answering; what arrives during one is the next one's.
"""

from __future__ import annotations

import asyncio
import gc
import logging
import time
from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Final, Literal

import msgspec

from proxy.admin.control import BUILD_BOUNDS, PROPAGATION_BOUNDS, ControlSample, Followed, Tally
from proxy.control.build import EVERYTHING, Builder, Choices, Step
from proxy.control.trails import Trails
from proxy.route.change import TableChange, certificates_of, differing, hosts_of, whole

if TYPE_CHECKING:
    from proxy.control.certificates import CertificateReader, Pair
    from proxy.control.chronicle import Chronicle, Story
    from proxy.control.objects import Key, Topic
    from proxy.control.problem import Problem
    from proxy.control.rolling import Rolling, Sink
    from proxy.control.store import Objects
    from proxy.route.spec import TableSpec
    from proxy.settings import Override

_log = logging.getLogger(__name__)

GATHER: Final = 0.002  # seconds between two looks at a burst of events; a single event waits for none
LONGEST: Final = 0.01  # seconds that a burst is gathered
_TOLD: Final = 32  # events that the trace of one generation tells of one by one
_MANY: Final = 1000  # Ingresses compiled at once, after which the garbage collector has much to look at
_AGE: Final = 3600.0  # seconds between two looks at certificates that may have come of age
_AGAIN: Final = 5.0  # seconds after which a build that failed is tried again, if nothing changes before
_UNBUILT: Final = 100_000  # changes kept while nothing is built: a large cluster's first lists

Verb = Literal["added", "modified", "deleted", "listed"]


class Change(msgspec.Struct, frozen=True):
    """One received event, after the objects were updated."""

    kind: str
    namespace: str
    name: str
    resource_version: str
    verb: Verb
    received_ns: int  # Unix ns when its bytes had been read
    lag_ns: int = -1  # since the object changed, -1 unknown
    lag_source: str = ""  # where the figure comes from, e.g. "managedFields"
    traceparent: str = ""  # annotation tracing.k8s.io/traceparent


class Publisher:
    """See the module. ``synced`` begins it, `close` ends it.

    ``listener`` is told everything that is wrong after each build that finds something else than the one before, and
    after each that makes a generation. ``strict``: while anything is an error, the last good table stays as a whole.
    ``noted`` are problems found before the objects came here; they count like those of a build.
    """

    def __init__(
        self,
        objects: Objects,
        sink: Sink,
        overrides: Sequence[Override] = (),
        choices: Choices = EVERYTHING,
        listener: Callable[[tuple[Problem, ...]], None] | None = None,
        *,
        strict: bool = False,
        chronicle: Chronicle | None = None,
        reader: CertificateReader | None = None,
        generation: int = 0,
    ) -> None:
        """``generation`` is the last one given out; the first table gets the next."""
        self.noted: tuple[Problem, ...] = ()
        self.problems: tuple[Problem, ...] = ()
        self.table: TableSpec | None = None  # the one being served
        self.refused = False  # errors keep the objects as they are now from being served
        self._objects = objects
        self._sink = sink
        good: dict[Key, Pair] = {}  # certificates, which a builder in place of one that failed goes on with
        self._make: Callable[[], Builder] = lambda: Builder(objects, overrides, choices, reader, good)
        self._builder = self._make()
        self._listener = listener
        self._strict = strict
        self._chronicle = chronicle
        self._generation = generation
        self._begun = False  # the builder has built everything once
        self._pending = TableChange(0)  # what differs from the table that is served
        self._changes: list[Change] = []  # those that the next build takes in
        self._taken: list[Change] = []  # those of the build under way
        self._untold: list[Change] = []  # those of builds that were refused
        self._trails = Trails(lambda kind, key: self._builder.uses(kind, key))
        self._busy = False  # what is built is ahead of what is served
        self._wake = asyncio.Event()
        self._idle = asyncio.Event()
        self._running: asyncio.Task[None] | None = None
        self._watching: set[asyncio.Task[None]] = set()
        self._events: Counter[tuple[str, str]] = Counter()
        self._builds = Tally(BUILD_BOUNDS)
        self._propagation = Tally(PROPAGATION_BOUNDS)
        self._failures = 0

    def __repr__(self) -> str:
        return f"Publisher(generation {self._generation}, {len(self._changes)} changes, {len(self.problems)} problems)"

    @property
    def generation(self) -> int:
        """The newest generation, 0 before the first."""
        return self._generation

    def changed(self, change: Change) -> None:
        """Note an event, whose object the store has already. Never blocks."""
        self._events[change.kind, change.verb] += 1
        self._changes.append(change)
        if len(self._changes) > 2 * _UNBUILT:  # a kind that cannot be listed for days, while the others change
            del self._changes[:-_UNBUILT]
        if self._running is not None:
            self._idle.clear()
            self._wake.set()

    async def synced(self) -> None:
        """Every object is in: serve the first table, and from then on every change. Returns when it is on its way."""
        if self._running is None:
            self._wake.set()
            self._running = asyncio.get_running_loop().create_task(self._run())
        await self.flush()

    async def flush(self) -> None:
        """Wait until everything that has changed so far is built and on its way into the workers."""
        self._idle.clear()
        self._wake.set()
        await self._idle.wait()

    async def close(self) -> None:
        """Build no more."""
        tasks = [*self._watching, *([self._running] if self._running is not None else [])]
        for task in tasks:
            task.cancel()
        if tasks:
            await asyncio.wait(tasks)

    def followed(self, trace_id: str) -> Followed | None:
        """What has become of the objects that carried this trace (hex), None if none has come lately."""
        found = self._trails.of(trace_id, 0 if self._busy or self.refused else self._generation)
        if found is None or self._chronicle is None:
            return found
        first = next((first for one in found.traces if (first := self._chronicle.first(one))), "")
        return msgspec.structs.replace(found, first=first)

    def sample(self) -> ControlSample:
        """What it has counted."""
        return ControlSample(
            events=tuple((kind, verb, number) for (kind, verb), number in sorted(self._events.items())),
            builds=self._builds.histogram(),
            propagation=self._propagation.histogram(),
            failures=self._failures,
        )

    # The task.

    async def _run(self) -> None:
        try:
            while True:
                await self._due()
                await self._gather()
                self._wake.clear()
                try:
                    await self._publish()
                except Exception:
                    self._failures += 1
                    self._begun = False  # whatever has come in between is found by building everything anew
                    self._changes, self._taken = [*self._taken, *self._changes][-_UNBUILT:], []
                    _log.exception("generation %d stays: the next one could not be built", self._generation)
                    asyncio.get_running_loop().call_later(_AGAIN, self._wake.set)
                if not self._wake.is_set():
                    self._idle.set()
        finally:
            self._idle.set()  # nobody waits for what does not come

    async def _due(self) -> None:
        """Wait for something to build: an event, or a certificate that has come of age."""
        while True:
            try:
                async with asyncio.timeout(_AGE):
                    await self._wake.wait()
                return
            except TimeoutError:
                if self._builder.due(datetime.now(UTC)):
                    return

    async def _gather(self) -> None:
        """Let the rest of a burst arrive; one event alone is built at once."""
        await asyncio.sleep(0)
        if len(self._changes) <= 1:
            return
        limit = time.monotonic() + LONGEST
        before = 0
        while before < len(self._changes) and time.monotonic() < limit:
            before = len(self._changes)
            await asyncio.sleep(GATHER)

    async def _publish(self) -> None:
        self._busy = True
        changes, self._changes = self._changes, []
        self._taken = changes
        touched = self._objects.take()
        again = not self._begun and self.table is not None  # after a failure: everything was built anew
        used = self._used(changes)
        began = time.time_ns()
        step = await asyncio.to_thread(self._build, touched if self._begun else None)
        ended = time.time_ns()
        self._begun = True
        self._builds.add((ended - began) / 1e9)
        self._pending = self._difference() if again else _later(self._pending, step)
        problems = tuple(sorted((*self.noted, *step.problems), key=lambda one: (one.file, one.line)))
        news, self.problems = problems != self.problems, problems
        refused = self._strict and any(problem.severity == "error" for problem in problems)
        if self.refused and not refused:
            self._pending = self._difference()
        self.refused = refused
        told = [*self._untold, *changes]
        used |= self._used(told)
        made = ""
        if refused or (self.table is not None and not len(self._pending)):
            self._sink.report(problems)
        else:
            news = True
            linked = [one if one in used else msgspec.structs.replace(one, traceparent="") for one in told]
            story = self._begin(linked, step, began, ended)
            made = "" if story is None else story.origin.trace_id.hex()
            await self._serve(changes, story)
        self._untold = told[-_TOLD:] if refused else []
        if not refused:
            self._trails.note(told, self._generation, made)
        self._busy, self._taken = False, []
        if news and self._listener is not None:
            self._listener(problems)

    def _build(self, touched: Iterable[Topic] | None) -> Step:
        """In a thread."""
        if touched is None:
            self._builder = self._make()
        step = self._builder.update(touched)
        if step.changed or self.table is None:
            self._builder.table(self._generation + 1)
        if step.compiled >= _MANY:
            gc.freeze()  # what has been built stays: a collection of it all would hold up the loop for 0.1 s
        return step

    def _used(self, changes: Iterable[Change]) -> set[Change]:
        """Those that carry a trace's context and of whose objects the table, as it is built, has a part."""
        return {one for one in changes if one.traceparent and self._builder.uses(one.kind, (one.namespace, one.name))}

    def _begin(self, told: Sequence[Change], step: Step, began: int, ended: int) -> Story | None:
        """The next generation, and its trace if it is recorded."""
        self._generation += 1
        if self._chronicle is None:
            return None
        return self._chronicle.begin(self._generation, told[-_TOLD:], len(told), step, began, ended)

    async def _serve(self, changes: Sequence[Change], story: Story | None) -> None:
        """Have what is pending served."""
        change = msgspec.structs.replace(
            self._pending,
            generation=self._generation,
            base=0 if self.table is None else self.table.generation,
            origin=None if story is None else story.origin,
        )
        table = self._builder.table(self._generation)
        rolling = await self._sink.swap(table, change, self.problems)
        self.table, self._pending = table, TableChange(0)
        task = asyncio.get_running_loop().create_task(self._watch(rolling, changes, story))
        self._watching.add(task)
        task.add_done_callback(self._watching.discard)
        await rolling.settled()

    async def _watch(self, rolling: Rolling, changes: Sequence[Change], story: Story | None) -> None:
        """Wait for the last worker, and note how long it took since each event."""
        await asyncio.wait([rolling.done])
        live = max((arrival.served_ns for arrival in rolling.arrivals), default=0)
        for change in changes:
            if live and change.verb != "listed":
                self._propagation.add(max(live - change.received_ns, 0) / 1e9)
        if story is not None:
            story.swapped(rolling)

    def _difference(self) -> TableChange:
        """What differs from the table that is served, after builds that were refused: maybe nothing."""
        table = self._builder.table(self._generation + 1)
        if self.table is None:
            return whole(table)
        before, after = self.table, table
        return TableChange(
            0,
            hosts=differing(hosts_of(before), hosts_of(after)),
            backends=differing(
                {spec.key: spec for spec in before.backends}, {spec.key: spec for spec in after.backends}
            ),
            certificates=differing(certificates_of(before), certificates_of(after)),
        )


def _later(pending: TableChange, step: Step) -> TableChange:
    """What is pending, and a step after it."""
    return TableChange(
        0,
        hosts=pending.hosts | step.hosts,
        backends=pending.backends | step.backends,
        certificates=pending.certificates | step.certificates,
    )
