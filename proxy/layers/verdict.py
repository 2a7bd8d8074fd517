"""Who is to blame for a wait: one word, and the figures it rests on.

Loss comes first: a packet that vanishes costs far more than its own place's time, as the rest of the message then takes
more round trips through all others. Without loss it is the place that took the most beyond what is usual on the route;
where nothing is out of the usual, or nothing is known to be, the place that took the most.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final, NamedTuple

from proxy.layers.split import BACKEND, BACKEND_RECEIVE, CLIENT, Split
from proxy.trace.semconv_wire import APPLICATION, LOSS_AT, NETWORK, NOT_READING, PROXY, SENDING, SWITCH

UNUSUAL_NS: Final = 1_000_000
"""Less than this beyond the usual is called usual, as is less than a tenth of the wait."""
_UNUSUAL_PART: Final = 10

REPAIR_NS: Final = 150_000_000
"""A wait so much longer than usual, with packets lost, is that of a retransmission timer (RFC 6298; Linux: 200 ms at
least)."""

_SWITCHES: Final = ("ovs", "bridge", "switch")  # how the names of places that forward begin
_WORDS: Final = {"proxy": PROXY, CLIENT: SENDING, BACKEND: APPLICATION, BACKEND_RECEIVE: NOT_READING}


class Verdict(NamedTuple):
    """``verdict`` is a value of `semconv_wire.VERDICTS`, about ``place``: of `Split.places`, or where packets vanished.

    ``excess_ns``: what that place, with a closed window the backend, or with loss the whole attempt took beyond the
    usual. ``wait_ns``: the whole wait.
    ``usual``: nothing was out of the ordinary, so that the verdict merely says where most of the time went.
    ``places``: nanoseconds by place, and ``medians`` what is usual, empty where nothing is known.
    """

    verdict: str
    place: str
    excess_ns: int
    wait_ns: int
    usual: bool
    places: Mapping[str, int]
    medians: Mapping[str, int]


def judge(split: Split, usual: Mapping[str, int] | None) -> Verdict:
    """The verdict on one attempt; ``usual`` is `Baseline.usual` of its route, from before it was added."""
    places = split.places()
    wait_ns = sum(places.values())
    medians = usual or {}
    excess = {place: ns - medians.get(place, 0) for place, ns in places.items()}
    beyond_ns = max(0, wait_ns - sum(medians.values()))
    if split.lost and (beyond_ns > REPAIR_NS or 2 * split.recovery_ns > beyond_ns):
        place = max(split.lost, key=split.lost.__getitem__)
        # A backend that does not read drops what it has no room for: that is not why it took so long.
        if place != BACKEND or 2 * excess.get(BACKEND_RECEIVE, 0) <= beyond_ns:
            return Verdict(LOSS_AT + place, place, beyond_ns, wait_ns, beyond_ns < UNUSUAL_NS, places, medians)
    place = max(excess, key=excess.__getitem__)
    ordinary = not medians or excess[place] < max(UNUSUAL_NS, wait_ns // _UNUSUAL_PART)
    if ordinary:
        place = max(places, key=places.__getitem__)
        least = max(0, excess[place]) if medians else 0
        return Verdict(_word(place), place, least, wait_ns, True, places, medians)
    excess_ns = excess[place]
    if place == BACKEND and 2 * split.zero_window_ns[0] > excess_ns:
        place = BACKEND_RECEIVE  # its window was closed: it had the time, and did not read
    return Verdict(_word(place), place, excess_ns, wait_ns, False, places, medians)


def _word(place: str) -> str:
    word = _WORDS.get(place)
    if word is None:
        word = SWITCH if place.startswith(_SWITCHES) else NETWORK
    return word
