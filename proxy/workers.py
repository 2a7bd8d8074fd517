"""The process tree: a parent that only forks, waits and passes signals on; a supervisor; N workers.

The parent runs no loop and no thread, so that forking another worker is safe at any time. Each slot's listening
sockets are made here, before the first fork: a worker that dies leaves its accept queue to its successor, and no
connection that the kernel had accepted for it is reset. Each start makes a new channel, whose one end goes to the
supervisor as a message, so that nothing half-written by a dead worker is ever read by its successor.
"""

from __future__ import annotations

import contextlib
import ctypes
import os
import signal
import socket
import sys
import time
from collections.abc import Callable, Sequence
from typing import Final

from proxy.errors import SettingsError
from proxy.net.accepting import BACKLOG
from proxy.saying import flush, say
from proxy.settings import Address

_PASSED_ON: Final = (signal.SIGTERM, signal.SIGINT, signal.SIGHUP, signal.SIGUSR1)
LEAVING: Final = signal.SIGUSR2  # from a worker that leaves by itself: fork its successor
_WATCHED: Final = {*_PASSED_ON, LEAVING, signal.SIGCHLD}
_QUICK: Final = 1.0  # seconds; a worker that lived shorter is restarted after a growing delay
_SLOWEST: Final = 5.0  # seconds between two restarts
_PR_SET_PDEATHSIG: Final = 1
UNUSABLE: Final = 2  # exit status for settings that cannot work, as argparse's for usage

Main = Callable[[], int]
WorkerMain = Callable[["Slot", socket.socket], int]
SupervisorMain = Callable[[socket.socket], int]


class Slot:
    """One worker's place: its listening sockets, and its process."""

    def __init__(self, index: int, http: list[socket.socket], https: list[socket.socket]) -> None:
        self.index = index
        self.http = http
        self.https = https
        self.pid = 0
        self.parent = 0  # who forks the next worker
        self.started = 0.0
        self.delay = 0.0

    def __repr__(self) -> str:
        return f"Slot({self.index}, pid {self.pid})"


def listen(addresses: Sequence[Address], workers: int) -> tuple[list[list[socket.socket]], tuple[Address, ...]]:
    """Listening sockets per worker, and the addresses with their actual ports.

    Raises `SettingsError` naming the address that cannot be had.
    """
    per_worker: list[list[socket.socket]] = [[] for _ in range(workers)]
    actual: list[Address] = []
    for address in addresses:
        if address.port:
            _listen(address, shared=False).close()  # SO_REUSEPORT would silently share the port with another proxy
        port = address.port
        for sockets in per_worker:
            sock = _listen(Address(address.host, port))
            port = sock.getsockname()[1]
            sockets.append(sock)
        actual.append(Address(address.host, port))
    return per_worker, tuple(actual)


def _listen(address: Address, *, shared: bool = True) -> socket.socket:
    sock = None
    try:
        info = socket.getaddrinfo(address.host, address.port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE)[0]
        sock = socket.socket(info[0], socket.SOCK_STREAM)
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        if shared:
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
        if info[0] == socket.AF_INET6 and address.host != "::":
            sock.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 1)
        sock.bind(info[4])
        sock.listen(BACKLOG)
    except OSError as error:
        if sock is not None:
            sock.close()
        raise SettingsError(
            f"cannot listen on {address}: {error.strerror}; is another server there? "
            "Choose another port with --http or --https"
        ) from None
    sock.setblocking(False)
    return sock


class Tree:
    """Runs ``supervisor(news)`` and a ``worker(slot, channel)`` per slot until the supervisor ends.

    ``news`` receives a message per worker start, with the other end of that worker's channel (`next_worker`).
    """

    def __init__(self, slots: list[Slot], supervisor: SupervisorMain, worker: WorkerMain) -> None:
        self._slots = slots
        self._supervisor_main = supervisor
        self._worker_main = worker
        self._news, self._news_far = socket.socketpair(type=socket.SOCK_SEQPACKET)
        self._supervisor = 0
        self._stopping = False
        self._unusable = False
        self._leaving: set[int] = set()
        self._due: list[tuple[float, Slot]] = []

    def __repr__(self) -> str:
        return f"Tree(supervisor {self._supervisor}, {self._slots!r})"

    def run(self) -> int:
        """Fork everything and watch over it; returns the supervisor's exit code.

        The process is to end with that code: signals that ask for an end are ignored from then on.
        """
        previous = signal.pthread_sigmask(signal.SIG_BLOCK, _WATCHED)
        parent = os.getpid()
        for slot in self._slots:
            self._start(slot, parent)
        self._supervisor = self._fork(lambda: self._supervisor_main(self._news_far), parent)
        try:
            return self._watch(parent)
        finally:
            self._end()
            for number in (*_PASSED_ON, LEAVING):
                # What is asked now comes too late: pending, it would kill this process in place of its exit code.
                signal.signal(number, signal.SIG_IGN)
            signal.pthread_sigmask(signal.SIG_SETMASK, previous)

    def _watch(self, parent: int) -> int:
        while True:
            now = time.monotonic()
            wait = min((due for due, _ in self._due), default=now + 3600.0) - now
            received = signal.sigtimedwait(_WATCHED, max(wait, 0.0))
            if received is not None and received.si_signo in _PASSED_ON:
                self._pass_on(received.si_signo)
            elif received is not None and received.si_signo == LEAVING:
                self._succeed(received.si_pid, parent)
            code = self._reap()
            if code is not None:
                return code
            now = time.monotonic()
            ready = [slot for due, slot in self._due if due <= now]
            self._due = [entry for entry in self._due if entry[0] > now]
            for slot in ready:
                if not self._stopping:
                    self._start(slot, parent)

    def _pass_on(self, number: int) -> None:
        if number in (signal.SIGTERM, signal.SIGINT):
            if self._stopping:
                if number == signal.SIGINT:
                    _kill(self._supervisor, signal.SIGKILL)  # a person asked twice; orchestrators do so out of habit
                return
            self._stopping = True
            if number == signal.SIGINT:
                say("finishing open requests; Ctrl-C again ends at once")
            number = signal.SIGTERM
        _kill(self._supervisor, number)
        if number == signal.SIGUSR1:
            for slot in self._slots:
                _kill(slot.pid, number)

    def _succeed(self, pid: int, parent: int) -> None:
        """A worker stops accepting to finish what it has: start the next on its sockets now."""
        for slot in self._slots:
            if slot.pid == pid and not self._stopping:
                say(f"worker {slot.index} (pid {pid}) leaves; another starts")
                self._leaving.add(pid)
                self._start(slot, parent)

    def _reap(self) -> int | None:
        """Collect the dead; returns the supervisor's exit code once it is among them."""
        while True:
            try:
                pid, status = os.waitpid(-1, os.WNOHANG)
            except ChildProcessError:
                return 1
            if pid == 0:
                return None
            if pid == self._supervisor:
                self._supervisor = 0
                if self._unusable:
                    return UNUSABLE
                return os.waitstatus_to_exitcode(status) if os.WIFEXITED(status) else 1
            self._leaving.discard(pid)
            for slot in self._slots:
                if slot.pid == pid:
                    slot.pid = 0
                    self._bury(slot, pid, status)

    def _bury(self, slot: Slot, pid: int, status: int) -> None:
        if self._stopping or (os.WIFEXITED(status) and os.WEXITSTATUS(status) == 0):
            # 0 is a drain that the supervisor asked for, as the tree is about to end.
            return
        lived = time.monotonic() - slot.started
        if lived < _QUICK and os.WIFEXITED(status) and os.WEXITSTATUS(status) == UNUSABLE:
            self._stopping = True  # its settings cannot work, and it has said why: another would fail alike
            self._unusable = True
            _kill(self._supervisor, signal.SIGTERM)
            return
        slot.delay = min(max(slot.delay * 2, 0.1), _SLOWEST) if lived < _QUICK else 0.0
        how = f"signal {os.WTERMSIG(status)}" if os.WIFSIGNALED(status) else f"status {os.WEXITSTATUS(status)}"
        say(f"worker {slot.index} (pid {pid}) ended by {how}; another starts")
        self._due.append((time.monotonic() + slot.delay, slot))

    def _start(self, slot: Slot, parent: int) -> None:
        slot.started = time.monotonic()
        slot.parent = parent
        near, far = socket.socketpair()
        with near, far:
            slot.pid = self._fork(lambda: self._work(slot, near, far), parent)
            socket.send_fds(self._news, [b"%d %d" % (slot.index, slot.pid)], [near.fileno()])

    def _work(self, slot: Slot, near: socket.socket, far: socket.socket) -> int:
        near.close()  # so that the supervisor's death ends the channel
        return self._worker_main(slot, far)

    def _fork(self, main: Main, parent: int) -> int:
        flush()
        pid = os.fork()
        if pid:
            return pid
        code = 1
        try:
            # Whoever kills the parent outright must not leave its children listening.
            ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)
            if os.getppid() == parent:
                signal.signal(signal.SIGINT, signal.SIG_IGN)  # the parent hears Ctrl-C and says it once
                signal.pthread_sigmask(signal.SIG_UNBLOCK, _WATCHED)
                code = main()
        except SystemExit as stop:
            code = stop.code if isinstance(stop.code, int) else 1
        except SettingsError as error:
            say(f"error: {error}")
            code = UNUSABLE
        except BaseException:
            sys.excepthook(*sys.exc_info())
        finally:
            flush()
            os._exit(code)

    def _end(self) -> None:
        """The supervisor has ended: so does everything else."""
        for pid in self._leaving:
            _kill(pid, signal.SIGKILL)
        for slot in self._slots:
            _kill(slot.pid, signal.SIGTERM)
        limit = time.monotonic() + 2.0
        while any(slot.pid for slot in self._slots) and time.monotonic() < limit:
            for slot in self._slots:
                if slot.pid and os.waitpid(slot.pid, os.WNOHANG)[0]:
                    slot.pid = 0
            time.sleep(0.02)
        for slot in self._slots:
            if slot.pid:
                _kill(slot.pid, signal.SIGKILL)
                os.waitpid(slot.pid, 0)


def _kill(pid: int, number: int) -> None:
    if pid:
        with contextlib.suppress(ProcessLookupError):
            os.kill(pid, number)


def next_worker(news: socket.socket) -> tuple[int, int, socket.socket] | None:
    """A started worker's slot, pid and channel, in the supervisor; None when the parent is gone. Blocks as ``news``."""
    message, descriptors, _, _ = socket.recv_fds(news, 64, 1)
    if not message:
        return None
    index, _, pid = message.decode("ascii").partition(" ")
    return int(index), int(pid), socket.socket(fileno=descriptors[0])
