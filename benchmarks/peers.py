"""The proxies that are measured, started alike: one worker, on one CPU, in front of the same upstream."""

from __future__ import annotations

import os
import sys
from dataclasses import dataclass
from pathlib import Path
from string import Template
from typing import Final

from benchmarks.machine import ROOT, Unfit
from tests.real import parts, usage
from tests.real.nginx import Nginx
from tests.real.process import Process, free_ports

CONFIG: Final = Path(__file__).with_name("config")
HOST: Final = "bench.test"
CONNECTIONS: Final = 16_384  # more than any measurement opens


@dataclass(frozen=True, slots=True)
class Peer:
    """One running proxy."""

    name: str
    process: Process
    port: int
    traced: bool = False

    @property
    def address(self) -> tuple[str, int]:
        """Where it listens."""
        return "127.0.0.1", self.port

    @property
    def url(self) -> str:
        """Where the load goes."""
        return f"http://127.0.0.1:{self.port}/"

    @property
    def pids(self) -> list[int]:
        """All its processes: master, supervisor, workers."""
        return usage.descendants(self.process.pid)

    def cpu_ns(self) -> int:
        """CPU nanoseconds of all its processes and threads so far."""
        return usage.cpu_ns(self.pids)

    def resident(self) -> int:
        """Bytes resident in all its processes."""
        return usage.resident(self.process.pid)

    def stop(self) -> None:
        """End it."""
        self.process.stop()


@dataclass(frozen=True, slots=True)
class Place:
    """Where a peer runs: its folder, its CPU, and the upstream's port."""

    folder: Path
    cpu: int
    upstream: int


def needed(part: str) -> Path:
    """Where a part is; raises `Unfit`."""
    try:
        return parts.require(part)
    except parts.PartMissing as missing:
        raise Unfit(str(missing)) from missing


def text(name: str, **values: object) -> str:
    """A configuration of this folder with its values put in."""
    return Template((CONFIG / name).read_text()).substitute(values)


def start_upstream(folder: Path, cpu: int, answer: int) -> Nginx:
    """nginx with one file of ``answer`` bytes behind every path, and every other file of ``folder``/root."""
    root = folder / "root"
    root.mkdir(parents=True, exist_ok=True)
    (root / "answer").write_bytes((b"Spanway measures. " * (answer // 18 + 1))[:answer])
    (port,) = free_ports(1)
    http = text("upstream.conf", port=port, root=root, answer="answer")
    return Nginx(needed("nginx"), folder, http, port, connections=CONNECTIONS, cpu=cpu)


def start_nginx(name: str, place: Place) -> Peer:
    """Stock nginx with one worker."""
    (port,) = free_ports(1)
    http = text("nginx.conf", port=port, upstream=place.upstream)
    nginx = Nginx(needed("nginx"), place.folder, http, port, connections=CONNECTIONS, cpu=place.cpu)
    return Peer(name, nginx.process, port)


def start_haproxy(name: str, place: Place) -> Peer:
    """HAProxy with one thread."""
    (port,) = free_ports(1)
    place.folder.mkdir(parents=True)
    configuration = place.folder / "haproxy.cfg"
    configuration.write_text(text("haproxy.cfg", port=port, upstream=place.upstream))
    command = (needed("haproxy"), "-W", "-db", "-f", configuration)
    return _ready(Peer(name, Process(name, command, place.folder / "haproxy.log", cpu=place.cpu), port))


def start_spanway(name: str, place: Place, endpoint: str, *, traced: bool = True) -> Peer:
    """Spanway with one worker, exporting over gRPC to ``endpoint`` with its exporter's defaults.

    Without ``traced`` no request is sampled; all else is the same.
    """
    (port,) = free_ports(1)
    place.folder.mkdir(parents=True)
    command = [sys.executable, "-m", "proxy", "serve", "--ingress", str(CONFIG / "ingress.yaml")]
    command += ["--upstream", f"bench=127.0.0.1:{place.upstream}"]
    command += ["--http", f"127.0.0.1:{port}", "--admin", "127.0.0.1:0", "--workers", "1", "--access-log", "off"]
    command += ["--otlp", endpoint, "--otlp-protocol", "grpc"]
    environ = {key: value for key, value in os.environ.items() if not key.startswith(("OTEL_", "SPANWAY_"))}
    environ |= {"PYTHONUNBUFFERED": "1", "OTEL_TRACES_SAMPLER": "parentbased_always_on" if traced else "always_off"}
    process = Process(name, command, place.folder / "spanway.log", environ=environ, cwd=ROOT, cpu=place.cpu)
    try:
        process.expect(r"^spanway: ready", within=30.0)
    except BaseException:
        process.stop()
        raise
    return _ready(Peer(name, process, port, traced))


def _ready(peer: Peer) -> Peer:
    try:
        peer.process.until_listening(peer.port)
    except BaseException:
        peer.stop()
        raise
    return peer
