"""Real nginx from a configuration that the test writes."""

from __future__ import annotations

import os
import signal
from pathlib import Path
from typing import Final, Self

from tests.real.process import Process

TEMPORARY: Final = ("client_body", "proxy", "fastcgi", "uwsgi", "scgi")


class Nginx:
    """nginx with everything it writes in ``folder``.

    ``http`` is what stands inside its http block, ``port`` one it listens on, to tell when it serves. ``main`` are
    further directives of the main context.
    """

    def __init__(
        self,
        program: Path,
        folder: Path,
        http: str,
        port: int,
        *,
        main: str = "worker_processes 1;",
        connections: int = 4096,
        cpu: int | str | None = None,
    ) -> None:
        folder.mkdir(parents=True, exist_ok=True)
        self.port: Final = port
        self._folder = folder
        self._main = main
        self._connections = connections
        self._command = (program, "-e", "stderr", "-p", folder, "-c", folder / "nginx.conf", "-g", "daemon off;")
        self._cpu = cpu
        self.configure(http)
        self.process = self._start()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.stop()

    def configure(self, http: str) -> None:
        """Write the configuration; `reload` or `start` makes nginx read it."""
        temporary = "".join(f"    {name}_temp_path {self._folder}/{name};\n" for name in TEMPORARY)
        user = "user root;\n" if os.geteuid() == 0 else ""  # its workers must read the test's own folder
        (self._folder / "nginx.conf").write_text(
            f"{user}{self._main}\n"
            f"pid {self._folder}/nginx.pid;\n"
            "error_log stderr warn;\n"
            f"worker_rlimit_nofile {self._connections * 2 + 256};\n"
            f"events {{ worker_connections {self._connections}; }}\n"
            f"http {{\n    access_log off;\n{temporary}{http}\n}}\n"
        )

    def start(self) -> None:
        """Run it again after `stop`."""
        self.process = self._start()

    def stop(self) -> None:
        """End it at once: connections are cut, the port is closed."""
        self.process.stop()

    def reload(self) -> None:
        """Let it read its configuration anew: new workers, while the old ones finish what they have."""
        workers = self.workers()
        self.process.signal(signal.SIGHUP)
        self.process.until(lambda: not set(workers) & set(self.workers()), "to replace its workers")

    def workers(self) -> list[int]:
        """Process ids of the workers that accept: not of those that finish their last requests."""
        children = Path(f"/proc/{self.process.pid}/task/{self.process.pid}/children").read_text().split()
        return [int(pid) for pid in children if _title(pid) == b"worker process"]

    def _start(self) -> Process:
        process = Process("nginx", self._command, self._folder / "nginx.log", cpu=self._cpu)
        try:
            process.until_listening(self.port)
        except BaseException:
            process.stop()
            raise
        return process


def _title(pid: str) -> bytes:
    """What a child says it is: "worker process", later "worker process is shutting down"; empty once it has gone."""
    try:
        text = Path(f"/proc/{pid}/cmdline").read_bytes()
    except (FileNotFoundError, ProcessLookupError):
        return b""
    return text.partition(b": ")[2].rstrip(b"\0 ")
