"""One address that serves requests, with its load, its latency and its health as this worker sees them."""

from __future__ import annotations

import math
from typing import Final

from proxy.balance.health import Health, Rules

# ingress-nginx's ewma balancer and Finagle's peak EWMA both forget with a time constant of 10 s.
_DECAY: Final = 10.0


class Endpoint(Health):
    """``pool`` belongs to `connect`. ``in_flight`` is counted by whoever sends. ``ewma`` is nanoseconds."""

    __slots__ = ("ewma", "ewma_at", "host", "in_flight", "points", "pool", "port", "scheme", "server_name", "zone")

    def __init__(
        self,
        host: str,
        port: int,
        *,
        zone: str = "",
        scheme: str = "http",
        server_name: str = "",
        rules: Rules | None = None,
    ) -> None:
        Health.__init__(self, rules or Rules())
        self.host = host
        self.port = port
        self.zone = zone
        self.scheme = scheme
        self.server_name = server_name
        self.pool: object | None = None
        self.in_flight = 0
        self.ewma = 0.0
        self.ewma_at = 0.0
        self.points: tuple[int, ...] | None = None  # its places on a hash ring

    def __repr__(self) -> str:
        state = f"ejected until {self.ejected_until:.1f}" if self.ejected_until else f"{self.failures} failures"
        return f"Endpoint({self.name}, {self.in_flight} in flight, {self.ewma / 1e6:.1f} ms, {state})"

    @property
    def name(self) -> str:
        """``host:port``."""
        return f"[{self.host}]:{self.port}" if ":" in self.host else f"{self.host}:{self.port}"

    def succeeded(self, latency_ns: int, now: float) -> None:
        """A response was complete ``latency_ns`` after its request; ``now`` is the loop's time, which may be coarse.

        The mean follows a rise at once and a fall slowly (Finagle's peak EWMA), so that a stall is felt on its first
        request. Of several samples within one tick of a coarse clock, the first one and the highest count.
        """
        Health.succeeded(self, latency_ns, now)
        if latency_ns > self.ewma:
            self.ewma = float(latency_ns)
            self.ewma_at = now
        elif now > self.ewma_at:
            keep = math.exp((self.ewma_at - now) / _DECAY)
            self.ewma = self.ewma * keep + latency_ns * (1.0 - keep)
            self.ewma_at = now

    def latency(self, now: float) -> float:
        """The mean in nanoseconds, fading while nothing is sent, so that one that was slow gets another chance."""
        age = now - self.ewma_at
        return self.ewma * math.exp(-age / _DECAY) if age > 0 else self.ewma
