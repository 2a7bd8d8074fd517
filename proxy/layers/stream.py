"""What one tap saw of one exchange, told in offsets of the two streams: when which bytes passed, and which were told
to have arrived.

An offset counts the bytes of a direction from the connection's first (0 is the byte after the SYN), in 64 bits; packets
carry only its lower half, plus a start that both ends drew (RFC 9293 section 3.4). It is unwrapped next to the one seen
before it, so that an exchange may be longer than the numbers are.
"""

from __future__ import annotations

from bisect import bisect_left, bisect_right, insort
from typing import Final

from proxy.layers.packet import ACK, FIN, RECORD, RST, SYN

# Flags, as numbers of C where this is compiled.
_OPENS: Final = SYN | RST  # or breaks off: no data
_ENDS: Final = FIN
_TELLS: Final = ACK
_MODULO: Final = 0xFFFF_FFFF
_HALF: Final = 0x8000_0000
_LAST: Final = 1 << 64  # beyond any offset
_FEW: Final = 8  # windows told at one offset: mostly one; a receiver may tell as many as it sends packets


class Line:
    """One direction at one tap, from offset ``low`` on: which bytes passed when.

    ``carried`` counts the bytes of [low, ``high``) in all packets, each copy by itself. ``pieces`` are (ts_ns, start,
    end) of the packets with data, in order of time; a FIN counts as a byte behind the last. ``holes`` are (since_ns,
    until_ns, bytes) of what came later than bytes behind it. ``longest`` is the longest packet, in bytes.
    """

    __slots__ = ("_fronts", "_times", "carried", "holes", "longest", "low", "pieces")

    def __init__(self, low: int, high: int, pieces: list[tuple[int, int, int]]) -> None:
        self.low = low
        self.pieces = pieces
        self._times: list[int] = []
        self._fronts: list[int] = []
        self.holes: list[tuple[int, int, int]] = []
        self.longest = 0
        self.carried = self._fill(low, high)

    def _fill(self, low: int, high: int) -> int:
        """Bring the pieces together; how many bytes they carry."""
        since_ns = 0
        ahead: list[tuple[int, int]] = []  # beyond a hole, by start
        front = low
        carried = longest = 0
        for ts_ns, start, end in self.pieces:
            carried += min(end, high) - max(start, low)
            longest = max(longest, end - start)
            if start > front:
                since_ns = since_ns if ahead else ts_ns
                insort(ahead, (start, end))
            elif end > front:
                if ahead:
                    self.holes.append((since_ns, ts_ns, min(end, ahead[0][0]) - front))
                front = end
                joined = 0
                while joined < len(ahead) and ahead[joined][0] <= front:
                    front = max(front, ahead[joined][1])
                    joined += 1
                del ahead[:joined]
                self._times.append(ts_ns)
                self._fronts.append(front)
        self.longest = longest
        return carried

    def __repr__(self) -> str:
        return f"Line({self.low}..{self._fronts[-1] if self._fronts else '-'}, {len(self.pieces)} packets)"

    @property
    def first_ns(self) -> int:
        """When the first byte passed; raises `IndexError` if it did not."""
        return self._times[0]

    def complete(self, end: int) -> int | None:
        """When [low, end) had become whole: a packet that fills a hole completes it, not the one with the last byte."""
        index = bisect_left(self._fronts, end)
        return self._times[index] if index < len(self._times) else None

    def passed(self, ts_ns: int) -> int:
        """How far it was whole at a time: the end of what had passed by then."""
        index = bisect_right(self._times, ts_ns)
        return self._fronts[index - 1] if index else self.low

    def second(self, offset: int, ts_ns: int) -> int:
        """The end of the second part behind an offset that had passed by a time; of the first where that was all."""
        index = bisect_right(self._fronts, offset)
        if index == len(self._fronts):
            return offset + 1
        return self._fronts[min(index + 1, max(index, bisect_right(self._times, ts_ns) - 1))]

    def before(self, ts_ns: int) -> int | None:
        """The stamp of the last packet with data before a time; None without one."""
        index = bisect_left(self.pieces, (ts_ns,))
        return self.pieces[index - 1][0] if index else None

    def after(self, ts_ns: int) -> int | None:
        """The stamp of the first packet with data after a time; None without one."""
        index = bisect_right(self.pieces, (ts_ns, _LAST))
        return self.pieces[index][0] if index < len(self.pieces) else None

    def stamps(self, low_ns: int, high_ns: int) -> list[int]:
        """The stamps of the packets with data within (low_ns, high_ns)."""
        pieces = self.pieces
        low, high = bisect_right(pieces, (low_ns, _LAST)), bisect_left(pieces, (high_ns,))
        return [ts_ns for ts_ns, _, _ in pieces[low:high]]

    def news(self, low_ns: int, high_ns: int) -> list[int]:
        """The stamps within (low_ns, high_ns) of the packets that had a byte which none before had."""
        fronts, times = set(self._times), []
        far = self.low
        for ts_ns, _, end in self.pieces:
            if (end > far or ts_ns in fronts) and low_ns < ts_ns < high_ns:
                times.append(ts_ns)
            far = max(far, end)
        return times


class Acks:
    """What the receiver of a direction told the sender, as one tap saw it: only what was news.

    News is a higher offset, or a larger window at the same. ``repeats`` are the stamps of packets without data that
    said the same again: something has come that does not follow. ``late`` are (end, window) that were no news any more,
    as what is overtaken on its way is not; None without any. ``zero_ns`` is for how long the window was told to be 0.
    """

    __slots__ = ("_indexed", "_places", "_shut_ns", "_window", "ends", "late", "repeats", "times", "windows", "zero_ns")

    def __init__(self) -> None:
        self.times: list[int] = []
        self.ends: list[int] = []
        self.windows: list[int] = []
        self.repeats: list[int] = []
        self.late: set[tuple[int, int]] | None = None  # mostly there are none
        self.zero_ns = 0
        self._shut_ns = 0
        self._places: dict[tuple[int, int], int] | None = None  # by what is told, where `_FEW` are not all
        self._indexed = 0  # how many pieces of news are in it
        self._window = 0  # the last one: a smaller window is no news, but a larger one after it is

    def __repr__(self) -> str:
        return f"Acks({len(self.times)}, to {self.ends[-1] if self.ends else '-'})"

    def add(self, ts_ns: int, end: int, window: int, length: int) -> None:
        """An acknowledgement of everything before ``end``, in order of time, on a packet with ``length`` bytes."""
        if not window:
            self._shut_ns = self._shut_ns or ts_ns
        elif self._shut_ns:
            self.zero_ns += ts_ns - self._shut_ns
            self._shut_ns = 0
        ends = self.ends
        if ends:
            if end < ends[-1]:
                self._late(end, window)
                return
            if end == ends[-1] and window <= self._window:
                if window < self._window:
                    self._late(end, window)
                if not length:
                    self.repeats.append(ts_ns)
                self._window = window
                return
        self._window = window
        self.times.append(ts_ns)
        ends.append(end)
        self.windows.append(window)

    def _late(self, end: int, window: int) -> None:
        if self.late is None:
            self.late = set()
        self.late.add((end, window))

    def shut(self, end_ns: int) -> int:
        """For how long the window was 0, until ``end_ns``."""
        return self.zero_ns + (max(0, end_ns - self._shut_ns) if self._shut_ns else 0)

    def reached(self, end: int) -> int | None:
        """When ``end`` or more was first acknowledged."""
        index = bisect_left(self.ends, end)
        return self.times[index] if index < len(self.times) else None

    def told(self, ts_ns: int) -> int:
        """How much was acknowledged by a time: the end of it, 0 before the first."""
        index = bisect_right(self.times, ts_ns)
        return self.ends[index - 1] if index else 0

    def same(self, end: int, window: int) -> int | None:
        """When this very piece of news passed here; where it was overtaken, the one that told more in its place. None
        where it was not heard: the one behind it passed later."""
        index = self.place(end, window)
        if index >= 0:
            return self.times[index]
        if self.late is None or (end, window) not in self.late:
            return None
        index = bisect_left(self.ends, end)
        while index < len(self.ends) and self.ends[index] == end and self.windows[index] < window:
            index += 1
        return self.times[index] if index < len(self.times) else None

    def place(self, end: int, window: int) -> int:
        """Which this very piece of news is of those that passed here, from 0 on; -1 where it did not."""
        index = bisect_left(self.ends, end)
        most = min(index + _FEW, len(self.ends))
        while index < most and self.ends[index] == end:
            if self.windows[index] == window:
                return index
            index += 1
        if index < most or index == len(self.ends) or self.ends[index] != end:
            return -1
        places = self._places
        if places is None or self._indexed != len(self.ends):
            places = self._places = {}
            for number, news in enumerate(zip(self.ends, self.windows, strict=True)):
                places.setdefault(news, number)
            self._indexed = len(self.ends)
        return places.get((end, window), -1)

    def heard(self, end: int, window: int) -> bool:
        """Whether it passed here, news or not."""
        return self.place(end, window) >= 0 or (self.late is not None and (end, window) in self.late)


def shortest_round(line: Line, acks: Acks) -> int:
    """The shortest time from when something had passed the sender's tap to when that was told there; 0 without one."""
    trips = [
        told - whole
        for told, end in zip(acks.times, acks.ends, strict=True)
        if end > line.low and (whole := line.complete(end)) is not None and told > whole
    ]
    return min(trips, default=0)


def shorter(one: int, other: int) -> int:
    """The shorter of two times that are 0 where they are not known."""
    return min(one, other) if one and other else one or other


class View:
    """One tap's part of an exchange: the request's data (``up``) and its acknowledgements (``up_acks``), and the
    response's (``down``, ``down_acks``)."""

    __slots__ = ("down", "down_acks", "packets", "up", "up_acks")

    def __init__(self, up: Line, down: Line, up_acks: Acks, down_acks: Acks, packets: int) -> None:
        self.up = up
        self.down = down
        self.up_acks = up_acks
        self.down_acks = down_acks
        self.packets = packets

    def __repr__(self) -> str:
        return f"View(up {self.up!r}, down {self.down!r})"


def view(rows: bytes, up: int, starts: tuple[int, int], request: tuple[int, int], response: tuple[int, int]) -> View:
    """What ``rows`` (of `Track.window`) say of the offsets [q0, q1) up and [p0, p1) down.

    ``up`` is the direction of packets from the proxy; ``starts`` the initial sequence numbers of what the proxy sends,
    and of what it receives. Packets count that touch the ranges, or the byte behind them.
    """
    q0, q1 = request
    p0, p1 = response
    # The last offset seen in each direction, and its sequence number.
    q, q_seq = q0, (starts[0] + 1 + q0) & _MODULO
    p, p_seq = p0, (starts[1] + 1 + p0) & _MODULO
    sent: list[tuple[int, int, int]] = []
    received: list[tuple[int, int, int]] = []
    up_acks, down_acks = Acks(), Acks()
    packets = 0
    for ts_ns, _, seq, ack, length, window, flags, _, direction, _, _, _, _ in RECORD.iter_unpack(rows):
        if flags & _OPENS:
            continue
        packets += 1
        if flags & _ENDS:
            length += 1
        if direction == up:
            if length:
                q += ((seq - q_seq + _HALF) & _MODULO) - _HALF
                q_seq = seq
                if q <= q1 and q + length > q0:
                    sent.append((ts_ns, q, q + length))
            if flags & _TELLS:
                down_acks.add(ts_ns, p + ((ack - p_seq + _HALF) & _MODULO) - _HALF, window, length)
        else:
            if length:
                p += ((seq - p_seq + _HALF) & _MODULO) - _HALF
                p_seq = seq
                if p <= p1 and p + length > p0:
                    received.append((ts_ns, p, p + length))
            if flags & _TELLS:
                up_acks.add(ts_ns, q + ((ack - q_seq + _HALF) & _MODULO) - _HALF, window, length)
    return View(Line(q0, q1, sent), Line(p0, p1, received), up_acks, down_acks, packets)
