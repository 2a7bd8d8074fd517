"""Runs the pacer, and says what rate is fair to ask."""

from __future__ import annotations

import json
import sys
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Final, Self

from benchmarks.lab import Lab
from benchmarks.measure.distribution import Distribution
from benchmarks.measure.machine import ROOT
from benchmarks.peers.base import HOST, Peer

CONNECTIONS: Final = 64
QUANTILES: Final = {"p50": 0.5, "p90": 0.9, "p99": 0.99, "p999": 0.999, "max": 1.0}


@dataclass(frozen=True, slots=True)
class Paced:
    """One open-loop run; see `benchmarks.load.pacer`."""

    requests: int
    rate: float
    latency: Distribution
    lag: Distribution
    errors: Mapping[str, int]

    @classmethod
    def parse(cls, output: str) -> Self:
        """What the pacer printed; raises ValueError when it did not get that far."""
        lines = [line for line in output.splitlines() if line.startswith('{"requests"')]
        if not lines:
            raise ValueError(f"the pacer printed no result:\n{output}")
        found = json.loads(lines[-1])
        latency, lag = (Distribution.of(found.pop(name)) for name in ("latency", "lag"))
        return cls(latency=latency, lag=lag, **found)

    def values(self) -> dict[str, float]:
        """Latency's percentiles, what was served, and how late the generator itself was; microseconds."""
        found = dict(zip(QUANTILES, self.latency.percentiles(QUANTILES.values()), strict=True))
        lag50, lag99 = self.lag.percentiles((0.5, 0.99))
        return found | {"served": self.rate, "lag50": lag50, "lag99": lag99}


def command(
    lab: Lab, peer: Peer, rate: float, seconds: float, warm_up: float, connections: int = CONNECTIONS
) -> list[str]:
    """The command line of one run, pinned to the load's CPU; its working directory is `ROOT`."""
    program = ["taskset", "--cpu-list", str(lab.cpus.load), sys.executable, "-m", "benchmarks.load.pacer"]
    return [*program, *map(str, (peer.port, rate, seconds + warm_up, warm_up, connections, HOST, "/"))]


def run(
    lab: Lab, peer: Peer, rate: float, seconds: float, warm_up: float = 1.0, connections: int = CONNECTIONS
) -> Paced:
    """``rate`` requests a second for ``seconds``, after ``warm_up`` that are dropped."""
    wanted = command(lab, peer, rate, seconds, warm_up, connections)
    with lab.unhurried():
        return Paced.parse(lab.run(wanted, seconds + warm_up, cwd=ROOT))
