"""Stand-in until the branch that owns it is merged."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Literal

import msgspec

from proxy.control.build import Builder, Choices

if TYPE_CHECKING:
    from proxy.control.feed import Sink
    from proxy.control.problem import Problem
    from proxy.control.store import Objects
    from proxy.settings import Override


class Change(msgspec.Struct, frozen=True):
    """One received event, after objects was updated."""

    kind: str
    namespace: str
    name: str
    resource_version: str
    verb: Literal["added", "modified", "deleted", "listed"]
    received_ns: int
    lag_ns: int = -1
    lag_source: str = ""
    traceparent: str = ""


class Publisher:
    """Builds everything anew."""

    def __init__(
        self,
        objects: Objects,
        sink: Sink,
        overrides: Sequence[Override],
        choices: Choices,
        listener: Callable[[tuple[Problem, ...]], None],
    ) -> None:
        self._objects, self._sink, self._overrides, self._choices = objects, sink, overrides, choices
        self._listener = listener
        self._generation = 0
        self._builder = Builder(objects, overrides, choices)
        self._task: asyncio.Task[None] | None = None
        self._dirty = False
        self.problems: tuple[Problem, ...] = ()

    def changed(self, _change: Change) -> None:
        """One change."""
        self._dirty = True
        if self._generation and (self._task is None or self._task.done()):
            self._task = asyncio.get_running_loop().create_task(self._run())

    async def synced(self) -> None:
        """The first table."""
        await self._build()

    async def _run(self) -> None:
        while self._dirty:
            await self._build()

    async def _build(self) -> None:
        self._dirty = False
        step = self._builder.update(self._objects.take() if self._generation else None)
        self._generation += 1
        table, problems = self._builder.table(self._generation), step.problems
        self.problems = tuple(problems)
        await self._sink.apply(table, self.problems)
        self._listener(self.problems)
