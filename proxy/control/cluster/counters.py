"""What the watches of one kind count, for `/metrics`."""

from __future__ import annotations

import time
from collections import Counter
from typing import TYPE_CHECKING, Final

from proxy.admin.cluster import WatchSample

if TYPE_CHECKING:
    from proxy.control.cluster.faults import ApiFault


class Pulse:
    """One watch's state."""

    __slots__ = ("connected", "heard", "synced", "unusable")

    def __init__(self) -> None:
        self.synced = False
        self.connected = False
        self.heard = -1.0  # monotonic seconds of the last sign of life
        self.unusable = 0

    def __repr__(self) -> str:
        return f"Pulse(synced={self.synced}, connected={self.connected}, unusable={self.unusable})"


class Counters:
    """Of one kind; a watch joins with `join` and leaves with `leave`."""

    __slots__ = ("_pulses", "events", "faults", "kind", "lists", "reconnects")

    def __init__(self, kind: str) -> None:
        self.kind: Final = kind
        self.events: Counter[str] = Counter()
        self.reconnects: Counter[str] = Counter()
        self.faults: Counter[str] = Counter()
        self.lists = 0
        self._pulses: set[Pulse] = set()

    def __repr__(self) -> str:
        return f"Counters({self.kind}, {len(self._pulses)} watches, {self.events.total()} events)"

    def join(self) -> Pulse:
        """A new watch."""
        pulse = Pulse()
        self._pulses.add(pulse)
        return pulse

    def leave(self, pulse: Pulse) -> None:
        """A watch that has ended for good."""
        self._pulses.discard(pulse)

    def fault(self, fault: ApiFault) -> None:
        """A call that failed."""
        self.faults[str(fault.code) if fault.code else "unreachable"] += 1

    def sample(self) -> WatchSample:
        """The counts now."""
        heard = [pulse.heard for pulse in self._pulses if pulse.heard >= 0]
        return WatchSample(
            kind=self.kind,
            watches=len(self._pulses),
            synced=sum(pulse.synced for pulse in self._pulses),
            connected=sum(pulse.connected for pulse in self._pulses),
            events=dict(self.events),
            lists=self.lists,
            reconnects=dict(self.reconnects),
            faults=dict(self.faults),
            unusable=sum(pulse.unusable for pulse in self._pulses),
            age=time.monotonic() - min(heard) if heard else -1.0,
        )
