"""Two that write the status of one Ingress in turns: how long ours waits, and what is said of it.

Two installations of one class, each with a leader and an address of its own, would overwrite each other for as long as
they live. Nobody can tell which of them is meant, so ours goes on, but after pauses that double up to ten minutes, and
says on the Ingress what happens.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable
from typing import TYPE_CHECKING, Final

from proxy.control.cluster.pace import Backoff
from proxy.control.problem import Problem

if TYPE_CHECKING:
    from proxy.control.cluster.addresses import Points
    from proxy.control.objects import Key

FIRST: Final = 1.0  # seconds before ours is written a third time; the second time it is at once
LONGEST: Final = 600.0  # seconds
CALM: Final = 3 * LONGEST  # seconds without the other one, after which it is over
TOLD: Final = 3  # times overwritten; once is somebody's edit, twice may be a rollout of other flags
_FIELD: Final = "status.loadBalancer"
_HINT: Final = (
    "another installation serves this class, too: give each an --ingress-class of its own, "
    "or set SPANWAY_CLUSTER_UPDATE_STATUS=false in one"
)
_SHOWN: Final = 3  # addresses in a message


class _Contest:
    """One Ingress."""

    __slots__ = ("backoff", "count", "last", "theirs", "until")

    def __init__(self) -> None:
        self.backoff = Backoff(FIRST, LONGEST)
        self.count = 0
        self.last = 0.0  # monotonic seconds
        self.until = 0.0  # ours waits
        self.theirs: Points = ()


class Contests:
    """Every Ingress whose status somebody else has overwritten lately."""

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._by_key: dict[Key, _Contest] = {}

    def __repr__(self) -> str:
        return f"Contests({len(self._by_key)}, {len(self.problems(()))} told)"

    def overwritten(self, key: Key, theirs: Points) -> bool:
        """Ours stood there, and now theirs does. Whether what is wrong is another thing than before."""
        now = self._clock()
        one = self._by_key.get(key)
        if one is None or now - one.last > CALM:
            one = self._by_key[key] = _Contest()
        before = one.count >= TOLD, one.theirs
        one.count += 1
        one.last, one.theirs = now, theirs
        one.until = now + (one.backoff.after() if one.count > 1 else 0.0)
        return before != (one.count >= TOLD, one.theirs) and one.count >= TOLD

    def pause(self, key: Key) -> float:
        """Seconds until ours is to be written, 0 for at once."""
        one = self._by_key.get(key)
        return 0.0 if one is None else max(one.until - self._clock(), 0.0)

    def forget(self, keys: Iterable[Key]) -> None:
        """These are gone, or something else is to be written to them."""
        for key in keys:
            self._by_key.pop(key, None)

    def clear(self) -> None:
        """Something else is to be written to all of them."""
        self._by_key.clear()

    def problems(self, ours: Points) -> list[Problem]:
        """What to say while it lasts; ``ours`` is what we write."""
        now = self._clock()
        return [
            Problem(
                "warning",
                f"is overwritten again and again: {_words(ours)} by us, {_words(one.theirs)} by another",
                _HINT,
                "Ingress",
                *key,
                field=_FIELD,
            )
            for key, one in self._by_key.items()
            if one.count >= TOLD and now - one.last <= CALM
        ]


def _words(points: Points) -> str:
    shown = ", ".join(point.ip or point.hostname for point in points[:_SHOWN])
    more = f" and {len(points) - _SHOWN} more" if len(points) > _SHOWN else ""
    return f"{shown}{more}" or "nothing"
