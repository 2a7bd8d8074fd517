"""The process tree with stand-ins for its children; `tests/edge/test_life.py` has the real ones."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
import textwrap
import time
from pathlib import Path

import pytest

from proxy.errors import SettingsError
from proxy.settings import Address
from proxy.workers import Slot, listen, next_worker
from tests.harness import poll
from tests.harness.proxy import ROOT

PREAMBLE = """
import os, signal, sys, time
from proxy.errors import SettingsError
from proxy.workers import Slot, Tree, next_worker

def say(*words):
    os.write(1, (" ".join(map(str, words)) + "\\n").encode())

def wait_for_term():
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(0))
    while True:
        time.sleep(0.1)
"""


class Running:
    """A tree in a process of its own, whose children are written by the test."""

    def __init__(self, folder: Path, script: str) -> None:
        path = folder / "tree.py"
        path.write_text(PREAMBLE + textwrap.dedent(script))
        self.output = folder / "output"
        with self.output.open("wb") as stream:
            self.process = subprocess.Popen(
                [sys.executable, str(path)],
                cwd=ROOT,
                stdout=stream,
                stderr=stream,
                env=os.environ | {"PYTHONPATH": str(ROOT)},
            )

    def said(self) -> str:
        return self.output.read_text()

    def wait_for(self, text: str, count: int = 1) -> None:
        poll.until(lambda: self.said().count(text) >= count, f"{count} x {text!r} in {self.said()!r}")

    def ends(self) -> int:
        try:
            return self.process.wait(20)
        finally:
            self.process.kill()


def start(folder: Path, *, worker: str, supervisor: str, slots: int = 1) -> Running:
    script = f"""
def worker(slot, channel):
{textwrap.indent(textwrap.dedent(worker).strip(), "    ")}

def supervisor(news):
{textwrap.indent(textwrap.dedent(supervisor).strip(), "    ")}

sys.exit(Tree([Slot(index, [], []) for index in range({slots})], supervisor, worker).run())
"""
    return Running(folder, script)


QUIET = "say('worker', slot.index, os.getpid()); wait_for_term()"


@pytest.mark.parametrize("code", [0, 1, 2, 7])
def test_the_supervisors_exit_code_is_the_trees(tmp_path: Path, code: int) -> None:
    tree = start(tmp_path, worker=QUIET, supervisor=f"return {code}", slots=2)
    assert tree.ends() == code


def test_a_supervisor_that_is_killed_ends_all(tmp_path: Path) -> None:
    tree = start(tmp_path, worker=QUIET, supervisor="next_worker(news); os.kill(os.getpid(), signal.SIGKILL)")
    assert tree.ends() == 1


def test_a_supervisor_that_raises_ends_all_and_says_why(tmp_path: Path) -> None:
    tree = start(tmp_path, worker=QUIET, supervisor="raise ValueError('what went wrong')")
    assert tree.ends() == 1
    assert "ValueError: what went wrong" in tree.said()


def test_each_worker_is_announced_with_its_channel(tmp_path: Path) -> None:
    tree = start(
        tmp_path,
        worker="channel.sendall(b'hello from %d of %d' % (os.getpid(), slot.index)); wait_for_term()",
        supervisor="""
            for _ in range(3):
                index, pid, sock = next_worker(news)
                say(sock.recv(100) == b'hello from %d of %d' % (pid, index), index)
            return 0
        """,
        slots=3,
    )
    assert tree.ends() == 0
    assert sorted(tree.said().splitlines()) == ["True 0", "True 1", "True 2"]


def test_a_dead_worker_is_replaced_with_a_new_channel(tmp_path: Path) -> None:
    tree = start(
        tmp_path,
        worker=QUIET,
        supervisor="""
            seen = []
            for _ in range(3):
                index, pid, sock = next_worker(news)
                os.kill(pid, signal.SIGKILL)
                assert sock.recv(1) == b''
                seen.append(pid)
            say('replaced', index, len(set(seen)))
            return 0
        """,
    )
    assert tree.ends() == 0
    assert "replaced 0 3" in tree.said()
    assert tree.said().count("ended by signal 9; another starts") == 3 or tree.said().count("ended by signal 9") == 2


def test_a_worker_that_dies_at_once_is_restarted_ever_more_slowly(tmp_path: Path) -> None:
    """0.1 s, 0.2 s, 0.4 s ...: six starts take at least three seconds, and never fill the log."""
    begun = time.monotonic()
    tree = start(
        tmp_path,
        worker="return 1",
        supervisor="""
            for _ in range(6):
                next_worker(news)
            return 0
        """,
    )
    assert tree.ends() == 0
    assert time.monotonic() - begun > 3.0
    assert tree.said().count("ended by status 1; another starts") in (5, 6)


def test_settings_that_cannot_work_end_the_tree(tmp_path: Path) -> None:
    """No restart would help; the message stands once, without a traceback, and the exit status is that of misuse."""
    tree = start(
        tmp_path,
        worker="raise SettingsError('the access log /nowhere/log cannot be opened')",
        supervisor="signal.signal(signal.SIGTERM, lambda *_: sys.exit(0)); signal.pause(); return 0",
    )
    assert tree.ends() == 2
    assert tree.said() == "spanway: error: the access log /nowhere/log cannot be opened\n"


def test_a_drained_worker_is_not_replaced(tmp_path: Path) -> None:
    tree = start(
        tmp_path,
        worker="say('once'); return 0",
        supervisor="next_worker(news); time.sleep(0.5); return 0",
    )
    assert tree.ends() == 0
    assert tree.said().count("once") == 1


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_an_end_is_asked_of_the_supervisor_alone(tmp_path: Path, number: signal.Signals) -> None:
    """It drains the workers in its own time: a worker that is told directly would go without its last requests."""
    tree = start(
        tmp_path,
        worker="signal.signal(signal.SIGTERM, lambda *_: say('worker told')); say('ready')\nwhile 1: time.sleep(0.1)",
        supervisor="""
            def end(*_):
                say('supervisor told')
                time.sleep(0.3)
                os._exit(5)
            signal.signal(signal.SIGTERM, end)
            say('ready')
            while 1: time.sleep(0.1)
        """,
    )
    tree.wait_for("ready", 2)
    tree.process.send_signal(number)
    assert tree.ends() == 5
    lines = tree.said().splitlines()
    assert lines.index("supervisor told") < (lines.index("worker told") if "worker told" in lines else len(lines))


def test_asked_twice_it_ends_at_once(tmp_path: Path) -> None:
    tree = start(
        tmp_path,
        worker=QUIET,
        supervisor="signal.signal(signal.SIGTERM, lambda *_: say('told')); say('ready')\nwhile 1: time.sleep(0.1)",
    )
    tree.wait_for("ready")
    tree.process.terminate()
    tree.wait_for("told")
    tree.process.terminate()  # orchestrators do that out of habit
    tree.process.send_signal(signal.SIGINT)
    assert tree.ends() == 1


def test_signals_that_come_as_it_ends_leave_its_exit_code(tmp_path: Path) -> None:
    """Both are pending when the supervisor's death is seen: one is handled, the other must not kill the parent."""
    tree = start(
        tmp_path,
        worker=QUIET,
        supervisor="""
            signal.signal(signal.SIGUSR2, lambda *_: os._exit(5))
            say('supervisor', os.getpid())
            while 1: time.sleep(0.1)
        """,
    )
    tree.wait_for("supervisor")
    supervisor = int(tree.said().split("supervisor ")[1].split()[0])
    tree.process.send_signal(signal.SIGSTOP)
    os.kill(supervisor, signal.SIGUSR2)
    stat = Path(f"/proc/{supervisor}/stat")
    poll.until(lambda: stat.read_text().rpartition(")")[2].split()[0] == "Z", "the supervisor is dead")
    for number in (signal.SIGTERM, signal.SIGHUP, signal.SIGINT):
        tree.process.send_signal(number)
    tree.process.send_signal(signal.SIGCONT)
    assert tree.ends() == 5


def test_hangup_goes_to_the_supervisor_and_usr1_to_everyone(tmp_path: Path) -> None:
    told = """
        signal.signal(signal.SIGHUP, lambda *_: say('{0} HUP'))
        signal.signal(signal.SIGUSR1, lambda *_: say('{0} USR1'))
        say('ready')
        while 1: time.sleep(0.1)
    """
    tree = start(tmp_path, worker=told.format("worker"), supervisor=told.format("supervisor"))
    tree.wait_for("ready", 2)
    tree.process.send_signal(signal.SIGHUP)
    tree.wait_for("supervisor HUP")
    tree.process.send_signal(signal.SIGUSR1)
    tree.wait_for("worker USR1")
    tree.wait_for("supervisor USR1")
    assert "worker HUP" not in tree.said()
    tree.process.terminate()
    assert tree.ends() != 0  # the stand-in has no handler for SIGTERM


def test_nobody_outlives_the_parent(tmp_path: Path) -> None:
    tree = start(tmp_path, worker=QUIET, supervisor="say('supervisor', 0, os.getpid()); wait_for_term()", slots=2)
    poll.until(lambda: len(tree.said().splitlines()) == 3, "three processes")
    pids = [int(line.split()[2]) for line in tree.said().splitlines()]
    tree.process.kill()
    tree.process.wait()
    poll.until(lambda: not any(Path(f"/proc/{pid}").exists() and alive(pid) for pid in pids), "their end")


def alive(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except (FileNotFoundError, ProcessLookupError):
        return False


def test_a_worker_that_ignores_its_end_is_killed(tmp_path: Path) -> None:
    tree = start(
        tmp_path,
        worker="signal.signal(signal.SIGTERM, signal.SIG_IGN); say('ready')\nwhile 1: time.sleep(0.1)",
        supervisor="time.sleep(0.3); return 0",
    )
    assert tree.ends() == 0


# Listening sockets.


def test_a_port_in_use_is_named() -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        with pytest.raises(
            SettingsError, match=rf"cannot listen on 127\.0\.0\.1:{port}: Address already in use; .*another port"
        ):
            listen([Address("127.0.0.1", port)], 2)


def test_a_port_that_another_proxy_shares_is_in_use() -> None:
    """SO_REUSEPORT would let two proxies of one user share a port, each with half of the requests."""
    (first,), actual = listen([Address("127.0.0.1", 0)], 1)
    try:
        with pytest.raises(SettingsError):
            listen(actual, 1)
    finally:
        first[0].close()


def test_an_address_of_another_host_is_named() -> None:
    with pytest.raises(SettingsError, match=r"cannot listen on 192\.0\.2\.1:8080"):
        listen([Address("192.0.2.1", 8080)], 1)


@pytest.mark.parametrize("workers", [1, 3])
def test_every_worker_gets_every_address_and_the_same_port(workers: int) -> None:
    per_worker, actual = listen([Address("127.0.0.1", 0), Address("localhost", 0)], workers)
    try:
        assert [len(sockets) for sockets in per_worker] == [2] * workers
        assert all(address.port for address in actual)
        for sockets in per_worker:
            assert [sock.getsockname()[1] for sock in sockets] == [address.port for address in actual]
            assert not any(sock.getblocking() for sock in sockets)
    finally:
        for sockets in per_worker:
            for sock in sockets:
                sock.close()


def test_repr_names_the_slot() -> None:
    slot = Slot(3, [], [])
    slot.pid = 42
    assert repr(slot) == "Slot(3, pid 42)"


def test_the_parents_end_is_seen_by_the_supervisor() -> None:
    near, far = socket.socketpair(type=socket.SOCK_SEQPACKET)
    with far:
        near.close()
        assert next_worker(far) is None
