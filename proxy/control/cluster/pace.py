"""The pace of what is asked of the API server: pauses after failures, and a bound on writes.

Pauses double, have a bound, and never end for two clients at the same moment. First and longest as in client-go's
reflector (0.8 s to 30 s), the longest being shorter here: two or three replicas are no herd, and an API server that is
back should be followed soon.
"""

from __future__ import annotations

import asyncio
import random
import time
from collections.abc import Callable
from typing import Final

from proxy.control.cluster.faults import ApiFault, Forbidden, TooMany

FIRST: Final = 0.5  # seconds
LONGEST: Final = 10.0  # seconds
FORBIDDEN: Final = 30.0  # seconds; only somebody who changes RBAC can mend it


class Backoff:
    """Waits in a row; `reset` after a success."""

    __slots__ = ("_chance", "_delay", "_refusal", "first", "longest", "refusal")

    def __init__(
        self,
        first: float = FIRST,
        longest: float = LONGEST,
        chance: Callable[[], float] = random.random,
        refusal: float = 0.0,
    ) -> None:
        """``first`` and ``longest`` are seconds; ``chance`` gives numbers from 0 to 1.

        ``refusal`` is the longest delay, in seconds, after refusals in a row; 0: they are all alike.
        """
        self.first: Final = first
        self.longest: Final = longest
        self.refusal: Final = refusal
        self._chance = chance
        self._delay = 0.0
        self._refusal = 0.0

    def __repr__(self) -> str:
        return f"Backoff({self._delay:g} s of at most {self.longest:g} s)"

    def reset(self) -> None:
        """Begin anew."""
        self._delay = self._refusal = 0.0

    def after(self, fault: ApiFault | None = None) -> float:
        """Seconds to wait now: half of the delay and a random part of the other half.

        What the server asks for (Retry-After) is waited for at least, and a refusal is not asked about in a hurry.
        """
        self._delay = min(self._delay * 2, self.longest) if self._delay else self.first
        delay = self._delay
        if isinstance(fault, Forbidden):
            least = min(FORBIDDEN, self.longest * 3)
            self._refusal = max(min(self._refusal * 2, self.refusal), least)
            delay = max(delay, self._refusal)
        spread = delay * (0.5 + 0.5 * self._chance())
        if isinstance(fault, TooMany):
            return max(spread, fault.retry_after)
        return spread


class Bucket:
    """``burst`` calls at once, and ``rate`` a second after that: a bucket of tokens, as client-go's flowcontrol."""

    __slots__ = ("_at", "_clock", "_left", "burst", "rate")

    def __init__(self, rate: float, burst: int, clock: Callable[[], float] = time.monotonic) -> None:
        self.rate: Final = rate
        self.burst: Final = burst
        self._clock = clock
        self._left = float(burst)
        self._at = clock()

    def __repr__(self) -> str:
        return f"Bucket({self._left:.1f} of {self.burst}, {self.rate:g}/s)"

    def wait(self) -> float:
        """Take a token, or tell after how many seconds there will be one (then none is taken)."""
        now = self._clock()
        self._left = min(self._left + max(now - self._at, 0.0) * self.rate, float(self.burst))
        self._at = now
        if self._left >= 1.0:
            self._left -= 1.0
            return 0.0
        return (1.0 - self._left) / self.rate

    async def take(self) -> None:
        """Take a token as soon as there is one."""
        while (delay := self.wait()) > 0:  # noqa: ASYNC110 - time is all that is waited for
            await asyncio.sleep(delay)
