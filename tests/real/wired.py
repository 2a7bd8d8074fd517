"""A lab with everything in it: proxy, `spanway wire`, a backend, and a collector of the wire's spans."""

from __future__ import annotations

import contextlib
import json
import os
import subprocess
import sys
import threading
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, Final, NamedTuple

from proxy.demo.lab.commands import inside
from proxy.demo.lab.lab import Lab
from tests.harness import manifests, poll, prometheus
from tests.harness.collector import Span, decode
from tests.harness.proxy import ROOT, unsettled
from tests.real.process import Process, free_ports
from tests.real.sink import Sink

BACKEND_PORT: Final = 8000
PROXY_PORT: Final = 8100
SPANWAY: Final = str(Path(sys.executable).with_name("spanway"))


class Answered(NamedTuple):
    """One request of the load: its trace, its status, and when the backend worked on it (Unix nanoseconds)."""

    trace: str
    status: int
    begun_ns: int
    ended_ns: int


class Wired:
    """What runs in a lab. ``wire`` and ``proxy`` are processes, ``spans`` the wire's so far, by trace id."""

    def __init__(self, lab: Lab, folder: Path, *, interfaces: str = "auto", flags: Sequence[str] = ()) -> None:
        self.lab: Final = lab
        self.folder: Final = folder
        self.socket: Final = folder / "wire.sock"
        self.admin_port, _ = free_ports(2)
        self.sink: Final = Sink()
        self._interfaces = interfaces
        self._flags = flags
        pod = lab.backends["app"]
        self.backend: Final = self._within(
            "backend", pod.namespace, sys.executable, "-m", "tests.real.wire_backend", pod.address, str(BACKEND_PORT)
        )
        self.wire = self.start_wire()
        self.proxy = self.start_proxy()

    def _within(self, name: str, namespace: str | None, *command: str) -> Process:
        environ = {**unsettled(), "PYTHONPATH": str(ROOT)}
        return Process(name, [*inside(namespace), *command], self.folder / f"{name}.log", environ=environ)

    def start_wire(self, *flags: str) -> Process:
        """Start `spanway wire` (again)."""
        command = (
            SPANWAY, "wire", "--interfaces", self._interfaces, "--socket", str(self.socket),
            "--otlp", self.sink.endpoint, "--otlp-protocol", "http/protobuf", "--admin", str(self.admin_port),
        )  # fmt: skip
        self.wire = self._within("wire", None, *command, *self._flags, *flags)
        self.wire.expect(f"spanway: wire {self.socket}", within=20.0)
        return self.wire
