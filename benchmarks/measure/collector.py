"""The collectors of the measurements: a small sink of our own that counts bytes as well, and Jaeger without storage."""

from __future__ import annotations

import json
import socket
import sys
from pathlib import Path
from typing import Final, NamedTuple, Protocol

from benchmarks.measure.machine import ROOT, Unfit
from tests.real import parts
from tests.real.jaeger import Jaeger
from tests.real.process import Process, free_ports


class Received(NamedTuple):
    """What has arrived so far; ``bytes`` are of OTLP payload, before any compression, and 0 where nobody counts."""

    spans: int
    bytes: int
    calls: int


class Collector(Protocol):
    """Something that receives OTLP over gRPC and HTTP, and counts."""

    @property
    def name(self) -> str:
        """What it is."""

    @property
    def grpc(self) -> str:
        """Its gRPC endpoint, as OTEL_EXPORTER_OTLP_ENDPOINT has it."""

    @property
    def http(self) -> str:
        """Its HTTP endpoint."""

    def received(self) -> Received:
        """What has arrived so far."""

    @property
    def pid(self) -> int:
        """Its process."""

    def stop(self) -> None:
        """End it."""


class JaegerCollector:
    """Jaeger's OTLP receiver: every span is decoded, counted and let go."""

    name: Final = f"Jaeger {parts.JAEGER_VERSION}, OTLP receiver"

    def __init__(self, program: Path, folder: Path, cpu: int) -> None:
        self._jaeger = Jaeger(program, folder, storage=False, cpu=cpu)
        self.grpc: Final = self._jaeger.endpoint("grpc")
        self.http: Final = self._jaeger.endpoint("http/protobuf")

    def received(self) -> Received:
        """What has arrived so far."""
        return Received(self._jaeger.accepted_spans(), 0, 0)

    @property
    def pid(self) -> int:
        """Its process."""
        return self._jaeger.process.pid

    def stop(self) -> None:
        """End it."""
        self._jaeger.process.stop()


class Sink:
    """`benchmarks.measure.sink` in a process of its own.

    ``delay`` (seconds) makes it a slow collector: every call is answered that late.
    """

    name: Final = "a sink that decodes and counts between loads"

    def __init__(self, folder: Path, cpu: int, delay: float = 0.0) -> None:
        folder.mkdir(parents=True, exist_ok=True)
        grpc, http, self._count_port = free_ports(3)
        self.grpc: Final = f"http://127.0.0.1:{grpc}"
        self.http: Final = f"http://127.0.0.1:{http}"
        # Load and upstream, which it would not disturb from another machine, go first; it keeps a share.
        command = [
            "nice",
            "-n",
            "5",
            sys.executable,
            "-m",
            "benchmarks.measure.sink",
            *map(str, (grpc, http, self._count_port, delay)),
        ]
        self._process = Process("collector", command, folder / "collector.log", cwd=ROOT, cpu=cpu)
        self._process.until_listening(self._count_port)

    def received(self) -> Received:
        """What has arrived so far."""
        with socket.create_connection(("127.0.0.1", self._count_port), timeout=10) as connection:
            return Received(*json.loads(connection.makefile("rb").read()))

    @property
    def pid(self) -> int:
        """Its process."""
        return self._process.pid

    def stop(self) -> None:
        """End it."""
        self._process.stop()


def endpoints(collector: Collector) -> dict[str, str]:
    """Where a peer sends its spans, as fields of `benchmarks.peers.base.Place`."""
    return {"grpc": collector.grpc, "http": collector.http}


def start_jaeger(folder: Path, cpu: int) -> JaegerCollector:
    """Jaeger as the collector. Raises `Unfit` where it is not installed."""
    program = parts.find("jaeger")
    if program is None:
        raise Unfit("Jaeger is not installed (./dev test installs it): leave --collector jaeger out")
    return JaegerCollector(program, folder, cpu)
