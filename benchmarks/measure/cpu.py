"""CPU time of a whole process tree, as the operating system counts it."""

from __future__ import annotations

import contextlib
import os
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Final, Self

from tests.real import usage

HERTZ: Final = os.sysconf("SC_CLK_TCK")
_GONE: Final = (FileNotFoundError, ProcessLookupError, OSError)


@dataclass(frozen=True, slots=True)
class Spent:
    """What a tree used between two readings; seconds but for ``cpu_ns``."""

    cpu_ns: int
    user: float
    system: float
    seconds: float

    @property
    def system_share(self) -> float:
        """Which part was spent in the kernel, 0 to 1; by clock ticks, which is good to a per cent after a second."""
        return self.system / ((self.user + self.system) or 1.0)


@dataclass(frozen=True, slots=True)
class TreeClock:
    """The CPU clock of a process and everything below it, at one moment.

    Live processes count by POSIX's process CPU clock (nanoseconds, all threads); processes that have ended and were
    waited for count by their parent's cutime and cstime (proc(5), clock ticks). So work that was handed to a child
    which is gone by the second reading is not lost. A process that left the tree (reparented outside it) is.
    """

    cpu_ns: int
    user: float
    system: float
    moment: float

    @classmethod
    def read(cls, pid: int) -> Self:
        """The tree of ``pid`` now."""
        cpu_ns = 0
        user = system = 0
        moment = time.monotonic()
        for each in usage.descendants(pid):
            with contextlib.suppress(*_GONE):
                own = usage.cpu_ns((each,))
                fields = Path(f"/proc/{each}/stat").read_text().rpartition(")")[2].split()
                utime, stime, cutime, cstime = (int(word) for word in fields[11:15])
                user += utime + cutime
                system += stime + cstime
                cpu_ns += own + (cutime + cstime) * 1_000_000_000 // HERTZ
        return cls(cpu_ns, user / HERTZ, system / HERTZ, moment)

    def since(self, earlier: Self) -> Spent:
        """What was used between ``earlier`` and this reading."""
        return Spent(
            self.cpu_ns - earlier.cpu_ns,
            self.user - earlier.user,
            self.system - earlier.system,
            self.moment - earlier.moment,
        )
