"""A backend: the endpoints of a service port, and the choice of one for each attempt."""

from __future__ import annotations

import random
import time
from collections.abc import Callable, Sequence
from typing import assert_never

from proxy.balance.endpoint import Endpoint
from proxy.balance.hash_key import KeyInputs, compile_key
from proxy.balance.hashing import HashRing
from proxy.balance.policies import LeastConnections, PeakEwma, Policy, RoundRobin
from proxy.route.spec import BackendSpec


class Backend:
    """``key`` makes a request's hash key, and is None for the policies that have none.

    ``clock`` must be the loop's: CLOCK_MONOTONIC in seconds, for asyncio and uvloop alike.
    """

    __slots__ = ("_clock", "_only", "_out", "_policy", "_up", "endpoints", "key", "spec")

    def __init__(
        self,
        spec: BackendSpec,
        endpoints: tuple[Endpoint, ...],
        *,
        rng: random.Random | None = None,
        clock: Callable[[], float] = time.monotonic,
        watch: bool = True,
    ) -> None:
        """Raises `SettingsError` for a hash key that cannot be read. ``watch``: hear of the endpoints' health."""
        self.spec = spec
        self.endpoints = endpoints
        self.key: Callable[[KeyInputs], bytes] | None = compile_key(spec.hash_by) if spec.policy == "hash" else None
        self._clock = clock
        self._policy = _policy(spec, endpoints, rng or random.Random(), clock)
        # The only one serves, whatever its health: there is no better.
        self._only = endpoints[0] if len(endpoints) == 1 else None
        self._up: tuple[Endpoint, ...] = ()
        self._out: tuple[Endpoint, ...] = ()
        for endpoint in endpoints if watch else ():
            endpoint.watchers.append(self.refresh)
        self.refresh()

    def __repr__(self) -> str:
        return f"Backend({self.spec.key}, {self._policy!r}, {len(self._up)} of {len(self.endpoints)} endpoints)"

    def become(self, other: Backend) -> None:
        """Be what another one is, from the next pick on. Who watches which endpoints is the registry's business."""
        self.spec = other.spec
        self.endpoints = other.endpoints
        self.key = other.key
        self._policy = other._policy
        self._only = other._only
        self.refresh()

    def refresh(self) -> None:
        """Take in that an endpoint was ejected or came back."""
        self._up = tuple(endpoint for endpoint in self.endpoints if not endpoint.ejected_until)
        self._out = tuple(endpoint for endpoint in self.endpoints if endpoint.ejected_until)

    def pick(self, key: bytes, tried: Sequence[Endpoint]) -> Endpoint | None:
        """The endpoint for an attempt; None when there is none at all.

        ``key`` is what the policy hashes, b"" for none. Those ``tried`` for the same request are avoided while any
        other remains, ejected ones while any other is up.
        """
        if self._only is not None:
            return self._only
        if not tried and not self._out and self._up:
            return self._policy.choose(self._up, key)
        return self._pick_around(key, tried)

    def others(self, endpoint: Endpoint) -> bool:
        """Whether another endpoint than this one is up."""
        return any(other is not endpoint for other in self._up)

    def _pick_around(self, key: bytes, tried: Sequence[Endpoint]) -> Endpoint | None:
        trial = self._trial(key, tried)
        if trial is not None:
            return trial
        candidates: Sequence[Endpoint] = (
            [endpoint for endpoint in self._up if endpoint not in tried]
            or [endpoint for endpoint in self._out if endpoint not in tried]
            or self.endpoints
        )
        return self._policy.choose(candidates, key) if candidates else None

    def _trial(self, key: bytes, tried: Sequence[Endpoint]) -> Endpoint | None:
        """An ejected endpoint whose time has come: this request decides over it."""
        if not self._out:
            return None
        now = self._clock()
        due = [endpoint for endpoint in self._out if endpoint.ejected_until <= now and endpoint not in tried]
        if not due:
            return None
        endpoint = due[0]
        if self._policy.affine and key:
            endpoint = self._policy.choose(self.endpoints, key)  # only by a request that belongs to it
            if endpoint not in due:
                return None
        endpoint.start_trial(now)
        return endpoint


def _policy(
    spec: BackendSpec, endpoints: tuple[Endpoint, ...], rng: random.Random, clock: Callable[[], float]
) -> Policy:
    match spec.policy:
        case "round_robin":
            return RoundRobin(rng)
        case "least_conn":
            return LeastConnections(rng)
        case "ewma":
            return PeakEwma(rng, clock)
        case "hash":
            return HashRing(endpoints, rng)
        case _:
            assert_never(spec.policy)
