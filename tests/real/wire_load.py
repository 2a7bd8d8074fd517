"""Load whose requests are known one by one: `python -m tests.real.wire_load PORT COUNT CONNECTIONS MARK KIND OUT`.

Each request carries a trace id of its own, ``MARK`` and its number, so that its spans can be told. OUT gets a JSON list
of ``[trace id, status, work began, work ended]``. KIND ``mixed``: bodies of up to 300 kB both ways and up to 3 ms of
work; ``small``: none, and answers of 200 bytes; ``slow``: mixed, every tenth working 25 ms; ``unread``: 100 kB that the
backend leaves unread for 100 ms, every fourth; ``uploads``: 100 kB, every other; ``bulk``: 300 kB, and 250 kB of
answer, by turns; ``downloads``: the latter alone.
"""

from __future__ import annotations

import asyncio
import json
import random
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Final

import uvloop

# Bytes and their share, as a shop's traffic might have it.
REQUESTS: Final = ((0, 0.60), (1000, 0.20), (20_000, 0.12), (100_000, 0.06), (300_000, 0.02))
RESPONSES: Final = ((200, 0.45), (4000, 0.30), (70_000, 0.20), (250_000, 0.05))
_BODY: Final = b"y" * 300_000


def pick(chance: random.Random, sizes: tuple[tuple[int, float], ...]) -> int:
    left = chance.random()
    for size, share in sizes:
        left -= share
        if left < 0:
            return size
    return sizes[-1][0]


def requests(count: int, mark: int, kind: str) -> Iterator[tuple[str, bytes]]:
    chance = random.Random(mark)
    for number in range(1, count + 1):
        trace = f"{mark:016x}{number:016x}"
        size, query = 0, "size=200"
        if kind != "small":
            size = pick(chance, REQUESTS)
            think = chance.random() * 3
            if kind == "slow" and number % 10 == 0:
                think = 25
            query = f"size={pick(chance, RESPONSES)}&think={think:.3f}"
        if kind in ("bulk", "downloads"):
            size, query = (300_000, "size=200") if number % 2 and kind == "bulk" else (0, "size=250000")
        if kind == "unread":
            query += "&hold=100" * (number % 4 == 0)
            size = 100_000 if number % 4 == 0 else min(size, 1000)
        if kind == "uploads":
            size, query = 100_000 * (number % 2 == 0), "size=200"
        head = (
            f"{'POST' if size else 'GET'} /{number}?{query} HTTP/1.1\r\nhost: wire.test\r\n"
            f"traceparent: 00-{trace}-00000000000000aa-01\r\n"
        )
        yield trace, (head + (f"content-length: {size}\r\n" if size else "") + "\r\n").encode() + _BODY[:size]


async def client(port: int, jobs: Iterator[tuple[str, bytes]], results: list[tuple[str, int, int, int]]) -> None:
    reader, writer = await asyncio.open_connection("127.0.0.1", port, limit=1 << 20)
    for trace, request in jobs:
        writer.write(request)
        line, *fields = (await reader.readuntil(b"\r\n\r\n")).decode("latin-1").split("\r\n")
        values = {name.lower(): value for name, _, value in (field.partition(": ") for field in fields)}
        await reader.readexactly(int(values["content-length"]))
        begun, ended = map(int, values.get("x-work", "0 0").split())
        results.append((trace, int(line.split()[1]), begun, ended))
    writer.close()


async def main(port: int, count: int, connections: int, mark: int, kind: str, out: Path) -> None:
    results: list[tuple[str, int, int, int]] = []
    jobs = requests(count, mark, kind)
    await asyncio.gather(*(client(port, jobs, results) for _ in range(connections)))
    out.write_text(json.dumps(results))  # noqa: ASYNC240 - the load is over


if __name__ == "__main__":
    uvloop.run(main(*map(int, sys.argv[1:5]), sys.argv[5], Path(sys.argv[6])))  # type: ignore[call-arg, arg-type]
