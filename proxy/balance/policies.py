"""Who is next: round robin, least connections, peak EWMA. Each chooses among endpoints that may all be used.

The two that compare loads take two endpoints at random and the better of them ("power of two choices", Mitzenmacher
1996): nearly as even as comparing all, without every worker rushing to the same idle one.
"""

from __future__ import annotations

import random
from collections.abc import Callable, Sequence
from typing import Final, Protocol

from proxy.balance.endpoint import Endpoint

# The latency assumed of an endpoint that has been sent requests and has answered none yet, ns: worse than any that has
# answered (Finagle's peak EWMA), so that a new endpoint gets one request first and not all of them.
_UNKNOWN: Final = 1e15


class Policy(Protocol):
    """How a backend chooses. ``affine``: a key belongs to one endpoint as long as that is there."""

    affine: bool

    def choose(self, endpoints: Sequence[Endpoint], key: bytes) -> Endpoint:
        """One of the endpoints, of which there is at least one."""


class RoundRobin:
    """Each in turn, from a place that differs between workers."""

    __slots__ = ("_next", "affine")

    def __init__(self, rng: random.Random) -> None:
        self.affine = False
        self._next = rng.randrange(1 << 16)

    def __repr__(self) -> str:
        return f"RoundRobin(next {self._next})"

    def choose(self, endpoints: Sequence[Endpoint], key: bytes) -> Endpoint:  # noqa: ARG002 - `Policy`
        """The next one."""
        self._next = index = (self._next + 1) % len(endpoints)
        return endpoints[index]


class LeastConnections:
    """The one of two with fewer requests in flight; of equals, either."""

    __slots__ = ("_random", "affine")

    def __init__(self, rng: random.Random) -> None:
        self.affine = False
        self._random = rng.random

    def __repr__(self) -> str:
        return "LeastConnections()"

    def choose(self, endpoints: Sequence[Endpoint], key: bytes) -> Endpoint:  # noqa: ARG002 - `Policy`
        """The less loaded of two."""
        one, other = _two(endpoints, self._random)
        return other if other.in_flight < one.in_flight else one


class PeakEwma:
    """The one of two with the lower latency times requests in flight, itself included."""

    __slots__ = ("_clock", "_random", "affine")

    def __init__(self, rng: random.Random, clock: Callable[[], float]) -> None:
        self.affine = False
        self._random = rng.random
        self._clock = clock

    def __repr__(self) -> str:
        return "PeakEwma()"

    def choose(self, endpoints: Sequence[Endpoint], key: bytes) -> Endpoint:  # noqa: ARG002 - `Policy`
        """The cheaper of two."""
        one, other = _two(endpoints, self._random)
        now = self._clock()
        return other if _cost(other, now) < _cost(one, now) else one


def _cost(endpoint: Endpoint, now: float) -> float:
    in_flight = endpoint.in_flight
    if not endpoint.ewma:
        return _UNKNOWN * in_flight
    return endpoint.latency(now) * (in_flight + 1)


def _two(endpoints: Sequence[Endpoint], draw: Callable[[], float]) -> tuple[Endpoint, Endpoint]:
    """Two different endpoints in random order; the same one twice where there is no other."""
    count = len(endpoints)
    first = int(draw() * count)
    if count == 1:
        return endpoints[0], endpoints[0]
    second = int(draw() * (count - 1))
    if second >= first:
        second += 1
    return endpoints[first], endpoints[second]
