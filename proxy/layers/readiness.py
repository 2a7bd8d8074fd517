"""Whether anything can be joined: which ways are listened to, and which cannot be, and why.

Ready as long as one way works, or none has been asked for yet: a backend behind an interface that is broken must not
take the spans of all others with it, nor have whoever looks at `/readyz` see one and the other in turn. What is broken
is said, in the answer and as a metric, until it works or nobody has needed it for as long as a ring is kept.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final, NamedTuple

from proxy.layers.taps import UNUSED_S

if TYPE_CHECKING:
    from proxy.layers.ways import Way

MOST: Final = 64
"""Ways that are remembered; the one that was needed longest ago goes first. Eight interfaces have 56 pairs."""
_STEP: Final = 5.0  # seconds for which what is known need not be noted again: it is for each record


class _State(NamedTuple):
    needed: float  # `loop.time()`
    why: str  # it is broken; "" where it works


class Readiness:
    """The ways of late, by the names of their interfaces."""

    __slots__ = ("_ways",)

    def __init__(self) -> None:
        self._ways: Final[dict[tuple[str, ...], _State]] = {}

    def __repr__(self) -> str:
        return f"Readiness({len(self._ways)} ways, {len(self.broken())} broken)"

    def note(self, way: Way, now: float, why: str = "") -> None:
        """A way is needed and works, or is broken and ``why``; ``now`` is ``loop.time()``."""
        names = tuple([interface.name for interface in way.interfaces])
        state = self._ways.get(names)
        if state is not None and state.why == why and now < state.needed + _STEP:
            return
        self._ways.pop(names, None)  # to the end
        self._ways[names] = _State(now, why)
        if len(self._ways) > MOST:
            del self._ways[next(iter(self._ways))]

    def gone(self, interface: str) -> None:
        """A tap is closed: what works without it is to be seen."""
        for names, state in list(self._ways.items()):
            if not state.why and interface in names:
                del self._ways[names]

    def sweep(self, now: float) -> None:
        """Forget what nobody has needed for long."""
        for names, state in list(self._ways.items()):
            if state.needed < now - UNUSED_S:
                del self._ways[names]

    def states(self) -> tuple[tuple[str, bool], ...]:
        """(interfaces, whether they are listened to) of each way."""
        return tuple(sorted((", ".join(names), not state.why) for names, state in self._ways.items()))

    def broken(self) -> tuple[str, ...]:
        """Why each broken way is, one sentence each."""
        return tuple(dict.fromkeys(state.why for state in self._ways.values() if state.why))

    def reasons(self) -> tuple[str, ...]:
        """Why nothing can be joined at all; none while any way works."""
        return () if any(not state.why for state in self._ways.values()) else self.broken()
