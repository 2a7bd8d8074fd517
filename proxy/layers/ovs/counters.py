"""What Open vSwitch counts of its own work: lookups, upcalls, flows, packets per forwarding thread."""

from __future__ import annotations

import re
from typing import Final, Literal, NamedTuple

from proxy.layers.ovs.rpc import OvsError
from proxy.layers.ovs.unixctl import Control

MOST_SAMPLES: Final = 2000
PREFIX: Final = "spanway_ovs_"
_DATAPATH: Final = re.compile(r"^(\S+@\S+|system@\S+):$")
_LOOKUPS: Final = re.compile(r"^\s+lookups: hit:(\d+) missed:(\d+) lost:(\d+)")
_FLOWS: Final = re.compile(r"^\s+flows: (\d+)")
_UPCALL_FLOWS: Final = re.compile(r"^\s+flows\s+: \(current (\d+)\) \(avg (\d+)\) \(max (\d+)\) \(limit (\d+)\)")
_DUMP: Final = re.compile(r"^\s+dump duration : (\d+)ms")
_THREAD: Final = re.compile(r"^(main thread|pmd thread [^:]+):$")
_THREAD_COUNTS: Final = {
    "packets received": "packets_received_total",
    "packet recirculations": "recirculations_total",
    "emc hits": "emc_hits_total",
    "smc hits": "smc_hits_total",
    "megaflow hits": "megaflow_hits_total",
    "miss with success upcall": "upcalls_total",
    "miss with failed upcall": "failed_upcalls_total",
}


class Sample(NamedTuple):
    """One value of a metric. A name that ends in ``_total`` is a counter, every other a gauge."""

    name: str
    labels: tuple[tuple[str, str], ...]
    value: float

    @property
    def kind(self) -> Literal["counter", "gauge"]:
        """As Prometheus has it."""
        return "counter" if self.name.endswith("_total") else "gauge"


def datapaths(text: str) -> list[Sample]:
    """Read `dpctl/show`: what the datapath could forward by itself (hit), had to ask about (missed), lost (lost)."""
    samples: list[Sample] = []
    name = ""
    for line in text.splitlines():
        if found := _DATAPATH.match(line):
            name = found[1]
        elif found := _LOOKUPS.match(line):
            for result, count in zip(("hit", "missed", "lost"), found.groups(), strict=True):
                labels = (("datapath", name), ("result", result))
                samples.append(Sample(f"{PREFIX}datapath_lookups_total", labels, int(count)))
        elif found := _FLOWS.match(line):
            samples.append(Sample(f"{PREFIX}datapath_flows", (("datapath", name),), int(found[1])))
    return samples[:MOST_SAMPLES]


def upcalls(text: str) -> list[Sample]:
    """Read `upcall/show`: flows kept in the datapath, their limit, and how long looking at them takes."""
    samples: list[Sample] = []
    labels: tuple[tuple[str, str], ...] = ()
    for line in text.splitlines():
        if found := _DATAPATH.match(line):
            labels = (("datapath", found[1]),)
        elif found := _UPCALL_FLOWS.match(line):
            samples.append(Sample(f"{PREFIX}upcall_flows", labels, int(found[1])))
            samples.append(Sample(f"{PREFIX}upcall_flow_limit", labels, int(found[4])))
        elif found := _DUMP.match(line):
            samples.append(Sample(f"{PREFIX}flow_dump_duration_seconds", labels, int(found[1]) / 1000))
    return samples[:MOST_SAMPLES]


def threads(text: str) -> list[Sample]:
    """Read `dpif-netdev/pmd-stats-show`, which the userspace datapath alone has: packets by what was done with them."""
    samples: list[Sample] = []
    thread = ""
    for line in text.splitlines():
        if found := _THREAD.match(line):
            thread = found[1].removesuffix(" thread")
            continue
        name, _, value = line.strip().partition(": ")
        if name in _THREAD_COUNTS and value.split(" ")[0].isascii() and value.split(" ")[0].isdigit():
            labels = (("thread", thread),)
            samples.append(Sample(f"{PREFIX}thread_{_THREAD_COUNTS[name]}", labels, int(value.split(" ")[0])))
    return samples[:MOST_SAMPLES]


def read(control: Control) -> list[Sample]:
    """All of them; three questions. Raises `OvsError`, but not for what this datapath does not have."""
    samples = datapaths(control.call("dpctl/show")) + upcalls(control.call("upcall/show"))
    try:
        samples += threads(control.call("dpif-netdev/pmd-stats-show"))
    except OvsError:
        return samples
    return samples
