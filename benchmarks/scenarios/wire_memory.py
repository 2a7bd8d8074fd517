"""Does it leak while it looks at packets? Ten minutes of steady load, all of it looked at, or a part as by default."""

from __future__ import annotations

import socket
import statistics
import threading
import time
from collections.abc import Mapping, Sequence
from typing import Any, ClassVar, Final, Self

from benchmarks.lab import Lab
from benchmarks.load import openloop
from benchmarks.measure.collector import endpoints
from benchmarks.measure.samples import Reading
from benchmarks.peers.base import Peer, Variant
from benchmarks.peers.catalogue import SPANWAY
from benchmarks.scenarios.base import Level, Metric, Point, Scenario
from benchmarks.scenarios.wire import SOCKET, counted, listening
from tests.real import usage

RATE: Final = 300.0  # requests a second: a site's, and little of a processor
SHOWN: Final = 10_000  # requests a second that may be shown to the wire: all of them, and those that come late at once
EVERY_ONE: Final = "every request"
BY_DEFAULT: Final = "a part, by default"
SECONDS: Final = 600.0
WARM_UP: Final = 180.0  # packets are kept for 30 s; what the allocator keeps settles in minutes
WINDOW: Final = 60.0  # seconds at the beginning and at the end whose medians are compared
EVERY: Final = 1.0


class WireMemory(Scenario):
    """What ten minutes leave behind in the proxy and in the wire."""

    name: ClassVar = "wire-memory"
    title: ClassVar = "Memory over ten minutes with the wire"
    what: ClassVar = (
        f"{RATE:.0f} requests a second for {SECONDS / 60:.0f} minutes, every one sampled; at the first point all are "
        "shown to the wire, at the second as many as by default, with pauses between; joined with their packets "
        "on the loopback interface and exported; resident memory of all processes of the proxy, and of 'spanway wire', "
        "once a second. Growth is the median of the last minute less that of the fourth: until then, what is bounded "
        "fills. Whatever else uses the loopback interface meanwhile is looked at too. Needs root, or CAP_NET_RAW."
    )
    variants: ClassVar = (SPANWAY,)
    metrics: ClassVar = (
        Metric("proxy", "growth of the proxy", "B", main=True),
        Metric("wire", "growth of the wire", "B", main=True),
        Metric("proxy_pss", "growth of the proxy, shared pages by their share", "B"),
        Metric("wire_pss", "growth of the wire, likewise", "B"),
        Metric("proxy_resident", "resident in the last minute, proxy", "B"),
        Metric("wire_resident", "resident in the last minute, wire", "B"),
        Metric("told", "shown to the wire, of the requests", "", less_is_better=False),
        Metric("joined", "joined of the attempts it was told of", "", less_is_better=False),
        Metric("requests", "requests", ""),
    )
    fresh: ClassVar = True
    full_only: ClassVar = True
    rounds: ClassVar = 1

    def points(self, _level: Level) -> Sequence[Point]:
        """By how much is shown, where packets may be listened to."""
        return (Point(EVERY_ONE, 1.0), Point(BY_DEFAULT, 2.0)) if permitted() else ()

    def place(self, lab: Lab, point: Point) -> Mapping[str, Any]:
        """Where proxy and wire meet; spans are counted and forgotten: another collector's memory is not asked about."""
        met = {"wire": str(lab.folder / SOCKET), "rate": SHOWN if point.label == EVERY_ONE else 0}
        return met | endpoints(lab.sink())

    def lasts(self, _seconds: float, _point: Point) -> float:
        """The load, and the start."""
        return SECONDS + 5.0

    def measure(self, lab: Lab, peer: Peer, _variant: Variant, _point: Point) -> Reading:
        """One long load, and a look at both each second."""
        with (
            listening(lab, ("lo",), otlp=lab.sink().http) as wire,
            Watch({"proxy": peer.process.pid, "wire": wire.pid}) as watch,
        ):
            loaded = openloop.run(lab, peer, RATE, SECONDS)
        said = wire.log.read_text(errors="replace")
        joined, missing = counted(said, "joined"), counted(said, r"missing \(")
        values = watch.growth(WARM_UP, WINDOW)
        values |= {
            "told": (joined + missing) / max(1, loaded.requests),
            "joined": joined / max(1, joined + missing),
            "requests": loaded.requests,
        }
        return Reading(values, dict(loaded.errors))


def permitted() -> bool:
    """Whether this process may listen to packets."""
    try:
        socket.socket(socket.AF_PACKET, socket.SOCK_RAW, 0).close()
    except OSError:
        return False
    return True


class Watch:
    """While open, looks at the memory of processes by name once a second, each with all below it."""

    def __init__(self, pids: Mapping[str, int]) -> None:
        self._pids: Final = dict(pids)
        self._seen: Final[dict[str, list[tuple[float, int, int]]]] = {name: [] for name in pids}
        self._ending: Final = threading.Event()
        self._thread: Final = threading.Thread(target=self._look, name="memory")

    def __repr__(self) -> str:
        return f"Watch({', '.join(f'{name} {len(seen)} times' for name, seen in self._seen.items())})"

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._ending.set()
        self._thread.join()

    def _look(self) -> None:
        begun = time.monotonic()
        while not self._ending.wait(EVERY):
            for name, pid in self._pids.items():
                at = time.monotonic() - begun
                self._seen[name].append((at, usage.resident(pid), usage.proportional(pid)))

    def growth(self, warm_up: float, window: float) -> dict[str, float]:
        """Bytes by which each has grown: the median of the last ``window`` seconds less that after ``warm_up``.

        Raises ValueError where it did not look long enough.
        """
        values: dict[str, float] = {}
        for name, seen in self._seen.items():
            last = seen[-1][0] if seen else 0.0
            early = [each for each in seen if warm_up <= each[0] < warm_up + window]
            late = [each for each in seen if each[0] > last - window]
            if not early or last < warm_up + 2 * window:
                raise ValueError(f"{name} was looked at for {last:.0f} s: too short to compare two times {window:g} s")
            for kind, at in (("", 1), ("_pss", 2)):
                before, after = (statistics.median(each[at] for each in part) for part in (early, late))
                values[f"{name}{kind}"] = after - before
            values[f"{name}_resident"] = statistics.median(each[1] for each in late)
        return values
