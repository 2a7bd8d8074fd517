"""Coarse time for deadlines: one timer per worker instead of one per request.

A deadline is `now` plus a timeout; the sweep that moves `now` also finds what is overdue. So a deadline costs one
addition and one store, and is up to two periods late, never early.
"""

from __future__ import annotations

import math
from typing import Final

PERIOD: Final = 0.25  # seconds between two sweeps; nginx's timer_resolution serves the same end
NEVER: Final = math.inf


class Clock:
    """The loop time of the latest sweep, in seconds, and how late that sweep came.

    ``now`` runs one period ahead of the sweep's own time, so that a deadline taken just before the next sweep is not
    early. ``lag_us`` is the event loop's latest measured lag in microseconds.
    """

    __slots__ = ("_due", "lag_us", "now")

    def __init__(self, loop_time: float) -> None:
        self.now = loop_time + PERIOD
        self.lag_us = 0
        self._due = loop_time + PERIOD

    def __repr__(self) -> str:
        return f"Clock(now={self.now:.2f}, lag {self.lag_us} us)"

    def sweep(self, loop_time: float) -> None:
        """Take the time of a sweep that was due one period after the one before."""
        late = loop_time - self._due
        self.lag_us = int(late * 1e6) if late > 0 else 0
        self._due = loop_time + PERIOD
        self.now = loop_time + PERIOD
