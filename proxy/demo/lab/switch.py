"""A real Open vSwitch of a lab's own: its database, its daemon with the userspace datapath, its bridges and ports."""

from __future__ import annotations

import contextlib
import ctypes
import os
import signal
import socket
import time
from pathlib import Path
from typing import Final

from proxy.demo.lab.commands import LabError, program, run
from proxy.demo.lab.plan import Pod
from proxy.demo.lab.state import State

SCHEMA: Final = Path("/usr/share/openvswitch/vswitch.ovsschema")  # where Debian's openvswitch-common has it
READY_S: Final = 20.0
BUFFER: Final = 4 << 20  # bytes a port may have unread; the default, 212 kB, loses bursts of 250 kB
_STEP_S: Final = 0.02
_SYS_PIDFD_GETFD: Final = 438  # every architecture's number, include/uapi/asm-generic/unistd.h
_SO_RCVBUFFORCE: Final = 33  # asm-generic/socket.h


class OpenVSwitch:
    """One ovsdb-server and one ovs-vswitchd, apart from any that the machine has.

    Attributes:
        run_directory: where their sockets and pid files are, as OVS_RUNDIR of ovs-vswitchd(8).
        database: the database's socket (OVSDB, RFC 7047).
    """

    def __init__(self, state: State) -> None:
        self._state: Final = state
        self.run_directory: Final = state.directory
        self.database: Final = state.directory / "db.sock"
        self.pid = 0

    @property
    def control(self) -> Path:
        """The daemon's control socket (unixctl)."""
        return self.run_directory / f"ovs-vswitchd.{self.pid}.ctl"

    def __repr__(self) -> str:
        return f"OpenVSwitch(pid {self.pid}, {self.run_directory})"

    def start(self) -> None:
        """Make the database and start both daemons; raises `LabError` when they do not get ready."""
        folder = self.run_directory
        # Paths below its run directory would be resolved against the installed one: all are absolute.
        environ = {f"OVS_{name}DIR": str(folder) for name in ("RUN", "LOG", "DB", "SYSCONF")}
        if not SCHEMA.is_file():
            raise LabError(f"{SCHEMA} is missing: sudo apt-get install --reinstall openvswitch-common")
        run("ovsdb-tool", "create", str(folder / "conf.db"), str(SCHEMA))
        self._state.start(
            "ovsdb-server",
            [
                program("ovsdb-server"),
                str(folder / "conf.db"),
                f"--remote=punix:{self.database}",
                f"--unixctl={folder / 'ovsdb.ctl'}",
                "--no-chdir",
                "-vconsole:warn",
            ],
            environ=environ,
        )
        self._wait(self.database, "ovsdb-server")
        self.vsctl("init")
        child = self._state.start(
            "ovs-vswitchd",
            [
                program("ovs-vswitchd"),
                f"unix:{self.database}",
                f"--pidfile={folder / 'ovs-vswitchd.pid'}",
                "--disable-system",
                "--disable-system-route",
                "--no-chdir",
                "-vconsole:warn",
            ],
            environ=environ,
        )
        self.pid = child.pid  # each of what it was started through has exec'ed the next
        self._wait(self.control, "ovs-vswitchd")

    def bridge(self, name: str) -> None:
        """Add a bridge of the userspace datapath, which learns addresses as a plain switch does."""
        self.vsctl("add-br", name, "--", "set", "Bridge", name, "datapath_type=netdev", "fail-mode=standalone")

    def port(self, bridge: str, interface: str, pod: Pod | None = None) -> None:
        """Add an interface to a bridge, with what a CNI plugin says of the pod behind it."""
        more = [] if pod is None else [f'external_ids:attached-mac="{pod.mac}"', f'external_ids:iface-id="{pod.name}"']
        setting = ["--", "set", "Interface", interface, *more] if more else []
        self.vsctl("add-port", bridge, interface, *setting)
        error = self.vsctl("get", "Interface", interface, "error").strip()
        if error not in ("[]", '""'):
            raise LabError(f"Open vSwitch cannot use {interface}: {error}")

    def deepen(self) -> int:
        """Give the sockets on which the daemon reads its ports `BUFFER` bytes; returns how many were reached.

        pidfd_getfd(2) reaches them without a setting of the whole machine (net.core.rmem_default). Where a container
        forbids it, the ports keep what they have.
        """
        libc = ctypes.CDLL(None, use_errno=True)
        packet_sockets = {line.split()[8] for line in Path("/proc/net/packet").read_text("ascii").splitlines()[1:]}
        reached = 0
        with contextlib.suppress(OSError), contextlib.ExitStack() as closing:
            process = os.pidfd_open(self.pid)
            closing.callback(os.close, process)
            for entry in Path(f"/proc/{self.pid}/fd").iterdir():
                if entry.readlink().name.removeprefix("socket:[").removesuffix("]") not in packet_sockets:
                    continue
                descriptor = libc.syscall(_SYS_PIDFD_GETFD, process, int(entry.name), 0)
                if descriptor < 0:
                    continue
                with socket.socket(fileno=descriptor) as port:
                    port.setsockopt(socket.SOL_SOCKET, _SO_RCVBUFFORCE, BUFFER)
                reached += 1
        return reached

    def vsctl(self, *argv: str) -> str:
        """Run ovs-vsctl(8) on this switch; it returns when the daemon has done what was asked."""
        # Before the daemon runs there is nobody to wait for.
        waiting = () if self.pid else ("--no-wait",)
        return run("ovs-vsctl", f"--db=unix:{self.database}", "--timeout=10", *waiting, *argv)

    def signal(self, number: signal.Signals) -> None:
        """Send the daemon that forwards a signal."""
        os.kill(self.pid, number)

    def _wait(self, path: Path, name: str) -> None:
        deadline = time.monotonic() + READY_S
        while True:
            with socket.socket(socket.AF_UNIX) as probe:
                probe.settimeout(1.0)
                with contextlib.suppress(OSError):
                    probe.connect(str(path))
                    return
            if time.monotonic() > deadline:
                raise LabError(f"{name} is not ready after {READY_S:.0f} s: {self._state.words(name)}")
            time.sleep(_STEP_S)
