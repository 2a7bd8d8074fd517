"""What the boxes of a lab know of a request: how long each place had its frames, and which of them it lost.

An account of its own, by the programs that pass the frames on: nothing of the proxy or the wire is in it but a port and
two stamps to look between. A box is a program, and so is the switch: where processors are few they are late now and
then without any fault. What this says of a place is the most that it may be charged with.
"""

from __future__ import annotations

from bisect import bisect_left, bisect_right
from collections import defaultdict, deque
from collections.abc import Sequence
from typing import Final, NamedTuple

from proxy.demo.lab.box import Event

LINK_PROXY: Final = "link proxy"
SWITCH: Final = "ovs"
LINK_APP: Final = "link app"
BACKEND: Final = "backend"
PROXY: Final = "proxy"
_MODULO: Final = 1 << 32
_AHEAD_NS: Final = 2_000_000_000  # a frame that is held came in so long before it left, at most


class _Frame(NamedTuple):
    port: int
    up: bool  # toward the backend
    event: Event


class Truth:
    """``near`` is of the box on the proxy's link, ``far`` of that on the backend's, both of which log every frame.

    Ports are those of the proxy's connections, times Unix nanoseconds.
    """

    def __init__(self, near: Sequence[Event], far: Sequence[Event]) -> None:
        self._held: Final[defaultdict[tuple[str, int], list[tuple[int, int]]]] = defaultdict(list)
        self._lost: Final[defaultdict[tuple[str, int], list[tuple[int, int]]]] = defaultdict(list)
        self._near: Final = _by_port(near, "right")
        self._far: Final = _by_port(far, "left")
        for port in self._near.keys() | self._far.keys():
            for up in (True, False):
                one, other = self._near[port], self._far[port]
                first, second = (one, other) if up else (other, one)
                sent, came = [each for each in first if each.up == up], [each for each in second if each.up == up]
                names = (LINK_PROXY, LINK_APP) if up else (LINK_APP, LINK_PROXY)
                for name, frames in zip(names, (sent, came), strict=True):
                    self._enter(name, port, [(each.event, each.event.at_ns, each.event.left_ns) for each in frames])
                self._enter(SWITCH, port, _crossed(sent, came))
        for held in self._held.values():
            held.sort()

    def _enter(self, place: str, port: int, passings: Sequence[tuple[Event, int, int]]) -> None:
        """Frames of one direction in order of time, and when the place had them; until 0 where it lost them."""
        for number, (event, since_ns, until_ns) in enumerate(passings):
            if until_ns:
                self._held[place, port].append((since_ns, until_ns))
                continue
            again = (after_ns for other, _, after_ns in passings[number + 1 :] if after_ns and _repeats(other, event))
            self._lost[place, port].append((since_ns, next(again, 0)))

    def held_ns(self, place: str, port: int, start_ns: int, end_ns: int) -> int:
        """For how long, within this time, a place had at least one frame of a connection.

        `PROXY` and `BACKEND`: it was sending, or had something to read and to answer.
        """
        if place == BACKEND:
            return self._at_backend(port, start_ns, end_ns)
        if place == PROXY:
            return self._at_proxy(port, start_ns, end_ns)
        held = self._held[place, port]
        total, at = 0, start_ns
        first = bisect_left(held, (start_ns - _AHEAD_NS, 0))
        for since_ns, until_ns in held[first : bisect_right(held, (end_ns, 0))]:
            since_ns, until_ns = max(since_ns, at), min(until_ns, end_ns)
            if until_ns > since_ns:
                total += until_ns - since_ns
                at = until_ns
        return total

    def _at_proxy(self, port: int, start_ns: int, end_ns: int) -> int:
        frames = [each for each in self._near[port] if each.event.length and start_ns <= each.event.at_ns <= end_ns]
        sent = max((each.event.at_ns for each in frames if each.up), default=end_ns)
        came = min((each.event.gone_ns for each in frames if not each.up), default=end_ns)
        return sent - start_ns + max(0, end_ns - max(came, sent))

    def _at_backend(self, port: int, start_ns: int, end_ns: int) -> int:
        frames = [each for each in self._far[port] if each.event.length and start_ns <= each.event.at_ns <= end_ns]
        asked = _new([each.event for each in frames if each.up])
        answered = max((each.event.at_ns for each in frames if not each.up), default=end_ns)
        return max(0, answered - (asked.gone_ns if asked is not None else start_ns))

    def lost_ns(self, place: str, port: int, start_ns: int, end_ns: int) -> int:
        """For how long bytes were missing at a place that had lost them within this time: the longest wait until they
        had passed it after all. Of a frame without any: until the next of that kind."""
        worst = 0
        for lost_ns, again_ns in self._lost[place, port]:
            if start_ns <= lost_ns <= end_ns:
                worst = max(worst, min(again_ns or end_ns, end_ns) - lost_ns)
        return worst


def _new(events: Sequence[Event]) -> Event | None:
    """The last frame that had a byte that none before had: what comes after is a probe, or sent again."""
    found: Event | None = None
    end = 0
    for each in events:
        after = (each.sequence + each.length) % _MODULO
        if found is None or 0 < (after - end) % _MODULO < _MODULO // 2:
            found, end = each, after
    return found


def _repeats(other: Event, event: Event) -> bool:
    """Whether a frame has the first byte of another's payload, or neither has any."""
    if not event.length:
        return not other.length
    return (event.sequence - other.sequence) % _MODULO < other.length


def _by_port(events: Sequence[Event], toward_backend: str) -> defaultdict[int, list[_Frame]]:
    found: defaultdict[int, list[_Frame]] = defaultdict(list)
    for each in events:
        up = each.toward == toward_backend
        port = each.source_port if up else each.destination_port
        found[port].append(_Frame(port, up, each))
    return found


def _crossed(sent: Sequence[_Frame], came: Sequence[_Frame]) -> list[tuple[Event, int, int]]:
    """The switch has a frame from when one box is about to send it until it is at the other."""
    there: defaultdict[bytes, deque[int]] = defaultdict(deque)
    for each in came:
        there[each.event.head].append(each.event.at_ns)
    crossed: list[tuple[Event, int, int]] = []
    for each in sent:
        if each.event.left_ns:
            at = there[each.event.head]
            crossed.append((each.event, each.event.gone_ns, at.popleft() if at else 0))
    return crossed
