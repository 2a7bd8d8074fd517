"""Which recorded requests are shown to `spanway wire`: all of them, until there are more than so many a second.

To be looked at has a price for the request (the kernel's account of its connections, a record, packets that are copied)
and for the node (some 60 us of joining). Where everything is recorded at full load, most of it would be for nothing:
the wire could not join them all. So requests are shown in a row until the allowance is used up, and then none for a
while: meanwhile the wire can set its taps aside, which cost every packet that passes them, whether it is taken or not.

The next row begins at an instant that all workers of a host find by themselves and that no period of the traffic
meets again and again: every two seconds or so, put off by a part of the hash of its number.
"""

from __future__ import annotations

from typing import Final

BURST: Final = 4096
"""What is shown in a row after a calm time: a fifth of a second of the wire's time, and an eighth of what it has room
for (`layers.joining.MOST`)."""
PERIOD_NS: Final = 1 << 31
"""From one row to the next, 2.1 s on average and 3.2 at most: taps are there for some 0.2 s more than a row lasts."""
LONGEST_NS: Final = 5_000_000_000
"""No rest is longer, at one request a second; a clock that was set back makes one seem so."""
KEPT_NS: Final = 30_000_000_000
"""A request that goes on for longer is not waited for: its packets are not kept (`layers.joining.KEPT_NS`)."""
UNTOLD: Final = KEPT_NS // PERIOD_NS + 1
"""Rests in a row that could not be told of because a request went on."""

_SHIFT: Final = 31
_LOW: Final = 0xFFFF  # bits of a number that are hashed
_HASH: Final = 40_503  # 2**16 over the golden ratio (Knuth, The Art of Computer Programming, 6.4)
_MIDDLE: Final = 8  # of its square: multiples alone have three distances (Knuth, theorem 6.4 S)
_SPREAD: Final = 14  # 16 bits to 30: half a period
_SECOND_NS: Final = 1_000_000_000


def next_row(now_ns: int) -> int:
    """When the next row of requests begins for any worker of this host, Unix nanoseconds."""
    number = now_ns >> _SHIFT
    start_ns = _start(number)
    return start_ns if start_ns > now_ns else _start(number + 1)


def _start(number: int) -> int:
    hashed = (number & _LOW) * _HASH & _LOW
    return (number << _SHIFT) + ((hashed * hashed >> _MIDDLE & _LOW) << _SPREAD)


class Allowance:
    """Of one worker: ``rate`` requests a second in the long run, up to `BURST` in a row.

    ``spared`` counts those that were not picked. Before `listen` and after `close` none is, nor counted.
    """

    __slots__ = (
        "_left",
        "_listening",
        "_open",
        "_rate",
        "_rest_ns",
        "_since_ns",
        "_taken_ns",
        "_told",
        "_untold",
        "spared",
    )

    def __init__(self, rate: int) -> None:
        self._rate = rate
        self._left = 0  # that may be picked
        self._since_ns = 0  # when they were granted
        self._rest_ns = 0  # until when none is; 0: it shows
        self._open = 0  # picked, and not over yet
        self._taken_ns = 0  # when one was picked last
        self._told = False  # of this rest
        self._untold = 0  # rests in a row
        self._listening = False
        self.spared = 0

    def __repr__(self) -> str:
        state = "rests" if self._rest_ns else f"{self._left} left"
        return f"Allowance({self._rate} a second, {state}, {self._open} open, {self.spared} not picked)"

    def take(self, now_ns: int) -> bool:
        """Whether this recorded request is one of them; ``now_ns`` is Unix time. HOT: once per recorded request while
        somebody listens. Each one that is must come to `ended`."""
        if not self._left:
            if not self._listening:
                return False
            if now_ns < self._rest_ns and self._rest_ns - now_ns < LONGEST_NS:
                self.spared += 1
                return False
            self._renew(now_ns)
        self._left -= 1
        self._open += 1
        self._taken_ns = now_ns
        if not self._left:
            if now_ns - self._since_ns >= PERIOD_NS:
                self._grant(now_ns)  # they have lasted: no more come than are allowed
            else:
                self._rest_ns = next_row(max(now_ns, self._since_ns + _SECOND_NS // self._rate))
        return True

    def _grant(self, now_ns: int) -> None:
        grown = (now_ns - self._since_ns) / _SECOND_NS * self._rate
        self._left = int(min(max(grown, 1.0), float(max(BURST, self._rate))))
        self._since_ns = now_ns

    def _renew(self, now_ns: int) -> None:
        """A rest is over."""
        self._grant(now_ns)
        self._rest_ns = 0
        self._untold = 0 if self._told else self._untold + 1
        if self._untold >= UNTOLD:
            self._open = 0
        self._told = False

    def busy(self, now_ns: int) -> bool:
        """Whether one that was picked is under way, and may be joined once it is over."""
        return self._open > 0 and now_ns - self._taken_ns < KEPT_NS

    def ended(self) -> None:
        """One that was picked is over."""
        if self._open:
            self._open -= 1

    def resting(self) -> int:
        """Until when none will be shown, and none is under way: Unix nanoseconds, once in each rest; else 0."""
        if not self._rest_ns or self._open or self._told:
            return 0
        self._told = True
        return self._rest_ns

    def listen(self, now_ns: int) -> None:
        """Somebody listens, for the first time or still."""
        if not self._listening:
            self._listening = True
            self._left, self._since_ns = max(BURST, self._rate), now_ns

    def close(self) -> None:
        """Nobody listens."""
        self._listening = self._told = False
        self._left = self._rest_ns = self._open = self._untold = 0
