"""One direction of an exchange, at all taps: its data, what tells of its arrival, and where either of them was when."""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Sequence
from itertools import pairwise
from typing import Final, NamedTuple, Self

from proxy.layers.stream import Acks, Line, View, shorter, shortest_round

_FULL: Final = 536  # bytes of a segment that is full at least (RFC 9293 section 3.7.1)


class Direction(NamedTuple):
    """One direction's data and acknowledgements at each tap, the sender's first; ``known_ns`` is the shortest round
    trip of the connection's earlier messages that way, 0 without one."""

    lines: Sequence[Line]
    acks: Sequence[Acks]
    known_ns: int = 0

    @classmethod
    def of(cls, views: Sequence[View], known_ns: tuple[int, int] = (0, 0), *, up: bool) -> Self:
        """Of the request, or of the response, whose sender is behind the last tap."""
        if up:
            return cls([one.up for one in views], [one.up_acks for one in views], known_ns[0])
        return cls([one.down for one in reversed(views)], [one.down_acks for one in reversed(views)], known_ns[1])

    def round_ns(self) -> int:
        """The shortest round trip from the sender's tap, this message's included; 0 without one."""
        return shorter(shortest_round(self.lines[0], self.acks[0]), self.known_ns)

    def quiet(self, since: int, until: int) -> int:
        """When, between two times, the sender was told something last; ``since`` where it was not."""
        told = self.acks[0].times
        heard = bisect_right(told, until)
        return max(since, told[heard - 1]) if heard else since

    def withheld(self, at_ns: int) -> bool:
        """Whether the receiver's tap has seen two full segments by a time, of which it had seen nothing told.

        A receiver tells of them at once (RFC 9293 section 3.8.6.3), but that Linux does not while nobody reads: it
        could not say that there is room for more.
        """
        line = self.lines[-1]
        return line.passed(at_ns) - max(line.low, self.acks[-1].told(at_ns)) >= 2 * max(line.longest, _FULL)

    def whereabouts(self, since: int, until: int) -> list[tuple[int, int, int]]:
        """Where, between two times, that was for which the sender waited to be told, and then what told of it:
        (start_ns, end_ns, number) end to end, empty ones too. With n places between the taps, 0 to n - 1 are those, n
        is the receiver's, and n + 1 to 2 n are the places again, on the way back. Empty where it waited for nothing,
        or a tap has missed that.

        A receiver need not tell before a second segment has come (RFC 9293 section 3.8.6.3): that is what is waited
        for, but where the sender had sent one alone.
        """
        sent = self.lines[0]
        end = sent.second(max(sent.low, self.acks[0].told(since)), since)
        passed = [line.complete(end) for line in self.lines] + [acks.reached(end) for acks in reversed(self.acks)]
        stamps = [until if at is None else min(max(at, since), until) for at in passed]
        if stamps[0] > since or any(one > other for one, other in pairwise(stamps)):
            return []
        return [(one, other, number) for number, (one, other) in enumerate(pairwise([*stamps[:-1], until]))]
