"""What a program and its children cost, as the operating system counts it: CPU time and resident memory."""

from __future__ import annotations

import contextlib
import os
import re
import time
from collections.abc import Iterable
from pathlib import Path

_GONE = (FileNotFoundError, ProcessLookupError)


def descendants(pid: int) -> list[int]:
    """A process and every process below it, itself first."""
    found = [pid]
    for parent in found:
        with contextlib.suppress(*_GONE):
            for children in list(Path(f"/proc/{parent}/task").glob("*/children")):
                with contextlib.suppress(*_GONE):
                    found.extend(int(word) for word in children.read_text().split())
    return found


def cpu_ns(pids: Iterable[int]) -> int:
    """CPU nanoseconds, user and system, that live processes have used in all their threads, ended ones included.

    The process CPU clock of POSIX (clock_getcpuclockid): the scheduler's own sum, where the utime and stime of
    /proc/PID/stat are the same sum cut to ticks of 10 ms.
    """
    return sum(time.clock_gettime_ns((~pid << 3) | 2) for pid in pids)


def user_system(pids: Iterable[int]) -> tuple[float, float]:
    """CPU seconds in user and in kernel mode, in clock ticks' resolution: for the share of each, not for their sum."""
    user = system = 0
    for pid in pids:
        fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
        user += int(fields[11])
        system += int(fields[12])
    hertz = os.sysconf("SC_CLK_TCK")
    return user / hertz, system / hertz


def resident(pid: int) -> int:
    """Bytes resident now, a process and all below it."""
    return sum(_status(each, "VmRSS") for each in descendants(pid))


def proportional(pid: int) -> int:
    """The same where a page that n processes share counts an nth in each (PSS, proc_pid_smaps(5))."""
    return sum(_kilobytes(Path(f"/proc/{each}/smaps_rollup"), "Pss") for each in descendants(pid))


def peak_resident(pid: int) -> int:
    """The most bytes that were resident since `reset_peak`, a process and all below it; misses no short spike."""
    return sum(_status(each, "VmHWM") for each in descendants(pid))


def reset_peak(pid: int) -> None:
    """Let `peak_resident` begin anew (proc(5): 5 written to clear_refs)."""
    for each in descendants(pid):
        Path(f"/proc/{each}/clear_refs").write_text("5")


def _status(pid: int, field: str) -> int:
    return _kilobytes(Path(f"/proc/{pid}/status"), field)


def _kilobytes(path: Path, field: str) -> int:
    try:
        text = path.read_text()
    except _GONE:
        return 0
    match = re.search(rf"^{field}:\s+(\d+) kB", text, re.MULTILINE)
    return int(match[1]) * 1024 if match else 0
