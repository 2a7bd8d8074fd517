"""What a stall is counted as by h2load's request log, and by the benchmark's own open loop."""

from __future__ import annotations

import contextlib
import subprocess
import sys
from pathlib import Path

import pytest

from benchmarks.load.h2load import H2Load
from benchmarks.load.openloop import Paced
from benchmarks.measure.distribution import upper
from benchmarks.measure.machine import ROOT
from tests.benchmarks.server import Server, slowly
from tests.real.conftest import required

pytestmark = [pytest.mark.real, pytest.mark.timeout(120)]

LATE = 100_000  # microseconds
RATE, CONNECTIONS, STALL = 500, 10, 1.0


def server() -> contextlib.closing[Server]:
    """Stalls once, for a second, in its 500th answer: 450 of those due meanwhile wait longer than 100 ms."""
    return contextlib.closing(Server(lambda number: slowly(STALL if number == 500 else 0.0)))


def test_h2load_leaves_out_what_waited_to_be_sent_and_the_pacer_does_not(tmp_path: Path) -> None:
    program, log = required("h2load"), tmp_path / "log"
    with server() as stalling:
        command = [str(program), "--h1", "-D", "4", "-c", str(CONNECTIONS), "--rps", str(RATE // CONNECTIONS)]
        command += ["--log-file", str(log), f"http://127.0.0.1:{stalling.port}/"]
        done = subprocess.run(command, capture_output=True, text=True, timeout=60, check=False)
    assert H2Load.parse(done.stdout).errors == {}
    rows = [line.split("\t") for line in log.read_text().splitlines()]
    assert {status for _, status, _ in rows} == {"200"}
    assert sum(int(took) >= STALL * 1e6 * 0.9 for _, _, took in rows) == CONNECTIONS
    with server() as stalling:
        command = [sys.executable, "-m", "benchmarks.load.pacer", str(stalling.port), str(RATE), "4", "0"]
        done = subprocess.run(
            [*command, str(CONNECTIONS), "bench.test", "/"],
            capture_output=True,
            text=True,
            cwd=ROOT,
            timeout=60,
            check=False,
        )
    found = Paced.parse(done.stdout + done.stderr)
    assert found.errors == {}
    late = sum(count for bucket, count in found.latency.counts.items() if upper(bucket) > LATE)
    assert late >= RATE * (STALL - LATE / 1e6) - 2
