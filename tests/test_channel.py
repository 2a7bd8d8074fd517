from __future__ import annotations

import asyncio
import socket
from typing import Any

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from proxy.channel import (
    Applied,
    AskBatches,
    AskSample,
    Batches,
    Channel,
    Commit,
    Drain,
    First,
    Order,
    Prepare,
    Prepared,
    Report,
    decoded,
    encoded,
)
from proxy.route.change import TableChange, merged, whole
from tests.rig import table

ORDERS: list[Order] = [
    Prepare(1, encoded(whole(table(7)))[0]),
    Commit(5),
    AskSample(2),
    AskBatches(3, 1 << 40),
    Drain(),
]
REPORTS: list[Report] = [
    Prepared(1, 7),
    Prepared(1, 6, "no such policy"),
    Applied(2, 7, 1 << 60),
    First(0, 7, b"t" * 16, b"", 1, 2, 200),
    Batches(3, 9, [b"", b"\0" * 100_000]),
]


async def pair() -> tuple[Channel, Channel]:
    one, other = socket.socketpair()
    return await Channel.open(one), await Channel.open(other)


async def test_messages_arrive_in_order_and_whole() -> None:
    supervisor, worker = await pair()
    for order in ORDERS * 3:
        supervisor.send(order)
    for report in REPORTS * 3:
        worker.send(report)
    assert [await worker.order() for _ in ORDERS * 3] == ORDERS * 3
    assert [await supervisor.report() for _ in REPORTS * 3] == REPORTS * 3
    supervisor.close()
    worker.close()


async def test_the_end_between_messages_and_within_one() -> None:
    for cut in (0, 2, 7):
        one, other = socket.socketpair()
        worker = await Channel.open(other)
        with one:
            one.sendall((100).to_bytes(4, "big")[:cut] + b"\0" * max(cut - 4, 0))
        with pytest.raises(asyncio.IncompleteReadError):
            await worker.order()
        worker.close()


async def test_a_length_beyond_the_bound_is_no_message() -> None:
    one, other = socket.socketpair()
    worker = await Channel.open(other)
    with one:
        one.sendall(((1 << 30) + 1).to_bytes(4, "big"))
        with pytest.raises(ConnectionError, match="bytes on a worker's channel"):
            await worker.order()
    worker.close()


@given(st.integers(1, 60), st.lists(st.sampled_from(range(len(ORDERS))), min_size=1, max_size=4))
def test_any_fragmentation(size: int, which: list[int]) -> None:
    async def main() -> None:
        one, other = socket.socketpair()
        writer = await Channel.open(one)
        for number in which:
            writer.send(ORDERS[number])
        await asyncio.sleep(0)
        writer.close()
        other.setblocking(False)
        stream = b""
        while data := await asyncio.get_running_loop().sock_recv(other, 1 << 16):
            stream += data
        other.close()
        near, far = socket.socketpair()
        reader = await Channel.open(far)
        with near:
            for at in range(0, len(stream), size):
                near.sendall(stream[at : at + size])
                await asyncio.sleep(0)
        assert [await reader.order() for _ in which] == [ORDERS[number] for number in which]
        reader.close()

    asyncio.run(main())


async def test_a_large_table() -> None:
    routes = tuple(msgspec.structs.replace(table().routes[0], host=f"h{number}.test") for number in range(20_000))
    change = whole(msgspec.structs.replace(table(7), routes=routes))
    sent = encoded(change)
    assert len(sent) > 100
    supervisor, worker = await pair()
    for number, raw in enumerate(sent):
        supervisor.send(Prepare(1, raw, last=number == len(sent) - 1))
    found = TableChange(7, 7)
    for number in range(len(sent)):
        order = await worker.order()
        assert isinstance(order, Prepare)
        assert order.last == (number == len(sent) - 1)
        part = decoded(order.change)
        assert len(part) < 1000
        assert (part.generation, part.base) == (7, 0)
        found = merged(found, msgspec.structs.replace(part, base=7))
    assert (found.hosts, found.backends) == (change.hosts, change.backends)
    supervisor.close()
    worker.close()


@given(st.binary(max_size=60))
def test_what_is_no_message_is_refused(data: bytes) -> None:
    """Only a bug can send it: whatever is raised ends the channel's task, and never passes as an order."""

    async def main() -> Any:
        near, far = socket.socketpair()
        reader = await Channel.open(far)
        with near:
            near.sendall(len(data).to_bytes(4, "big") + data)
        try:
            return await reader.order()
        finally:
            reader.close()

    try:
        order = asyncio.run(main())
    except (ValueError, msgspec.MsgspecError, asyncio.IncompleteReadError):
        return
    assert isinstance(order, Order)
