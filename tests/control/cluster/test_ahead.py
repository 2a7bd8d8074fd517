from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import aclosing

import pytest

from proxy.control.cluster.ahead import Need, in_order


class Source:
    """A stream that is fed by hand, of numbers; those in ``needs`` wait until `come` says that theirs is there."""

    def __init__(self, *needs: int) -> None:
        self.needs = needs
        self.fed: asyncio.Queue[int | Exception | None] = asyncio.Queue()
        self.asked: list[int] = []
        self.released: list[int] = []
        self.waits: dict[int, asyncio.Future[None]] = {}
        self.out: list[int] = []

    async def stream(self) -> AsyncIterator[int]:
        while (item := await self.fed.get()) is not None:
            if isinstance(item, Exception):
                raise item
            yield item

    def feed(self, *items: int | Exception | None) -> None:
        for item in items:
            self.fed.put_nowait(item)

    def need(self, item: int) -> Need | None:
        self.asked.append(item)
        if item not in self.needs:
            return None
        ready = self.waits[item] = asyncio.get_running_loop().create_future()
        return Need(ready, lambda: self.released.append(item))

    def come(self, *items: int) -> None:
        for item in items:
            self.waits[item].set_result(None)

    async def run(self, most: int = 100, heaviest: int = 10_000) -> None:
        async with aclosing(in_order(self.stream(), self.need, int, most=most, heaviest=heaviest)) as ordered:
            async for item in ordered:
                assert item not in self.released, "only when it has been taken in"
                self.out.append(item)

    async def turns(self) -> None:
        for _ in range(100):
            await asyncio.sleep(0)


async def test_what_needs_nothing_passes() -> None:
    source = Source()
    source.feed(1, 2, 3, None)
    await source.run()
    assert source.out == [1, 2, 3]


async def test_all_are_asked_for_as_they_are_read_and_pass_in_order() -> None:
    source = Source(1, 3)
    task = asyncio.get_running_loop().create_task(source.run())
    source.feed(1, 2, 3, 4, None)
    await source.turns()
    assert (source.asked, source.out) == ([1, 2, 3, 4], [])
    source.come(3)
    await source.turns()
    assert source.out == []
    source.come(1)
    await task
    assert source.out == [1, 2, 3, 4]
    assert source.released == [1, 3]


async def test_the_end_of_the_stream_waits_for_what_came_before() -> None:
    source = Source(1)
    task = asyncio.get_running_loop().create_task(source.run())
    source.feed(1, None)
    await source.turns()
    assert not task.done()
    source.come(1)
    await task
    assert source.out == [1]


@pytest.mark.parametrize(("most", "heaviest", "read"), [(2, 10_000, 2), (100, 9, 3), (100, 10_000, 8)])
async def test_no_more_is_read_than_may_wait(most: int, heaviest: int, read: int) -> None:
    source = Source(*range(2, 10))
    task = asyncio.get_running_loop().create_task(source.run(most, heaviest))  # an item weighs what its number is
    source.feed(*range(2, 10), None)
    await source.turns()
    assert source.asked == list(range(2, 2 + read))
    for number in range(2, 10):
        source.come(number)
        await source.turns()
    await task
    assert source.out == list(range(2, 10))


async def test_what_breaks_is_raised_and_what_waits_is_released() -> None:
    source = Source(1, 2)
    task = asyncio.get_running_loop().create_task(source.run())
    source.feed(1, 2, ConnectionError("cut"))
    with pytest.raises(ConnectionError, match="cut"):
        await task
    assert (source.out, source.released) == ([], [1, 2])


async def test_whoever_leaves_releases_what_waits_and_ends_the_reading() -> None:
    source = Source(1)
    task = asyncio.get_running_loop().create_task(source.run())
    source.feed(1)
    await source.turns()
    task.cancel()
    await asyncio.wait([task])
    assert source.released == [1]
    assert len(asyncio.all_tasks()) == 1
