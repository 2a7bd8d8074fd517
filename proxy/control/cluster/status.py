"""Writes `status.loadBalancer` of the Ingresses of our class: the leader only, what differs only, not too fast.

**When the controller ends** the status stays as it is, but for one case, in which it is emptied: the leader ends, and
no other replica runs. That is what ingress-nginx does (`--update-status-on-shutdown`, true by default; it lists Pods
to find out). Here the endpoints of --publish-service tell, so that no Pods need be read: where another endpoint is up,
or nothing tells (--publish-address, no POD_NAME), the status stays.

**Who else writes it** (a second installation of the same class) is told, and given way to: see `contest`.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable
from typing import TYPE_CHECKING, Final

from proxy.control.cluster.addresses import Points, of_ingress, patch
from proxy.control.cluster.client import MERGE_PATCH
from proxy.control.cluster.contest import Contests
from proxy.control.cluster.faults import ApiFault, Conflict, Forbidden, NotFound, refused
from proxy.control.cluster.kinds import INGRESS
from proxy.control.cluster.pace import Backoff, Bucket
from proxy.control.cluster.wire import Unreadable, head_of

if TYPE_CHECKING:
    import msgspec

    from proxy.control.cluster.client import Client
    from proxy.control.objects import Key
    from proxy.control.problem import Problem

RATE: Final = 20.0  # writes a second
BURST: Final = 50  # writes at once, after a pause
EMPTYING: Final = 5.0  # seconds for the last writes, when the controller ends


class _Seen:
    """An Ingress as the API server last had it."""

    __slots__ = ("ours", "points", "version")

    def __init__(self, version: str, points: Points, *, ours: bool) -> None:
        self.version = version
        self.points: Points | None = points  # None: a write is under way, and nobody knows
        self.ours = ours  # what is to be written stood there, now or once


class Status:
    """`look` sees every Ingress; `run` writes while ``leads`` says so."""

    def __init__(
        self,
        client: Client,
        leads: Callable[[], bool],
        ours: Callable[[Key], bool],
        say: Callable[[str], None],
        bucket: Bucket | None = None,
        changed: Callable[[], None] = lambda: None,
    ) -> None:
        """``ours`` says whether an Ingress is of our class; ``changed`` is called when `problems` are others."""
        self.writes = 0
        self.faults = 0
        self._client = client
        self._leads = leads
        self._ours = ours
        self._say = say
        self._bucket = bucket or Bucket(RATE, BURST)
        self._points: Points | None = None  # None: nobody has said what to publish
        self._seen: dict[Key, _Seen] = {}
        self._due: dict[Key, None] = {}  # to be looked at, in order
        self._wake = asyncio.Event()
        self._told = False
        self._changed = changed
        self._contests = Contests()
        self._waiting: dict[Key, asyncio.TimerHandle] = {}  # for their turn

    def __repr__(self) -> str:
        return f"Status({self._points}, {len(self._due)} due, {self.writes} written)"

    def publish(self, points: Points) -> None:
        """What every status is to say."""
        if points != self._points:
            self._points = points
            self._contests.clear()
            for seen in self._seen.values():
                seen.ours = False
            self.all()

    @property
    def problems(self) -> list[Problem]:
        """What somebody else writes, again and again."""
        return [one for one in self._contests.problems(self._points or ()) if self._ours((one.namespace, one.name))]

    def look(self, key: Key, raw: bytes | msgspec.Raw | None) -> None:
        """An Ingress as it came (`intake.Look`)."""
        if raw is None:
            self._seen.pop(key, None)
            self._due.pop(key, None)
            self._contests.forget([key])
            return
        try:
            version = head_of(raw).resource_version
        except Unreadable:
            return
        points, before = of_ingress(raw), self._seen.get(key)
        stood = before is not None and before.ours
        self._seen[key] = _Seen(version, points, ours=points == self._points)
        if stood and points != self._points and self._contests.overwritten(key, points):
            self._changed()
        self._again(key)

    def _again(self, key: Key) -> None:
        """Look at one again, as soon as it is our turn."""
        waiting = self._waiting.pop(key, None)
        if waiting is not None:
            waiting.cancel()
        pause = self._contests.pause(key)
        if pause > 0:
            self._due.pop(key, None)
            self._waiting[key] = asyncio.get_running_loop().call_later(pause, self._again, key)
        elif key in self._seen:
            self._due[key] = None
            self._wake.set()

    def all(self) -> None:
        """Look at every Ingress again: the leader, the class or the addresses are others."""
        self._due.update(dict.fromkeys(self._seen))
        self._wake.set()

    async def run(self) -> None:
        """Write what differs, until cancelled."""
        backoff = Backoff()
        while True:
            await self._wake.wait()
            if not self._due:
                self._wake.clear()
                continue
            if not self._leads():
                self._due.clear()  # `all` is called for a new leader
                continue
            key = next(iter(self._due))
            del self._due[key]
            wanted = self._wanted(key)
            if wanted is not None and self._contests.pause(key) > 0:
                self._again(key)  # it was among all of them
                wanted = None
            if wanted is None:
                await asyncio.sleep(0)
                continue
            await self._bucket.take()
            wanted = self._wanted(key)  # it may be gone, or other, since
            if wanted is None or not self._leads():
                continue
            fault = await self._write(key, wanted)
            if fault is None:
                backoff.reset()
            else:
                await asyncio.sleep(backoff.after(fault))

    async def empty(self) -> None:
        """Take the addresses out of every status, for at most `EMPTYING` seconds."""
        until = time.monotonic() + EMPTYING
        self._points = ()
        places = asyncio.Semaphore(10)  # ingress-nginx's pool

        async def one(key: Key) -> None:
            async with places:
                wanted = self._wanted(key)
                if wanted is not None and time.monotonic() < until:
                    await self._write(key, wanted, anyway=True)

        try:
            async with asyncio.timeout(EMPTYING):
                await asyncio.gather(*(one(key) for key in list(self._seen)))
        except TimeoutError:
            self._say(f"not every status could be emptied within {EMPTYING:g} s")

    def _wanted(self, key: Key) -> Points | None:
        """What is to be written to an Ingress, None if nothing is."""
        seen = self._seen.get(key)
        if seen is None or self._points is None or seen.points == self._points or not self._ours(key):
            return None
        return self._points

    async def _write(self, key: Key, points: Points, *, anyway: bool = False) -> ApiFault | None:
        """Write one; a fault if that is worth a pause. What has changed meanwhile comes back by the watch.

        ``anyway``: whatever has changed meanwhile, for there is no later.
        """
        seen = self._seen[key]
        seen.points = None
        path = INGRESS.path(*key, "status")
        try:
            await self._client.send("PATCH", path, patch(points, "" if anyway else seen.version), MERGE_PATCH)
        except (Conflict, NotFound):
            return None
        except ApiFault as problem:
            self.faults += 1
            if not refused(problem):
                self._due[key] = None
            if not self._told:
                self._told = True
                hint = "; grant patch on ingresses/status" if isinstance(problem, Forbidden) else ""
                self._say(f"the status of Ingress {'/'.join(key)} cannot be written: {problem}{hint}")
            return problem
        self.writes += 1
        self._told = False
        seen.points = points  # until the watch has it
        seen.ours = True
        return None
