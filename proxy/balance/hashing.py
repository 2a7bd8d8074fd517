"""Consistent hashing: a key keeps its endpoint while that is there, whoever else comes or goes.

A ring as in Ketama and nginx's ``hash ... consistent``: each endpoint has 160 places on it, and a key belongs to the
next place after its own. When an endpoint goes, its keys spread over the others and no other key moves. The places
depend on host and port alone, so all workers and all replicas agree.
"""

from __future__ import annotations

import bisect
import hashlib
import random
import struct
from collections.abc import Sequence
from typing import Final

from proxy.balance.endpoint import Endpoint
from proxy.balance.policies import RoundRobin

_DIGESTS: Final = 20
_PLACES: Final = struct.Struct(">8Q")  # of one digest; 160 in all (nginx ngx_http_upstream_hash_module)
_KEY: Final = struct.Struct(">Q")


class HashRing:
    """A request without a key (no such cookie) goes by round robin, as in nginx."""

    __slots__ = ("_count", "_owners", "_places", "_without_key", "affine")

    def __init__(self, endpoints: Sequence[Endpoint], rng: random.Random) -> None:
        self.affine = True
        ring = sorted(
            ((place, endpoint.name, endpoint) for endpoint in endpoints for place in _points(endpoint)),
            key=lambda entry: entry[:2],
        )
        self._count = len(endpoints)
        self._places = [place for place, _, _ in ring]
        self._owners = [endpoint for _, _, endpoint in ring]
        self._without_key = RoundRobin(rng)

    def __repr__(self) -> str:
        return f"HashRing({len(self._places)} places)"

    def choose(self, endpoints: Sequence[Endpoint], key: bytes) -> Endpoint:
        """The key's endpoint among ``endpoints``, which are of this ring: the next one if its own is not."""
        if not key:
            return self._without_key.choose(endpoints, key)
        owners = self._owners
        (place,) = _KEY.unpack(hashlib.blake2b(key, digest_size=8).digest())
        index = bisect.bisect_left(self._places, place) % len(owners)
        if len(endpoints) < self._count:
            while owners[index] not in endpoints:
                index = (index + 1) % len(owners)
        return owners[index]


def _points(endpoint: Endpoint) -> tuple[int, ...]:
    points = endpoint.points
    if points is None:
        name = endpoint.name.encode()
        points = endpoint.points = tuple(
            place
            for number in range(_DIGESTS)
            for place in _PLACES.unpack(hashlib.blake2b(b"%b#%d" % (name, number)).digest())
        )
    return points
