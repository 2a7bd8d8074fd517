"""What drove a sender: acknowledgements, its own timer, or neither.

A sender whose window is full goes on when it is told that earlier bytes have arrived. Where it is told nothing for so
long that something must have been lost, it sends a part without having been told (a tail loss probe, RFC 8985 section
7; Linux takes it from what is still unsent), and then waits again. Neither is time of its own. What stands in a queue
before its tap, is paced, or is still being made comes when it comes, whatever was acknowledged meanwhile: that is.
"""

from __future__ import annotations

from bisect import bisect_left, bisect_right
from itertools import pairwise
from typing import Final

from proxy.layers.direction import Direction

PROMPT_NS: Final = 500_000
"""A sender that goes on this soon after an acknowledgement was waiting for it, whatever it did before."""

PROBE_NS: Final = 2_000_000
"""What a probe's timer adds to two round trips, at least (TCP_TIMEOUT_MIN of Linux: two ticks, of 1 ms or more)."""

_SOON_NS: Final = 50_000  # a kernel's answer to an acknowledgement, through the interface: some 10 to 30 us
_SOON_PART: Final = 4
_NEIGHBOURS: Final = 8  # pauses that are looked at together: one of them may follow an acknowledgement by chance


class Sender:
    """When a sender sent something new within [``floor_ns``, ``end_ns``], by its own tap, and what drove it.

    What was sent once more is not in it, nor are probes.
    """

    __slots__ = ("_answered", "_news", "_probes", "_times")

    def __init__(self, direction: Direction, floor_ns: int, end_ns: int) -> None:
        acks = direction.acks[0]
        self._probes: dict[int, int] = {}  # when each packet of a probe was sent; since when the sender was silent
        self._news: list[int] = [floor_ns, *direction.lines[0].news(floor_ns, end_ns + 1)]
        self._times = times = self._without_probes(direction)
        self._answered = answered = [0]  # up to each stamp, nanoseconds of pauses that an acknowledgement ended
        told, at, most = acks.times, 0, len(acks.times)
        for before, after in pairwise(times):
            while at < most and told[at] < after:
                at += 1
            pause = after - before
            since = after - told[at - 1] if at else pause
            soon = since <= max(_SOON_NS, pause // _SOON_PART) and since < pause
            answered.append(answered[-1] + (pause if soon else 0))

    def __repr__(self) -> str:
        return f"Sender({len(self._times)} packets, {len(self._probes)} of probes)"

    def _without_probes(self, direction: Direction) -> list[int]:
        news, told = self._news, direction.acks[0].times
        # What a message begins with after its floor is what it was asked for, as a rule, whatever is outstanding.
        number = 1 if news[0] == direction.lines[0].first_ns else 2
        times = news[:number]
        round_ns: int | None = None
        tried = -1
        while number < len(news):
            since, at = news[number - 1], news[number]
            if at - since >= PROBE_NS:
                heard, quiet = bisect_right(told, at), direction.quiet(since, at)
                round_ns = direction.round_ns() if round_ns is None else round_ns
                silent = round_ns and at - quiet >= PROBE_NS + 2 * round_ns
                # There is one until it is told something again (RFC 8985 section 7.2).
                if silent and heard != tried and _overdue(direction, quiet, at):
                    tried = heard
                    behind = _behind(news, told, number, heard)
                    if behind > number:
                        self._probes.update(dict.fromkeys(news[number:behind], since))
                        number = behind
                        continue
            times.append(at)
            number += 1
        return times

    def probed(self, ts_ns: int) -> int:
        """Since when a sender had been silent that sent a probe at this time; 0 where it did not."""
        return self._probes.get(ts_ns, 0)

    def last(self, ts_ns: int) -> int:
        """When it sent the last part before a time, probes too; the floor without one."""
        return self._news[max(0, bisect_left(self._news, ts_ns) - 1)]

    def before(self, ts_ns: int) -> int | None:
        """When it sent the last part before a time; None without one."""
        index = bisect_left(self._times, ts_ns)
        return self._times[index - 1] if index else None

    def after(self, ts_ns: int) -> int | None:
        """When it sent the first part after a time; None without one."""
        index = bisect_right(self._times, ts_ns)
        return self._times[index] if index < len(self._times) else None

    def driven(self, after: int) -> bool:
        """Whether acknowledgements ended the greater part of the last pauses before what it sent at ``after``.

        One that waits for an acknowledgement goes on as soon as one has come: the pause ends with it. In the pauses of
        one that does not, acknowledgements come at any time, or not at all. A queue that is emptied at a rate makes
        every pause as long as the next, and one in four ends soon after an acknowledgement by mere chance: hence
        several, each weighed by its length.
        """
        last = bisect_left(self._times, after)
        first = max(0, last - _NEIGHBOURS)
        return 2 * (self._answered[last] - self._answered[first]) >= self._times[last] - self._times[first]


def _behind(news: list[int], told: list[int], number: int, heard: int) -> int:
    """Where in ``news`` a probe ends that begins at ``number``: one segment, as many packets as that is cut into.
    ``number`` where it is none: a sender that probes goes on when it is told, or has nothing more."""
    at = news[number]
    behind = bisect_left(news, told[heard], number) if heard < len(told) else len(news)
    if news[behind - 1] - at > PROMPT_NS:
        return number
    if behind < len(news):
        waited = news[behind] - told[bisect_right(told, news[behind]) - 1]
        if waited > PROMPT_NS and waited > (news[behind] - at) // _SOON_PART:
            return number
    return behind


def _overdue(direction: Direction, since: int, until: int) -> bool:
    """Whether what a sender was to be told of was on its way for the greater part of this time, or had come to one who
    does not read; one who reads may take its time to tell of a single segment (delayed ACK)."""
    places = direction.whereabouts(since, until)
    on_its_way = sum(end - start for start, end, number in places if number != len(direction.lines) - 1)
    return bool(places) and (2 * on_its_way >= until - since or direction.withheld(until - 1))
