"""A TCP connection over a row of taps in miniature: a deterministic simulator that knows the truth.

Two ends with windows, delayed acknowledgements, fast retransmit and timers; hops between them that delay, queue, stop,
lose, reorder and cut frames; taps between the hops. It counts in absolute offsets; only what the taps hand out has
sequence numbers of 32 bits.
"""

from __future__ import annotations

import heapq
import random
from collections.abc import Callable
from dataclasses import dataclass, field
from functools import partial

from proxy.layers.packet import ACK, FIN, RECORD, RST, SYN, Flows, Packets, parse
from proxy.trace.handover import Record, address
from tests.layers.blocks import Segment as Frame
from tests.layers.blocks import block

US, MS = 1_000, 1_000_000
START = 1_800_000_000_000_000_000
UP, DOWN = 0, 1
SCALE = 7
LOCAL, PEER = address("10.8.0.2"), address("10.8.0.9")
LOCAL_PORT, PEER_PORT = 57_400, 8080


@dataclass
class Segment:
    direction: int
    start: int
    length: int
    ack: int
    window: int
    flags: int = ACK


@dataclass
class Hop:
    """From one tap to the next, both ways. Times in ns; ``rate`` in bytes/s, 0 for none; ``cut``: the longest frame."""

    delay: int = 2 * US
    jitter: int = 0
    rate: int = 0
    cut: int = 0
    extra: list[tuple[int, int, int]] = field(default_factory=list)  # from, to, more delay
    stops: list[tuple[int, int]] = field(default_factory=list)
    lose: Callable[[int, Segment], bool] = lambda now, segment: False
    swap: float = 0.0  # chance to overtake
    last: list[int] = field(default_factory=lambda: [0, 0])
    busy: list[int] = field(default_factory=lambda: [0, 0])
    lost: list[tuple[int, Segment]] = field(default_factory=list)

    def carry(self, now: int, segment: Segment, rng: random.Random) -> list[tuple[int, Segment]]:
        if self.lose(now, segment):
            self.lost.append((now, segment))
            return []
        parts = [segment]
        if self.cut and segment.length > self.cut:
            parts = [
                Segment(segment.direction, start, min(self.cut, segment.start + segment.length - start), segment.ack,
                        segment.window, segment.flags)
                for start in range(segment.start, segment.start + segment.length, self.cut)
            ]  # fmt: skip
        carried = []
        for part in parts:
            way = part.direction
            out = now
            if self.rate:
                out = self.busy[way] = max(now, self.busy[way]) + (part.length + 66) * 1_000_000_000 // self.rate
            out += self.delay + (rng.randrange(self.jitter) if self.jitter else 0)
            out += sum(more for since, until, more in self.extra if since <= now < until)
            for since, until in self.stops:
                if since <= out < until:
                    out = until
            if self.swap and rng.random() < self.swap:
                out += 150 * US
            else:
                out = self.last[way] = max(out, self.last[way] + 100)
            carried.append((out, part))
        return carried


class End:
    """One end's TCP."""

    def __init__(self, net: Net, direction: int, room: int, frame: int) -> None:
        self.net, self.direction = net, direction
        self.queued = self.nxt = self.una = 0
        self.mss, self.frame = 1448, frame
        self.window, self.most = 10 * self.mss, 1 << 40
        self.probe, self.probes = 0, 0  # ns after which it probes, 0 for never; how often it has
        self.edge = room
        self.repeats, self.recover, self.timer, self.patience = 0, -1, 0, 200 * MS
        self.got, self.read, self.room = 0, 0, room
        self.told_edge = room
        self.ahead: list[tuple[int, int]] = []
        self.owed = self.ack_timer = 0
        self.readable: Callable[[], None] = lambda: None

    def write(self, size: int) -> None:
        self.queued += size
        self.push()

    def push(self) -> None:
        while self.nxt < self.queued:
            room = min(self.una + self.window, self.edge) - self.nxt
            size = min(self.frame, self.queued - self.nxt, room)
            if size <= 0 or (size < self.mss and size < self.queued - self.nxt and self.nxt > self.una):
                break
            self.send(self.nxt, size)
            self.nxt += size
        if self.nxt > self.una or self.nxt < self.queued:
            self.arm()

    def arm(self) -> None:
        self.timer += 1
        mine = self.timer
        self.net.at(self.net.now + self.patience, lambda: self.expired(mine))
        if self.probe:
            self.net.at(self.net.now + self.probe, lambda: self.overdue(mine))

    def overdue(self, mine: int) -> None:
        """A tail loss probe of what is still unsent, beyond the congestion window."""
        size = min(self.mss, self.queued - self.nxt, self.edge - self.nxt)
        if mine == self.timer and self.una < self.nxt and size > 0:
            self.probes += 1
            self.send(self.nxt, size)
            self.nxt += size

    def expired(self, mine: int) -> None:
        if mine != self.timer or (self.una == self.queued):
            return
        self.patience *= 2
        if self.nxt > self.una:
            self.recover, self.window = self.nxt, 2 * self.mss
            self.send(self.una, min(self.mss, self.nxt - self.una))
        else:
            self.send(self.una - 1, 0)  # is there room now?
        self.arm()

    def send(self, start: int, size: int, flags: int = ACK) -> None:
        self.owed = 0
        self.ack_timer += 1
        window = self.room - (self.got - self.read)
        self.told_edge = max(self.told_edge, self.got + window)
        self.net.depart(Segment(self.direction, start, size, self.got, window >> SCALE, flags))

    def receive(self, segment: Segment) -> None:
        self.acked(segment)
        start, end = segment.start, segment.start + segment.length
        if not segment.length:
            if start < self.got:
                self.send(self.nxt, 0)
            return
        before = self.got
        if start > self.got:
            self.ahead.append((start, end))
        else:
            self.got = max(self.got, end)
            for low, high in sorted(self.ahead):
                if low <= self.got:
                    self.got = max(self.got, high)
        self.owed += segment.length
        if self.got == before or self.owed >= 2 * self.mss or any(low > self.got for low, _ in self.ahead):
            self.send(self.nxt, 0)
        else:
            self.ack_timer += 1
            mine = self.ack_timer
            self.net.at(self.net.now + 40 * MS, lambda: self.told_late(mine))
        if self.got > before:
            self.readable()

    def told_late(self, mine: int) -> None:
        if mine == self.ack_timer:
            self.send(self.nxt, 0)

    def acked(self, segment: Segment) -> None:
        ack = segment.ack
        edge = ack + (segment.window << SCALE)
        opened, self.edge = edge > self.edge, max(self.edge, edge)
        if ack > self.una:
            self.window = min(self.window + min(ack - self.una, 4 * self.mss), self.most)
            self.una, self.repeats, self.patience = ack, 0, 200 * MS
            if self.recover > ack:
                self.send(ack, min(self.mss, self.nxt - ack))
            else:
                self.recover = -1
            self.timer += 1
        elif not segment.length and self.nxt > self.una and not opened:
            self.repeats += 1
            if self.repeats == 3 and self.recover < 0:
                self.recover, self.window = self.nxt, max(self.window // 2, 2 * self.mss)
                self.send(self.una, min(self.mss, self.nxt - self.una))
        self.push()

    def consume(self) -> None:
        self.read = self.got
        if self.got + self.room - self.told_edge >= min(2 * self.mss, self.room // 2):
            self.send(self.nxt, 0)


@dataclass
class Ask:
    """One request: what is sent and answered, and how both applications behave."""

    size: int = 300
    answer: int = 500
    think: int = 200 * US
    gap: int = 300 * US  # before it
    not_reading: int = 0  # the backend reads only so long after the first byte
    stalled: tuple[int, int] = (0, 0)  # the proxy's loop, from the request's writing
    parts: int = 1  # the proxy gets the request in so many
    pause: int = 0  # between parts
    slow_parts: int = 1  # the backend writes the answer in so many
    slow_pause: int = 0


class Net:
    """A connection over ``hops``: len(hops) - 1 taps. `run` asks, and returns a record for each request."""

    def __init__(
        self, hops: list[Hop], seed: int = 1, *, starts: tuple[int, int] = (1000, 2_000_000_000),
        room: tuple[int, int] = (1 << 20, 1 << 20), frame: int = 1448, now: int = START, shake: bool = True,
    ) -> None:  # fmt: skip
        self.rng = random.Random(seed)
        self.hops, self.starts = hops, starts
        self.taps: list[list[tuple[int, Segment]]] = [[] for _ in hops[1:]]
        self.now = now
        self._events: list[tuple[int, int, Callable[[], object]]] = []
        self._count = 0
        # Each end's `edge` is the other's room.
        self.proxy, self.backend = End(self, UP, room[0], frame), End(self, DOWN, room[1], frame)
        self.proxy.edge, self.backend.edge = room[1], room[0]
        if shake:
            for direction, flags in ((UP, SYN), (DOWN, SYN | ACK), (UP, ACK)):
                for number in range(len(self.taps)) if direction == UP else reversed(range(len(self.taps))):
                    self.now += 5 * US
                    self.taps[number].append(
                        (self.now, Segment(direction, 0 if flags == ACK else -1, 0, 0, 512, flags))
                    )
            self.now += 50 * US

    def at(self, when: int, what: Callable[[], object]) -> None:
        self._count += 1
        heapq.heappush(self._events, (when, self._count, what))

    def depart(self, segment: Segment) -> None:
        self._hop(segment, 0 if segment.direction == UP else len(self.hops) - 1)

    def _hop(self, segment: Segment, number: int) -> None:
        for when, part in self.hops[number].carry(self.now, segment, self.rng):
            self.at(when, partial(self._arrive, part, number))

    def _arrive(self, segment: Segment, number: int) -> None:
        up = segment.direction == UP
        if number == (len(self.hops) - 1 if up else 0):
            (self.backend if up else self.proxy).receive(segment)
            return
        self.taps[number if up else number - 1].append((self.now, segment))
        self._hop(segment, number + 1 if up else number - 1)

    def run(self, asks: list[Ask], linger: int = 300 * MS) -> list[Record]:
        records: list[Record] = []
        for ask in asks:
            records.append(self._exchange(ask, len(records)))
        self._until(lambda: False, self.now + linger)
        return records

    def _until(self, done: Callable[[], bool], limit: int) -> None:
        while not done() and self._events and self._events[0][0] <= limit:
            self.now, _, what = heapq.heappop(self._events)
            what()

    def _exchange(self, ask: Ask, number: int) -> Record:
        proxy, backend = self.proxy, self.backend
        q0, p0 = proxy.queued, backend.queued
        q1, p1 = q0 + ask.size, p0 + ask.answer
        write = self.now + ask.gap
        stall = (write + ask.stalled[0], write + ask.stalled[1])
        stamps = {"sent": write, "first": 0, "end": 0, "awake": 0}

        def answer(part: int = 0) -> None:
            size = ask.answer // ask.slow_parts
            backend.write(size if part < ask.slow_parts - 1 else p1 - backend.queued)
            if part < ask.slow_parts - 1:
                self.at(self.now + ask.slow_pause, lambda: answer(part + 1))

        def asked() -> None:
            if not stamps["awake"]:
                stamps["awake"] = self.now + ask.not_reading
                if ask.not_reading:
                    self.at(stamps["awake"], asked)
            if self.now >= stamps["awake"] and backend.read < backend.got:
                backend.consume()
                if backend.read == q1:
                    self.at(self.now + ask.think, answer)

        def answered() -> None:
            if stall[0] <= self.now < stall[1]:
                self.at(stall[1], answered)
            elif proxy.read < proxy.got:
                stamps["first"] = stamps["first"] or self.now + 5 * US
                proxy.consume()
                if proxy.read == p1:
                    stamps["end"] = self.now + 20 * US

        def feed(part: int = 0) -> None:
            size = ask.size // ask.parts
            proxy.write(size if part < ask.parts - 1 else q1 - proxy.queued)
            if part:
                stamps["sent"] = self.now
            if part < ask.parts - 1:
                self.at(self.now + ask.pause, lambda: feed(part + 1))

        backend.readable, proxy.readable = asked, answered
        self.at(write + 3 * US, feed)
        self._until(lambda: stamps["end"] > 0, write + 60_000 * MS)
        assert stamps["end"], f"request {number} was not answered"
        self.now = max(self.now, stamps["end"])
        return Record(
            number.to_bytes(16, "big"), number.to_bytes(8, "big"), LOCAL, PEER, LOCAL_PORT, PEER_PORT,
            q0, q1, p0, p1, write, stamps["sent"], stamps["first"], stamps["end"], 7, 0,
        )  # fmt: skip

    # What the taps tell, and the truth

    def packets(
        self, flows: Flows, tap: int, keep: Callable[[int, Segment], bool] = lambda ts, segment: True
    ) -> Packets:
        out = Packets()
        last = self.taps[tap][-1][0] if self.taps[tap] else self.now
        known = Frame(source="10.8.0.2", target="10.8.0.9", source_port=LOCAL_PORT, target_port=PEER_PORT, ts_ns=last)
        parse(block([known.frame()]), flows, Packets())
        place = flows.find(LOCAL, LOCAL_PORT, PEER, PEER_PORT)
        assert place is not None
        number, up = place
        rows = []
        for ts, one in self.taps[tap]:
            if not keep(ts, one):
                continue
            start, other = self.starts[one.direction], self.starts[1 - one.direction]
            direction = up if one.direction == UP else 1 - up
            rows.append(
                RECORD.pack(
                    ts, number, (start + 1 + one.start) & 0xFFFFFFFF,
                    (other + 1 + one.ack) & 0xFFFFFFFF if one.flags & ACK else 0,
                    one.length, min(one.window, 65535), one.flags, -1, direction, 0, 0, 1, one.length + 66,
                )
            )  # fmt: skip
        out.data.extend(b"".join(rows))
        return out

    def whole(self, tap: int, direction: int, low: int, high: int, since: int) -> int:
        """When every byte of [low, high) had passed a tap, by marking each; 0 if not."""
        left = bytearray(b"\1") * (high - low)
        missing = high - low
        for ts, one in sorted(self.taps[tap], key=lambda entry: entry[0]):
            if one.direction == direction and one.length and ts >= since and not one.flags & (SYN | RST | FIN):
                a, b = max(one.start, low) - low, min(one.start + one.length, high) - low
                if a < b:
                    missing -= sum(left[a:b])
                    left[a:b] = bytes(b - a)
                    if not missing:
                        return ts
        return 0

    def stamps(self, record: Record) -> tuple[tuple[int, int], ...]:
        return tuple(
            (
                self.whole(tap, UP, record.request_start, record.request_end, record.write_ns),
                self.whole(tap, DOWN, record.response_start, record.response_end, record.write_ns),
            )
            for tap in range(len(self.taps))
        )
