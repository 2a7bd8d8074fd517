"""Who goes first on a CPU that the load, the upstream and the collector share.

Where the load leaves the CPU idle time, the collector has enough of it at the lowest priority, and no request waits for
the end of its time slice (some 3 ms), which would be counted as the proxy's latency.
"""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterable, Iterator
from pathlib import Path


@contextlib.contextmanager
def yielding(pids: Iterable[int]) -> Iterator[None]:
    """While open, everything else on their CPUs goes before the processes ``pids`` (sched(7): SCHED_IDLE).

    A high nice value would not do: a task that wakes waits for the end of a running one's time slice whatever their
    weights (Linux 6.6 and later), but never for an idle one's. Where the old policy cannot be had back (setpriority(2):
    RLIMIT_NICE), nothing is changed.
    """
    chosen = list(pids) if os.geteuid() == 0 else []
    for pid in chosen:
        _schedule(pid, os.SCHED_IDLE)
    try:
        yield
    finally:
        for pid in chosen:
            _schedule(pid, os.SCHED_OTHER)


def _schedule(pid: int, policy: int) -> None:
    with contextlib.suppress(OSError):  # it has ended
        for thread in Path(f"/proc/{pid}/task").iterdir():
            with contextlib.suppress(OSError):
                os.sched_setscheduler(int(thread.name), policy, os.sched_param(0))
