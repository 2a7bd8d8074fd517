"""`spanway demo --layers` as a user has it: root, a real Open vSwitch, a fault that is blamed, and nothing left."""

from __future__ import annotations

import os
import re
import signal
import sys
from pathlib import Path
from typing import Final

import pytest

from proxy.demo.layers import PREFIX
from tests.harness.namespaces import laboratory
from tests.harness.proxy import ROOT, unsettled
from tests.real.jaeger import Jaeger
from tests.real.process import Process
from tests.real.test_lab import remains

pytestmark = [pytest.mark.real, pytest.mark.alone, pytest.mark.timeout(300)]

SECONDS: Final = 12
WORDS: Final = re.compile(r"to blame +(.+?) for ")


def command(fault: str, *more: str) -> list[str]:
    """The demo with a fault, on ports of its own."""
    flags = ["--http", "127.0.0.1:0", "--admin", "127.0.0.1:0", *more]
    return [sys.executable, "-m", "proxy", "demo", "--layers", "--fault", fault, *flags]


@pytest.fixture(autouse=True)
def possible() -> None:
    """Waits until no other lab has Open vSwitch; skips, or fails with CI=true, where there can be none."""
    with laboratory("demot"):
        pass


def test_a_fault_is_blamed_and_nothing_stays(tmp_path: Path, jaeger: Jaeger) -> None:
    environ = unsettled() | {
        "PYTHONUNBUFFERED": "1",
        "OTEL_EXPORTER_OTLP_ENDPOINT": jaeger.endpoint("http/protobuf"),
        "OTEL_EXPORTER_OTLP_PROTOCOL": "http/protobuf",
    }
    started = command("switch-stall", "--for", str(SECONDS))
    with Process("demo", started, tmp_path / "demo.log", environ=environ, cwd=ROOT) as demo:
        assert demo.wait(within=SECONDS + 60.0) == 0, demo.output()
        blamed = WORDS.search(demo.output())
        assert blamed is not None, demo.output()
        assert blamed[1] == "switch", demo.output()
        drawn = re.split(r"trace (?=[0-9a-f]{32}\b)", demo.output())[1:]
        trace_id = [part[:32] for part in drawn if "spanway-wire" in part][-1]
    assert remains(PREFIX) == []
    trace = jaeger.wait_for_trace(trace_id, lambda trace: "spanway-wire" in trace.services)
    assert set(trace.services) >= {"spanway", "spanway-wire"}, trace.drawing()


@pytest.mark.slow
@pytest.mark.parametrize(
    ("fault", "verdict"),
    [
        ("slow-app", "application"),
        ("slow-link", "network"),
        ("loss", "loss at link"),
        ("proxy-stall", "proxy"),
        ("backend-not-reading", "peer not reading"),
    ],
)
def test_the_blame_moves_with_the_fault(tmp_path: Path, fault: str, verdict: str) -> None:
    environ = unsettled() | {"PYTHONUNBUFFERED": "1"}
    started = command(fault, "--for", str(SECONDS))
    with Process("demo", started, tmp_path / "demo.log", environ=environ, cwd=ROOT) as demo:
        assert demo.wait(within=SECONDS + 60.0) == 0, demo.output()
        blamed = WORDS.search(demo.output())
        assert blamed is not None, demo.output()
        assert blamed[1] == verdict, demo.output()
    assert remains(PREFIX) == []


def test_ctrl_c_is_the_end_and_nothing_stays(tmp_path: Path) -> None:
    environ = unsettled() | {"PYTHONUNBUFFERED": "1"}
    with Process("demo", command("none"), tmp_path / "demo.log", environ=environ, cwd=ROOT) as demo:
        demo.expect(r"fault +none: nothing is wrong", within=60.0)
        assert remains(PREFIX) != []
        os.kill(demo.pid, signal.SIGINT)
        assert demo.wait(within=30.0) in {0, 130}, demo.output()
        assert "What happened" in demo.output()
    assert remains(PREFIX) == []
