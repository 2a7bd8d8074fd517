"""The proxy under test, as a user starts it: a subprocess, manifests on disk, ports chosen by the kernel."""

from __future__ import annotations

import contextlib
import json
import os
import re
import signal
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Mapping
from pathlib import Path
from types import TracebackType
from typing import Any, Self

import psutil

from tests.harness import poll, prometheus
from tests.harness.client import Client
from tests.harness.collector import Collector

ROOT = Path(__file__).resolve().parents[2]
#: Seconds from start to ready; a start takes about one.
START = 30.0

_LISTENER = re.compile(r"^spanway: (http|https|admin) +https?://\[?([0-9a-fA-F.:]+?)\]?:([0-9]+)", re.MULTILINE)
_READY = re.compile(r"^spanway: ready", re.MULTILINE)
#: The metric that counts a request exactly once (OpenTelemetry http.server.request.duration).
REQUESTS = "http_server_request_duration_seconds_count"
FORM = "SPANWAY_PURE"


def unsettled() -> dict[str, str]:
    """This process's environment without what sets the proxy, but for which of its two forms is tested."""
    settings = ("OTEL_", "SPANWAY_")
    return {name: value for name, value in os.environ.items() if not name.startswith(settings) or name == FORM}


class Proxy:
    """One running `spanway serve`.

    ``manifests`` maps file names to YAML; ``arguments`` are further flags, ``settings`` entries of the `--config`
    file (dotted names), ``environment`` further variables.
    """

    def __init__(
        self,
        folder: Path,
        manifests: Mapping[str, str] | str,
        *arguments: str,
        collector: Collector | None = None,
        settings: Mapping[str, object] | None = None,
        environment: Mapping[str, str] | None = None,
        workers: int = 1,
        https: bool = False,
        ready: bool = True,
    ) -> None:
        folder.mkdir(parents=True, exist_ok=True)
        self.folder = folder
        self.manifests = folder / "manifests"
        self.manifests.mkdir()
        for name, text in ({"site.yaml": manifests} if isinstance(manifests, str) else manifests).items():
            self.write(name, text)
        self.access_log = folder / "access.log"
        self.stderr = folder / "stderr"
        command = [sys.executable, "-m", "proxy", *self.command()]
        command += ["--http", "127.0.0.1:0", "--admin", "127.0.0.1:0", "--workers", str(workers)]
        command += ["--access-log", str(self.access_log)]
        command += ["--https", "127.0.0.1:0"] if https else []
        if collector is not None:
            command += ["--otlp", collector.url, "--otlp-protocol", collector.protocol]
        if settings:
            command += _options(folder, settings)
        command += arguments
        inherited = unsettled()
        inherited |= {"OTEL_BSP_SCHEDULE_DELAY": "20", "PYTHONUNBUFFERED": "1"} | dict(environment or {})
        with self.stderr.open("wb") as stream:
            self.process = subprocess.Popen(
                command, cwd=ROOT, env=inherited, stdin=subprocess.DEVNULL, stdout=stream, stderr=stream
            )
        self.listeners: dict[str, tuple[str, int]] = {}
        if ready:
            try:
                self._await_ready()
            except BaseException:
                self.kill()
                raise

    def command(self) -> list[str]:
        """The command and what it serves."""
        return ["serve", "--ingress", str(self.manifests)]

    def _await_ready(self) -> None:
        deadline = time.monotonic() + START
        while not _READY.search(self.said()):
            if self.process.poll() is not None:
                raise AssertionError(f"the proxy ended with {self.process.returncode}:\n{self.said()}")
            if time.monotonic() > deadline:
                raise AssertionError(f"the proxy is not ready after {START:g} s:\n{self.said()}")
            time.sleep(0.01)
        self.find_listeners()
        poll.until(lambda: self.admin("/readyz")[0] == 200, "/readyz")

    # Where it is, what it says.

    def find_listeners(self) -> None:
        """Take the listeners from what it has said so far; one that was started to get ready has them already."""
        self.listeners = {kind: (host, int(port)) for kind, host, port in _LISTENER.findall(self.said())}

    @property
    def address(self) -> tuple[str, int]:
        """The HTTP listener."""
        return self.listeners["http"]

    @property
    def tls_address(self) -> tuple[str, int]:
        """The HTTPS listener."""
        return self.listeners["https"]

    def said(self) -> str:
        """Its standard error (and output) so far."""
        return self.stderr.read_text(errors="replace")

    def client(self, **options: Any) -> Client:
        """A new connection to the HTTP listener."""
        return Client(self.address, **options)

    def admin(self, path: str, accept: str = "*/*") -> tuple[int, str]:
        """Status and body of an admin page; (0, reason) when it does not answer."""
        host, port = self.listeners["admin"]
        request = urllib.request.Request(f"http://{host}:{port}{path}", headers={"Accept": accept})
        try:
            with urllib.request.urlopen(request, timeout=10) as reply:
                return reply.status, reply.read().decode()
        except urllib.error.HTTPError as error:
            with error:
                return error.code, error.read().decode()
        except OSError as error:
            return 0, str(error)

    def admin_json(self, path: str) -> Any:
        """A JSON admin page."""
        status, body = self.admin(path, "application/json")
        assert status == 200, (path, status, body)
        return json.loads(body)

    def metrics(self) -> prometheus.Samples:
        """/metrics, parsed."""
        status, body = self.admin("/metrics")
        assert status == 200, body
        return prometheus.parse(body)

    def log(self) -> list[dict[str, Any]]:
        """The access log's records so far; a line still being written is left out."""
        if not self.access_log.exists():
            return []
        return [
            json.loads(line) for line in self.access_log.read_text().splitlines(keepends=True) if line.endswith("\n")
        ]

    # Its configuration and its life.

    def write(self, name: str, text: str) -> None:
        """Replace a manifest file at once, as `kubectl` and editors do: write beside it, rename."""
        beside = self.folder / (name + ".new")
        beside.write_text(text)
        beside.replace(self.manifests / name)

    def generation(self) -> int:
        """The table generation /routes shows."""
        return int(self.admin_json("/routes")["generation"])

    def served(self) -> list[int]:
        """The generation of each worker."""
        return [worker["generation"] for worker in self.admin_json("/routes")["workers"] if worker["pid"]]

    def applied(self, before: int) -> None:
        """Wait until a generation later than ``before`` is served by every worker."""
        poll.until(lambda: min(self.served(), default=0) > before, f"a generation after {before} in every worker")
        poll.until(lambda: self.admin("/readyz")[0] == 200, "/readyz")  # which forgives a worker that is behind

    def family(self) -> list[psutil.Process]:
        """Its living child processes."""
        try:
            children = psutil.Process(self.process.pid).children(recursive=True)
            return [child for child in children if child.status() != psutil.STATUS_ZOMBIE]
        except psutil.NoSuchProcess:
            return []

    def workers(self) -> list[int]:
        """Process ids of the workers: the children that do not hold the admin listener."""
        admin = self.listeners["admin"][1]
        return [child.pid for child in self.family() if admin not in _listening(child)]

    def terminate(self) -> None:
        """SIGTERM: drain."""
        self.process.send_signal(signal.SIGTERM)

    def wait(self, timeout: float = 20.0) -> int:
        """Its exit status."""
        return self.process.wait(timeout)

    def kill(self) -> None:
        """SIGKILL to it and its workers, if it is still there."""
        if self.process.poll() is None:
            orphans = self.family()
            self.process.kill()
            self.process.wait()
            for child in orphans:
                with contextlib.suppress(psutil.NoSuchProcess):
                    child.kill()

    def stop(self) -> None:
        """End it the polite way, then for certain."""
        if self.process.poll() is None:
            self.terminate()
            with contextlib.suppress(subprocess.TimeoutExpired):
                self.process.wait(5)
        self.kill()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.stop()


def _listening(process: psutil.Process) -> set[int]:
    """The TCP ports a process listens on; none once it is gone."""
    try:
        found = process.net_connections("tcp")
    except (psutil.NoSuchProcess, psutil.AccessDenied):
        return set()
    return {item.laddr.port for item in found if item.status == psutil.CONN_LISTEN}


def _options(folder: Path, settings: Mapping[str, object]) -> list[str]:
    """``settings`` (dotted names of `proxy.settings`) as a `--config` file; JSON's scalars and lists are TOML's too."""
    path = folder / "config.toml"
    path.write_text("".join(f"{name} = {json.dumps(value)}\n" for name, value in settings.items()))
    return ["--config", str(path)]
