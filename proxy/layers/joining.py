"""Records and packets until they meet: what waits, what is due, and what becomes of it.

A record waits until every packet of its attempt is out of the rings, is joined once, judged against what
its route usually takes, and leaves as spans, or as a count by the reason why not. No guess, and no second try.
"""

from __future__ import annotations

import heapq
import time
from collections import Counter, deque
from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Final, NamedTuple

from proxy.layers.baseline import Baseline
from proxy.layers.join import AFTER_NS, LATE_NS, Joiner
from proxy.layers.packet import Flows, Packets, parse
from proxy.layers.spans import encode
from proxy.layers.split import Layout, Missing
from proxy.layers.verdict import judge
from proxy.layers.ways import address_text

if TYPE_CHECKING:
    from proxy.layers.otlp import Value
    from proxy.layers.tally import Tally
    from proxy.layers.ways import Way
    from proxy.trace.handover import Record

WAIT_NS: Final = AFTER_NS
"""From an attempt's end until it is tried."""
FIND_NS: Final = 500_000_000
"""So much longer where the way of its connection is still being found out, which begins with the first record of a
backend: the proxy hands several over at once, and the first of them may be due already."""
HELD_NS: Final = 1_000_000_000
"""So much longer at most, from when it is tried, where a ring has still not handed over what it has of that time: on a
busy machine, or a virtual one that stood still, the kernel's timers are late."""
AGAIN_NS: Final = 10_000_000
"""Between two looks whether it has; the longer it takes, the more."""
_PART: Final = 4  # of the time that it has taken: some 20 looks in all, as thousands of records may wait for one ring
MOST: Final = 32_768
"""Records that wait; while there are so many, others are missing for `BUSY`. Some 16 MB: what eight workers
hand over at once (`allowance.BURST`)."""
KEPT_NS: Final = 30_000_000_000
"""Packets of attempts that go on are kept for so long; an attempt that took longer is missing."""
LOOKS: Final = 16
"""Looks of clearing up that packets are kept longer, some 4 s: a proxy hands over what it could not within one, and it
is joined within two."""
AT_ONCE: Final = 4096
"""Connections that are looked at in one go of clearing up, some 5 ms; rings are not read meanwhile."""
UNSEEN: Final = 50  # attempts in a row of whose connections a tap has seen nothing, before it is said
_BACK_NS: Final = 1_000_000_000  # the clock has not merely been slowed
_PEERS: Final = 1024  # of which that is counted
BUSY: Final = "busy"
"""Reason: more attempts are recorded than there is time to join, at the latest until the process ends."""
BUG: Final = "bug"
"""Reason: joining it failed in a way that was not thought of; a line says which."""
RESTED: Final = "rested"
"""Reason: taps were aside at some time of it (`layers.resting`); of what they saw of it nothing is taken."""
NO_TAP: Final = "no-tap"
"""Reason: nothing is known of the way to the backend, or its interfaces were not listened to yet, or cannot be."""


class Resolved(NamedTuple):
    """The slots of the taps that a connection passes, its way, and since when all of them listen (Unix nanoseconds)."""

    slots: tuple[int, ...]
    way: Way
    since_ns: int


Resolve = Callable[["Record"], Resolved | None]
"""The taps that a record's connection passes; None as long as they are not known. Never waits."""
Heard = Callable[[tuple[int, ...]], int]
"""Up to which stamp every packet of these taps has been heard, Unix nanoseconds."""
Rest = Callable[[], bool]
"""Lets others have the processor, where it is time; False where something else has to be done first, and soon."""
Aside = Callable[[int, int], bool]
"""Whether taps were set aside at some time between two, Unix nanoseconds."""
Describe = Callable[["Record", "Way"], "Mapping[str, Value] | None"]
"""What Open vSwitch says of a connection, as attributes; None: nothing, or nothing yet. Never waits."""
Prove = Callable[["Record", "Way"], "Mapping[str, Value]"]
"""What it has reported of an attempt's packets, as attributes."""


class Frames(NamedTuple):
    """Of what the rings handed over: packets that were no whole TCP header over IP, packets of connections that there
    was no room for, and blocks that end within a packet."""

    unread: int = 0
    unknown: int = 0
    torn: int = 0


class _Waiting(NamedTuple):
    due_ns: int
    number: int  # of its arrival, so that records are never compared
    record: Record
    tried_ns: int = 0  # when it was put off first; 0: it was not


class Joining:
    """The joiner and its queue.

    ``resolve``, ``heard``, ``describe``, ``prove``, ``rest`` and ``aside``: see there. ``offer`` takes encoded spans
    and their number, ``complain`` what somebody should know.
    """

    def __init__(
        self,
        tally: Tally,
        resolve: Resolve,
        heard: Heard,
        offer: Callable[[bytes, int], None],
        complain: Callable[[str], None],
        describe: Describe | None = None,
        prove: Prove | None = None,
        rest: Rest = lambda: True,
        aside: Aside = lambda _since_ns, _until_ns: False,
    ) -> None:
        self._tally: Final = tally
        self._resolve: Final = resolve
        self._heard: Final = heard
        self._offer: Final = offer
        self._complain: Final = complain
        self._describe: Final = describe
        self._prove: Final = prove
        self._rest: Final = rest
        self._aside: Final = aside
        self._flows = Flows()
        self._packets: Final = Packets()
        self._joiner = Joiner(self._flows)
        self._looks: Final[deque[int]] = deque(maxlen=LOOKS)  # for packets that are needed no more, Unix nanoseconds
        self._baseline: Final = Baseline()
        self._layouts: dict[tuple[tuple[int, ...], tuple[str, ...]], Layout] = {}
        self._waiting: list[_Waiting] = []
        self._arrived = 0
        self._unseen: Counter[bytes] = Counter()  # by the backend's address

    def __repr__(self) -> str:
        return f"Joining({len(self._waiting)} waiting, {self._joiner!r})"

    @property
    def pending(self) -> int:
        """Records that wait."""
        return len(self._waiting)

    @property
    def frames(self) -> Frames:
        """What could not be read of rings so far."""
        return Frames(self._packets.unread, self._packets.unknown, self._packets.torn)

    def hear(self, slot: int, block: memoryview) -> None:
        """A block of a tap's ring."""
        packets = self._packets
        if parse(block, self._flows, packets):
            self._joiner.feed(slot, packets)
            packets.clear()

    def strangers(self, ports: tuple[int, int]) -> Counter[int]:
        """See `Joiner.strangers`."""
        return self._joiner.strangers(ports, AT_ONCE)

    def dropped(self, slot: int, since_ns: int, until_ns: int) -> None:
        """A tap's ring had no room within this time."""
        self._joiner.dropped(slot, since_ns, until_ns)

    def closed(self, slot: int) -> None:
        """A tap is no more."""
        self._joiner.closed(slot)

    def add(self, record: Record) -> None:
        """A record that has arrived."""
        # So that it is known when the record is due, and listened to for the next one.
        resolved = self._resolve(record)
        if self._describe is not None and resolved is not None:
            self._describe(record, resolved.way)
        if len(self._waiting) >= MOST:
            self._tally.missing[BUSY] += 1
            return
        self._arrived += 1
        due_ns = record.end_ns + WAIT_NS + (FIND_NS if resolved is None else 0)
        heapq.heappush(self._waiting, _Waiting(due_ns, self._arrived, record))

    def due(self, now_ns: int) -> bool:
        """Whether anything is to be joined by now."""
        return bool(self._waiting) and self._waiting[0].due_ns <= now_ns

    def step(self, now_ns: int, seconds: float) -> None:
        """Join what is due and heard, and put off what is not heard, for so long at most, or until there is no time to
        rest."""
        begun = time.thread_time_ns()
        limit = time.monotonic() + seconds
        while self.due(now_ns):
            waiting = heapq.heappop(self._waiting)
            try:
                self._try(waiting, now_ns)
            except Exception:  # the caller says what; here no record ends in no count
                self._tally.missing[BUG] += 1
                raise
            if not self._rest() or time.monotonic() >= limit:
                break
        self._tally.join_ns += time.thread_time_ns() - begun

    def _try(self, waiting: _Waiting, now_ns: int) -> None:
        """Join it, or put it off."""
        record = waiting.record
        resolved = self._resolve(record)
        tried_ns = waiting.tried_ns or now_ns
        late_ns = now_ns - tried_ns
        if resolved is not None and late_ns < HELD_NS and self._heard(resolved.slots) <= record.end_ns + LATE_NS:
            again_ns = min(max(AGAIN_NS, late_ns // _PART), HELD_NS - late_ns)
            heapq.heappush(self._waiting, waiting._replace(due_ns=now_ns + again_ns, tried_ns=tried_ns))
        else:
            self._one(record, resolved)

    def give_up(self) -> None:
        """The process ends, and what still waits is missing for `BUSY`."""
        if self._waiting:
            self._tally.missing[BUSY] += len(self._waiting)
            self._waiting.clear()

    def _one(self, record: Record, resolved: Resolved | None) -> None:
        tally = self._tally
        if resolved is None:
            tally.missing[NO_TAP] += 1
            return
        if self._aside(record.write_ns, record.end_ns + LATE_NS):
            tally.missing[RESTED] += 1
            return
        slots, way, since_ns = resolved
        found = self._joiner.join(record, self._layout(slots, way))
        if isinstance(found, Missing):
            late = found.reason == "no-packets" and record.write_ns < since_ns
            tally.missing[NO_TAP if late else found.reason] += 1
            if found.reason == "no-packets" and not late:
                self._not_seen(record, way)
            return
        self._unseen.pop(record.peer, None)
        verdict = judge(found, self._baseline.usual(record.route))
        self._baseline.add(record.route, record.end_ns, verdict.places)
        described = None if self._describe is None else self._describe(record, way)
        proof = {} if self._prove is None else self._prove(record, way)
        if proof:
            described = {**(described or {}), **proof}
        blob, spans = encode(record, found, verdict, way, described)
        self._offer(blob, spans)
        tally.joined += 1
        tally.incomplete += found.incomplete
        tally.judged(verdict.verdict)
        tally.proven += bool(proof)
        tally.spans += spans

    def _layout(self, slots: tuple[int, ...], way: Way) -> Layout:
        key = (slots, way.between)
        layout = self._layouts.get(key)
        if layout is None:
            if len(self._layouts) >= _PEERS:
                self._layouts.clear()
            layout = self._layouts[key] = Layout(slots, way.between)
        return layout

    def _not_seen(self, record: Record, way: Way) -> None:
        """Say so where a whole row of connections to a backend was not seen at all."""
        if len(self._unseen) >= _PEERS:
            self._unseen.clear()
        self._unseen[record.peer] += 1
        if self._unseen[record.peer] % UNSEEN == 0:
            names = ", ".join(interface.name for interface in way.interfaces)
            self._complain(
                f"connections to {address_text(record.peer)} are not seen on {names}: either they take another "
                "way, or their addresses are changed on it (NAT; a Service's ClusterIP instead of its endpoints)"
            )

    def forget(self, now_ns: int) -> None:
        """Drop packets that no attempt can need any more, of `AT_ONCE` connections.

        Time that passed while this process stood still, or the whole machine, counts `LOOKS` looks later: what waits
        then still needs its own, and what is about to arrive. Where the clock was set back, all of them go, and what
        waits: what they say of time holds no more.
        """
        if self._looks and now_ns < self._looks[-1] - _BACK_NS:
            self._flows = Flows()
            self._joiner = Joiner(self._flows)
            self._tally.missing["order"] += len(self._waiting)
            self._waiting.clear()
            self._complain("the system's clock was set back; what was under way is not joined")
            self._looks.clear()
        self._looks.append(now_ns)
        self._joiner.forget(self._looks[0] - KEPT_NS, AT_ONCE)
