"""Load from wrk, bounded in time, and what it measured, exactly."""

from __future__ import annotations

import json
import subprocess
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Final

SCRIPT: Final = Path(__file__).with_name("report.lua")


@dataclass(frozen=True, slots=True)
class Load:
    """One run: counts, seconds, and latencies in microseconds.

    ``status`` counts answers of 400 and more; the others are connections that could not be made, or broke.
    """

    requests: int
    seconds: float
    bytes: int
    p50: int
    p90: int
    p99: int
    p999: int
    max: int
    connect: int
    read: int
    write: int
    timeout: int
    status: int

    @property
    def rate(self) -> float:
        """Requests a second."""
        return self.requests / self.seconds

    @property
    def errors(self) -> dict[str, int]:
        """What went wrong, by kind; empty when nothing did."""
        counts = {name: getattr(self, name) for name in ("connect", "read", "write", "timeout", "status")}
        return {name: count for name, count in counts.items() if count}


def wrk_command(
    program: Path, url: str, connections: int, seconds: float, fields: Mapping[str, str] | None = None
) -> list[str]:
    """The command line of one run on one thread; wrk's time is whole seconds."""
    command = [str(program), "-t1", f"-c{connections}", f"-d{max(1, round(seconds))}s", "--timeout", "10s"]
    for name, value in (fields or {}).items():
        command += ["-H", f"{name}: {value}"]
    return [*command, "-s", str(SCRIPT), url]


def parse(output: str) -> Load:
    """What the script printed; raises ValueError when wrk did not get that far."""
    lines = [line for line in output.splitlines() if line.startswith('{"requests"')]
    if not lines:
        raise ValueError(f"wrk printed no summary:\n{output}")
    values = json.loads(lines[-1])
    return Load(seconds=values.pop("microseconds") / 1e6, **values)


def run(program: Path, url: str, connections: int, seconds: float, fields: Mapping[str, str] | None = None) -> Load:
    """Load ``url`` and wait for the end."""
    command = wrk_command(program, url, connections, seconds, fields)
    done = subprocess.run(command, capture_output=True, text=True, timeout=seconds + 30, check=False)
    return parse(done.stdout + done.stderr)
