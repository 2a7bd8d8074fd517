"""CPU time of process trees: threads, children that live and children that have gone."""

from __future__ import annotations

import os
import subprocess
import sys
import textwrap

import pytest

from benchmarks.measure.cpu import Spent, TreeClock
from benchmarks.measure.machine import Cpus, CpuTimes, Unfit

BURN = """
import os, sys, threading, time
def burn(seconds):
    end = time.thread_time() + seconds
    while time.thread_time() < end:
        pass
def say(word):
    print(word, flush=True)
    sys.stdin.readline()
"""


def spent(script: str) -> float:
    """CPU seconds that the clock sees between the script's two words."""
    process = subprocess.Popen(
        [sys.executable, "-c", BURN + textwrap.dedent(script)], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    )
    with process:
        assert process.stdin is not None
        assert process.stdout is not None
        assert process.stdout.readline() == "before\n"
        before = TreeClock.read(process.pid)
        process.stdin.write("\n")
        process.stdin.flush()
        assert process.stdout.readline() == "after\n"
        found = TreeClock.read(process.pid).since(before)
        process.communicate("\n", timeout=30)
    assert found.seconds > 0
    return found.cpu_ns / 1e9


@pytest.mark.parametrize(
    ("script", "expected"),
    [
        ("say('before'); time.sleep(0.3); say('after')", 0.0),
        ("say('before'); burn(0.3); say('after')", 0.3),
        (
            """
            say('before')
            threads = [threading.Thread(target=burn, args=(0.2,)) for _ in range(2)]
            [each.start() for each in threads]
            [each.join() for each in threads]
            say('after')
            """,
            0.4,
        ),
        (
            """
            reading, writing = os.pipe()
            if os.fork() == 0:
                os.close(writing)
                os.read(reading, 1)
                burn(0.3)
                os.read(reading, 1)
                os._exit(0)
            say('before')
            os.write(writing, b'x')
            time.sleep(1.5)
            say('after')
            """,
            0.3,
        ),
        (
            """
            child = os.fork()
            if child == 0:
                burn(0.2)
                sys.stdout.write('before\\n'), sys.stdout.flush(), sys.stdin.readline()
                burn(0.3)
                os._exit(0)
            os.waitpid(child, 0)
            say('after')
            """,
            0.3,  # of the 0.5 that its parent then has for it
        ),
    ],
    ids=["asleep", "alone", "threads", "a child that lives", "a child that has gone"],
)
def test_the_whole_tree_is_counted_once(script: str, expected: float) -> None:
    assert spent(script) == pytest.approx(expected, abs=0.1)  # what starting a thread or a fork costs, and ticks


def test_a_process_that_is_gone_has_used_nothing() -> None:
    process = subprocess.Popen(["true"])
    process.wait()
    assert TreeClock.read(process.pid).cpu_ns == 0


def test_the_share_of_the_kernel() -> None:
    assert Spent(1, user=0.5, system=1.5, seconds=2.0).system_share == 0.75
    assert Spent(0, user=0.0, system=0.0, seconds=2.0).system_share == 0.0


def test_a_cpu_that_did_nothing_was_not_busy() -> None:
    then = CpuTimes(busy=100, stolen=10, moment=5.0)
    assert CpuTimes(busy=150, stolen=10, moment=6.0).shares_since(then) == (0.5, 0.0)


@pytest.mark.parametrize(
    ("allowed", "proxy", "load", "others", "two"),
    [((0, 1), 1, 0, 0, "0,1"), ((2, 5, 7), 7, 5, 2, "5,7"), ((0, 1, 2, 3), 3, 2, 0, "2,3")],
)
def test_the_proxy_has_a_cpu_to_itself(allowed: tuple[int, ...], proxy: int, load: int, others: int, two: str) -> None:
    cpus = Cpus(allowed)
    assert (cpus.proxy, cpus.load, cpus.others, cpus.last(2)) == (proxy, load, others, two)
    assert cpus.last(1) == str(proxy)


def test_one_cpu_is_not_enough(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "sched_getaffinity", lambda _: {3})
    with pytest.raises(Unfit, match="two CPUs"):
        Cpus.choose()
