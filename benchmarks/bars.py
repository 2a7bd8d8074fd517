"""What Spanway promises, and whether a measurement keeps it."""

from __future__ import annotations

from dataclasses import dataclass
from statistics import median
from typing import Final

from benchmarks.cost import Results
from benchmarks.lab import NGINX, TRACED, UNTRACED
from benchmarks.memory import BigBody, Growth, Idle

KIB: Final = 1024
MIB: Final = 1024 * KIB
CPU: Final = 1.8  # times nginx's CPU time per request
LATENCY: Final = 1.2  # times nginx's p50 at one connection
TRACING: Final = 1.25  # times the CPU time without tracing
IDLE: Final = 6 * KIB  # bytes per idle keep-alive connection
BODY: Final = 2 * MIB  # bytes that 2 GiB may move
GROWTH: Final = 1 * MIB  # bytes over a million requests: one byte each is noise of the allocator


@dataclass(frozen=True, slots=True)
class Bar:
    """One promise: its words, what was measured, how far it may go, and the least and greatest where there are many."""

    text: str
    measured: float
    limit: float
    unit: str = "x"
    low: float | None = None
    high: float | None = None

    @property
    def kept(self) -> bool:
        """Whether the measurement (the median of many) stays within the limit."""
        return self.measured <= self.limit


def of_cost(results: Results) -> list[Bar]:
    """The promises about CPU time and latency that these results can judge."""
    bars: list[Bar] = []
    if {NGINX, TRACED} <= results.cpu.keys():
        bars.append(_ratio("CPU per request, every request traced, of nginx's", results.ratios(TRACED, NGINX), CPU))
        if results.latency[TRACED]:
            ratios = results.latency_ratios(TRACED, NGINX)
            bars.append(_ratio("p50 at one connection, traced, of nginx's", ratios, LATENCY))
    if {UNTRACED, TRACED} <= results.cpu.keys():
        ratios = results.ratios(TRACED, UNTRACED)
        bars.append(_ratio("CPU per request, traced, of the same without tracing", ratios, TRACING))
    failed = sum(results.errors().values())
    bars.append(Bar("failed requests", failed, 0, "requests"))
    if TRACED in results.cpu:
        bars.append(Bar("spans that did not arrive", sum(results.lost_spans().values()), 0, "spans"))
    return bars


def of_memory(idle: Idle | None, body: BigBody | None, growth: Growth | None) -> list[Bar]:
    """The promises about memory."""
    bars: list[Bar] = []
    if idle is not None:
        bars.append(Bar("memory per idle keep-alive connection", idle.bytes / KIB, IDLE / KIB, "KiB"))
    if body is not None:
        bars.append(Bar(f"memory moved by {body.size / 2**30:g} GiB down", body.download / MIB, BODY / MIB, "MiB"))
        bars.append(Bar(f"memory moved by {body.size / 2**30:g} GiB up", body.upload / MIB, BODY / MIB, "MiB"))
    if growth is not None:
        bars.append(Bar(f"growth over {growth.requests:,} requests", growth.bytes / MIB, GROWTH / MIB, "MiB"))
    return bars


def _ratio(text: str, ratios: list[float], limit: float) -> Bar:
    return Bar(text, median(ratios), limit, "x", min(ratios), max(ratios))
