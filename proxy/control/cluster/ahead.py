"""Events that need something before they are taken in: they wait for it together, and are taken in in their order.

A hundred new Ingresses with TLS need a hundred Secrets. Those are asked for as the events are read, not one after the
other as they are taken in.
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import AsyncGenerator, AsyncIterator, Callable
from typing import Final, NamedTuple, TypeVar

from proxy.settings import MIB

T = TypeVar("T")

MOST: Final = 512  # events that wait at a time; whoever sends more is read no further
HEAVIEST: Final = 16 * MIB  # bytes of their lines: some dozen objects of the size that etcd takes at most


class Need(NamedTuple):
    """What an event waits for."""

    ready: asyncio.Future[None]  # done when it is there, or has been waited for long enough
    release: Callable[[], None]  # the event has been taken in, or is not going to be


async def in_order(
    stream: AsyncIterator[T],
    need: Callable[[T], Need | None],
    size: Callable[[T], int],
    *,
    most: int = MOST,
    heaviest: int = HEAVIEST,
) -> AsyncGenerator[T, None]:
    """What ``stream`` yields, each as soon as it has what it needs, and not before those that came before it.

    ``need`` is called as each is read; None is for one that needs nothing. ``size`` is in bytes. What ``stream`` raises
    is raised at once: what waits then is released, and lost.
    """
    loop = asyncio.get_running_loop()
    waiting: deque[tuple[T, Need]] = deque()
    held = 0
    reading: asyncio.Task[tuple[T] | None] | None = None
    over = False
    try:
        while not over or waiting:
            while waiting and waiting[0][1].ready.done():
                yield waiting[0][0]
                item, done = waiting.popleft()
                held -= size(item)
                done.release()
            room = not over and len(waiting) < most and held < heaviest
            if waiting:
                if room and reading is None:
                    reading = loop.create_task(_next(stream))
                events: list[asyncio.Future[None] | asyncio.Task[tuple[T] | None]] = [waiting[0][1].ready]
                await asyncio.wait([*events, *([reading] if reading else [])], return_when=asyncio.FIRST_COMPLETED)
                if reading is None or not reading.done():
                    continue
                read, reading = reading.result(), None
            elif reading is not None:
                read, reading = await reading, None
            elif not over:
                read = await _next(stream)
            else:
                continue
            if read is None:
                over = True
                continue
            found = need(read[0])
            if found is None and not waiting:
                yield read[0]
                continue
            held += size(read[0])
            waiting.append((read[0], found or _nothing(loop)))
    finally:
        if reading is not None:
            reading.cancel()
            await asyncio.wait([reading])
        for _, lost in waiting:
            lost.release()


async def _next(stream: AsyncIterator[T]) -> tuple[T] | None:
    """What comes next, in a tuple as it may be anything; None at the end."""
    try:
        return (await anext(stream),)
    except StopAsyncIteration:
        return None


def _nothing(loop: asyncio.AbstractEventLoop) -> Need:
    """What waits only for its turn."""
    ready: asyncio.Future[None] = loop.create_future()
    ready.set_result(None)
    return Need(ready, lambda: None)
