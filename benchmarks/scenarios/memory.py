"""Memory: what an idle connection holds, what a big body moves, what a million requests leave behind."""

from __future__ import annotations

import contextlib
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import ClassVar, Final

from benchmarks.lab import Lab
from benchmarks.load import held, wrk
from benchmarks.measure.samples import Reading
from benchmarks.peers import upstream
from benchmarks.peers.base import CONFIG, HOST, Peer, Variant
from benchmarks.peers.catalogue import NGINX, PURE, SPANWAY, UNTRACED
from benchmarks.scenarios.base import PROGRAMS, Level, Metric, Point, Scenario, settle
from benchmarks.scenarios.bodies import MIB
from tests.real import usage
from tests.real.big import Sink, download, upload

FIRST: Final = 500  # connections before the count begins: they pay for what is allocated once
LATE: Final = 4.0  # seconds after the start until all that a process loads late is loaded (the first export: gRPC)
BODY: Final = 2 * 1024 * MIB
MILLION: Final = 1_000_000


class Idle(Scenario):
    """What a connection that waits holds."""

    name: ClassVar = "idle"
    title: ClassVar = "Memory per idle connection"
    what: ClassVar = (
        "Resident memory of all the proxy's processes, before and after opening keep-alive connections that make "
        f"one request each, on a fresh process that has {FIRST} already."
    )
    variants: ClassVar = (*PROGRAMS, UNTRACED)
    metrics: ClassVar = (
        Metric("bytes", "per connection", "B", main=True),
        Metric("resident", "resident with all of them", "B"),
    )
    fresh: ClassVar = True
    rounds: ClassVar = 3
    axis: ClassVar = "connections: "

    def points(self, level: Level) -> Sequence[Point]:
        """Some, and as many as nginx is said to hold with ease."""
        return [Point(f"{count:,}", count) for count in ((2_000, 10_000) if level == Level.FULL else (2_000,))]

    def suits(self, variant: Variant, point: Point) -> bool:
        """HAProxy reserves two descriptors for each of its connections before it starts."""
        return super().suits(variant, point) and not (variant.name == "haproxy" and point.value > 9_000)

    def lasts(self, _seconds: float, point: Point) -> float:
        """Opening, and coming to rest twice."""
        return 1.5 + point.value / 2_000

    def measure(self, _lab: Lab, peer: Peer, _variant: Variant, point: Point) -> Reading:
        """Open, wait, look."""
        count = int(point.value) - FIRST
        with contextlib.ExitStack() as stack:
            held.open_idle(stack, peer, FIRST)
            time.sleep(LATE)
            settle(peer)
            before = peer.resident()
            held.open_idle(stack, peer, count)
            settle(peer)
            after = peer.resident()
        return Reading({"bytes": (after - before) / count, "resident": after})


class Big(Scenario):
    """A body that does not fit anywhere."""

    name: ClassVar = "big"
    title: ClassVar = "Memory while a body of 2 GiB passes"
    what: ClassVar = (
        "How far resident memory rises at its peak (the kernel's high-water mark) while 2 GiB pass, after a 32nd "
        "of that has paid for what is allocated once. (nginx keeps what a reader does not take in files, not in "
        "memory.)"
    )
    metrics: ClassVar = (
        Metric("peak", "memory moved", "B", main=True),
        Metric("throughput", "moved", "MiB/s", less_is_better=False),
    )
    variants: ClassVar = (NGINX, SPANWAY, PURE)
    fresh: ClassVar = True
    rounds: ClassVar = 1

    def points(self, _level: Level) -> Sequence[Point]:
        """Both ways."""
        return (Point("down"), Point("up", 1.0))

    def lasts(self, _seconds: float, _point: Point) -> float:
        """Bodies at some 500 MiB/s."""
        return 8.0

    def measure(self, lab: Lab, peer: Peer, variant: Variant, point: Point) -> Reading:
        """One body; up goes to a reader that counts and forgets, so to a peer of its own."""
        if not point.value:
            return _moved(peer, lambda size: download(peer.address, HOST, upstream.file(lab.upstream, size)))
        with contextlib.closing(Sink()) as sink:
            other = lab.start(variant.name, upstream=sink.port, checked=False)
            try:
                return _moved(other, lambda size: upload(other.address, HOST, size))
            finally:
                other.stop()


def _moved(peer: Peer, transfer: Callable[[int], int]) -> Reading:
    transfer(BODY // 32)
    time.sleep(LATE)
    settle(peer)
    usage.reset_peak(peer.process.pid)
    resident = peer.resident()
    before = peer.clock()
    moved = transfer(BODY)
    seconds = peer.clock().since(before).seconds
    peak = usage.peak_resident(peer.process.pid) - resident
    faults = {} if moved == BODY else {"bytes that were lost": BODY - moved}
    return Reading({"peak": float(peak), "throughput": BODY / MIB / seconds}, faults)


class Growth(Scenario):
    """Does it leak?"""

    name: ClassVar = "growth"
    title: ClassVar = "Memory left behind by a million requests"
    what: ClassVar = (
        "Resident memory after a million requests, each with a path and a query of its own, less that after the "
        "first hundred thousand, which fill every bounded cache and queue."
    )
    metrics: ClassVar = (Metric("left", "left behind", "B", main=True), Metric("requests", "requests", ""))
    variants: ClassVar = (SPANWAY, PURE)
    fresh: ClassVar = True
    rounds: ClassVar = 1

    def lasts(self, _seconds: float, _point: Point) -> float:
        """At some 20,000 requests a second."""
        return 1.1 * MILLION / 20_000

    def measure(self, lab: Lab, peer: Peer, _variant: Variant, _point: Point) -> Reading:
        """Ten loads and one before them."""
        faults: dict[str, int] = {}
        _varied(lab, peer, MILLION // 10, faults)
        settle(peer)
        before = peer.resident()
        requests = _varied(lab, peer, MILLION, faults)
        settle(peer)
        return Reading({"left": float(peer.resident() - before), "requests": requests}, faults)


def _varied(lab: Lab, peer: Peer, least: int, faults: dict[str, int]) -> int:
    """At least so many requests; returns how many."""
    done = 0
    while done < least and not faults:
        loaded = wrk.run(lab, peer.url, 32, 5.0, script=Path(CONFIG / "varied.lua"))
        done += loaded.requests
        faults.update(loaded.errors)
    return done
