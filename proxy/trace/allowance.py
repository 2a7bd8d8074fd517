"""How many recorded requests are shown to `spanway wire`: so many a second, evenly, and a burst after a calm time.

To be looked at has a price for the request (the kernel's account of its connections, a record, packets that are copied)
and for the node (some 60 us of joining). Where everything is recorded at full load, most of it would be for nothing:
the wire could not join them all. So a share of them is picked, every n-th as they come, which no burst or period of the
traffic favours.
"""

from __future__ import annotations

from typing import Final

BURST: Final = 4096
"""What is shown at once after a calm time: a fifth of a second of the wire's time, and an eighth of what it has room
for (`layers.joining.MOST`)."""


class Allowance:
    """Of one worker: ``rate`` requests a second in the long run, up to `BURST` at once.

    ``spared`` counts those that were not picked. Before the first `refill` and after `close` none is, nor counted.
    """

    __slots__ = ("_asked", "_credit", "_left", "_rate", "_share", "_since", "spared")

    def __init__(self, rate: int) -> None:
        self._rate = rate
        self._left = 0.0  # that may be picked
        self._since = -1.0  # the last refill, loop time; below 0: none since it was closed
        self._share = 0.0  # of those that ask, until the next refill
        self._credit = 0.0  # of the next one to be picked: picked at 1
        self._asked = 0  # since the last refill
        self.spared = 0

    def __repr__(self) -> str:
        return f"Allowance({self._rate} a second, {self._left:.0f} left, {self._share:.1%} picked, {self.spared} not)"

    def take(self) -> bool:
        """Whether this recorded request is one of them. HOT: once per recorded request while somebody listens."""
        self._asked += 1
        self._credit += self._share
        if self._credit < 1.0:
            self.spared += self._since >= 0
            return False
        self._credit -= 1.0
        if self._left < 1.0:  # more have come than were expected
            self.spared += 1
            return False
        self._left -= 1.0
        return True

    def refill(self, now: float) -> None:
        """Set the share until the next call, by what was asked for since the last; ``now`` is ``loop.time()``."""
        if self._since < 0:
            self._left = float(BURST)
        else:
            self._left = min(self._left + (now - self._since) * self._rate, float(max(BURST, self._rate)))
        self._since = now
        # As many again are expected to ask.
        self._share = 1.0 if self._asked <= self._left else max(self._left, 0.0) / max(self._asked, 1)
        self._asked = 0

    def close(self) -> None:
        """Nobody listens."""
        self._since = -1.0
        self._share = self._credit = 0.0
        self._asked = 0
