"""A stand-in for the proxy in a lab: real requests over real connections, with rings on the way; records and truth."""

from __future__ import annotations

import asyncio
import contextlib
import os
import random
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import NamedTuple, cast

import uvloop

from proxy.demo.lab.lab import Lab
from proxy.layers.join import AFTER_NS, LATE_NS, Joiner
from proxy.layers.packet import RECORD, Flows, Packets, parse
from proxy.layers.ring import Ring
from proxy.layers.select import program
from proxy.layers.split import Layout, Missing, Split
from proxy.trace.handover import REUSED, Record, address

END = b"\r\n\r\n"


class Want(NamedTuple):
    """A request's body, the answer's, and what the backend does in between."""

    size: int
    answer: int
    think_us: int = 0
    unread_ms: int = 0


def mixed(rng: random.Random) -> Want:
    """The load of the benchmarks: mostly small, bodies up to 300 kB."""
    size = rng.choices((0, 1000, 20_000, 100_000, 300_000), (60, 20, 12, 6, 2))[0]
    answer = rng.choices((200, 4000, 70_000, 250_000), (45, 35, 15, 5))[0]
    return Want(size, answer, rng.randrange(3000))


class Told(NamedTuple):
    """A record, and the backend's own stamps: request read, response about to be written."""

    record: Record
    asked_ns: int
    answered_ns: int
    want: Want


class Asker(asyncio.Protocol):
    """One connection, which asks one request after the other."""

    def __init__(self, next_want: Callable[[], Want | None], told: list[Told], stall: Callable[[], None]) -> None:
        self._next_want, self._told, self._stall = next_want, told, stall
        self._sent = self._seen = self._served = 0
        self._data = bytearray()
        self._length = -1
        self.done: asyncio.Future[None] = asyncio.get_running_loop().create_future()

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast("asyncio.Transport", transport)
        self._ends = transport.get_extra_info("sockname")[:2], transport.get_extra_info("peername")[:2]
        self._ask()

    def connection_lost(self, error: Exception | None) -> None:
        if not self.done.done():
            self.done.set_exception(error or ConnectionError("closed"))

    def _ask(self) -> None:
        want = self._next_want()
        if want is None:
            self.done.set_result(None)
            self._transport.close()
            return
        target = f"/?think_us={want.think_us}&bytes={want.answer}&unread_ms={want.unread_ms}"
        payload = f"POST {target} HTTP/1.1\r\ncontent-length: {want.size}\r\n\r\n".encode() + bytes(want.size)
        self._want, self._first = want, 0
        self._q0, self._p0 = self._sent, self._seen
        self._sent += len(payload)
        self._write_ns = time.time_ns()
        self._transport.write(payload)

    def data_received(self, data: bytes) -> None:
        self._first = self._first or time.time_ns()
        self._seen += len(data)
        self._data += data
        head, found, _ = bytes(self._data[:4096]).partition(END)
        if not found:
            return
        fields = dict(line.split(b": ", 1) for line in head.split(b"\r\n")[1:])
        if len(self._data) < len(head) + 4 + int(fields[b"content-length"]):
            return
        end_ns = time.time_ns()
        self._data.clear()
        local, peer = self._ends
        record = Record(
            os.urandom(16), os.urandom(8), address(local[0]), address(peer[0]), local[1], peer[1],
            self._q0, self._sent, self._p0, self._seen, self._write_ns, self._write_ns, self._first, end_ns,
            1, REUSED if self._served else 0,
        )  # fmt: skip
        self._told.append(Told(record, int(fields[b"in"]), int(fields[b"out"]), self._want))
        self._served += 1
        self._stall()
        self._ask()


@contextlib.contextmanager
def rings(lab: Lab, taps: Sequence[tuple[str, str | None]], port: int) -> Iterator[list[Ring]]:
    """A ring on each interface of (name, namespace)."""
    with contextlib.ExitStack() as stack:
        opened = []
        for name, namespace in taps:
            netns = os.open(Path("/run/netns") / namespace, os.O_RDONLY) if namespace else -1
            if netns >= 0:
                stack.callback(os.close, netns)
            ring = Ring(lab.ifindex(name, namespace), program=program((port, port)), netns_fd=netns)
            opened.append(stack.enter_context(ring))
        yield opened


class Load:
    """Requests over connections from the proxy's namespace, heard by rings; feeds a joiner."""

    def __init__(self, lab: Lab, host: str, port: int, opened: Sequence[Ring], places: Sequence[str]) -> None:
        self._lab, self._host, self._port, self._rings = lab, host, port, opened
        self.flows = Flows()
        self.joiner = Joiner(self.flows, bytes_kept=1 << 30)
        self.layout = Layout(range(len(opened)), places)
        self.splits: list[tuple[Told, Split | Missing]] = []
        self.heard: list[bytearray] = [bytearray() for _ in opened]
        """Every packet of each tap, as `packet.RECORD` has it."""
        self.drops = self.packets = 0
        self.feed_s = self.join_s = 0.0

    def hear(self) -> int:
        """Everything that has been handed over, into the joiner; up to which stamp that is all there was."""
        heard_ns = time.time_ns()
        for tap, ring in enumerate(self._rings):
            out = Packets()
            for block in ring.blocks():
                parse(block, self.flows, out)
            self.heard[tap] += out.data
            begin = time.process_time()
            self.joiner.feed(tap, out)
            self.feed_s += time.process_time() - begin
            self.packets += len(out)
            heard_ns = min(heard_ns, ring.held_ns() or heard_ns)
        return heard_ns

    def again(self, chance: float, seed: int) -> list[Split | Missing]:
        """What `splits` would have been, had each tap missed each packet with this chance, and known that it had."""
        rng = random.Random(seed)
        joiner = Joiner(self.flows, bytes_kept=1 << 30)
        for tap, rows in enumerate(self.heard):
            out = Packets()
            for at in range(0, len(rows), RECORD.size):
                if rng.random() >= chance:
                    out.data.extend(rows[at : at + RECORD.size])
            joiner.feed(tap, out)
            if chance:
                joiner.dropped(tap, 0, time.time_ns())
        return [joiner.join(one.record, self.layout) for one, _ in self.splits]

    def join(self, told: list[Told], before_ns: int) -> None:
        """Join what ended before a time, and take it out of ``told``."""
        begin = time.process_time()
        ended = [one for one in told if one.record.end_ns < before_ns]
        self.splits += [(one, self.joiner.join(one.record, self.layout)) for one in ended]
        told[:] = [one for one in told if one.record.end_ns >= before_ns]
        self.join_s += time.process_time() - begin
        self.joiner.forget(before_ns - 2_000_000_000)

    def run(self, wants: Sequence[Want], connections: int, stall: Callable[[], None] = lambda: None) -> None:
        """Ask everything over so many connections at once."""
        waiting = iter(wants)
        told: list[Told] = []

        async def connect() -> None:
            loop = asyncio.get_running_loop()
            _, asker = await loop.create_connection(
                lambda: Asker(lambda: next(waiting, None), told, stall), self._host, self._port
            )
            await asker.done

        async def all_of_them() -> None:
            async def listen() -> None:
                while True:
                    await asyncio.sleep(0.02)
                    heard_ns = self.hear()
                    self.join(told, min(heard_ns - LATE_NS, time.time_ns() - AFTER_NS))

            listening = asyncio.create_task(listen())
            async with asyncio.timeout(100):
                await asyncio.gather(*(connect() for _ in range(connections)))
            await asyncio.sleep(0.1)
            listening.cancel()

        with self._lab.within():
            uvloop.run(all_of_them())
        self.hear()
        self.join(told, time.time_ns())
        self.drops += sum(ring.statistics()[1] for ring in self._rings)
