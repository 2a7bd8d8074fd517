"""Follows one scope of the API: a list, then a watch from there on, for ever.

The rules are those of client-go's reflector: a watch goes on from the last resourceVersion that was heard of,
bookmarks included; when that is too old (410) everything is listed anew, and the list is compared with what is known,
so that nothing is served less meanwhile. Whatever fails is asked for again after a pause that grows; until then what
is known stays.
"""

from __future__ import annotations

import asyncio
import logging
import random
import time
from collections.abc import AsyncGenerator, AsyncIterator, Callable
from contextlib import aclosing, nullcontext
from typing import TYPE_CHECKING, Final

from proxy.control.cluster.ahead import in_order
from proxy.control.cluster.client import TooLarge
from proxy.control.cluster.faults import ApiFault, Forbidden, Garbled, Gone
from proxy.control.cluster.lines import Lines
from proxy.control.cluster.pace import Backoff
from proxy.control.cluster.wire import Unreadable, event_of, head_of, page_of

if TYPE_CHECKING:
    import msgspec

    from proxy.control.cluster.ahead import Need
    from proxy.control.cluster.client import Client
    from proxy.control.cluster.counters import Counters, Pulse
    from proxy.control.cluster.intake import Intake, Verb
    from proxy.control.cluster.kinds import Scope
    from proxy.control.cluster.wire import Event

_log = logging.getLogger(__name__)

PAGE: Final = 500  # objects in one page of a list (client-go's pager)
SILENCE: Final = 90.0  # seconds; bookmarks come about every minute (apiserver's defaultBookmarkFrequency)
SHORTEST_WATCH: Final = 300.0  # seconds, to twice as many; client-go's minWatchTimeout, so that servers can rebalance
_MUTE: Final = 2  # silent watches in a row before everything is listed
_QUICK: Final = 1.0  # seconds; a watch that lived shorter and brought nothing is followed by a pause

_NEEDY: Final = ("ADDED", "MODIFIED")
_VERBS: Final[dict[str, Verb]] = {"ADDED": "added", "MODIFIED": "modified", "DELETED": "deleted"}

_Read = tuple["Event", int, int]  # an event, when its line had been read (Unix ns), and the line's length
Told = Callable[["Scope", "ApiFault | None"], None]
"""Called when a scope cannot be followed, with each new kind of reason; with None when it can be again."""
Before = Callable[["msgspec.Raw"], "Need | None"]
"""Called as an object is read: what must be there before it is taken in."""


class Reflector:
    """`run` it; ``synced`` is set after the first whole list, or where it is ``optional`` after being refused it."""

    def __init__(
        self,
        client: Client,
        scope: Scope,
        intake: Intake,
        counters: Counters,
        pulse: Pulse,
        told: Told,
        *,
        optional: bool = False,
        silence: float = SILENCE,
        before: Before | None = None,
        gate: asyncio.Semaphore | None = None,
        backoff: Backoff | None = None,
    ) -> None:
        """``silence`` is the seconds after which a watch that says nothing is opened anew; lists pass ``gate``."""
        self.scope: Final = scope
        self.synced: Final = asyncio.Event()
        self._client = client
        self._intake = intake
        self._counters = counters
        self._pulse = pulse
        self._told = told
        self._optional = optional
        self._silence = silence
        self._before = before
        self._gate = gate or nullcontext()
        self._backoff = backoff or Backoff()
        self._version = ""  # to watch on from; "": list first
        self._fault: type[ApiFault] | None = None  # that was told last
        self._gone = 0  # times in a row that a version was too old
        self._mute = 0  # watches in a row that were open and said nothing
        self._running = False
        self._refreshing = asyncio.Lock()

    def __repr__(self) -> str:
        return f"Reflector({self.scope}, at {self._version or 'no'} version, {self._pulse!r})"

    async def run(self) -> None:
        """Follow until cancelled."""
        self._running = True
        try:
            async with self._refreshing:
                pass  # what a list under way still brings is older than what comes
            while True:
                delay = await self._follow()
                if delay:
                    await asyncio.sleep(delay)
        finally:
            self._pulse.connected = False

    async def refresh(self, *, quiet: bool = False) -> ApiFault | None:
        """A list alone, ``quiet`` as `Client` has it; why it could not be had. None at all while it runs."""
        async with self._refreshing:
            if self._running:
                return None
            try:
                await self._list(quiet=quiet)
            except ApiFault as problem:
                self._failed(problem)
                return problem
            self._tell(None)
            return None

    async def _follow(self) -> float:
        """Once: a list if need be, and a watch to its end; returns the pause before the next, in seconds."""
        began = time.monotonic()
        heard = self._pulse.heard
        fault: ApiFault | None = None
        reason = "ended"
        try:
            if not self._version:
                await self._list()
            await self._watch()
        except Gone as problem:
            self._version = ""
            self._gone += 1
            reason = "gone"
            self._counters.fault(problem)
            if self._gone == 1:
                self._counters.reconnects[reason] += 1
                return 0.0
        except ApiFault as problem:
            fault = problem
            reason = "fault"
            self._failed(problem)
            if isinstance(problem, Garbled):
                self._version = ""  # nobody knows what has been missed
            elif self._pulse.connected and time.monotonic() - began >= self._silence and self._pulse.heard == heard:
                # A server whose store was put back to an earlier state says nothing until it is past our version.
                self._mute += 1
                if self._mute >= _MUTE:
                    self._version, self._mute = "", 0
        except Exception:  # a mistake of ours: the others go on, and so does this one
            _log.exception("following %s", self.scope)
            self._version = ""
            reason = "internal"
        finally:
            self._pulse.connected = False
        self._counters.reconnects[reason] += 1
        if reason == "ended" and (self._pulse.heard > heard or time.monotonic() - began >= _QUICK):
            return 0.0
        return self._backoff.after(fault)

    def _failed(self, fault: ApiFault) -> None:
        self._counters.fault(fault)
        self._tell(fault)
        if self._optional and isinstance(fault, Forbidden):
            self.synced.set()  # going without it is what there is

    def _tell(self, fault: ApiFault | None) -> None:
        """Once for each kind of fault, not for each time."""
        kind = None if fault is None else type(fault)
        if kind is not self._fault:
            self._fault = kind
            self._told(self.scope, fault)

    # List.

    async def _list(self, *, quiet: bool = False) -> None:
        """Take the whole list in. Raises `ApiFault`."""
        limit, version = PAGE, ""
        while not version:
            try:
                async with self._gate:
                    version = await self._pages(limit, quiet=quiet)
            except TooLarge:
                if limit == 1:
                    raise
                limit = max(limit // 8, 1)
            except Gone:
                if not limit:
                    raise
                limit = 0  # the list took longer than the server remembers: all of it at once (client-go's pager)
        self._intake.end(version)
        self._version = version
        self._counters.lists += 1
        self._hear()
        self._pulse.synced = True
        self.synced.set()

    async def _pages(self, limit: int, *, quiet: bool) -> str:
        """Every page; the list's version. A limit of 0 is none."""
        self._intake.begin()
        query = dict(self.scope.selector)
        if limit:
            query["limit"] = str(limit)
        while True:
            body = await self._client.page(self.scope.path, query, quiet=quiet)
            page = page_of(f"list {self.scope}", body)
            await self._take(page.items or ())
            following = page.metadata.continue_
            if not following:
                if not page.metadata.resource_version:
                    raise Garbled(f"list {self.scope}", "it has no resourceVersion")
                return page.metadata.resource_version
            query["continue"] = following
            await asyncio.sleep(0)

    async def _take(self, items: tuple[msgspec.Raw, ...]) -> None:
        """Take a page in; after the first whole list each object has what it needs, as if it came as an event."""
        needs = []
        if self._before is not None and self.synced.is_set():
            needs = [need for raw in items if (need := self._before(raw)) is not None]
        try:
            if needs:
                await asyncio.wait([need.ready for need in needs])
            self._intake.page(items)
        finally:
            for need in needs:
                need.release()

    # Watch.

    async def _watch(self) -> None:
        """Take in what happens, until the server ends the watch. Raises `ApiFault`."""
        what = f"watch {self.scope}"
        query = {
            **self.scope.selector,
            "resourceVersion": self._version,
            "allowWatchBookmarks": "true",
            "timeoutSeconds": str(int(SHORTEST_WATCH * (1 + random.random()))),  # noqa: S311 - no secret
        }
        lines = Lines()
        async with self._client.watch(self.scope.path, query, self._silence, lines) as stream:
            self._pulse.connected = True
            self._tell(None)
            events = aclosing(_events(stream, what))
            async with events as read, aclosing(in_order(read, self._needs, _size)) as ordered:
                async for event, received, _ in read if self._before is None else ordered:
                    self._took(event.type, event.object, what, received)
                    if lines.dropped:
                        raise Garbled(what, "an event was longer than any object may be")

    def _needs(self, read: _Read) -> Need | None:
        event = read[0]
        return self._before(event.object) if self._before is not None and event.type in _NEEDY else None

    def _took(self, kind: str, raw: msgspec.Raw, what: str, received: int) -> None:
        verb = _VERBS.get(kind)
        if verb is not None:
            head = self._intake.take(verb, raw, received)
            version = "" if head is None else head.resource_version
        elif kind == "BOOKMARK":
            try:
                version = head_of(raw).resource_version
            except Unreadable as problem:
                raise Garbled(what, f"a bookmark {problem.message}") from None
        else:
            raise Garbled(what, f"an event is of the type {kind[:20]!r}")
        self._counters.events[verb or "bookmark"] += 1
        self._version = version or self._version
        self._gone = self._mute = 0
        self._backoff.reset()
        self._hear()

    def _hear(self) -> None:
        self._pulse.heard = time.monotonic()


async def _events(stream: AsyncIterator[bytes], what: str) -> AsyncGenerator[_Read, None]:
    """The events of a watch, and when each had been read."""
    async for line in stream:
        received = time.time_ns()
        yield event_of(what, line), received, len(line)


def _size(read: _Read) -> int:
    return read[2]
