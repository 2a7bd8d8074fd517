"""What every peer is: a process tree that listens, pinned, in front of the same upstream."""

from __future__ import annotations

import socket
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from string import Template
from typing import Final

from benchmarks.measure.cpu import TreeClock
from benchmarks.measure.machine import Unfit
from tests.real import parts, usage
from tests.real.big import read_answer
from tests.real.process import Process, ProcessFailed

CONFIG: Final = Path(__file__).with_name("config")
HOST: Final = "bench.test"
LOOPBACK: Final = "127.0.0.1"
CONNECTIONS: Final = 16_384  # more than any measurement opens
RULE: Final = "/team-%d/service-%d/"  # where one of many rules is; see `scenarios.rules`
HOSTS: Final = 100  # that many rules are spread over


@dataclass(frozen=True, slots=True)
class Certificate:
    """A chain and its key, PEM files, and the CA that a client trusts."""

    chain: Path
    key: Path
    authority: Path


@dataclass(frozen=True, slots=True)
class Place:
    """Where and how a peer runs.

    ``cpus`` is a CPU list (taskset(1)), ``upstream`` the upstream's port, ``host`` its address, ``grpc`` and
    ``http`` the collector's OTLP endpoints, ``workers`` how many processes or threads serve, ``rules`` how many routes
    it has: one means all paths of `HOST`. ``ingresses``: how many Ingresses (or servers) it has beside that, and one
    that changes; see `change`.
    ``checked``: it counts as started once it has passed on a request that was answered with 200. ``wire``: the socket
    at which Spanway looks for `spanway wire`, "" for none; ``rate``: how many requests a second it shows there, 0 for
    its default.
    """

    folder: Path
    cpus: str
    upstream: int
    grpc: str
    http: str
    certificate: Certificate
    workers: int = 1
    rules: int = 1
    ingresses: int = 0
    checked: bool = True
    wire: str = ""
    rate: int = 0
    host: str = LOOPBACK


@dataclass(frozen=True, slots=True)
class Peer:
    """One running proxy; ``tls_port`` is 0 where it has none. ``folder`` holds its configuration and its output."""

    name: str
    process: Process
    port: int
    tls_port: int
    folder: Path

    @property
    def address(self) -> tuple[str, int]:
        """Where it listens."""
        return "127.0.0.1", self.port

    @property
    def url(self) -> str:
        """Where the load goes."""
        return f"http://127.0.0.1:{self.port}/"

    @property
    def tls_url(self) -> str:
        """Where load over TLS goes."""
        return f"https://127.0.0.1:{self.tls_port}/"

    def clock(self) -> TreeClock:
        """The CPU time of all its processes so far."""
        return TreeClock.read(self.process.pid)

    def resident(self) -> int:
        """Bytes resident in all its processes."""
        return usage.resident(self.process.pid)

    def stop(self) -> None:
        """End it."""
        self.process.stop()


@dataclass(frozen=True, slots=True)
class Variant:
    """A peer with or without its tracing.

    ``sampled`` is the share of the requests that are traced, None where the program has no tracing at hand. ``spans``
    is how many spans it makes of one sampled request. ``strict`` says that a span which does not arrive is a fault:
    Spanway's promise, which the others do not make. ``part`` is the program, a name of `tests.real.parts`.
    """

    name: str
    title: str
    start: Callable[[Variant, Place], Peer]
    part: str | None = None
    sampled: float | None = None
    spans: int = 0
    strict: bool = False
    pure: bool = False

    @property
    def traced(self) -> bool:
        """Whether any request is traced."""
        return bool(self.sampled)


def needed(part: str) -> Path:
    """Where a part is; raises `Unfit`."""
    try:
        return parts.require(part)
    except parts.PartMissing as missing:
        raise Unfit(str(missing)) from missing


def text(name: str, **values: object) -> str:
    """A configuration of `CONFIG` with its values put in; KeyError for a placeholder without a value."""
    return Template((CONFIG / name).read_text(encoding="utf-8")).substitute(values)


def write(place: Place, name: str, content: str) -> Path:
    """Write a file into a peer's folder."""
    place.folder.mkdir(parents=True, exist_ok=True)
    path = place.folder / name
    path.write_text(content, encoding="utf-8")
    return path


def ready(peer: Peer, *, checked: bool = True) -> Peer:
    """The peer once it listens and, when ``checked``, passes a request on rightly; it is stopped when it does not."""
    try:
        peer.process.until_listening(peer.port)
        if checked:
            peer.process.until(lambda: _answers(peer), "to answer with 200")
    except BaseException:
        peer.stop()
        raise
    return peer


def _answers(peer: Peer) -> bool:
    try:
        return bool(ask(peer.address))
    except (OSError, AssertionError):
        return False


def ask(address: tuple[str, int], path: str = "/", host: str = HOST) -> bytes:
    """One request on a connection of its own; the body of an answer that must be 200."""
    with socket.create_connection(address, timeout=10) as connection:
        connection.sendall(f"GET {path} HTTP/1.1\r\nHost: {host}\r\n\r\n".encode("ascii"))
        return read_answer(connection)


def running(name: str, place: Place, command: list[str | Path], port: int, tls_port: int, **options: object) -> Peer:
    """Start a program and wait until it answers; raises `Unfit` with what it said when it does not."""
    place.folder.mkdir(parents=True, exist_ok=True)
    process = Process(name, command, place.folder / "output.log", cpu=place.cpus, **options)  # type: ignore[arg-type] # Process's own
    try:
        return ready(Peer(name, process, port, tls_port, place.folder), checked=place.checked)
    except ProcessFailed as error:
        raise Unfit(f"{name} does not serve: {error}") from error
