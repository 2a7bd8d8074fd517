"""What a long message waited for, step by step backwards: the ACK clock.

A sender whose window is full goes on when it is told that earlier bytes have arrived, or that there is room again. So
the walk goes from the packet that made the message whole at the sender's tap back to the acknowledgement that released
it, along that acknowledgement's way to the receiver's tap, to the data that had caused it, along the way of that data
back to the sender's tap, and so on to the first byte. Each step lies at one place and the steps join end to end, so
their sum is the message's time, exactly. A receiver that does not read shows as the time between data and
acknowledgement, without any arithmetic with windows.
"""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise
from typing import Final, NamedTuple

from proxy.layers.stream import Acks, Line

STEPS: Final = 2000
"""Acknowledgements that are followed, at most."""

PROMPT_NS: Final = 500_000
"""A sender that goes on this soon after an acknowledgement was waiting for it, whatever it did before."""

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
    while now > floor_ns:
        while index and acks.times[index - 1] >= now:
            index -= 1
        at = index - 1
        if at < 0 or acks.times[at] <= floor_ns or acks.ends[at] <= line.low:
            _silent(steps, line, floor_ns, now, unread)
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
        if waited > PROMPT_NS and waited > (told - before) // 4:
            # It had been told long before it went on: it had nothing to send, or no time.
            before = max(before, floor_ns)
            _silent(steps, line, before, now, unread)
            now, index = before, at
            continue
        _silent(steps, line, told, now, unread)
        now = _round(way, steps, at, told, floor_ns)
        index = at
    return steps


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


def _silent(steps: list[Step], line: Line, since: int, now: int, unread: tuple[int, int]) -> None:
    """The sender's own time; the silences in it in which its data lay unread are the receiver's."""
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
