"""The machine under the measurements: its CPUs, its versions, and how much others used it meanwhile."""

from __future__ import annotations

import os
import platform
import re
import subprocess
import sys
import time
from dataclasses import dataclass
from importlib import metadata
from pathlib import Path
from typing import Final, Self

from tests.real import parts

ROOT: Final = Path(__file__).resolve().parents[2]


class Unfit(Exception):
    """A machine, or a part of it, on which nothing can be measured; the message names the next step."""


@dataclass(frozen=True, slots=True)
class Cpus:
    """The CPUs this process may use, in order: the proxy under test has the last to itself.

    The load has the one before it, upstream and collector the first: of two CPUs these share one.
    """

    allowed: tuple[int, ...]

    @classmethod
    def choose(cls) -> Self:
        """All that are allowed; raises `Unfit` when there is only one."""
        allowed = tuple(sorted(os.sched_getaffinity(0)))
        if len(allowed) < 2:
            raise Unfit("two CPUs are needed: one for the proxy, one for the load, the upstream and the collector")
        return cls(allowed)

    @property
    def proxy(self) -> int:
        """Where the proxy runs, and nothing else."""
        return self.allowed[-1]

    @property
    def load(self) -> int:
        """Where the load generator runs."""
        return self.allowed[-2]

    @property
    def others(self) -> int:
        """Where upstream and collector run."""
        return self.allowed[0]

    def last(self, count: int) -> str:
        """The last ``count`` (all, if there are fewer), as taskset(1) has a list."""
        return ",".join(map(str, self.allowed[-count:]))


@dataclass(frozen=True, slots=True)
class CpuTimes:
    """One CPU's clock ticks since boot (proc(5), /proc/stat), and when they were read."""

    busy: int
    stolen: int  # the hypervisor ran somebody else
    moment: float

    @classmethod
    def read(cls, cpu: int) -> Self:
        """The ticks of one CPU now."""
        line = next(line for line in Path("/proc/stat").read_text().splitlines() if line.startswith(f"cpu{cpu} "))
        user, nice, system, _idle, _iowait, interrupt, softirq, stolen, *_ = (int(word) for word in line.split()[1:])
        return cls(user + nice + system + interrupt + softirq, stolen, time.monotonic())

    def shares_since(self, earlier: Self) -> tuple[float, float]:
        """Which part of the time the CPU was busy, and which it was stolen, 0 to 1."""
        ticks = (self.moment - earlier.moment) * os.sysconf("SC_CLK_TCK")
        return (self.busy - earlier.busy) / ticks, (self.stolen - earlier.stolen) / ticks


def describe() -> dict[str, str]:
    """What a result needs beside it to mean anything."""
    return {
        "cpu": _cpu_model(),
        "cpus": f"{os.cpu_count()}{', threads of one core' if _siblings() else ''}",
        "memory": f"{os.sysconf('SC_PAGE_SIZE') * os.sysconf('SC_PHYS_PAGES') / 2**30:.1f} GiB",
        "kernel": platform.release(),
        "load average": " ".join(f"{load:.2f}" for load in os.getloadavg()),
        "python": f"{platform.python_implementation()} {platform.python_version()}, uvloop {_distribution('uvloop')}",
        "commit": _commit(),
        "nginx": _version("nginx", "-v", r"nginx/(\S+)"),
        "wrk": _version("wrk", "-v", r"wrk\s+(?:debian/)?(\S+)"),
        "h2load": _version("h2load", "--version", r"nghttp2/(\S+)"),
        "haproxy": _version("haproxy", "-v", r"version (\S+)"),
        "envoy": _version("envoy", "--version", r"version: \w+/([^/]+)/"),
        "traefik": _version("traefik", "version", r"Version:\s+(\S+)"),
        "caddy": _version("caddy", "version", r"^v?(\S+)"),
        "jaeger": parts.JAEGER_VERSION if parts.find("jaeger") else "",
        "grpcio": _distribution("grpcio"),
        "arguments": " ".join(sys.argv[1:]),
    }


def _cpu_model() -> str:
    match = re.search(r"^model name\s*:\s*(.+)$", Path("/proc/cpuinfo").read_text(), re.MULTILINE)
    return match[1] if match else platform.machine()


def _siblings() -> bool:
    """Whether CPU 0 shares its core with another: then the load slows the proxy, and both peers alike."""
    path = Path("/sys/devices/system/cpu/cpu0/topology/thread_siblings_list")
    return path.exists() and path.read_text().strip() != "0"


def _version(part: str, flag: str, pattern: str) -> str:
    program = parts.find(part)
    if program is None:
        return ""
    done = subprocess.run([program, flag], capture_output=True, text=True, check=False)
    match = re.search(pattern, done.stdout + done.stderr)
    return match[1] if match else "?"


def _distribution(name: str) -> str:
    try:
        return metadata.version(name)
    except metadata.PackageNotFoundError:
        return ""


def _commit() -> str:
    try:
        command = ["git", "-C", str(ROOT), "describe", "--always", "--dirty"]
        done = subprocess.run(command, capture_output=True, text=True, check=False)
    except FileNotFoundError:
        return ""
    return done.stdout.strip()
