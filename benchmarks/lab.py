"""The bench: an upstream and a collector on one CPU, the proxies under test on the other."""

from __future__ import annotations

import contextlib
import resource
import subprocess
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Final, Self

from benchmarks.measure import certificate, collector
from benchmarks.measure.collector import Collector, JaegerCollector, Sink
from benchmarks.measure.machine import Cpus
from benchmarks.measure.node import Node
from benchmarks.measure.priority import yielding
from benchmarks.peers import upstream
from benchmarks.peers.base import Peer, Place, needed
from benchmarks.peers.catalogue import DIRECT, VARIANTS
from proxy.demo.lab.plan import Kind
from tests.real.process import Process

LIMIT: Final = 120.0  # seconds that a load may take beyond its own time


class Lab:
    """A context manager; what it starts ends with it.

    ``seconds`` is how long one load lasts, ``answer`` the size of the upstream's answer in bytes; ``jaeger``: spans go
    to it where a scenario does not choose, in place of the sink.
    """

    def __init__(
        self, folder: Path, *, seconds: float = 5.0, answer: int = upstream.ANSWER, jaeger: bool = False
    ) -> None:
        raise_file_limit()
        self.cpus: Final = Cpus.choose()
        self.folder: Final = folder
        self.seconds: Final = seconds
        self.wrk: Final = needed("wrk")
        self.facts: Final[dict[str, float]] = {}  # what one scenario learned once and asks again
        self.rounds: Final[dict[str, list[float]]] = {}  # the same, of many rounds
        self._sinks: dict[float, Sink] = {}
        self._nodes: dict[Kind, Node] = {}
        self._jaeger: JaegerCollector | None = None
        self._started = 0
        self._ends = contextlib.ExitStack()
        self.certificate: Final = certificate.make(folder / "certificate")
        try:
            self.upstream: Final = upstream.start(folder / "upstream", self.cpus.others, answer)
            self._ends.callback(self.upstream.stop)
            self.collector: Final[Collector] = self.jaeger() if jaeger else self.sink()
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
            "certificate": self.certificate,
        }
        return Place(folder=path, **(values | collector.endpoints(self.collector) | changes))

    def load(self, command: Sequence[str | Path], seconds: float) -> str:
        """Run a load generator on its CPU and return what it printed; raises RuntimeError when it hangs."""
        return self.run(["taskset", "--cpu-list", str(self.cpus.load), *map(str, command)], seconds)

    def unhurried(self) -> contextlib.AbstractContextManager[None]:
        """While open, the collectors leave their CPU to the load and the upstream: for loads that leave it time."""
        jaeger = () if self._jaeger is None else (self._jaeger,)
        return yielding(each.pid for each in (*jaeger, *self._sinks.values()))

    def run(self, command: Sequence[str], seconds: float, cwd: Path | None = None) -> str:
        """Run a program that should take ``seconds``; raises RuntimeError when it takes `LIMIT` more."""
        try:
            done = subprocess.run(
                command,
                capture_output=True,
                text=True,
                timeout=seconds + LIMIT,
                check=False,
                stdin=subprocess.DEVNULL,
                cwd=cwd,
            )
        except subprocess.TimeoutExpired as error:
            raise RuntimeError(f"{command[0]} did not end within {seconds + LIMIT:.0f} s") from error
        return done.stdout + done.stderr

    def background(self, name: str, command: Sequence[str | Path], **options: Any) -> Process:
        """Start a helper that ends with the bench."""
        self._started += 1
        process = Process(name, command, self.folder / f"{self._started}-{name}.log", **options)
        self._ends.callback(process.stop)
        return process

    def node(self, kind: Kind) -> Node:
        """Network namespaces with a switch of this kind between, made once; raises `Unfit` where they cannot be."""
        if kind not in self._nodes:
            self._nodes[kind] = Node(self.folder / f"node-{kind}", kind, self.cpus.others)
            self._ends.callback(self._nodes[kind].close)
        return self._nodes[kind]

    def sink(self, delay: float = 0.0) -> Sink:
        """A collector that counts bytes, started once for each delay (seconds)."""
        if delay not in self._sinks:
            self._sinks[delay] = Sink(self.folder / f"sink-{delay}", self.cpus.others, delay)
            self._ends.callback(self._sinks[delay].stop)
        return self._sinks[delay]

    def jaeger(self) -> JaegerCollector:
        """Jaeger, started once. Raises `Unfit` where there is none."""
        if self._jaeger is None:
            self._jaeger = collector.start_jaeger(self.folder / "jaeger", self.cpus.others)
            self._ends.callback(self._jaeger.stop)
        return self._jaeger


def raise_file_limit() -> None:
    """Allow as many open files as this user may: what is started inherits it."""
    _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
