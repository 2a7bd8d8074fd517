"""What a long message waited for, step by step backwards: the ACK clock.

A sender whose window is full goes on when it is told that earlier bytes have arrived, or that there is room again. So
the walk goes from the packet that made the message whole at the sender's tap back to the acknowledgement that released
it, along that acknowledgement's way to the receiver's tap, to the data that had caused it, along the way of that data
back to the sender's tap, and so on to the first byte. Each step lies at one place and the steps join end to end, so
their sum is the message's time, exactly. A receiver that does not read shows as the time between data and
acknowledgement, without any arithmetic with windows.

A sender need not be driven so: `sender.Sender` tells it apart. Where it was not, the time from one packet to the next
is the sender's; where it went on by its own timer, of the place that held up what it waited for.
"""

from __future__ import annotations

from bisect import bisect_left, bisect_right
from itertools import pairwise
from typing import Final, NamedTuple

from proxy.layers.direction import Direction
from proxy.layers.sender import PROMPT_NS, Sender
from proxy.layers.stream import Line

STEPS: Final = 2000
"""Acknowledgements that are followed, at most."""

WORTH_NS: Final = 2_000_000
"""A message that took less is not asked what drove its sender: so little is nobody's fault."""

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


def walk(direction: Direction, end: int, floor_ns: int, unread: tuple[int, int] = (0, 0)) -> list[Step]:
    """The steps from when [low, ``end``) was whole at the sender's tap back to ``floor_ns``, the latest first.

    ``unread`` is when data is known to have lain before a reader that did not read. Raises `Astray`: a tap has missed
    something (``hole``), stamps contradict each other (``order``), or there were more than `STEPS` (``too-long``).
    """
    line, acks = direction.lines[0], direction.acks[0]
    steps: list[Step] = []
    now = _complete(line, end)
    taken = 0
    index = len(acks.times)
    sender = Sender(direction, floor_ns, now) if now - floor_ns > WORTH_NS else None
    while now > floor_ns:
        if sender is not None and (since := sender.probed(now)):
            _unanswered(steps, direction, since, now, unread)
            now = since
            continue
        while index and acks.times[index - 1] >= now:
            index -= 1
        at = index - 1
        if at < 0 or acks.times[at] <= floor_ns or acks.ends[at] <= line.low:
            _silent(steps, direction, floor_ns, now, unread)
            break
        taken += 1
        if taken > STEPS:
            raise Astray("too-long")
        told = acks.times[at]
        before = line.before(told) if sender is None else sender.before(told)
        after = line.after(told) if sender is None else sender.after(told)
        if before is None or after is None:
            raise Astray("hole")
        waited = after - told
        if (waited > PROMPT_NS and waited > (told - before) // 4) or (sender is not None and not sender.driven(after)):
            # It had been told long before it went on: it had nothing to send, or no time. Or it did not go by what it
            # was told at all.
            before = max(before if sender is None else sender.last(told), floor_ns)
            _silent(steps, direction, before, now, unread)
            now, index = before, at
            continue
        _silent(steps, direction, told, now, unread)
        now = _round(direction, steps, at, told, floor_ns)
        index = at
    return steps


def _round(direction: Direction, steps: list[Step], at: int, told: int, floor_ns: int) -> int:
    """From an acknowledgement at the sender's tap back to the data at the sender's tap that had caused it."""
    end, window = direction.acks[0].ends[at], direction.acks[0].windows[at]
    last = len(direction.lines) - 1
    now = told
    for number in range(1, last + 1):
        now = _step(steps, direction.acks[number].same(end, window), now, number - 1, back=True, floor_ns=floor_ns)
    now = _step(steps, direction.lines[last].complete(end), now, RECEIVER, back=False, floor_ns=floor_ns)
    for number in range(last - 1, -1, -1):
        now = _step(steps, direction.lines[number].complete(end), now, number, back=False, floor_ns=floor_ns)
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


def _unanswered(steps: list[Step], direction: Direction, since: int, now: int, unread: tuple[int, int]) -> None:
    """From when a sender fell silent until its own timer had it send a probe. From when it was told something last, the
    time is of the places that held up what it waited for. While a receiver that reads had that, nobody but the sender
    held back, as if it had not sent anything."""
    quiet = direction.quiet(since, now)
    last = len(direction.lines) - 1
    places = direction.whereabouts(quiet, now)
    for start, end, number in reversed(places):
        if number == last and not direction.withheld(end - 1):
            _silent(steps, direction, start, end, unread)
        elif start < end:
            where = RECEIVER if number == last else min(number, 2 * last - number)
            steps.append(Step(start, end, where, number > last))
    _silent(steps, direction, since, quiet if places else now, unread)


def _silent(steps: list[Step], direction: Direction, since: int, now: int, unread: tuple[int, int]) -> None:
    """The sender's own time; the silences in it in which its data lay unread are the receiver's.

    Raises `Astray` where another tap has seen it being told something meanwhile that its own has not: it may have gone
    on because of that.
    """
    if since >= now:
        return
    line, own = direction.lines[0], direction.acks[0]
    known = bisect_right(own.times, since) - 1  # what it had been told last by then; the rest came behind it
    for other in direction.acks[1:]:
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
