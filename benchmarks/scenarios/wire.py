"""The price of being looked at: `spanway wire` on the way to the upstream, against nobody there."""

from __future__ import annotations

import contextlib
import os
import re
import sys
import time
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from statistics import fmean
from typing import Any, ClassVar, Final

from benchmarks.lab import Lab
from benchmarks.load import wrk
from benchmarks.measure.collector import endpoints
from benchmarks.measure.machine import ROOT
from benchmarks.measure.samples import Reading
from benchmarks.peers.base import Peer, Variant
from benchmarks.peers.catalogue import SPANWAY
from benchmarks.scenarios.base import LEAD_IN, Level, Metric, Point, Scenario, spans_so_far
from benchmarks.scenarios.cost import CONNECTIONS, CPU_METRICS, saturate
from proxy.demo.lab.plan import Kind
from proxy.layers.packet import Flows, Packets, parse
from tests.layers.blocks import Segment, block
from tests.real.process import Process

LOOPBACK: Final = "loopback"
LOOK: Final = 1.5  # seconds until the proxy has seen that somebody listens, or has left
TURNS: Final = (4.0, 4.0, 1.5)
"""Seconds of load then: connections change to ports of their own, the first 4,096 are joined, and so is what the proxy
may show after the pause in which spans are fetched. The claim is of load that lasts."""
SOCKET: Final = "wire.sock"
KINDS: Final[Mapping[str, Kind]] = {"bridge": "bridge", "Open vSwitch": "ovs"}  # by a point's label


class Wire(Scenario):
    """What it takes from the traffic, and what it uses itself."""

    name: ClassVar = "wire"
    title: ClassVar = "The price of seeing packets"
    what: ClassVar = (
        f"The same proxy at saturation ({CONNECTIONS} connections) with nobody at the wire's socket, with 'spanway "
        "wire', and with nobody again; the ratios are to the mean of the first and the third. Proxy and upstream are "
        "in network namespaces with a switch between, the wire taps the two ends on the node. It has no CPU of its "
        "own: it runs on the load's, as anyone starts it. Of these many requests it is shown a part ('wire.rate'), and "
        "'joined' is of that. Needs root."
    )
    variants: ClassVar = (SPANWAY, "spanway-1")
    metrics: ClassVar = (
        Metric("kept", "throughput, of that without", "x", less_is_better=False, main=True),
        Metric("again", "the third load's throughput, of the first's", "x", less_is_better=False),
        Metric("dearer", "CPU per request, of that without", "x"),
        *(Metric(each.name, each.title, each.unit, each.less_is_better) for each in CPU_METRICS),
        Metric("wire", "CPU of the wire, of one processor", ""),
        Metric("packets", "packets that passed its filter, per request", ""),
        Metric("told", "shown to the wire, of the requests", "", less_is_better=False),
        Metric("joined", "joined of the attempts it was told of", "", less_is_better=False),
        Metric("parser", "CPU of its parser per packet", "us"),
    )
    axis: ClassVar = "way: "

    def points(self, level: Level) -> Sequence[Point]:
        """By what is between proxy and upstream."""
        labels = [*KINDS, LOOPBACK] if level == Level.FULL else ["bridge", LOOPBACK]
        return [Point(label, float(number)) for number, label in enumerate(labels, 1)]

    def place(self, lab: Lab, point: Point) -> Mapping[str, Any]:
        """Where proxy and wire would meet, and the way to the upstream."""
        met = {"wire": str(lab.folder / SOCKET)}
        if point.label == LOOPBACK:
            return met
        node = lab.node(KINDS[point.label])
        return met | {"host": node.host, "upstream": node.port} | endpoints(node.collector)

    def within(self, lab: Lab, point: Point) -> contextlib.AbstractContextManager[None]:
        """The proxy's network namespace."""
        return super().within(lab, point) if point.label == LOOPBACK else lab.node(KINDS[point.label]).within()

    def lasts(self, seconds: float, _point: Point) -> float:
        """Three loads, and twice a proxy's look."""
        return 3 * (LEAD_IN + seconds + 1.5) + sum(TURNS) + len(TURNS) + 2 * (LOOK + 1.0)

    def measure(self, lab: Lab, peer: Peer, variant: Variant, point: Point) -> Reading:
        """Three saturated loads; the figures without 'of that' in their names are those with the wire."""
        node = None if point.label == LOOPBACK else lab.node(KINDS[point.label])
        collector = None if node is None else node.collector

        def load() -> Reading:
            with self.within(lab, point):
                return saturate(lab, peer, variant, CONNECTIONS, collector=collector)

        before = load()
        with listening(lab, ("lo",) if node is None else node.taps) as process:
            with self.within(lab, point):
                for turn in TURNS:
                    spans_so_far(collector or lab.collector)  # it has room for six seconds of them
                    wrk.run(lab, peer.url, CONNECTIONS, turn)
            begun, used = time.monotonic(), _cpu_s(process.pid)
            during = load()
            share = (_cpu_s(process.pid) - used) / (time.monotonic() - begun)
        said = process.log.read_text(errors="replace")
        process.log.unlink()
        time.sleep(LOOK)
        after = load()
        requests = during.values["rate"] * (lab.seconds + LEAD_IN + sum(TURNS))
        told = counted(said, "joined") + counted(said, r"missing \(")
        values = {
            **during.values,
            "kept": during.values["rate"] / fmean((before.values["rate"], after.values["rate"])),
            "again": after.values["rate"] / before.values["rate"],
            "dearer": during.values["cpu"] / fmean((before.values["cpu"], after.values["cpu"])),
            "wire": share,
            "packets": counted(said, "packets\\b(?! lost)") / requests,
            "told": told / requests,
            "joined": counted(said, "joined") / max(1, told),
            "parser": parser_us(),
        }
        faults = {**before.faults, **during.faults, **after.faults}
        return Reading(values, faults, during.noise)


@contextlib.contextmanager
def listening(lab: Lab, interfaces: Sequence[str], otlp: str = "none") -> Iterator[Process]:
    """A wire whose spans go to ``otlp``, from when the proxy hands over to it; ended, it has said all it counted."""
    command = [sys.executable, "-m", "proxy", "wire", "--interfaces", ",".join(interfaces)]
    command += ["--socket", str(lab.folder / SOCKET), "--admin", "off"]
    command += ["--otlp", otlp, "--otlp-protocol", "http/protobuf"]
    environ = {key: value for key, value in os.environ.items() if not key.startswith(("OTEL_", "SPANWAY_"))}
    with Process("wire", command, lab.folder / "wire.log", environ=environ, cwd=ROOT, cpu=lab.cpus.others) as process:
        process.expect("spanway: wire ")
        time.sleep(LOOK)
        yield process


def parser_us(packets: int = 256, blocks: int = 2000) -> float:
    """CPU microseconds that the parser in use takes for one packet, in blocks as rings hand them over."""
    frames = [Segment(source_port=57344 + number % 32, length=1448, ts_ns=number).frame() for number in range(packets)]
    made, flows = block(frames), Flows()
    begun = time.process_time()
    for _ in range(blocks):
        parse(made, flows, Packets())
    return (time.process_time() - begun) * 1e6 / (packets * blocks)


def counted(said: str, what: str) -> int:
    """The sum over the status lines of `spanway wire` of what they count as ``what``, a pattern."""
    return sum(map(int, re.findall(rf"(\d+) {what}", said)))


def _cpu_s(pid: int) -> float:
    fields = Path(f"/proc/{pid}/stat").read_text(encoding="ascii", errors="replace").rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")
