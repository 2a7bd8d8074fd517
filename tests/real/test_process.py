"""Processes end for certain, with all they started, and say what they printed."""

from __future__ import annotations

import signal
import sys
from pathlib import Path

import pytest

from tests.harness import poll
from tests.real import process, usage
from tests.real.process import Process, ProcessFailed

CHILD = "import signal, time; signal.signal(15, signal.SIG_IGN); print('up', flush=True); time.sleep(600)"
PARENT = f"""
import signal, subprocess, sys, time
signal.signal(signal.SIGTERM, signal.SIG_IGN)
child = subprocess.Popen([sys.executable, "-c", {CHILD!r}])
print("child", child.pid, flush=True)
time.sleep(600)
"""
SPIKE = """
import time
print("up", flush=True)
held = bytearray(b"x") * (64 << 20)
del held
print("done", flush=True)
time.sleep(600)
"""


def alive(pid: int) -> bool:
    """Whether a process runs: it is there, and no zombie that its adopter has still to reap."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(") ")[2][0] != "Z"
    except (FileNotFoundError, ProcessLookupError):
        return False


def python(folder: Path, text: str) -> Process:
    return Process("program", [sys.executable, "-c", text], folder / "log")


def test_a_stubborn_program_ends_with_its_children(tmp_path: Path) -> None:
    with python(tmp_path, PARENT) as program:
        child = int(program.expect(r"^child (\d+)$")[1])
        program.expect("^up$")
        assert usage.descendants(program.pid) == [program.pid, child]
        assert program.stop(grace=0.1) == -signal.SIGKILL
    assert not program.running
    poll.until(lambda: not alive(child), "the child's end")
    assert program not in process.live()
    assert program.stop() == -signal.SIGKILL


def test_its_own_end_is_seen(tmp_path: Path) -> None:
    with python(tmp_path, "print('bye'); raise SystemExit(3)") as program:
        assert program.wait() == 3
        assert program.output() == "bye\n"


def test_one_that_ends_early_is_named_with_its_words(tmp_path: Path) -> None:
    with (
        python(tmp_path, "raise SystemExit('no such file')") as program,
        pytest.raises(ProcessFailed, match="no such file"),
    ):
        program.expect("ready")


def test_one_that_stays_silent_is_named(tmp_path: Path) -> None:
    with python(tmp_path, "import time; print('starting', flush=True); time.sleep(600)") as program:
        program.expect("starting")
        with pytest.raises(ProcessFailed, match="to print 'ready'"):
            program.expect("ready", within=0.05)


def test_a_restart_does_not_read_the_first_runs_output(tmp_path: Path) -> None:
    for number in range(2):
        with python(tmp_path, f"print({number})") as program:
            program.wait()
            assert program.output() == f"{number}\n"


def test_ports_are_free_and_different() -> None:
    ports = process.free_ports(5)
    assert len(set(ports)) == 5
    assert not any(map(process.listening, ports))


def test_cpu_time_is_counted_for_children_too(tmp_path: Path) -> None:
    text = "import subprocess, sys; subprocess.run([sys.executable, '-c', 'sum(range(10**6)); input()'])"
    program = Process("program", [sys.executable, "-c", text], tmp_path / "log")
    with program:
        program.until(lambda: len(usage.descendants(program.pid)) == 2 or not program.running, "to have a child")
        pids = usage.descendants(program.pid)
        assert usage.cpu_ns(pids) > 0


def test_the_peak_of_memory_is_seen_after_it_has_passed(tmp_path: Path) -> None:
    with python(tmp_path, SPIKE) as program:
        program.expect("^done$")
        before = usage.resident(program.pid)
        assert usage.peak_resident(program.pid) > before + (48 << 20)
        usage.reset_peak(program.pid)
        assert usage.peak_resident(program.pid) < before + (16 << 20)
