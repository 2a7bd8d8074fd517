"""Passive health: what the outcomes of real requests say of an endpoint.

After so many consecutive failures an endpoint is ejected for a time; then a single request, the trial, decides
whether it comes back or goes for twice as long (Envoy's outlier detection, with a circuit breaker's half-open state
in place of an unconditional return).
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Final, NamedTuple

_LONGEST: Final = 30  # times the first ejection (Envoy: max_ejection_time 300 s of base_ejection_time 10 s)


class Rules(NamedTuple):
    """After how many consecutive failures (0: never) an endpoint is ejected, and for how many seconds at first."""

    eject_after: int = 5
    eject_time: float = 10.0


class Health:
    """The state of one endpoint.

    Times are seconds of the loop's clock. ``ejected_until`` is 0 while it is not ejected. ``requests`` and ``errors``
    count outcomes, ``ejections`` ejections, ``failures`` the failures since the last success. The ``watchers`` are
    called when it is ejected or comes back.
    """

    __slots__ = (
        "_ejected_at",
        "_ejected_for",
        "_recovered_at",
        "_rules",
        "_trial",
        "ejected_until",
        "ejections",
        "errors",
        "failures",
        "requests",
        "watchers",
    )

    def __init__(self, rules: Rules) -> None:
        self._rules = rules
        self.requests = 0
        self.errors = 0
        self.failures = 0
        self.ejections = 0
        self.ejected_until = 0.0
        self.watchers: list[Callable[[], None]] = []
        self._ejected_at = 0.0
        self._ejected_for = 0.0
        self._recovered_at = 0.0
        self._trial = False

    def succeeded(self, latency_ns: int, now: float) -> None:
        """A response was complete ``latency_ns`` after its request."""
        self.requests += 1
        if self.failures:
            self.failures = 0
        # A request from before the ejection says nothing of how the endpoint is now.
        if self.ejected_until and now - latency_ns / 1e9 >= self._ejected_at:
            self.ejected_until = 0.0
            self._trial = False
            self._recovered_at = now
            self._tell()

    def failed(self, now: float) -> None:
        """An attempt failed, by the endpoint's fault."""
        self.requests += 1
        self.errors += 1
        self.failures += 1
        if self.ejected_until:
            # Others than the trial were sent before the ejection, or because there was no better endpoint.
            if self._trial:
                self._eject(now)
        elif 0 < self._rules.eject_after <= self.failures:
            self._eject(now)

    def start_trial(self, now: float) -> None:
        """Send it the one request that decides; should that never end, there is another after the first time."""
        self._trial = True
        self.ejected_until = now + self._rules.eject_time

    def _eject(self, now: float) -> None:
        first = self._rules.eject_time
        # One that fails soon after it came back goes for longer than before.
        again = self._trial or now - self._recovered_at < self._ejected_for
        self._ejected_for = min(self._ejected_for * 2, first * _LONGEST) if again else first
        self._trial = False
        self._ejected_at = now
        self.ejected_until = now + self._ejected_for
        self.ejections += 1
        self._tell()

    def _tell(self) -> None:
        for watcher in self.watchers:
            watcher()
