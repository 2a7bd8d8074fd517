"""The price of being looked at: `spanway wire` on the loopback interface, whose filter runs twice for each packet."""

from __future__ import annotations

import contextlib
import os
import re
import socket
import sys
import time
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, ClassVar, Final

from benchmarks.lab import Lab
from benchmarks.measure.machine import ROOT
from benchmarks.measure.priority import yielding
from benchmarks.measure.samples import Reading
from benchmarks.peers.base import Peer, Variant
from benchmarks.peers.catalogue import SPANWAY
from benchmarks.scenarios.base import LEAD_IN, Level, Metric, Point, Scenario
from benchmarks.scenarios.cost import CONNECTIONS, CPU_METRICS, saturate
from tests.real.process import Process

NOBODY, LISTENING = "nobody", "spanway wire"
LOOK: Final = 1.5  # seconds until the proxy has seen that somebody listens, or has left
SOCKET: Final = "wire.sock"


class Wire(Scenario):
    """What it takes from the proxy, and what it uses itself."""

    name: ClassVar = "wire"
    title: ClassVar = "The price of seeing packets"
    what: ClassVar = (
        f"CPU per request and throughput at saturation ({CONNECTIONS} connections), with nobody at the wire's socket "
        "and with 'spanway wire' listening to the loopback interface. It runs on "
        "the load's CPU and leaves it to the load (SCHED_IDLE), so that the figures are the proxy's price, and joins "
        "what it has time for: 'joined' says how much of what it was told of. Needs root, or CAP_NET_RAW."
    )
    variants: ClassVar = (SPANWAY, "spanway-1")
    metrics: ClassVar = (
        *CPU_METRICS,
        Metric("wire", "CPU of the wire, of one processor", ""),
        Metric("joined", "joined of the attempts it was told of", "", less_is_better=False),
    )
    axis: ClassVar = "listening: "

    def points(self, _level: Level) -> Sequence[Point]:
        """Without and with."""
        return (Point(NOBODY), *((Point(LISTENING, 1.0),) if permitted() else ()))

    def place(self, lab: Lab, _point: Point) -> Mapping[str, Any]:
        """Where proxy and wire would meet."""
        return {"wire": str(lab.folder / SOCKET)}

    def lasts(self, seconds: float, _point: Point) -> float:
        """A load, and twice a proxy's look."""
        return LEAD_IN + seconds + 2.5 + 2 * LOOK

    def measure(self, lab: Lab, peer: Peer, variant: Variant, point: Point) -> Reading:
        """One saturated load."""
        if point.label == NOBODY:
            reading = saturate(lab, peer, variant, CONNECTIONS)
            return Reading({**reading.values, "wire": 0.0}, reading.faults, reading.noise)
        with listening(lab) as process:
            begun, before = time.monotonic(), _cpu_s(process.pid)
            with yielding([process.pid]):
                reading = saturate(lab, peer, variant, CONNECTIONS)
            share = (_cpu_s(process.pid) - before) / (time.monotonic() - begun)
        time.sleep(LOOK)
        values = {**reading.values, "wire": share, "joined": _joined(process.log.read_text(errors="replace"))}
        return Reading(values, reading.faults, reading.noise)


@contextlib.contextmanager
def listening(lab: Lab) -> Iterator[Process]:
    """A wire, until the proxy hands over to it."""
    command = [sys.executable, "-m", "proxy", "wire", "--interfaces", "lo", "--socket", str(lab.folder / SOCKET)]
    command += ["--otlp", "none", "--admin", "off"]
    environ = {key: value for key, value in os.environ.items() if not key.startswith(("OTEL_", "SPANWAY_"))}
    with Process("wire", command, lab.folder / "wire.log", environ=environ, cwd=ROOT, cpu=lab.cpus.others) as process:
        process.expect("spanway: wire ")
        time.sleep(LOOK)
        yield process


def permitted() -> bool:
    """Whether this process may listen to packets."""
    try:
        socket.socket(socket.AF_PACKET, socket.SOCK_RAW, 0).close()
    except OSError:
        return False
    return True


def _joined(said: str) -> float:
    """The share of what `spanway wire` was told of, by its status lines; 0 where it was told of nothing."""
    joined = sum(map(int, re.findall(r"(\d+) joined", said)))
    missing = sum(map(int, re.findall(r"(\d+) missing \(", said)))
    return joined / max(1, joined + missing)


def _cpu_s(pid: int) -> float:
    fields = Path(f"/proc/{pid}/stat").read_text(encoding="ascii", errors="replace").rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")
