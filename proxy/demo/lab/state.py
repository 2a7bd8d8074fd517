"""A lab's place on disk: who has it, which processes it started, what must be removed when nobody does."""

from __future__ import annotations

import contextlib
import fcntl
import json
import os
import shutil
import signal
import struct
import subprocess
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Final

from proxy.demo.lab.commands import NAMESPACES, LabError, inside, program, run
from proxy.demo.lab.plan import DATAPATH, Plan

DIRECTORY: Final = Path("/run/spanway")  # gone after a restart, as everything in it is
SWITCH_LOCK: Final = "lab.ovs.lock"
GRACE_S: Final = 3.0  # between SIGTERM and SIGKILL
_STEP_S: Final = 0.01
_TUNSETIFF: Final = 0x400454CA  # linux/if_tun.h, as the next two
_IFF_TAP: Final = 0x0002
_IFF_NO_PI: Final = 0x1000


class State:
    """The directory of one prefix, held by a lock that the kernel gives back when the holder dies.

    ``acquire`` first removes what a run that crashed has left: processes by their number and start time (a number
    may be another's by now), namespaces and links by the names that it wrote down before it made them.
    """

    def __init__(self, prefix: str, directory: Path = DIRECTORY) -> None:
        self.directory: Final = directory / f"lab-{prefix}"
        self._prefix: Final = prefix
        self._lock: int | None = None
        self._switch_lock: int | None = None
        self._children: Final[dict[str, subprocess.Popen[bytes]]] = {}

    def __repr__(self) -> str:
        held = "held" if self._lock is not None else "free"
        return f"State({self.directory}, {held}, {', '.join(self._children) or 'no processes'})"

    def acquire(self, plan: Plan, patience_s: float = 0.0) -> None:
        """Take the directory for ``plan``, empty; raises `LabError` when somebody else has it or this is not root.

        Two switches with the userspace datapath cannot be in one namespace, so a lab that has one excludes others
        that have, whatever their prefix. For both locks it waits ``patience_s`` seconds.
        """
        if os.geteuid() != 0:
            raise LabError("network namespaces need root: run this with sudo")
        try:
            self.directory.parent.mkdir(mode=0o755, parents=True, exist_ok=True)
        except OSError as error:
            raise LabError(f"cannot write {self.directory}: {error.strerror}") from error
        self._lock = _locked(self.directory.with_suffix(".lock"), f"a lab {self._prefix!r}", patience_s)
        try:
            if DATAPATH in plan.links:
                path = self.directory.with_name(SWITCH_LOCK)
                self._switch_lock = _locked(path, "another lab with Open vSwitch", patience_s)
            self._sweep()
            self._refuse_strangers(plan)
            self.directory.mkdir(mode=0o700)
            record = {"namespaces": plan.namespaces, "links": plan.links}
            (self.directory / "made").write_text(json.dumps(record), encoding="utf-8")
        except BaseException:
            self._unlock()
            raise

    def release(self) -> None:
        """End all processes, remove everything; idempotent, and not to be interrupted by Ctrl-C."""
        if self._lock is None:
            return
        blocked = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT, signal.SIGTERM})
        try:
            for child in self._children.values():
                _end(child)
            self._children.clear()
            self._sweep()
        finally:
            self._unlock()
            signal.pthread_sigmask(signal.SIG_SETMASK, blocked)

    def _unlock(self) -> None:
        if self._switch_lock is not None:
            self.directory.with_name(SWITCH_LOCK).unlink(missing_ok=True)
            os.close(self._switch_lock)
            self._switch_lock = None
        if self._lock is not None:
            self.directory.with_suffix(".lock").unlink(missing_ok=True)
            os.close(self._lock)
            self._lock = None

    def start(
        self,
        name: str,
        argv: Sequence[str],
        *,
        namespace: str | None = None,
        environ: Mapping[str, str] | None = None,
        pipes: bool = False,
    ) -> subprocess.Popen[bytes]:
        """Start a process that ends with this lab, its output in ``NAME.log``.

        It leads a session of its own, so that Ctrl-C at the terminal is this process's alone, and is killed when the
        thread that started it ends: start it from one that lives as long as the lab. With ``pipes`` its standard
        input and output are pipes.
        """
        command = [*inside(namespace), program("setpriv"), "--pdeathsig", "KILL", "--", *argv]
        with (self.directory / f"{name}.log").open("ab") as log:
            child = subprocess.Popen(  # noqa: S603 - no shell, and none of it comes from outside
                command,
                stdin=subprocess.PIPE if pipes else subprocess.DEVNULL,
                stdout=subprocess.PIPE if pipes else log,
                stderr=log,
                env={**os.environ, **(environ or {})},
                start_new_session=True,
            )
        self._children[name] = child
        with (self.directory / "processes").open("a", encoding="utf-8") as record:
            record.write(f"{child.pid} {_started(child.pid)} {name}\n")
        return child

    @property
    def pids(self) -> tuple[int, ...]:
        """The processes that were started and not ended."""
        return tuple(child.pid for child in self._children.values())

    def end(self, name: str) -> None:
        """End one process and wait for it."""
        _end(self._children.pop(name))

    def words(self, name: str, lines: int = 5) -> str:
        """The last lines that a process has written, for a message."""
        with contextlib.suppress(OSError):
            text = (self.directory / f"{name}.log").read_text(encoding="utf-8", errors="replace")
            return "\n".join(text.splitlines()[-lines:])
        return ""

    def _sweep(self) -> None:
        with contextlib.suppress(OSError):
            for line in (self.directory / "processes").read_text(encoding="utf-8").splitlines():
                pid, started, _ = line.split(maxsplit=2)
                if started != "0" and _started(int(pid)) == started:
                    _kill(int(pid))
        with contextlib.suppress(OSError, ValueError):
            made = json.loads((self.directory / "made").read_text(encoding="utf-8"))
            for namespace in made["namespaces"]:
                remove_namespace(namespace)
            for link in made["links"]:
                if Path("/sys/class/net", link).exists() and not (link == DATAPATH and _tap_in_use(link)):
                    with contextlib.suppress(LabError):  # a veth's other end may have gone with its first
                        run("ip", "link", "delete", link)
        shutil.rmtree(self.directory, ignore_errors=True)

    def _refuse_strangers(self, plan: Plan) -> None:
        taken = [name for name in plan.links if name != DATAPATH and Path("/sys/class/net", name).exists()]
        taken += [name for name in plan.namespaces if (NAMESPACES / name).exists()]
        if taken:
            raise LabError(f"{', '.join(taken)} exist and are not of a lab: remove them or choose another prefix")
        if DATAPATH in plan.links and Path("/sys/class/net", DATAPATH).exists():
            if _tap_in_use(DATAPATH):
                raise LabError(f"an Open vSwitch with the userspace datapath runs here ({DATAPATH}); stop it first")
            run("ip", "link", "delete", DATAPATH)


def _locked(path: Path, whose: str, patience_s: float) -> int:
    """A descriptor that holds the lock ``path``, our number written in it; raises `LabError` when it is taken."""
    deadline = time.monotonic() + patience_s
    while True:
        try:
            lock = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        except OSError as error:
            raise LabError(f"cannot write {path}: {error.strerror}") from error
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
            if path.exists() and os.path.samestat(os.fstat(lock), path.stat()):
                os.ftruncate(lock, 0)
                os.pwrite(lock, f"{os.getpid()}\n".encode(), 0)
                return lock
            os.close(lock)  # its last holder removed it meanwhile
        except BlockingIOError:
            owner = os.pread(lock, 32, 0).decode().strip()
            os.close(lock)
            if time.monotonic() >= deadline:
                raise LabError(f"{whose} is running (process {owner}); stop it first") from None
            time.sleep(_STEP_S)


def _tap_in_use(name: str) -> bool:
    """Whether a process has the tap interface open, see tun(4) of the kernel's Documentation/networking/tuntap.rst."""
    request = struct.pack("16sH22x", name.encode(), _IFF_TAP | _IFF_NO_PI)
    try:
        with Path("/dev/net/tun").open("r+b", buffering=0) as tap:
            fcntl.ioctl(tap, _TUNSETIFF, request)
    except OSError:  # EBUSY; or it is none of ours to touch
        return True
    return False


def remove_namespace(name: str) -> None:
    """End what runs in a namespace and remove it, with the links in it; nothing when there is none."""
    if not (NAMESPACES / name).exists():
        return
    with contextlib.suppress(LabError):
        for pid in run("ip", "netns", "pids", name).split():
            if int(pid) != os.getpid():
                _kill(int(pid))
    with contextlib.suppress(LabError):
        run("ip", "netns", "delete", name)


def _kill(pid: int) -> None:
    with contextlib.suppress(ProcessLookupError):
        os.kill(pid, signal.SIGKILL)  # also a stopped process
    deadline = time.monotonic() + GRACE_S
    while _started(pid) != "0" and time.monotonic() < deadline:
        time.sleep(_STEP_S)


def _end(child: subprocess.Popen[bytes]) -> None:
    with contextlib.suppress(ProcessLookupError):
        child.send_signal(signal.SIGCONT)  # a fault may have stopped it
        child.terminate()
    for pipe in (child.stdin, child.stdout):
        if pipe is not None:
            with contextlib.suppress(OSError):
                pipe.close()
    try:
        child.wait(GRACE_S)
    except subprocess.TimeoutExpired:
        child.kill()
        child.wait()


def _started(pid: int) -> str:
    """When a process began, in clock ticks since the machine did (field 22 of proc_pid_stat(5)); "0": there is none."""
    try:
        fields = Path(f"/proc/{pid}/stat").read_text(encoding="utf-8", errors="replace").rpartition(")")[2].split()
    except OSError:
        return "0"
    return "0" if fields[0] == "Z" else fields[19]
