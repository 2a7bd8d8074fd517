"""One attempt's wait, divided among the places it was spent at; or why it cannot be.

The taps stand in a row between proxy and backend. From what each saw follows a chain of events back from the end of the
wait to its start, each at one place::

    proxy send > [tap 0] > place > [tap 1] > ... > [last tap] > backend > [last tap] > ... > [tap 0] > proxy receive

The lengths of its links are the split: they add up to the wait, to the nanosecond. What is long is divided further by
`walk`. Nothing is guessed: where a tap has missed something, or stamps contradict each other, the split is `Missing`.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final, Literal, NamedTuple

from proxy.layers.direction import Direction
from proxy.layers.loss import Losses, losses
from proxy.layers.stream import View
from proxy.layers.track import MOST_TAPS
from proxy.layers.walk import RECEIVER, SENDER, Astray, Step, walk
from proxy.trace.handover import CLOSED, FAILED, TLS, Record

PROXY_SEND: Final = "proxy send"
PROXY_RECEIVE: Final = "proxy receive"
CLIENT: Final = "client"
"""The proxy had sent what it had of the request, and was still to get the rest."""
BACKEND: Final = "backend"
BACKEND_RECEIVE: Final = "backend receive"
"""The backend had data of the request, and kept the proxy from sending more."""

Reason = Literal[
    "no-packets", "no-anchor", "hole", "order", "sum", "ring-drops", "too-long", "unsent", "tunnel", "record"
]
REASONS: Final[dict[str, str]] = {
    "no-packets": "no tap has seen the connection: other addresses on the way (NAT), other ports, or a tap too late",
    "no-anchor": "the connection is older than the taps, and too few attempts agree on where its streams begin",
    "hole": "a tap has not seen all of it",
    "order": "stamps contradict each other: a tap has missed something, or the clock was set",
    "sum": "the segments do not add up to the wait",
    "ring-drops": "a tap's ring had no room for all packets meanwhile",
    "too-long": "more packets or time than is kept",
    "unsent": "the attempt ended before its request had left the proxy",
    "tunnel": "a tunnel: no wait for a response",
    "record": "the record contradicts itself",
}
"""Why an attempt is not joined, and what that means."""


class Layout:
    """Taps by their slots, from the proxy to the backend, and the names of the places between two of them.

    ``names`` are the segments in the order of time, ``forward`` and ``backward`` those of each place. Raises
    `ValueError` for other than 1 to 8 taps, or a number of places that is not one fewer.
    """

    __slots__ = ("_places", "backward", "forward", "names", "places", "taps")

    def __init__(self, taps: Sequence[int], places: Sequence[str]) -> None:
        if not 1 <= len(taps) <= MOST_TAPS or len(places) != len(taps) - 1 or len(set(taps)) != len(taps):
            raise ValueError(f"{len(taps)} taps and {len(places)} places between them; 1 to 8 taps, one place fewer")
        self.taps = tuple(taps)
        self.places = tuple(places)
        self.forward = tuple(f"{place} >" for place in places)
        self.backward = tuple(f"{place} <" for place in places)
        self.names = (
            PROXY_SEND, CLIENT, *self.forward, BACKEND_RECEIVE, BACKEND, *reversed(self.backward), PROXY_RECEIVE
        )  # fmt: skip
        self._places = {name: name[:-2] for name in (*self.forward, *self.backward)}
        self._places |= {PROXY_SEND: "proxy", PROXY_RECEIVE: "proxy"}

    def __repr__(self) -> str:
        return f"Layout({self.taps}, {self.places})"

    def place_of(self, segment: str) -> str:
        """The place of a segment, both ways together: ``proxy``, ``client``, ``backend``, or a name of ``places``."""
        return self._places.get(segment, segment)


Piece = tuple[str, int, int]
"""A link of the chain: (segment, start_ns, end_ns), time spent at one segment without interruption."""


class Split(NamedTuple):
    """A wait divided.

    ``segments``: nanoseconds by name, in the order of `Layout.names`; their sum is ``end_ns - write_ns`` of the record.
    ``pieces``: the chain in order of time, end to end; a long message visits a segment many times.
    ``stamps``: for each tap, when the request had passed it as a whole, and the response; 0 for what did not.
    ``lost``: bytes that vanished, by place (``backend`` and ``proxy``: beyond the last tap on that side).
    ``recovery_ns``: from when the first of them was sent until the message was whole at the other end.
    ``retransmitted``: bytes that their sender's tap has seen more than once, in both directions.
    ``zero_window_ns``: for how long the backend's, and the proxy's, receive window was closed.
    ``packets``: of all taps. ``incomplete``: a ring dropped packets meanwhile, so loss may be unseen.
    ``answered``: False for an attempt that ended without its whole response; its wait ends at what it waited for.
    ``overlap``: the response began before the request had ended.
    """

    layout: Layout
    segments: dict[str, int]
    pieces: tuple[Piece, ...]
    stamps: tuple[tuple[int, int], ...]
    lost: dict[str, int]
    recovery_ns: int
    retransmitted: int
    zero_window_ns: tuple[int, int]
    anchor: Literal["syn", "vote"]
    packets: int
    incomplete: bool = False
    answered: bool = True
    overlap: bool = False

    def marks(self) -> dict[str, tuple[int, int]]:
        """First and last stamp of each segment in which time was spent, Unix nanoseconds."""
        marks: dict[str, tuple[int, int]] = {}
        for segment, start_ns, end_ns in self.pieces:
            marks[segment] = (marks.get(segment, (start_ns, 0))[0], end_ns)
        return marks

    def places(self) -> dict[str, int]:
        """Nanoseconds by place, both ways together, in the order of the way out."""
        places: dict[str, int] = {}
        for segment, ns in self.segments.items():
            place = self.layout.place_of(segment)
            places[place] = places.get(place, 0) + ns
        return places


class Missing(NamedTuple):
    """No split, and why; ``detail`` says where, for a log."""

    reason: Reason
    detail: str = ""


def split(
    record: Record,
    layout: Layout,
    views: Sequence[View],
    anchor: Literal["syn", "vote"],
    rounds_ns: tuple[int, int] = (0, 0),
) -> Split | Missing:
    """Divide an attempt's wait; ``views`` are its taps', in the order of ``layout``, ``rounds_ns`` the shortest round
    trips of the connection's earlier requests and responses, 0 where none is known."""
    try:
        chain, answered, overlap = _chain(record, layout, views, rounds_ns)
    except Astray as astray:
        return Missing(astray.args[0], *astray.args[1:])
    segments = dict.fromkeys(layout.names, 0)
    pieces: list[Piece] = []
    at = record.write_ns
    chain.reverse()
    for link in chain:
        segment, start_ns, end_ns = link
        if start_ns != at or end_ns < start_ns:
            return Missing("order", segment)
        segments[segment] += end_ns - start_ns
        if pieces and pieces[-1][0] == segment:
            pieces[-1] = (segment, pieces[-1][1], end_ns)
        elif end_ns > start_ns:
            pieces.append(link)
        at = end_ns
    if at != record.end_ns or sum(segments.values()) != record.end_ns - record.write_ns:
        return Missing("sum")
    try:
        found = losses(record, layout.places, views) if answered else Losses({}, 0, 0)
    except Astray as astray:
        return Missing(astray.args[0], *astray.args[1:])
    stamps: list[tuple[int, int]] = []
    packets = 0
    for one in views:
        down = one.down.complete(record.response_end) if answered else None
        stamps.append((one.up.complete(record.request_end) or 0, down or 0))
        packets += one.packets
    return Split(
        layout,
        segments,
        tuple(pieces),
        tuple(stamps),
        found.lost,
        found.recovery_ns,
        found.retransmitted,
        (views[0].up_acks.shut(record.end_ns), views[-1].down_acks.shut(record.end_ns)),
        anchor,
        packets,
        False,
        answered,
        overlap,
    )


def _chain(
    record: Record, layout: Layout, views: Sequence[View], rounds_ns: tuple[int, int]
) -> tuple[list[Piece], bool, bool]:
    """The links from the end of the wait back to its start; whether it was answered; whether messages overlapped."""
    q1, p0, p1 = record.request_end, record.response_start, record.response_end
    last = views[-1]
    answered = p1 > p0 and not record.flags & FAILED
    if answered and record.flags & (CLOSED | TLS) == CLOSED:
        p1 += 1  # its last byte is the FIN: only then the proxy knew that this was all
    chain: list[Piece] = []
    asked = last.up.complete(q1)
    if p1 == p0:
        reached = _forward(record, layout, views, rounds_ns, q1, chain_end=record.end_ns)
        return [*_waiting(record, layout, views, p0, reached[0]), *reached[1]], False, False
    if not answered:
        chain += _waiting(record, layout, views, p1, _whole(views[0], p1, "tap 0"))
    else:
        whole = _whole(views[0], p1, "tap 0")
        if whole > record.end_ns:
            raise Astray("order", PROXY_RECEIVE)
        chain.append((PROXY_RECEIVE, whole, record.end_ns))
    end = chain[-1][1]
    # The response's way back.
    for number, name in enumerate(layout.backward):
        since = _whole(views[number + 1], p1, name)
        if since > end:
            raise Astray("order", name)
        chain.append((name, since, end))
        end = since
    first = last.down.first_ns
    overlap = asked is None or asked > first
    until = q1
    floor = first
    if overlap:
        if asked is not None and asked < end:
            floor = asked  # what came after the request is what it led to
        else:
            until = _enough(record, views, first)
    unread = (views[0].down.first_ns, record.first_byte_ns)
    if unread[0] > unread[1]:
        raise Astray("order", "read before it came")
    if end > floor:  # most messages are one packet
        direction = Direction.of(views, rounds_ns, up=False)
        chain += [_named(step, layout, up=False) for step in walk(direction, p1, floor, unread)]
    reached_ns, links = _forward(record, layout, views, rounds_ns, until)
    if reached_ns > floor:
        raise Astray("order", BACKEND)
    chain.append((BACKEND, reached_ns, floor))
    return chain + links, answered, overlap


def _enough(record: Record, views: Sequence[View], first_ns: int) -> int:
    """How much of a request had come to the last tap when its answer began, for one that was not waited for."""
    until = views[-1].up.passed(first_ns)
    if until <= record.request_start:
        raise Astray("order", "answered before it was asked")
    for number, one in enumerate(views):
        whole = one.up.complete(record.request_end)
        told = one.up_acks.reached(record.request_end)
        further = one.up_acks.reached(until + 1)
        if (whole is None and told is not None) or (further is not None and further <= first_ns):
            raise Astray("hole", f"request at tap {number}")
    return until


def _waiting(record: Record, layout: Layout, views: Sequence[View], offset: int, since: int) -> list[Piece]:
    """From the end of an attempt that was given up back to ``since``: where the byte at ``offset`` had got to."""
    links: list[Piece] = []
    names = (BACKEND, *reversed(layout.backward), PROXY_RECEIVE)
    now, index = since, 0
    for index, one in enumerate(reversed(views)):
        seen = one.down.complete(offset + 1)
        if seen is None or seen > record.end_ns:
            break
        links.append((names[index], now, max(now, seen)))
        now = max(now, seen)
    else:
        index = len(views)
    if now > record.end_ns:
        raise Astray("order", names[index])
    links.append((names[index], now, record.end_ns))
    return links[::-1]


def _forward(
    record: Record, layout: Layout, views: Sequence[View], rounds_ns: tuple[int, int], until: int, chain_end: int = 0
) -> tuple[int, list[Piece]]:
    """When [q0, ``until``) had come to the last tap, and the links from there back to the start.

    With ``chain_end`` it need not have come: the place where it stayed behind has the rest.
    """
    stamps: list[int] = []
    for number, one in enumerate(views):
        whole = one.up.complete(until)
        if whole is None:
            told = any(other.up_acks.reached(until) for other in views)
            later = any(other.up.complete(until) for other in views[number + 1 :])
            if not chain_end or told or later:
                raise Astray("hole", f"request at tap {number}")
            break
        told_ns = one.up_acks.reached(until)
        if told_ns is not None and told_ns < whole:
            raise Astray("hole", f"request at tap {number}")
        stamps.append(whole)
    if not stamps:
        raise Astray("unsent")
    links: list[Piece] = []
    now = stamps[-1]
    if len(stamps) < len(views):
        links.append((layout.forward[len(stamps) - 1], now, chain_end))
    for number in range(len(stamps) - 2, -1, -1):
        if stamps[number] > now:
            raise Astray("order", layout.forward[number])
        links.append((layout.forward[number], stamps[number], now))
        now = stamps[number]
    first = views[0].up.first_ns
    if first < record.write_ns:
        raise Astray("order", PROXY_SEND)
    if now > first:
        direction = Direction.of(views, rounds_ns, up=True)
        fed = min(record.sent_ns, now)
        for step in walk(direction, until, first):
            if step.where == SENDER and step.start_ns < fed and record.sent_ns > record.write_ns:
                if step.end_ns > fed:
                    links.append((PROXY_SEND, fed, step.end_ns))
                links.append((CLIENT, step.start_ns, min(fed, step.end_ns)))
            else:
                links.append(_named(step, layout, up=True))
    links.append((PROXY_SEND, record.write_ns, first))
    return (chain_end if len(stamps) < len(views) else stamps[-1]), links


def _named(step: Step, layout: Layout, *, up: bool) -> Piece:
    """A step of a walk as a link; ``up`` for the request's, whose sender is the proxy."""
    start_ns, end_ns, where, back = step
    if where == SENDER:
        return (PROXY_SEND if up else BACKEND, start_ns, end_ns)
    if where == RECEIVER:
        return (BACKEND_RECEIVE if up else PROXY_RECEIVE, start_ns, end_ns)
    if up:
        return ((layout.backward if back else layout.forward)[where], start_ns, end_ns)
    number = len(layout.places) - 1 - where
    return ((layout.forward if back else layout.backward)[number], start_ns, end_ns)


def _whole(one: View, end: int, where: str) -> int:
    """When the response had come to a tap; raises `Astray` if not all of it was seen, or was known before it was."""
    whole = one.down.complete(end)
    told = one.down_acks.reached(end)
    if whole is None or (told is not None and told < whole):
        raise Astray("hole", where)
    return whole
