"""CPU time per request and latency at one connection: interleaved rounds, compared within each round."""

from __future__ import annotations

import subprocess
import time
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from statistics import median
from typing import Any, Final

from benchmarks import peers
from benchmarks.lab import Lab
from benchmarks.machine import CpuTimes
from benchmarks.peers import Peer
from tests.real import load, usage
from tests.real.load import Load

CONNECTIONS: Final = 32
WARM_UP: Final = 2.0  # seconds under full load before the first round; its figures are dropped
LEAD_IN: Final = 1.0  # seconds under full load before every measurement, dropped as well
QUIET: Final = 1_000_000  # CPU nanoseconds in `STEP` seconds: below, a proxy's work for a load is done
STEP: Final = 0.25
PATIENCE: Final = 8.0  # seconds for spans to leave after a load
SPANS: Final = 2  # of one request: SERVER and CLIENT


@dataclass(frozen=True, slots=True)
class Sample:
    """One measurement of one peer."""

    round: int
    requests: int
    cpu_us: float  # per request, user and system
    system_share: float  # of cpu_us
    rate: float  # requests a second
    used: float  # which part of its CPU the peer used, 0 to 1
    foreign: float  # which part of that CPU went to others
    stolen: float  # which part the hypervisor took
    spans: int | None  # arrived at the collector meanwhile; None of a peer that sends none
    errors: dict[str, int]


@dataclass(frozen=True, slots=True)
class Latency:
    """One run over a single connection, one request at a time; microseconds."""

    round: int
    requests: int
    p50: int
    p90: int
    p99: int
    errors: dict[str, int]


@dataclass(frozen=True, slots=True)
class Results:
    """All samples, by peer, in the order of the rounds."""

    cpu: dict[str, list[Sample]]
    latency: dict[str, list[Latency]]

    def ratios(self, one: str, other: str) -> list[float]:
        """CPU per request, ``one`` over ``other``, round by round: what disturbs a round disturbs both."""
        return [a.cpu_us / b.cpu_us for a, b in zip(self.cpu[one], self.cpu[other], strict=True)]

    def latency_ratios(self, one: str, other: str) -> list[float]:
        """p50 at one connection, ``one`` over ``other``, round by round."""
        return [a.p50 / b.p50 for a, b in zip(self.latency[one], self.latency[other], strict=True)]

    def errors(self) -> dict[str, int]:
        """Failed requests of each peer that had any."""
        sums: Counter[str] = Counter()
        for by_peer in (self.cpu, self.latency):
            for name, samples in by_peer.items():
                sums[name] += sum(sum(sample.errors.values()) for sample in samples)
        return dict(+sums)

    def lost_spans(self) -> dict[str, int]:
        """Of each traced peer, how many spans too few arrived."""
        missing: Counter[str] = Counter()
        for name, samples in self.cpu.items():
            for each in samples:
                if each.spans is not None:
                    missing[name] += max(0, SPANS * each.requests - each.spans)
        return dict(+missing)

    def plain(self) -> dict[str, Any]:
        """For JSON."""
        return {
            "cpu": {name: [asdict(sample) for sample in samples] for name, samples in self.cpu.items()},
            "latency": {name: [asdict(sample) for sample in samples] for name, samples in self.latency.items()},
        }


def measure(
    lab: Lab, names: Sequence[str], rounds: int, seconds: float, say: Callable[[str], None], *, latency: bool = True
) -> Results:
    """Measure the named variants in turn, ``rounds`` times, each for ``seconds``; who goes first changes."""
    running = {name: lab.start(name) for name in names}
    results = Results({name: [] for name in names}, {name: [] for name in names})
    for name, peer in running.items():
        say(f"warming up {name}")
        _load(lab, peer, CONNECTIONS, WARM_UP)
    for number in range(rounds):
        turn = number % len(names)
        for name in [*names[turn:], *names[:turn]]:
            say(f"round {number + 1} of {rounds}: {name}")
            results.cpu[name].append(_cpu(lab, running[name], number, seconds))
            if latency:
                results.latency[name].append(_latency(lab, running[name], number, seconds))
    for peer in running.values():
        peer.stop()
    return results


def settle(peer: Peer) -> int:
    """Wait until the peer has no more work from the last load; returns its CPU clock then."""
    deadline = time.monotonic() + PATIENCE
    before = peer.cpu_ns()
    while True:
        time.sleep(STEP)
        now = peer.cpu_ns()
        if now - before < QUIET or time.monotonic() > deadline:
            return now
        before = now


def _cpu(lab: Lab, peer: Peer, number: int, seconds: float) -> Sample:
    _load(lab, peer, CONNECTIONS, LEAD_IN)
    pids = peer.pids
    before = settle(peer)
    spans = lab.collector.accepted_spans()
    modes = usage.user_system(pids)
    ticks = CpuTimes.read(lab.cpus.proxy)
    loaded = _load(lab, peer, CONNECTIONS, seconds)
    busy, stolen = CpuTimes.read(lab.cpus.proxy).shares_since(ticks)
    used = (peer.cpu_ns() - before) / 1e9 / loaded.seconds
    after = settle(peer)  # spans that were still waiting are part of the price
    user, system = (now - then for now, then in zip(usage.user_system(pids), modes, strict=True))
    return Sample(
        round=number,
        requests=loaded.requests,
        cpu_us=(after - before) / 1000 / loaded.requests,
        system_share=system / ((user + system) or 1.0),
        rate=loaded.rate,
        used=used,
        foreign=max(0.0, busy - used),
        stolen=stolen,
        spans=_spans(lab, spans + SPANS * loaded.requests) - spans if peer.traced else None,
        errors=loaded.errors,
    )


def _latency(lab: Lab, peer: Peer, number: int, seconds: float) -> Latency:
    loaded = _load(lab, peer, 1, seconds)
    settle(peer)
    return Latency(number, loaded.requests, loaded.p50, loaded.p90, loaded.p99, loaded.errors)


def _spans(lab: Lab, expected: int) -> int:
    """How many spans the collector has, once it has those expected or its patience ends."""
    deadline = time.monotonic() + PATIENCE
    while True:
        count = lab.collector.accepted_spans()
        if count >= expected or time.monotonic() > deadline:
            return count
        time.sleep(STEP)


def _load(lab: Lab, peer: Peer, connections: int, seconds: float) -> Load:
    command = load.wrk_command(lab.wrk, peer.url, connections, seconds, {"Host": peers.HOST})
    command = ["taskset", "--cpu-list", str(lab.cpus.others), *command]
    done = subprocess.run(command, capture_output=True, text=True, timeout=seconds + 30, check=False)
    return load.parse(done.stdout + done.stderr)


def spread(values: Sequence[float]) -> tuple[float, float, float]:
    """Median, least and greatest."""
    return median(values), min(values), max(values)
