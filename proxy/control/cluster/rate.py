"""How fast we write to the API server: a bucket of tokens, as client-go's flowcontrol has it."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable
from typing import Final


class Bucket:
    """``burst`` calls at once, and ``rate`` a second after that."""

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
        while delay := self.wait():
            await asyncio.sleep(delay)
