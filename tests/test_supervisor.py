"""The supervisor with stand-ins for its workers, which speak to it over real channels."""

from __future__ import annotations

import asyncio
import contextlib
import os
import socket
import time
from collections.abc import AsyncIterator
from typing import Any

from proxy.admin.source import Cursor, WorkerSample
from proxy.channel import (
    Applied,
    AskBatches,
    AskSample,
    Batches,
    Channel,
    Commit,
    Drain,
    Prepare,
    Prepared,
    Sampled,
    decoded,
)
from proxy.route.change import TableChange, whole
from proxy.settings import Settings, Timeouts
from proxy.supervisor import Supervisor
from tests.rig import table


class Stage:
    """A supervisor that runs, and the far ends of its workers' channels."""

    def __init__(self, workers: int) -> None:
        self.supervisor = Supervisor(Settings(timeouts=Timeouts(drain=0.0)), (), (), workers)
        self.near, self.news = socket.socketpair(type=socket.SOCK_SEQPACKET)
        self.workers: list[Channel] = []
        self.running = asyncio.ensure_future(self.supervisor.run(self.news))

    async def hire(self, index: int, pid: int) -> Channel:
        one, other = socket.socketpair()
        with one:
            socket.send_fds(self.near, [b"%d %d" % (index, pid)], [one.fileno()])
        worker = await Channel.open(other)
        self.workers.append(worker)
        return worker


@contextlib.asynccontextmanager
async def stage(workers: int = 1) -> AsyncIterator[Stage]:
    made = Stage(workers)
    try:
        yield made
    finally:
        for worker in made.workers:
            worker.close()
        made.supervisor.stop()
        await asyncio.wait_for(made.running, 20)
        asyncio.get_running_loop().remove_reader(made.news)
        made.near.close()
        made.news.close()
        await asyncio.sleep(0.02)


async def soon(condition: Any) -> None:
    async with asyncio.timeout(20):
        while not condition():
            await asyncio.sleep(0.001)


async def prepare(worker: Channel, error: str = "") -> TableChange:
    order = await asyncio.wait_for(worker.order(), 20)
    assert isinstance(order, Prepare)
    change = decoded(order.change)
    worker.send(Prepared(order.id, change.generation, error))
    return change


async def commit(worker: Channel, generation: int) -> None:
    order = await asyncio.wait_for(worker.order(), 20)
    assert isinstance(order, Commit)
    worker.send(Applied(order.id, generation, time.time_ns()))


async def apply(worker: Channel) -> TableChange:
    change = await prepare(worker)
    await commit(worker, change.generation)
    return change


async def test_ready_when_every_worker_serves_the_table() -> None:
    async with stage(2) as s:
        supervisor = s.supervisor
        assert supervisor.readiness().reasons[0] == "no configuration has been read yet"
        first = await s.hire(0, 100)
        await soon(lambda: "pid 100" in repr(supervisor))
        applying = asyncio.ensure_future(supervisor.apply(table(3), ()))
        serving = asyncio.ensure_future(supervisor.serving())
        assert await apply(first) == whole(table(3))
        assert supervisor.table() == table(3)
        await applying
        assert supervisor.readiness().reasons == ("1 of 2 workers serve generation 3",)
        assert not serving.done()
        second = await s.hire(1, 101)  # late: it gets the table at once
        await apply(second)
        await asyncio.wait_for(serving, 20)
        assert supervisor.readiness().ready
        first.close()
        second.close()


async def test_ready_with_the_last_table_that_could_be_served() -> None:
    async with stage() as s:
        worker = await s.hire(0, 100)
        await soon(lambda: "pid 100" in repr(s.supervisor))
        applying = asyncio.ensure_future(s.supervisor.apply(table(1), ()))
        await apply(worker)
        await applying
        assert s.supervisor.readiness().ready
        applying = asyncio.ensure_future(s.supervisor.apply(table(2), ()))
        await prepare(worker, "no such policy")
        await applying
        assert s.supervisor.readiness().ready
        worker.close()


async def test_generations_that_a_worker_hangs_over_are_not_waited_for_without_end() -> None:
    async with stage() as s:
        await s.hire(0, 100)
        await soon(lambda: "pid 100" in repr(s.supervisor))
        rollouts = [await s.supervisor.swap(table(each), whole(table(each)), ()) for each in range(1, 100)]
        assert [each.done.done() for each in rollouts] == [True] * 35 + [False] * 64


async def test_a_worker_that_dies_is_not_waited_for() -> None:
    async with stage() as s:
        worker = await s.hire(0, 100)
        await soon(lambda: "pid 100" in repr(s.supervisor))
        applying = asyncio.ensure_future(s.supervisor.apply(table(1), ()))
        await asyncio.wait_for(worker.order(), 20)
        worker.close()
        await asyncio.wait_for(applying, 20)
        await soon(lambda: "pid 100" not in repr(s.supervisor))
        assert not s.supervisor.readiness().ready
        successor = await s.hire(0, 101)
        await apply(successor)
        await soon(lambda: s.supervisor.readiness().ready)
        successor.close()


async def test_a_successor_is_not_forgotten_with_the_dead() -> None:
    """The parent's news of the new worker may come before the old one's channel is seen to end."""
    async with stage() as s:
        old = await s.hire(0, 100)
        await soon(lambda: "pid 100" in repr(s.supervisor))
        new = await s.hire(0, 101)
        await soon(lambda: "pid 101" in repr(s.supervisor))
        old.close()
        await asyncio.sleep(0.05)
        assert "pid 101" in repr(s.supervisor)
        new.close()


async def test_samples_and_spans_of_those_who_answer() -> None:
    async with stage(2) as s:
        one, other = await s.hire(0, 100), await s.hire(1, 101)
        await soon(lambda: "pid 101" in repr(s.supervisor))

        async def serve(worker: Channel, pid: int) -> None:
            while True:
                order = await worker.order()
                if isinstance(order, AskSample):
                    worker.send(Sampled(order.id, WorkerSample(pid, 1.0, 7)))
                elif isinstance(order, AskBatches):
                    worker.send(Batches(order.id, order.cursor + 1, [b"%d %d" % (pid, order.cursor)]))

        tasks = [asyncio.ensure_future(serve(one, 100)), asyncio.ensure_future(serve(other, 101))]
        assert {sample.pid for sample in await s.supervisor.samples()} == {100, 101}
        s.supervisor.received.add(b"from an application")
        cursor, batches = await s.supervisor.batches_since(Cursor())
        assert sorted(batches) == [b"100 0", b"101 0", b"from an application"]
        cursor, batches = await s.supervisor.batches_since(cursor)
        assert sorted(batches) == [b"100 1", b"101 1"]
        for task in tasks:
            task.cancel()
        one.close()
        other.close()


async def test_a_late_answer_is_not_taken_for_another() -> None:
    async with stage() as s:
        worker = await s.hire(0, 100)
        await soon(lambda: "pid 100" in repr(s.supervisor))
        asking = asyncio.ensure_future(s.supervisor.samples())
        order = await worker.order()
        assert isinstance(order, AskSample)
        worker.send(Sampled(order.id + 99, WorkerSample(1, 1.0, 7)))  # of a question long given up
        worker.send(Sampled(order.id, WorkerSample(2, 1.0, 7)))
        assert [sample.pid for sample in await asking] == [2]
        worker.close()


async def test_drain_tells_the_workers_and_waits_for_them() -> None:
    async with stage() as s:
        worker = await s.hire(0, 100)
        await soon(lambda: "pid 100" in repr(s.supervisor))
        s.supervisor.stop(7)
        assert isinstance(await asyncio.wait_for(worker.order(), 20), Drain)
        assert s.supervisor.readiness().reasons[0] == "the proxy is draining"
        assert not s.running.done()
        worker.close()
        assert await asyncio.wait_for(s.running, 20) == 7


async def test_a_companion_that_fails_stops_the_proxy(caplog: Any) -> None:
    async def companion(running: Any) -> None:
        assert running.source is running
        raise ValueError("what went wrong")

    async with stage() as s:
        s.supervisor.spawn(companion)
        assert await asyncio.wait_for(s.running, 20) == 1
        assert "what went wrong" in caplog.text


async def test_a_parent_that_is_gone_ends_the_supervisor() -> None:
    async with stage() as s:
        await asyncio.sleep(0)
        s.near.close()
        assert await asyncio.wait_for(s.running, 20) == 1


async def test_hiring_takes_over_no_descriptor_twice() -> None:
    async with stage() as s:
        before = len(os.listdir("/proc/self/fd"))
        for pid in range(20):
            worker = await s.hire(0, 100 + pid)
            await soon(lambda pid=pid: f"pid {100 + pid}," in repr(s.supervisor))
            worker.close()
            await soon(lambda: "pid" not in repr(s.supervisor))
        await asyncio.sleep(0.05)
        assert len(os.listdir("/proc/self/fd")) <= before + 1
