"""Real processes under test: each in its own process group, its output in a file, its end certain."""

from __future__ import annotations

import atexit
import contextlib
import os
import random
import re
import shutil
import signal
import socket
import subprocess
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Final, Self

POLL: Final = 0.02  # seconds between two looks at something that has no event to wait for
_LIVE: Final[set[Process]] = set()


class ProcessFailed(Exception):
    """A process that ended, or did not get ready, with the end of what it printed."""


class Process:
    """One started program; a context manager that ends it and everything it started.

    The program leads a process group of its own and gets SIGTERM should this process die first. (Not a session:
    sched(7) weighs each session as one task, and no priority among the programs of a benchmark would count.) ``log``
    receives both its streams. ``cpu`` pins it (and all that it starts) to one CPU, or to a list as taskset(1) has it.
    ``pass_fds`` stay open in it.
    """

    def __init__(
        self,
        name: str,
        argv: Sequence[str | os.PathLike[str]],
        log: Path,
        *,
        environ: Mapping[str, str] | None = None,
        cwd: Path | None = None,
        cpu: int | str | None = None,
        pass_fds: Sequence[int] = (),
    ) -> None:
        self.name = name
        self.log = log
        self._offset = log.stat().st_size if log.exists() else 0  # a restart appends; earlier output is not its own
        command = [os.fspath(word) for word in argv]
        if cpu is not None:
            command = ["taskset", "--cpu-list", str(cpu), *command]
        if shutil.which("setpriv"):
            command = ["setpriv", "--pdeathsig", "TERM", "--", *command]  # each of these execs: the pid stays ours
        with log.open("ab") as output:
            self._popen = subprocess.Popen(
                command,
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=subprocess.STDOUT,
                env=None if environ is None else dict(environ),
                cwd=cwd,
                process_group=0,
                pass_fds=pass_fds,
            )
        self.pid: Final = self._popen.pid
        _LIVE.add(self)

    def __repr__(self) -> str:
        state = "running" if self.running else f"ended with {self._popen.returncode}"
        return f"Process({self.name}, pid {self.pid}, {state})"

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.stop()

    @property
    def running(self) -> bool:
        """Whether it has not ended; never reaps, so that the pid cannot become another's."""
        if self._popen.returncode is not None:
            return False
        return os.waitid(os.P_PID, self.pid, os.WEXITED | os.WNOHANG | os.WNOWAIT) is None

    def output(self, limit: int = 256 * 1024) -> str:
        """The last ``limit`` bytes it has printed so far."""
        with self.log.open("rb") as stream:
            size = stream.seek(0, os.SEEK_END)
            stream.seek(max(self._offset, size - limit))
            return stream.read().decode("utf-8", "replace")

    def tail(self, lines: int = 20) -> str:
        """The last lines it has printed, for a message."""
        return "\n".join(self.output().splitlines()[-lines:])

    def expect(self, pattern: str, within: float = 30.0) -> re.Match[str]:
        """Wait until its output matches; raises `ProcessFailed` when it ends or stays silent for ``within`` seconds."""
        compiled = re.compile(pattern, re.MULTILINE)
        found: re.Match[str] | None = None

        def look() -> bool:
            nonlocal found
            found = compiled.search(self.output())
            return found is not None

        self.until(look, f"to print {pattern!r}", within)
        assert found is not None
        return found

    def until(self, condition: Callable[[], bool], what: str, within: float = 30.0) -> None:
        """Wait until ``condition`` holds while the process lives; raises `ProcessFailed` otherwise."""
        deadline = time.monotonic() + within
        while not condition():
            if not self.running and not condition():
                raise ProcessFailed(f"{self.name} ended while waited for {what}:\n{self.tail()}")
            if time.monotonic() > deadline:
                raise ProcessFailed(f"{self.name}: waited {within:.0f} s for it {what}:\n{self.tail()}")
            time.sleep(POLL)

    def until_listening(self, port: int, within: float = 30.0) -> None:
        """Wait until something accepts on the loopback ``port``."""
        self.until(lambda: listening(port), f"to listen on port {port}", within)

    def signal(self, number: signal.Signals) -> None:
        """Send one signal to the program itself."""
        if self.running:
            os.kill(self.pid, number)

    def wait(self, within: float = 30.0) -> int:
        """Wait for its own end and return the exit status (negative: the signal)."""
        deadline = time.monotonic() + within
        while self.running:
            if time.monotonic() > deadline:
                raise ProcessFailed(f"{self.name} still runs after {within:.0f} s:\n{self.tail()}")
            time.sleep(POLL)
        return self.stop()

    def stop(self, grace: float = 10.0) -> int:
        """SIGTERM, ``grace`` seconds, SIGKILL to the whole group; returns the exit status. Idempotent."""
        if self._popen.returncode is not None:
            return self._popen.returncode
        self.signal(signal.SIGTERM)
        deadline = time.monotonic() + grace
        while self.running and time.monotonic() < deadline:
            time.sleep(POLL)
        with contextlib.suppress(ProcessLookupError):
            os.killpg(self.pid, signal.SIGKILL)  # not reaped yet: the group's number is still this one's
        status = self._popen.wait()
        _LIVE.discard(self)
        return status


def live() -> list[Process]:
    """Every process that was started and not yet stopped."""
    return sorted(_LIVE, key=lambda process: process.pid)


@atexit.register
def _stop_all() -> None:
    for process in list(_LIVE):
        process.stop(grace=1.0)


def listening(port: int) -> bool:
    """Whether something accepts on the loopback ``port``."""
    try:
        socket.create_connection(("127.0.0.1", port), timeout=1.0).close()
    except OSError:
        return False
    return True


def free_ports(count: int) -> list[int]:
    """Loopback ports nobody has, below the range the kernel hands to clients, so that no connection takes one."""
    low = int(Path("/proc/sys/net/ipv4/ip_local_port_range").read_text().split()[0])
    ports: list[int] = []
    with contextlib.ExitStack() as held:
        while len(ports) < count:
            port = random.randrange(max(1024, low - 12_000), low)
            probe = held.enter_context(socket.socket())
            try:
                probe.bind(("0.0.0.0", port))
            except OSError:
                continue
            ports.append(port)
    return ports


@contextlib.contextmanager
def stopped(process: Process) -> Iterator[None]:
    """SIGSTOP a process for a while: it neither reads nor answers, its connections stay."""
    process.signal(signal.SIGSTOP)
    try:
        yield
    finally:
        process.signal(signal.SIGCONT)
