"""One direction of an exchange, at all taps: its data, what tells of its arrival, and where either of them was when."""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Sequence
from itertools import pairwise
from typing import Final, NamedTuple, Self

from proxy.layers.stream import Acks, Line, View

NEVER_NS: Final = 1 << 62


class Direction(NamedTuple):
    """One direction's data and acknowledgements at each tap, the sender's first; ``others`` is the data of the other
    direction, in the same order of taps, and ``known_ns`` what is known of `round_ns` from before."""

    lines: Sequence[Line]
    acks: Sequence[Acks]
    others: Sequence[Line]
    known_ns: int = NEVER_NS

    @classmethod
    def of(cls, views: Sequence[View], known_ns: int, *, up: bool) -> Self:
        """Of the request, or of the response, whose sender is behind the last tap."""
        if up:
            return cls([v.up for v in views], [v.up_acks for v in views], [v.down for v in views], known_ns)
        back = views[::-1]
        return cls([v.down for v in back], [v.down_acks for v in back], [v.up for v in back], known_ns)

    def round_ns(self) -> int:
        """The least time that anything took from the sender's tap to the receiver's, and anything back."""
        there, back = self.lines[0].trip_ns(self.lines[-1]), self.others[-1].trip_ns(self.others[0])
        return min(there + back, self.known_ns)

    def withheld(self, at_ns: int) -> bool:
        """Whether the receiver's tap has seen two full segments by a time, of which it had seen nothing told.

        A receiver tells of them at once (RFC 9293 section 3.8.6.3), but that Linux does not while nobody reads: it
        could not say that there is room for more.
        """
        line, told = self.lines[-1], self.acks[-1]
        heard = bisect_right(told.times, at_ns)
        return line.passed(at_ns) - max(line.low, told.ends[heard - 1] if heard else 0) >= 2 * line.longest

    def whereabouts(self, since: int, until: int) -> list[tuple[int, int, int]]:
        """Where, between two times, that was for which the sender waited to be told, and then what told of it:
        (start_ns, end_ns, number) end to end, empty ones too. With n places between the taps, 0 to n - 1 are those, n
        is the receiver's, and n + 1 to 2 n are the places again, on the way back. Empty where a tap has missed it.

        A receiver need not tell before a second segment has come (RFC 9293 section 3.8.6.3): that is what is waited
        for, but where the sender had sent one alone.
        """
        line, told = self.lines[0], self.acks[0]
        heard = bisect_right(told.times, since)
        end = line.second(max(line.low, told.ends[heard - 1] if heard else 0), since)
        passed = [line.complete(end) for line in self.lines] + [acks.reached(end) for acks in reversed(self.acks)]
        stamps = [until if at is None else min(max(at, since), until) for at in passed]
        if any(one > other for one, other in pairwise(stamps)):
            return []
        return [(one, other, number) for number, (one, other) in enumerate(pairwise([*stamps[:-1], until]))]
