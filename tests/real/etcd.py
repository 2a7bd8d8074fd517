"""A real etcd of one member, in a folder of its own."""

from __future__ import annotations

import base64
import json
import urllib.request
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Final, Self

from tests.real.process import Process, free_ports


class Etcd:
    """Serves on loopback, without TLS; what it is told survives `stop` and `start`, not the folder."""

    def __init__(self, program: Path, folder: Path) -> None:
        folder.mkdir(parents=True, exist_ok=True)
        clients, peers = (f"http://127.0.0.1:{port}" for port in free_ports(2))
        self.url: Final = clients
        self._folder = folder
        self._command = (
            program,
            f"--data-dir={folder / 'data'}",
            f"--listen-client-urls={clients}",
            f"--advertise-client-urls={clients}",
            f"--listen-peer-urls={peers}",
            f"--initial-advertise-peer-urls={peers}",
            f"--initial-cluster=default={peers}",
            "--unsafe-no-fsync",  # a test's data need not survive the machine
        )
        self.start()

    def start(self) -> None:
        """Run it (again)."""
        self.process = Process("etcd", self._command, self._folder / "etcd.log")
        try:
            self.process.until_listening(int(self.url.rpartition(":")[2]))
        except BaseException:
            self.process.stop()
            raise

    def stop(self) -> None:
        """End it."""
        self.process.stop()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.stop()

    def revision(self) -> int:
        """The newest revision: Kubernetes' resourceVersion is made of it."""
        key = base64.b64encode(b"none").decode()
        return int(self._ask("kv/range", {"key": key})["header"]["revision"])

    def compact(self) -> int:
        """Forget everything before now; returns the revision of now."""
        revision = self.revision()
        self._ask("kv/compaction", {"revision": str(revision), "physical": True})
        return revision

    def _ask(self, call: str, body: Mapping[str, Any]) -> Any:
        """One call by the HTTP gateway of etcd's gRPC API."""
        request = urllib.request.Request(f"{self.url}/v3/{call}", json.dumps(body).encode(), method="POST")
        with urllib.request.urlopen(request, timeout=10) as response:
            return json.load(response)
