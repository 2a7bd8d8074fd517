"""How generations get into workers: stand-ins speak the workers' part over real channels."""

from __future__ import annotations

import asyncio
import contextlib
import socket
import time
from collections.abc import AsyncIterator, Callable

import pytest

from proxy import link as linking
from proxy.channel import Applied, Channel, Commit, First, Prepare, Prepared, decoded, encoded
from proxy.link import Link, Rollout
from proxy.route.change import TableChange, whole
from proxy.route.spec import HostSpec, TableSpec
from tests.rig import table


class Pair:
    """A link, and the worker at its other end."""

    def __init__(self, link: Link, worker: Channel) -> None:
        self.link = link
        self.worker = worker
        self.listening = asyncio.ensure_future(link.listen())

    async def prepare(self, error: str = "") -> TableChange:
        order = await asyncio.wait_for(self.worker.order(), 20)
        assert isinstance(order, Prepare)
        change = decoded(order.change)
        self.worker.send(Prepared(order.id, change.generation, error, 1000))
        return change

    async def commit(self, generation: int) -> None:
        order = await asyncio.wait_for(self.worker.order(), 20)
        assert isinstance(order, Commit)
        self.worker.send(Applied(order.id, generation, time.time_ns()))

    async def follow(self) -> TableChange:
        change = await self.prepare()
        await self.commit(change.generation)
        await soon(lambda: self.link.generation == change.generation)
        return change

    async def quiet(self) -> bool:
        """Nothing is asked of the worker for a while."""
        with contextlib.suppress(TimeoutError):
            await asyncio.wait_for(self.worker.order(), 0.05)
            return False
        return True


class Stage:
    def __init__(self) -> None:
        self.newest = TableSpec(9)
        self.pairs: list[Pair] = []
        self.firsts: list[First] = []
        self.changed = 0

    async def hire(self) -> Pair:
        near, far = socket.socketpair()
        number = len(self.pairs)
        link = Link(number, 100 + number, await Channel.open(near), self.whole, self.arrived, self.firsts.append)
        self.pairs.append(Pair(link, await Channel.open(far)))
        return self.pairs[-1]

    async def whole(self) -> tuple[int, linking.Parts]:
        return self.newest.generation, encoded(whole(self.newest))

    def arrived(self) -> None:
        self.changed += 1

    def offer(self, generation: int, base: int) -> Rollout:
        change = TableChange(generation, base, {f"{generation}.test": HostSpec(f"{generation}.test")})
        rollout = Rollout(change, encoded(change), time.time_ns)
        for pair in self.pairs:
            pair.link.offer(rollout)
        return rollout


@contextlib.asynccontextmanager
async def stage() -> AsyncIterator[Stage]:
    made = Stage()
    try:
        yield made
    finally:
        for pair in made.pairs:
            pair.worker.close()
            await asyncio.wait_for(pair.listening, 20)
            await asyncio.wait_for(pair.link.idle(), 20)


async def soon(condition: Callable[[], bool]) -> None:
    async with asyncio.timeout(20):
        while not condition():
            await asyncio.sleep(0.001)


async def test_all_are_told_at_once_when_all_are_ready(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(linking, "TOGETHER", 60.0)
    async with stage() as s:
        one, other = await s.hire(), await s.hire()
        rollout = s.offer(1, 0)
        await one.prepare()
        assert await one.quiet(), "the other is not ready yet"
        settled = asyncio.ensure_future(rollout.settled())
        await other.prepare()
        await other.commit(1)
        assert not settled.done()
        # What `quiet` left unread is lost to it: the commit comes all the same.
        await one.commit(1)
        await asyncio.wait_for(settled, 20)
        assert [(each.index, each.whole, each.busy_ns) for each in rollout.arrivals] == [
            (1, True, 1000),
            (0, True, 1000),
        ]
        assert all(each.sent_ns <= each.prepared_ns for each in rollout.arrivals)


async def test_a_worker_that_is_slow_keeps_nobody() -> None:
    async with stage() as s:
        quick, slow = await s.hire(), await s.hire()
        first = s.offer(1, 0)
        await asyncio.gather(quick.follow(), slow.follow())
        for generation in (2, 3, 4):
            rollout = s.offer(generation, generation - 1)
            change = await asyncio.wait_for(quick.follow(), 20)
            assert list(change.hosts) == [f"{generation}.test"]
            await asyncio.wait_for(rollout.settled(), 20)
        assert (quick.link.generation, slow.link.generation) == (4, 1)
        assert await slow.follow() == TableChange(2, 1, {"2.test": HostSpec("2.test")})
        change = await slow.follow()
        assert (change.generation, change.base, list(change.hosts)) == (4, 2, ["3.test", "4.test"]), "all it missed"
        assert len(first.arrivals) == 2


async def test_a_change_that_does_not_fit_is_the_whole_table() -> None:
    async with stage() as s:
        pair = await s.hire()
        s.offer(9, 8)
        change = await pair.follow()
        assert (change.generation, change.base) == (9, 0)


async def test_a_change_that_does_not_do_is_tried_whole_and_then_said(caplog: pytest.LogCaptureFixture) -> None:
    async with stage() as s:
        pair = await s.hire()
        s.offer(1, 0)
        await pair.follow()
        s.newest = table(2)
        s.offer(2, 1)
        assert (await pair.prepare("no such backend")).base == 1
        assert await pair.follow() == whole(table(2))
        assert caplog.text == ""
        s.newest = table(3)
        rollout = s.offer(3, 2)
        await pair.prepare("no such backend")
        await pair.prepare("nor here")
        await asyncio.wait_for(rollout.settled(), 20)
        await pair.link.idle()
        assert "worker 0 keeps generation 2: nor here" in caplog.text
        assert s.changed == 3


async def test_a_worker_that_dies_is_waited_for_by_nobody(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(linking, "TOGETHER", 60.0)
    async with stage() as s:
        one, other, third = await s.hire(), await s.hire(), await s.hire()
        rollout = s.offer(1, 0)
        await one.prepare()
        other.worker.close()
        await third.prepare()
        third.worker.close()
        await one.commit(1)
        await asyncio.wait_for(rollout.settled(), 20)
        assert [each.index for each in rollout.arrivals] == [0]


async def test_a_newcomer_gets_what_is_on_its_way_to_the_others() -> None:
    async with stage() as s:
        rollout = s.offer(1, 0)
        await asyncio.wait_for(rollout.settled(), 20)
        pair = await s.hire()
        pair.link.offer(rollout)
        assert not pair.link.follows(60.0), "it serves nothing yet"
        assert (await pair.follow()).generation == 1
        s.offer(2, 1)
        assert pair.link.follows(60.0)
        assert not pair.link.follows(0.0)
        await pair.follow()
        await pair.link.idle()
        assert not pair.link.follows(60.0)
        assert repr(pair.link) == "Link(0, pid 100, generation 2)"


async def test_parts_go_one_by_one() -> None:
    routes = tuple(table(1, host=f"{number}.test").routes[0] for number in range(2000))
    async with stage() as s:
        pair = await s.hire()
        change = whole(TableSpec(1, routes, table(1).backends))
        parts = encoded(change)
        pair.link.offer(Rollout(change, parts, time.time_ns))
        found: dict[str, HostSpec | None] = {}
        for number in range(len(parts)):
            order = await asyncio.wait_for(pair.worker.order(), 20)
            assert isinstance(order, Prepare)
            found |= decoded(order.change).hosts
            assert order.last == (number == len(parts) - 1)
        assert found == change.hosts


async def test_the_first_request_is_told_unasked() -> None:
    async with stage() as s:
        pair = await s.hire()
        first = First(0, 7, b"t" * 16, b"s" * 8, 1, 2, 200)
        pair.worker.send(first)
        await soon(lambda: s.firsts == [first])


async def test_a_worker_that_dies_between_being_ready_and_being_told_is_waited_for_by_nobody(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(linking, "TOGETHER", 60.0)
    async with stage() as s:
        one, other = await s.hire(), await s.hire()
        rollout = s.offer(1, 0)
        await one.prepare()
        await one.quiet()
        one.worker.close()
        await asyncio.wait_for(one.listening, 20)
        await other.follow()
        await asyncio.wait_for(rollout.settled(), 5)
        await asyncio.wait_for(one.link.idle(), 5)
        assert [each.index for each in rollout.arrivals] == [1]


async def test_one_who_is_late_for_each_of_a_long_row_of_tables_keeps_up() -> None:
    async with stage() as s:
        pair = await s.hire()
        s.offer(1, 0)
        await pair.follow()
        s.offer(2, 1)
        await pair.prepare()
        pair.link._since -= 1000.0
        assert not pair.link.follows(60.0)
        s.offer(3, 2)  # before it serves the second
        await pair.commit(2)
        await pair.prepare()
        assert pair.link.follows(60.0), "the second is served, and the third has just begun"
        await pair.commit(3)
