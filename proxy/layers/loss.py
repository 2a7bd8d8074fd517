"""Loss and retransmission, told by counting: how many copies of each byte passed each tap.

Where fewer copies come out of a place than went in, the others vanished there. A tap that has missed a packet looks the
same, unless a later tap has seen the copy: then it was the tap. So a tap counts as having seen at least as many copies
as any behind it.
"""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Sequence
from itertools import pairwise
from typing import Final, NamedTuple

from proxy.layers.stream import Acks, Line, View, shortest_round
from proxy.layers.walk import Astray
from proxy.trace.handover import Record

_ENDS: Final = ("proxy", "backend")
_TIMER_NS: Final = 200_000_000  # the shortest retransmission timer of Linux (TCP_RTO_MIN)
MOST_COPIES: Final = 1 << 18
"""Copies of parts that are looked at: pieces that all overlap make the square of their number. With every tenth of the
packets lost that are kept of a connection (`track.PACKETS`) there are some 15,000."""
_ROUND_NS: Final = 1_000_000  # taken for a round trip where nothing of the message was acknowledged in time


class Losses(NamedTuple):
    """Bytes lost by place; how long their repair held up the message; bytes sent more than once."""

    lost: dict[str, int]
    recovery_ns: int
    retransmitted: int


def losses(record: Record, places: Sequence[str], views: Sequence[View]) -> Losses:
    """What was lost of an attempt's request and response, both of which have come through.

    Raises `Astray` (``too-long``) where there are more than `MOST_COPIES`.
    """
    lost: dict[str, int] = {}
    recovery_ns = retransmitted = 0
    for upward in (True, False):
        if upward:
            lines, end = [one.up for one in views], record.request_end
        else:
            lines, end = [one.down for one in reversed(views)], record.response_end
        unique = end - lines[0].low
        once = True
        for line in lines:
            once = once and line.carried == unique
        if once and not lines[0].holes:
            continue
        acks = [one.up_acks for one in views] if upward else [one.down_acks for one in reversed(views)]
        ended = lines[-1].complete(end) or 0
        if lines[0].holes:
            # Bytes that pass a round trip later than those behind them had been lost before the tap, and were sent
            # again when this was told; sooner, they were merely overtaken (RFC 8985 section 6.2).
            round_ns = shortest_round(lines[0], acks[0]) or _ROUND_NS
            for since_ns, until_ns, size in lines[0].holes:
                if until_ns - since_ns >= round_ns:
                    own = _ENDS[not upward]
                    lost[own] = lost.get(own, 0) + size
                    recovery_ns = max(recovery_ns, ended - since_ns)
        if once:
            continue
        names = (*(places if upward else reversed(places)), _ENDS[upward])
        parts = _counts(lines, end)
        starts = [start for start, _, _ in parts]
        passed = [_passings(line, starts) for line in lines]
        for index, (start, stop, copies) in enumerate(parts):
            size = stop - start
            for number in range(len(copies) - 2, -1, -1):
                copies[number] = max(copies[number], copies[number + 1])
            retransmitted += max(0, copies[0] - 1) * size
            copies.append(copies[-1] - _unheard(passed[-1][index], acks[-1], start))
            for number, name in enumerate(names):
                gone = copies[number] - copies[number + 1]
                if gone > 0:
                    lost[name] = lost.get(name, 0) + gone * size
                    recovery_ns = max(recovery_ns, ended - passed[number][index][0] if passed[number][index] else 0)
    return Losses(lost, recovery_ns, retransmitted)


def _counts(lines: Sequence[Line], end: int) -> list[tuple[int, int, list[int]]]:
    """(start, stop, copies per line) of the parts of [low, end) of which some line carries other than one copy."""
    low = lines[0].low
    changes: dict[int, list[int]] = {}
    for number, line in enumerate(lines):
        for _, start, stop in line.pieces:
            start, stop = max(start, low), min(stop, end)
            if start < stop:
                changes.setdefault(start, [0] * len(lines))[number] += 1
                changes.setdefault(stop, [0] * len(lines))[number] -= 1
    parts: list[tuple[int, int, list[int]]] = []
    copies = [0] * len(lines)
    at = low
    for offset in sorted(changes):
        if offset > at and any(count != 1 for count in copies):
            parts.append((at, offset, list(copies)))
        at = offset
        copies = [count + change for count, change in zip(copies, changes[offset], strict=True)]
    return parts


def _passings(line: Line, offsets: list[int]) -> list[list[int]]:
    """When the copies of the bytes at these offsets, which ascend, passed; each in order of time."""
    passed: list[list[int]] = [[] for _ in offsets]
    left = MOST_COPIES
    for ts_ns, start, stop in line.pieces:
        first, behind = bisect_left(offsets, start), bisect_left(offsets, stop)
        left -= behind - first
        if left < 0:
            raise Astray("too-long", "copies")
        for index in range(first, behind):
            passed[index].append(ts_ns)
    return passed


def _unheard(stamps: list[int], acks: Acks, offset: int) -> int:
    """Copies of a byte that passed the last tap and did not arrive.

    The receiver says so by repeating itself, or by silence until the sender's timer. A copy that follows sooner may be
    a probe of a sender that has not been answered in time (RFC 8985 section 7), and one that follows an acknowledgement
    is merely sent twice.
    """
    told = acks.reached(offset + 1)
    gone = 0
    for before, ts_ns in pairwise(stamps):
        repeated = bisect_left(acks.repeats, ts_ns) > bisect_left(acks.repeats, before)
        if (told is None or ts_ns < told) and (repeated or ts_ns - before >= _TIMER_NS):
            gone += 1
    return gone
