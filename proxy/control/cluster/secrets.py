"""The Secrets that an Ingress or a flag names, and no others.

Each is followed by a list and a watch of that one object (a field selector on its name), which RBAC can allow by name
and which shows us nothing else of its namespace. A watch holds a connection, so there is a bound: what is named
beyond it is listed in turn.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Hashable, Iterable
from typing import TYPE_CHECKING, Final

from proxy.control.cluster.intake import Intake
from proxy.control.cluster.kinds import SECRET, Scope
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
_LOOK: Final = 0.02  # seconds between two looks at whether all are in
_PAUSE: Final = 0.5  # seconds after a list that failed


def named_by(ingress: Ingress) -> set[Key]:
    """The Secrets that an Ingress names."""
    return {(ingress.metadata.namespace, tls.secret_name) for tls in ingress.spec.tls if tls.secret_name}


class _Followed:
    """One Secret: its reflector, and its task if it has a watch."""

    __slots__ = ("intake", "pulse", "reflector", "task", "wanted")

    def __init__(self, reflector: Reflector, intake: Intake, pulse: Pulse) -> None:
        self.reflector = reflector
        self.intake = intake
        self.pulse = pulse
        self.task: asyncio.Task[None] | None = None
        self.wanted = 1  # by how many

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
        watches = sum(one.task is not None for one in self._followed.values())
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

    async def sync(self, keys: Iterable[Key] | None = None) -> None:
        """Wait until each of ``keys`` (None: that is named) has been asked for once.

        That is all: it need not exist, and we need not be allowed to read it.
        """
        wanted = None if keys is None else set(keys)
        while waiting := [
            one for key, one in self._followed.items() if not one.synced and (wanted is None or key in wanted)
        ]:
            polled = [one for one in waiting if one.task is None]
            done = await asyncio.gather(*(one.reflector.refresh() for one in polled))
            await asyncio.sleep(_LOOK if all(done) else _PAUSE)

    async def run(self) -> None:
        """List those without a watch, in turn, until cancelled; then end the watches."""
        try:
            while True:
                turn = [one for one in self._followed.values() if one.task is None]
                for one in turn:
                    if one.wanted and not await one.reflector.refresh(quiet=True):
                        await asyncio.sleep(_PAUSE)
                    await asyncio.sleep(ROUND)
                await asyncio.sleep(ROUND)
        finally:
            tasks = [one.task for one in self._followed.values() if one.task is not None] + list(self._ended)
            for task in tasks:
                task.cancel()
            if tasks:
                await asyncio.wait(tasks)

    def _follow(self, key: Key) -> None:
        one = self._followed.get(key)
        if one is not None:
            one.wanted += 1
            return
        pulse = self._counters.join()
        intake = Intake(SECRET.kind, self._objects, self._changed, pulse)
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
        )
        one = self._followed[key] = _Followed(reflector, intake, pulse)
        self._watch(one)

    def _watch(self, one: _Followed) -> None:
        if self._free > 0:
            self._free -= 1
            one.task = asyncio.get_running_loop().create_task(one.reflector.run())

    def _leave(self, key: Key) -> None:
        one = self._followed[key]
        one.wanted -= 1
        if one.wanted:
            return
        del self._followed[key]
        self._counters.leave(one.pulse)
        one.intake.forget()
        self._left(one.reflector.scope)
        if one.task is not None:
            one.task.cancel()
            self._ended.add(one.task)
            one.task.add_done_callback(self._ended.discard)
            self._free += 1
            # The place goes to one that waits.
            heir = next((other for other in self._followed.values() if other.task is None), None)
            if heir is not None:
                self._watch(heir)
