"""Notices that manifest files have changed, by looking.

Looking (`stat`, twice a second) needs no kernel interface, works on every file system, and sees through the links of
a mounted ConfigMap, where an inotify watch on the file would go on watching the old target. A change is taken when
two looks in a row show the same state, so that a file is not read while its editor is half done.
"""

from __future__ import annotations

import asyncio
import time
from typing import TYPE_CHECKING, Final, TypeAlias

from proxy.control.files import Signature, files_of, signature

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Iterable
    from pathlib import Path

    from proxy.control.generations import Generations, Update
    from proxy.control.problem import Problem

INTERVAL: Final = 0.5  # seconds between two looks
SETTLE: Final = 0.1  # seconds that a change must have stood still
LONGEST_SETTLE: Final = 2.0  # seconds; a file that is written all the time is read in between
_SHARE: Final = 20  # a look may cost a twentieth of the time: 10,000 files are looked at less often

State: TypeAlias = "tuple[tuple[tuple[Path, Signature | None], ...], tuple[Problem, ...]]"


def look(paths: Iterable[Path]) -> State:
    """The files behind paths, with what tells their states apart, and the paths that cannot be read."""
    files, problems = files_of(paths)
    return tuple((path, signature(path)) for path in files), tuple(problems)


def _timed_look(paths: Iterable[Path]) -> tuple[State, float]:
    """A look, and the CPU seconds it cost."""
    started = time.thread_time()
    return look(paths), time.thread_time() - started


class Watcher:
    """Looks for the next generation when files change."""

    __slots__ = ("_generations", "_interval", "_seen", "_settle")

    def __init__(self, generations: Generations, interval: float = INTERVAL, settle: float = SETTLE) -> None:
        self._generations = generations
        self._interval = interval
        self._settle = settle
        self._seen: State | None = None

    def __repr__(self) -> str:
        return f"Watcher({self._generations!r}, every {self._interval} s)"

    async def run(self, changed: Callable[[Update], Awaitable[None]]) -> None:
        """Watch until cancelled; ``changed`` is called with every update that brings a table or other problems.

        Call `Generations.refresh` once before. Files are looked at and read in a thread: a slow disk stops nobody.
        """
        while True:
            state, cost = await asyncio.to_thread(_timed_look, self._generations.paths)
            if state != self._seen:
                # The first look settles nothing: whatever has changed since the first refresh is read at once.
                self._seen = state if self._seen is None else await self._settled(state)
                problems = self._generations.problems
                update = await self._generations.refresh()
                if update.table is not None or update.problems != problems:
                    await changed(update)
            await asyncio.sleep(max(self._interval, _SHARE * cost))

    async def _settled(self, state: State) -> State:
        """The state once it has stopped changing, or after `LONGEST_SETTLE`."""
        deadline = time.monotonic() + LONGEST_SETTLE
        while time.monotonic() < deadline:
            await asyncio.sleep(self._settle)
            before, state = state, await asyncio.to_thread(look, self._generations.paths)
            if state == before:
                break
        return state
