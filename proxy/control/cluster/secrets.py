"""The Secrets that an Ingress or a flag names, and no others.

Each is followed by a list and a watch of that one object (a field selector on its name), which RBAC can allow by name
and which shows us nothing else of its namespace. A watch holds a connection, so there is a bound: what is named
beyond it is listed in turn, and less and less often where that is refused.
"""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Callable, Coroutine, Hashable, Iterable
from typing import TYPE_CHECKING, Final

from proxy.control.cluster.ahead import Need
from proxy.control.cluster.intake import Intake
from proxy.control.cluster.kinds import SECRET, Scope
from proxy.control.cluster.pace import Backoff
from proxy.control.cluster.reflector import SILENCE, Reflector
from proxy.control.problem import Problem

if TYPE_CHECKING:
    from proxy.control.cluster.client import Client
    from proxy.control.cluster.counters import Counters, Pulse
    from proxy.control.cluster.intake import Changed
    from proxy.control.cluster.reflector import Told
    from proxy.control.objects import Ingress, Key
    from proxy.control.store import Objects

WATCHED: Final = 256  # Secrets with a watch of their own
ROUND: Final = 0.1  # seconds between two lists of those beyond: 10 a second, 1,000 in 100 s
AT_ONCE: Final = 16  # lists under way: a thousand at once would be an attack
AHEAD: Final = 1.0  # seconds that whoever names Secrets waits for them
REFUSED: Final = 300.0  # seconds, the longest pause of a Secret that may not be read: RBAC changes rarely

_log = logging.getLogger(__name__)


def named_by(ingress: Ingress) -> set[Key]:
    """The Secrets that an Ingress names."""
    return {(ingress.metadata.namespace, tls.secret_name) for tls in ingress.spec.tls if tls.secret_name}


class _Followed:
    """One Secret: its reflector, and the task that runs it or asks for it a first time."""

    __slots__ = ("backoff", "due", "intake", "pulse", "reflector", "task", "wanted", "watched")

    def __init__(self, reflector: Reflector, intake: Intake, pulse: Pulse, backoff: Backoff) -> None:
        self.reflector = reflector
        self.intake = intake
        self.pulse = pulse
        self.backoff = backoff
        self.task: asyncio.Task[None] | None = None
        self.watched = False
        self.wanted = 1  # by how many
        self.due = 0.0  # to be listed again, monotonic seconds

    @property
    def synced(self) -> bool:
        return self.reflector.synced.is_set()


class Secrets:
    """`name` says which; `run` looks after those that have no watch."""

    def __init__(
        self,
        client: Client,
        objects: Objects,
        counters: Counters,
        changed: Changed,
        told: Told,
        left: Callable[[Scope], None],
        *,
        silence: float = SILENCE,
        watched: int = WATCHED,
    ) -> None:
        """``left``: a scope is not followed any more. ``silence`` as `Reflector` has it; ``watched``: most watches."""
        self._client = client
        self._objects = objects
        self._counters = counters
        self._changed = changed
        self._told = told
        self._left = left
        self._silence = silence
        self._free = watched
        self._names: dict[Hashable, set[Key]] = {}  # who names them -> which
        self._followed: dict[Key, _Followed] = {}
        self._gate = asyncio.Semaphore(AT_ONCE)
        self._ended: set[asyncio.Task[None]] = set()

    def __repr__(self) -> str:
        watches = sum(one.watched for one in self._followed.values())
        return f"Secrets({len(self._followed)} followed, {watches} of them by a watch)"

    @property
    def problems(self) -> list[Problem]:
        """What is wrong with those that cannot be used."""
        return [problem for one in self._followed.values() for problem in one.intake.problems]

    def name(self, owner: Hashable, keys: Iterable[Key]) -> None:
        """``owner`` names these Secrets now, and no others. What nobody names any more is forgotten at once."""
        before, now = self._names.get(owner, set()), set(keys)
        if now:
            self._names[owner] = now
        else:
            self._names.pop(owner, None)
        for key in sorted(now - before):
            self._follow(key)
        for key in before - now:
            self._leave(key)

    @property
    def waiting(self) -> int:
        """How many of those that are named have not been asked for yet."""
        return sum(not one.synced for one in self._followed.values())

    def known(self, keys: Iterable[Key]) -> bool:
        """Whether each of these has been asked for."""
        return all((one := self._followed.get(key)) is not None and one.synced for key in keys)

    def need(self, keys: Iterable[Key]) -> Need | None:
        """Ask for Secrets that something is about to name, which waits for them; None where all are known."""
        wanted = set(keys)
        if self.known(wanted):
            return None
        owner = object()
        self.name(owner, wanted)
        ready = asyncio.get_running_loop().create_task(self._arrive(wanted))

        def release() -> None:
            ready.cancel()
            self.name(owner, ())

        return Need(ready, release)

    async def _arrive(self, keys: set[Key]) -> None:
        try:
            async with asyncio.timeout(AHEAD):
                await self.sync(keys)
        except TimeoutError:
            pass  # whoever waits goes on without

    async def sync(self, keys: set[Key] | None = None) -> None:
        """Wait until each of ``keys`` (None: that is named) has been asked for once.

        That is all: it need not exist, and we need not be allowed to read it.
        """
        while waiting := [
            one for key, one in self._followed.items() if not one.synced and (keys is None or key in keys)
        ]:
            await asyncio.gather(*(one.reflector.synced.wait() for one in waiting))

    async def run(self) -> None:
        """List those without a watch, in turn, until cancelled; then end the watches."""
        try:
            while True:
                now = time.monotonic()
                turn = [one for one in self._followed.values() if not one.watched and one.synced and one.due <= now]
                for one in turn:
                    if one.wanted and not one.watched:
                        await self._ask(one, quiet=True)
                        await asyncio.sleep(ROUND)
                await asyncio.sleep(ROUND)
        finally:
            tasks = [one.task for one in self._followed.values() if one.task is not None] + list(self._ended)
            for task in tasks:
                task.cancel()
            if tasks:
                await asyncio.wait(tasks)

    async def _ask(self, one: _Followed, *, quiet: bool = False) -> None:
        """List one without a watch, and note when it is to be listed again."""
        try:
            fault = await one.reflector.refresh(quiet=quiet)
        except Exception:  # a mistake of ours: the others go on
            _log.exception("asking for %s", one.reflector.scope)
            one.due = time.monotonic() + one.backoff.after()
            return
        if fault is None:
            one.backoff.reset()
            one.due = 0.0
        else:
            one.due = time.monotonic() + one.backoff.after(fault)

    async def _first(self, one: _Followed) -> None:
        """Ask for one without a watch until there is an answer, be it that we may not read it."""
        while not one.synced and not one.watched:
            await asyncio.sleep(max(one.due - time.monotonic(), 0.0))
            await self._ask(one)

    def _follow(self, key: Key) -> None:
        one = self._followed.get(key)
        if one is not None:
            one.wanted += 1
            return
        pulse = self._counters.join()
        intake = Intake(SECRET.kind, self._objects, self._changed, pulse)
        backoff = Backoff(refusal=REFUSED)
        reflector = Reflector(
            self._client,
            Scope(SECRET, *key),
            intake,
            self._counters,
            pulse,
            self._told,
            optional=True,
            silence=self._silence,
            gate=self._gate,
            backoff=backoff,
        )
        one = self._followed[key] = _Followed(reflector, intake, pulse, backoff)
        if self._free > 0:
            self._watch(one)
        else:
            self._begin(one, self._first(one))

    def _watch(self, one: _Followed) -> None:
        self._free -= 1
        one.watched = True
        self._begin(one, one.reflector.run())

    def _begin(self, one: _Followed, work: Coroutine[None, None, None]) -> None:
        """In place of what was begun before, which ends by itself."""
        self._retire(one)
        one.task = asyncio.get_running_loop().create_task(work)

    def _retire(self, one: _Followed) -> None:
        if one.task is not None and not one.task.done():
            self._ended.add(one.task)
            one.task.add_done_callback(self._ended.discard)

    def _leave(self, key: Key) -> None:
        one = self._followed[key]
        one.wanted -= 1
        if one.wanted:
            return
        del self._followed[key]
        self._counters.leave(one.pulse)
        one.intake.forget()
        one.reflector.synced.set()  # nobody is to wait for it any more
        self._left(one.reflector.scope)
        if one.task is not None:
            self._retire(one)
            one.task.cancel()
        if one.watched:
            self._free += 1
            # The place goes to one that waits.
            heir = next((other for other in self._followed.values() if not other.watched), None)
            if heir is not None:
                self._watch(heir)
