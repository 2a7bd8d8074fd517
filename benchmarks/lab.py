"""The bench: an upstream and a collector on one CPU, the proxies under test on the other."""

from __future__ import annotations

import contextlib
import resource
import subprocess
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Final, Self

from benchmarks.measure import certificate, collector
from benchmarks.measure.machine import Cpus
from benchmarks.peers import upstream
from benchmarks.peers.base import Peer, Place, needed
from benchmarks.peers.catalogue import DIRECT, VARIANTS

LIMIT: Final = 120.0  # seconds that a load may take beyond its own time


class Lab:
    """A context manager; what it starts ends with it.

    ``seconds`` is how long one load lasts, ``answer`` the size of the upstream's answer in bytes.
    """

    def __init__(
        self, folder: Path, *, seconds: float = 5.0, answer: int = upstream.ANSWER, prefer_jaeger: bool = True
    ) -> None:
        raise_file_limit()
        self.cpus: Final = Cpus.choose()
        self.folder: Final = folder
        self.seconds: Final = seconds
        self.wrk: Final = needed("wrk")
        self._started = 0
        self._ends = contextlib.ExitStack()
        self.certificate: Final = certificate.make(folder / "certificate")
        try:
            self.upstream: Final = upstream.start(folder / "upstream", self.cpus.others, answer)
            self._ends.callback(self.upstream.stop)
            self.collector: Final = collector.start(folder / "collector", self.cpus.others, prefer_jaeger=prefer_jaeger)
            self._ends.callback(self.collector.stop)
        except BaseException:
            self._ends.close()
            raise

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._ends.close()

    def __repr__(self) -> str:
        return f"Lab({self.folder}, {self.cpus}, {self._started} peers started)"

    def start(self, name: str, **changes: Any) -> Peer:
        """A fresh proxy by its variant's name; ``changes`` are fields of `Place`. Raises `Unfit`."""
        if name == DIRECT:
            return self.upstream
        self._started += 1
        place = self.place(f"{self._started}-{name}", **changes)
        peer = VARIANTS[name].start(VARIANTS[name], place)
        self._ends.callback(peer.stop)
        return peer

    def place(self, folder: str, **changes: Any) -> Place:
        """Where a peer would run."""
        path = self.folder / "peers" / folder
        path.mkdir(parents=True)
        values: dict[str, Any] = {
            "cpus": str(self.cpus.proxy),
            "upstream": self.upstream.port,
            "grpc": self.collector.grpc,
            "http": self.collector.http,
            "certificate": self.certificate,
        }
        return Place(folder=path, **(values | changes))

    def load(self, command: Sequence[str | Path], seconds: float) -> str:
        """Run a load generator on the other CPU and return what it printed; raises RuntimeError when it hangs."""
        pinned = ["taskset", "--cpu-list", str(self.cpus.others), *map(str, command)]
        try:
            done = subprocess.run(
                pinned, capture_output=True, text=True, timeout=seconds + LIMIT, check=False, stdin=subprocess.DEVNULL
            )
        except subprocess.TimeoutExpired as error:
            raise RuntimeError(f"{command[0]} did not end within {seconds + LIMIT:.0f} s") from error
        return done.stdout + done.stderr


def raise_file_limit() -> None:
    """Allow as many open files as this user may: what is started inherits it."""
    _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
