"""What stands for the supervisor: it takes tables, and says that workers serve them."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Sequence

from proxy.control.problem import Problem
from proxy.control.rolling import Arrival
from proxy.route.change import TableChange
from proxy.route.spec import TableSpec


class Worker:
    """An `Arrival`."""

    def __init__(self, index: int, served_ns: int) -> None:
        self.index = index
        self.pid = 100 + index
        self.whole = False
        self.sent_ns = self.prepared_ns = self.served_ns = served_ns
        self.busy_ns = 1000


class Rolling:
    """A generation that the first ``prompt`` of two workers serve at once, the others when `finish` says so."""

    def __init__(self, prompt: int) -> None:
        self.began_ns = time.time_ns()
        self.found: list[Worker] = []
        self.done: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        for index in range(prompt):
            self.arrive(index)

    @property
    def arrivals(self) -> Sequence[Arrival]:
        return self.found

    def arrive(self, index: int) -> None:
        self.found.append(Worker(index, time.time_ns()))
        if len(self.found) == 2:
            self.done.set_result(None)

    async def settled(self) -> None:
        await asyncio.sleep(0)


class Sink:
    """Keeps what it is told."""

    def __init__(self, prompt: int = 2) -> None:
        self.prompt = prompt
        self.tables: list[TableSpec] = []
        self.changes: list[TableChange] = []
        self.problems: list[Sequence[Problem]] = []
        self.rollings: list[Rolling] = []
        self.changed = asyncio.Event()

    async def swap(self, table: TableSpec, change: TableChange, problems: Sequence[Problem]) -> Rolling:
        await asyncio.sleep(0)
        self.tables.append(table)
        self.changes.append(change)
        self.rollings.append(Rolling(self.prompt))
        self.report(problems)
        return self.rollings[-1]

    def report(self, problems: Sequence[Problem]) -> None:
        self.problems.append(problems)
        self.changed.set()

    async def next(self) -> None:
        await asyncio.wait_for(self.changed.wait(), 20)
        self.changed.clear()
