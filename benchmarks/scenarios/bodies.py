"""Bodies both ways: CPU per MiB from 1 KiB to 64 MiB, with a length and in chunks."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import ClassVar, Final

from benchmarks.lab import Lab
from benchmarks.load import h2load, wrk
from benchmarks.measure.samples import Reading
from benchmarks.peers import upstream
from benchmarks.peers.base import CONFIG, Peer, Variant
from benchmarks.peers.catalogue import UNTRACED
from benchmarks.scenarios.base import PROGRAMS, Level, Metric, Point, Scenario, Watch

KIB: Final = 1024
MIB: Final = 1024 * KIB
CONNECTIONS: Final = 8
SIZES: Final = {"1 KiB": KIB, "64 KiB": 64 * KIB, "1 MiB": MIB, "16 MiB": 16 * MIB, "64 MiB": 64 * MIB}


class Bodies(Scenario):
    """What a byte costs."""

    name: ClassVar = "bodies"
    title: ClassVar = "CPU time per MiB of body"
    what: ClassVar = (
        f"{CONNECTIONS} connections as fast as they go; down: answers of files that nginx sends, up: POST to an "
        "upstream that reads the whole body and then answers; chunked: without a length, in chunks of 16 KiB up, "
        "as nginx makes them down. CPU time of the proxy over body bytes moved."
    )
    metrics: ClassVar = (
        Metric("cpu", "CPU per MiB", "us", main=True),
        Metric("user", "of it in user mode", "us"),
        Metric("system", "of it in the kernel", "us"),
        Metric("throughput", "moved", "MiB/s", less_is_better=False),
        Metric("per_core", "one core can pay for", "MiB/s", less_is_better=False),
    )
    variants: ClassVar = (*PROGRAMS, UNTRACED)
    quick: ClassVar = True
    axis: ClassVar = ""

    def points(self, level: Level) -> Sequence[Point]:
        """1 MiB down tells most."""
        labels = {
            Level.QUICK: ["1 MiB down"],
            Level.NORMAL: [
                "1 KiB down",
                "1 MiB down",
                "64 MiB down",
                "1 MiB up",
                "1 MiB down chunked",
                "1 MiB up chunked",
            ],
            Level.FULL: [
                *(f"{size} down" for size in SIZES),
                *(f"{size} up" for size in ("1 KiB", "1 MiB", "64 MiB")),
                *(f"{size} {way} chunked" for way in ("down", "up") for size in ("1 MiB", "64 MiB")),
            ],
        }[level]
        return [Point(label, SIZES[" ".join(label.split()[:2])]) for label in labels]

    def measure(self, lab: Lab, peer: Peer, _variant: Variant, point: Point) -> Reading:
        """One load, after a second of it that is dropped."""
        self._load(lab, peer, point, 1.0)
        before = Watch.begin(lab, peer)
        moved, seconds, errors = self._load(lab, peer, point, lab.seconds)
        noise = before.noise(lab, peer, seconds)
        values = before.spent(peer, moved / MIB)
        values |= {"throughput": moved / MIB / seconds, "per_core": 1e6 / values["cpu"]}
        return Reading(values, errors, noise)

    @staticmethod
    def _load(lab: Lab, peer: Peer, point: Point, seconds: float) -> tuple[float, float, Mapping[str, int]]:
        """Body bytes, seconds, errors. Down, what came of unfinished answers counts; up, whole requests only."""
        size = int(point.value)
        path = upstream.file(lab.upstream, size)
        if "down" in point.label:
            prefix = "/chunked" if "chunked" in point.label else ""
            loaded = wrk.run(lab, peer.url.rstrip("/") + prefix + path, CONNECTIONS, seconds)
            return loaded.bytes, loaded.seconds, loaded.errors
        if "chunked" in point.label:
            loaded = wrk.run(lab, peer.url + "sink", CONNECTIONS, seconds, script=_chunked(lab, size))
            return loaded.requests * size, loaded.seconds, loaded.errors
        posted = h2load.run(
            lab, peer, "/sink", CONNECTIONS, seconds, options=["-d", str(lab.upstream.folder / "root" / path[1:])]
        )
        return posted.requests * size, posted.seconds, posted.errors


def _chunked(lab: Lab, size: int) -> Path:
    """The script that posts ``size`` bytes in chunks."""
    path = lab.folder / f"chunked-{size}.lua"
    path.write_text(f"local size = {size}\n" + (CONFIG / "chunked.lua").read_text())
    return path
