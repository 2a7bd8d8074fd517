"""The control socket of ovs-vswitchd: what `ovs-appctl` asks, without a process per question."""

from __future__ import annotations

from pathlib import Path
from typing import Final

from proxy.layers.ovs.rpc import TIMEOUT_S, OvsError, ask

RUN_DIRECTORIES: Final = (Path("/run/openvswitch"), Path("/var/run/openvswitch"))
DAEMON: Final = "ovs-vswitchd"


class Control:
    """Commands of ovs-vswitchd(8), section "Runtime management commands". Each is a connection of its own, and is
    answered by the daemon's main loop, which in the userspace datapath also forwards: ask seldom.
    """

    def __init__(self, path: Path, timeout_s: float = TIMEOUT_S) -> None:
        self.path: Final = path
        self._timeout_s: Final = timeout_s

    def __repr__(self) -> str:
        return f"Control({self.path})"

    def call(self, command: str, *arguments: str) -> str:
        """What the command prints. Raises `OvsError` when it is refused or nobody answers."""
        result = ask(self.path, command, list(arguments), self._timeout_s)
        if not isinstance(result, str):
            raise OvsError(f"{self.path}: {command}: the answer is no text")
        return result

    def version(self) -> str:
        """The release, such as ``3.1.0``."""
        return self.call("version").strip().rpartition(" ")[2]


def control_of(run_directory: Path) -> Path:
    """The control socket in a run directory: the one that the pid file names, else the newest.

    Raises `OvsError` when there is none.
    """
    try:
        pid = int((run_directory / f"{DAEMON}.pid").read_text(encoding="ascii"))
        named = run_directory / f"{DAEMON}.{pid}.ctl"
        if named.is_socket():
            return named
    except (OSError, ValueError):
        pass  # it may have been started without one
    try:
        found = [path for path in run_directory.glob(f"{DAEMON}.*.ctl") if path.is_socket()]
        return max(found, key=lambda path: path.stat().st_mtime)
    except (OSError, ValueError):
        raise OvsError(f"no control socket of {DAEMON} in {run_directory}: is Open vSwitch running?") from None


def run_directory() -> Path | None:
    """Where this machine's Open vSwitch has its sockets; None when there is none."""
    return next((each for each in RUN_DIRECTORIES if (each / "db.sock").is_socket()), None)
