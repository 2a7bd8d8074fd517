"""What a long message waited for, step by step backwards: the ACK clock.

A sender whose window is full goes on when it is told that earlier bytes have arrived, or that there is room again. So
the walk goes from the packet that made the message whole at the sender's tap back to the acknowledgement that released
it, along that acknowledgement's way to the receiver's tap, to the data that had caused it, along the way of that data
back to the sender's tap, and so on to the first byte. Each step lies at one place and the steps join end to end, so
their sum is the message's time, exactly. A receiver that does not read shows as the time between data and
acknowledgement, without any arithmetic with windows.

A sender need not be driven so: what stands in a queue before its tap, is paced, or is still being made comes when it
comes, whatever was acknowledged meanwhile. Then the time from one packet to the next is the sender's. `_Clock` tells
the two apart.
"""

from __future__ import annotations

from bisect import bisect_left, bisect_right
from collections.abc import Sequence
from itertools import pairwise
from typing import Final, NamedTuple

from proxy.layers.stream import Acks, Line

STEPS: Final = 2000
"""Acknowledgements that are followed, at most."""

PROMPT_NS: Final = 500_000
"""A sender that goes on this soon after an acknowledgement was waiting for it, whatever it did before."""

WORTH_NS: Final = 2_000_000
"""A message that took less is not asked what drove its sender: so little is nobody's fault."""

_SOON_NS: Final = 50_000  # a kernel's answer to an acknowledgement, through the interface: some 10 to 30 us
_SOON_PART: Final = 4
_NEIGHBOURS: Final = 8  # pauses that are looked at together: one of them may follow an acknowledgement by chance

SILENCE_NS: Final = 2_000_000
"""A sender silent for longer, while its data lay unread, waits for the reader: a receiver's kernel acknowledges late
what nobody reads (delayed ACK, RFC 9293 section 3.8.6.3: up to 0.5 s; Linux 40 to 200 ms), its window wide open."""

SENDER: Final = -1
RECEIVER: Final = -2


class Step(NamedTuple):
    """Time at one place: `SENDER`, `RECEIVER`, or the number of the place between two taps, 0 nearest to the sender.

    ``back``: spent by an acknowledgement on its way to the sender.
    """

    start_ns: int
    end_ns: int
    where: int
    back: bool = False


class Astray(Exception):
    """The walk cannot go on; the argument is the reason, as `split.Missing` names it."""


class Way(NamedTuple):
    """One direction's data and acknowledgements at each tap, the sender's first."""

    lines: Sequence[Line]
    acks: Sequence[Acks]


def walk(way: Way, end: int, floor_ns: int, unread: tuple[int, int] = (0, 0)) -> list[Step]:
    """The steps from when [low, ``end``) was whole at the sender's tap back to ``floor_ns``, the latest first.

    ``unread`` is when data is known to have lain before a reader that did not read. Raises `Astray`: a tap has missed
    something (``hole``), stamps contradict each other (``order``), or there were more than `STEPS` (``too-long``).
    """
    line, acks = way.lines[0], way.acks[0]
    steps: list[Step] = []
    now = _complete(line, end)
    taken = 0
    index = len(acks.times)
    clock = _Clock(line, acks, floor_ns, now) if now - floor_ns > WORTH_NS else None
    while now > floor_ns:
        while index and acks.times[index - 1] >= now:
            index -= 1
        at = index - 1
        if at < 0 or acks.times[at] <= floor_ns or acks.ends[at] <= line.low:
            _silent(steps, way, floor_ns, now, unread)
            break
        taken += 1
        if taken > STEPS:
            raise Astray("too-long")
        told = acks.times[at]
        before = line.before(told)
        after = line.after(told)
        if before is None or after is None:
            raise Astray("hole")
        waited = after - told
        if (waited > PROMPT_NS and waited > (told - before) // 4) or (clock is not None and not clock.drives(after)):
            # It had been told long before it went on: it had nothing to send, or no time. Or it did not go by what it
            # was told at all.
            before = max(before, floor_ns)
            _silent(steps, way, before, now, unread)
            now, index = before, at
            continue
        _silent(steps, way, told, now, unread)
        now = _round(way, steps, at, told, floor_ns)
        index = at
    return steps


class _Clock:
    """Whether a sender went by acknowledgements, judged from its pauses, each weighed by its length.

    A sender that waits for an acknowledgement goes on as soon as one has come: the pause ends with it. In the pauses of
    one that does not, acknowledgements come at any time, or not at all. A queue that is emptied at a rate makes every
    pause as long as the next, and one in four ends soon after an acknowledgement by mere chance: hence several.
    """

    __slots__ = ("_answered", "_times")

    def __init__(self, line: Line, acks: Acks, floor_ns: int, end_ns: int) -> None:
        self._times = times = [floor_ns, *line.stamps(floor_ns, end_ns + 1)]
        self._answered = answered = [0]  # up to each stamp, nanoseconds of pauses that an acknowledgement ended
        told, at, most = acks.times, 0, len(acks.times)
        for before, after in pairwise(times):
            while at < most and told[at] < after:
                at += 1
            pause = after - before
            since = after - told[at - 1] if at else pause
            soon = since <= max(_SOON_NS, pause // _SOON_PART) and since < pause
            answered.append(answered[-1] + (pause if soon else 0))

    def drives(self, after: int) -> bool:
        """Whether acknowledgements ended the greater part of the last pauses before the packet at ``after``."""
        last = bisect_left(self._times, after)
        first = max(0, last - _NEIGHBOURS)
        return 2 * (self._answered[last] - self._answered[first]) >= self._times[last] - self._times[first]


def _round(way: Way, steps: list[Step], at: int, told: int, floor_ns: int) -> int:
    """From an acknowledgement at the sender's tap back to the data at the sender's tap that had caused it."""
    end, window = way.acks[0].ends[at], way.acks[0].windows[at]
    last = len(way.lines) - 1
    now = told
    for number in range(1, last + 1):
        now = _step(steps, way.acks[number].same(end, window), now, number - 1, back=True, floor_ns=floor_ns)
    now = _step(steps, way.lines[last].complete(end), now, RECEIVER, back=False, floor_ns=floor_ns)
    for number in range(last - 1, -1, -1):
        now = _step(steps, way.lines[number].complete(end), now, number, back=False, floor_ns=floor_ns)
    if now >= told:
        raise Astray("order")
    return now


def _step(steps: list[Step], since: int | None, now: int, where: int, *, back: bool, floor_ns: int) -> int:
    if since is None:
        raise Astray("hole")
    if since > now:
        raise Astray("order")
    since = max(since, min(floor_ns, now))
    if since < now:
        steps.append(Step(since, now, where, back))
    return since


def _silent(steps: list[Step], way: Way, since: int, now: int, unread: tuple[int, int]) -> None:
    """The sender's own time; the silences in it in which its data lay unread are the receiver's.

    Raises `Astray` where another tap has seen it being told something meanwhile that its own has not: it may have gone
    on because of that.
    """
    line, own = way.lines[0], way.acks[0]
    known = bisect_right(own.times, since) - 1  # what it had been told last by then; the rest came behind it
    for other in way.acks[1:]:
        behind = other.place(own.ends[known], own.windows[known]) + 1 if known >= 0 else 0
        for index in range(behind or bisect_right(other.times, since), bisect_left(other.times, now)):
            if other.ends[index] > line.low and not own.heard(other.ends[index], other.windows[index]):
                raise Astray("hole")
    low, high = max(since, unread[0]), min(now, unread[1])
    if high - low > SILENCE_NS:
        for start, end in reversed(_silences(line, low, high)):
            if end < now:
                steps.append(Step(end, now, SENDER))
            steps.append(Step(start, end, RECEIVER))
            now = start
    if since < now:
        steps.append(Step(since, now, SENDER))


def _silences(line: Line, low: int, high: int) -> list[tuple[int, int]]:
    stamps = [low, *line.stamps(low, high), high]
    return [(a, b) for a, b in pairwise(stamps) if b - a > SILENCE_NS]


def _complete(line: Line, end: int) -> int:
    whole = line.complete(end)
    if whole is None:
        raise Astray("hole")
    return whole
