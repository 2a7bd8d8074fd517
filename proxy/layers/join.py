"""The joiner: packets of several taps and the attempts they belong to, brought together. Bounded in every direction."""

from __future__ import annotations

from collections import Counter, deque
from typing import Final, NamedTuple

from proxy.layers.anchor import Anchor, Anchors
from proxy.layers.packet import FIN, RECORD, SYN, Flows, Packets
from proxy.layers.split import Layout, Missing, Reason, Split, split
from proxy.layers.stream import View, shorter, shortest_round, view
from proxy.layers.track import MOST_TAPS, WIDTH, Tracks, sort_in
from proxy.trace.handover import TUNNEL, Record

LATE_NS: Final = 50_000_000
"""So long after an attempt's end packets may belong to it: copies, and acknowledgements, that were still on their way
when the response was read."""

AFTER_NS: Final = LATE_NS + 40_000_000
"""How long after an attempt's end its packets have come: a ring hands over its blocks every 20 ms, or every other
time."""

BYTES: Final = 64 << 20
"""Bytes of packets that are kept, by default."""

IDLE_NS: Final = 900_000_000_000
"""A connection without packets for so long is forgotten, with where its streams began. Sooner, down to half a second,
where the table of connections is `_FULL`: one that is not in it is not seen at all, one that is forgotten votes."""

_FULL: Final = 4  # when less than one part in so many is left

_SECOND_NS: Final = 1_000_000_000
_DROPS: Final = 64  # spans of time in which a ring dropped packets, remembered per tap
_MODULO: Final = 0xFFFF_FFFF
_NEVER: Final = (1 << 63) - (1 << 50)  # more bytes or nanoseconds than there are: they are computed in 64 bits


class _Flow(Tracks):
    __slots__ = ("anchors", "claimed", "rounds_ns")

    def __init__(self) -> None:
        super().__init__()
        self.anchors = Anchors()
        self.claimed = False  # an attempt was on it
        self.rounds_ns = (0, 0)  # the shortest round trips of requests and of responses so far, 0 without one

    def learn(self, views: list[View]) -> None:
        """Take in the round trips of an exchange: those of one packet often wait for the answer, and count until there
        are others."""
        up, down = self.rounds_ns
        near, far = views[0], views[-1]
        if not up or len(near.up.pieces) > 1:
            up = shorter(up, shortest_round(near.up, near.up_acks))
        if not down or len(far.down.pieces) > 1:
            down = shorter(down, shortest_round(far.down, far.down_acks))
        self.rounds_ns = (up, down)


class _Drops(NamedTuple):
    since_ns: int
    until_ns: int


class Joiner:
    """Feed it packets in order of time per tap, and ask for attempts `AFTER_NS` after their end.

    ``flows`` is the table the packets were parsed with; the joiner forgets its connections. ``bytes_kept`` bounds what
    is kept of packets. ``counts``: how many attempts were joined by each anchor (``syn``, ``vote``), and how many were
    not, by reason.
    """

    __slots__ = ("_bytes_kept", "_drops", "_floor_ns", "_flows", "_known", "_old", "_packets", "_unclaimed", "counts")

    def __init__(self, flows: Flows, *, bytes_kept: int = BYTES) -> None:
        self._flows = flows
        self._known: dict[int, _Flow] = {}
        self._bytes_kept = bytes_kept
        self._packets = 0
        self._old: list[int] = []  # connections that `forget` is still to look at, and `strangers`
        self._unclaimed: list[int] = []
        self._floor_ns = 0
        self._drops: list[deque[_Drops]] = [deque(maxlen=_DROPS) for _ in range(MOST_TAPS)]
        self.counts: Counter[str] = Counter()

    def __repr__(self) -> str:
        return f"Joiner({len(self._known)} connections, {self._packets} packets)"

    def __len__(self) -> int:
        """Packets that are kept."""
        return self._packets

    def feed(self, tap: int, packets: Packets) -> None:
        """Take in what one tap (its slot, 0..7) saw. Copies what it keeps."""
        kept, opening = sort_in(packets.data, tap, self._known, _Flow)
        for row in opening:
            ts_ns, number, seq, ack, _, _, flags, _, direction, _, _, _, _ = RECORD.unpack(row)
            self._known[number].anchors.syn(ts_ns, direction, seq, ack, flags)
        self._packets += kept
        if self._packets * WIDTH > self._bytes_kept:
            self._shrink()

    def dropped(self, tap: int, since_ns: int, until_ns: int) -> None:
        """A tap's ring had no room for some packets within this time."""
        self._drops[tap].append(_Drops(since_ns, until_ns))

    def closed(self, tap: int) -> None:
        """A tap is no more; its slot may be another's from now on."""
        self._drops[tap].clear()
        for flow in self._known.values():
            track, flow.at[tap] = flow.at[tap], None
            if track is not None:
                self._packets -= len(track)

    def forget(self, before_ns: int, most: int | None = None) -> None:
        """Drop packets stamped before ``before_ns``, and connections that have been idle for `IDLE_NS` by then, or,
        where there are too many, for less.

        With ``most`` only so many connections are looked at, and dropped; the next call goes on with the others.
        """
        self._floor_ns = max(self._floor_ns, before_ns)
        if most is None or not self._old:
            self._old = list(self._known)
        for number in _taken(self._old, most):
            flow = self._known.get(number)
            if flow is not None:
                self._packets -= flow.forget(before_ns)
        idle_ns, enough = IDLE_NS, self._flows.limit - self._flows.limit // _FULL
        while True:
            dropped = self._flows.forget(before_ns - idle_ns, most)
            for number in dropped:
                gone = self._known.pop(number, None)
                if gone is not None:
                    self._packets -= len(gone)
            if len(self._flows) <= enough or idle_ns < _SECOND_NS or (most is not None and dropped):
                break
            idle_ns //= 2

    def strangers(self, ports: tuple[int, int], most: int | None = None) -> Counter[int]:
        """Packets at one tap of connections that no attempt was on, by the port opposite to the one in ``ports``.

        With ``most`` of so many connections; the next call goes on with the others.
        """
        if most is None or not self._unclaimed:
            self._unclaimed = [number for number, flow in self._known.items() if not flow.claimed]
        found: Counter[int] = Counter()
        for number in _taken(self._unclaimed, most):
            flow = self._known.get(number)
            if flow is not None and not flow.claimed:
                _, one, _, other = self._flows[number]
                if (ports[0] <= one <= ports[1]) != (ports[0] <= other <= ports[1]):
                    far = other if ports[0] <= one <= ports[1] else one
                    found[far] += max((len(track) for track in flow.at if track is not None), default=0)
        return found

    def join(self, record: Record, layout: Layout) -> Split | Missing:
        """An attempt's split over the taps of ``layout``. Never raises for what a record says."""
        found = self._join(record, layout)
        self.counts[found.reason if isinstance(found, Missing) else found.anchor] += 1
        return found

    def _join(self, record: Record, layout: Layout) -> Split | Missing:
        if record.flags & TUNNEL:
            return Missing("tunnel")
        if not _plausible(record):
            return Missing("record")
        if record.write_ns < self._floor_ns:
            return Missing("too-long", "its packets have been forgotten")
        place = self._flows.find(record.local, record.local_port, record.peer, record.peer_port)
        flow = self._known.get(place[0]) if place is not None else None
        if place is None or flow is None:
            return Missing("no-packets", "connection not seen")
        flow.claimed = True
        incomplete = False
        windows: list[bytes] = []
        for tap in layout.taps:
            for since_ns, until_ns in self._drops[tap]:
                incomplete = incomplete or (since_ns <= record.end_ns and until_ns >= record.write_ns)
            track = flow.at[tap]
            if track is not None and record.write_ns < track.floor_ns:
                return Missing("too-long", f"tap {tap} keeps no more packets of a connection")
            windows.append(b"" if track is None else track.window(record.write_ns, record.end_ns))
        anchor = flow.anchors.at(record.write_ns)
        found = self._split(record, layout, windows, place, anchor, incomplete)
        if isinstance(found, Missing) or found.anchor == "vote":
            proposed = _proposed(record, windows, place[1])
            if proposed is not None:
                flow.anchors.vote(record.write_ns, proposed)
                elected = flow.anchors.at(record.write_ns)
                if elected != anchor and isinstance(found, Missing):
                    found = self._split(record, layout, windows, place, elected, incomplete)
            elif not any(windows):
                found = Missing("no-packets", "none within the attempt")
        if isinstance(found, Missing) and incomplete and found.reason in _BY_DROPS:
            return Missing("ring-drops", f"{found.reason} {found.detail}")
        if isinstance(found, Split) and incomplete and any(found.lost.values()):
            return Missing("ring-drops", "of what was sent twice, the first may be what the tap has missed")
        return found._replace(incomplete=incomplete) if incomplete and isinstance(found, Split) else found

    def _split(
        self,
        record: Record,
        layout: Layout,
        windows: list[bytes],
        place: tuple[int, int],
        anchor: Anchor | None,
        incomplete: bool,
    ) -> Split | Missing:
        if anchor is None:
            return Missing("no-anchor")
        flow = self._known[place[0]]
        views = _views(record, windows, place[1], anchor)
        request, response = record.request_end - record.request_start, record.response_end - record.response_start
        found: Split | Missing | None = None
        copies = False
        for one in views:
            copies = copies or one.up.carried != request or one.down.carried != response
        if not copies:
            found = split(record, layout, views, anchor.source, flow.rounds_ns)
            if isinstance(found, Split) and not incomplete:
                flow.learn(views)
            if incomplete or isinstance(found, Split) or found.reason != "hole":
                return found
        # Copies that were sent at one tap must have had the time to come to the next. So must acknowledgements: one
        # that stood in a queue until the response had been read is not one that a tap has missed.
        until_ns = record.end_ns + LATE_NS
        late = [flow.at[tap] for tap in layout.taps]
        windows = [b"" if track is None else track.window(record.write_ns, until_ns) for track in late]
        if not copies:
            windows = [_without_data(rows, record.end_ns) for rows in windows]
        views = _views(record, windows, place[1], anchor)
        later = split(record, layout, views, anchor.source, flow.rounds_ns)
        if isinstance(later, Split) and not incomplete:  # else what was sent may be missing, and its copy be there
            flow.learn(views)
        return later if found is None or isinstance(later, Split) else found

    def _shrink(self) -> None:
        """Forget the older half of the time that is kept, until there is room."""
        while self._packets * WIDTH > self._bytes_kept:
            kept = [track for flow in self._known.values() for track in flow.at if track]
            first, last = min(track.first_ns for track in kept), max(track.last_ns for track in kept)
            self.forget((first + last) // 2 + 1)


def _taken(numbers: list[int], most: int | None) -> list[int]:
    """The last ``most`` of what is left to do, which leave it."""
    if most is None:
        most = len(numbers)
    part = numbers[max(0, len(numbers) - most) :]
    del numbers[len(numbers) - len(part) :]
    return part


_BY_DROPS: Final[frozenset[Reason]] = frozenset({"no-packets", "hole", "order"})


def _without_data(rows: bytes, end_ns: int) -> bytes:
    """Without what has data after a time: the next request says again what the last acknowledgement has said."""
    kept = len(rows)
    later: list[bytes] = []
    while kept:
        row = rows[kept - WIDTH : kept]
        ts_ns, _, _, _, length, _, flags, *_ = RECORD.unpack(row)
        if ts_ns <= end_ns:
            break
        if not length and not flags & FIN:
            later.append(row)
        kept -= WIDTH
    return rows[:kept] + b"".join(reversed(later))


def _plausible(record: Record) -> bool:
    answered = record.response_start < record.response_end
    return (
        0 < record.write_ns <= record.end_ns < _NEVER
        and record.request_end < _NEVER
        and record.response_end < _NEVER
        and record.sent_ns < _NEVER
        and record.request_start < record.request_end
        and record.response_start <= record.response_end
        and (not answered or record.write_ns <= record.first_byte_ns <= record.end_ns)
    )


def _views(record: Record, windows: list[bytes], up: int, anchor: Anchor) -> list[View]:
    starts = (anchor.starts[up], anchor.starts[1 - up])
    request, response = (record.request_start, record.request_end), (record.response_start, record.response_end)
    return [view(rows, up, starts, request, response) for rows in windows]


def _proposed(record: Record, windows: list[bytes], up: int) -> tuple[int, int] | None:
    """Where an attempt says that the streams begin: its first packet with data is the request's first, and tells how
    much the proxy has received before. By direction of the flow; None where no tap saw one."""
    for rows in windows:
        for _, _, seq, ack, length, _, flags, _, direction, _, _, _, _ in RECORD.iter_unpack(rows):
            if direction == up and length and not flags & SYN:
                sent, received = (seq - record.request_start - 1) & _MODULO, (ack - record.response_start - 1) & _MODULO
                return (received, sent) if up else (sent, received)
    return None
