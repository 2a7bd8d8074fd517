"""`spanway wire` as it is called: what cannot be used is one line, before anything is opened."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from proxy.cli import main
from proxy.layers import start
from proxy.settings_wire import PortRange
from tests.harness.proxy import ROOT

USUAL = PortRange(57344, 60999)


@pytest.fixture(autouse=True)
def _no_variables(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("OTEL_EXPORTER_OTLP_ENDPOINT", "OTEL_EXPORTER_OTLP_TRACES_ENDPOINT", "SPANWAY_TRACING_ENDPOINT"):
        monkeypatch.delenv(name, raising=False)


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        ([], "there is nothing to send spans to; name a collector with --otlp URL"),
        (["--otlp", "none", "--socket", "off"], "the socket is 'off'"),
        (["--otlp", "none", "--socket", "here"], "'here' is not the path of a unix socket"),
        (["--otlp", "none", "--interfaces", "auto,lo"], "--interfaces takes 'auto', or names"),
        (["--otlp", "none", "--interfaces", ","], "--interfaces takes 'auto', or names"),
        (["--otlp", "none", "--interfaces", "no-such-0"], "there is no interface 'no-such-0'"),
        (["--otlp", "none", "--interfaces", "lo", "--places", "f"], "keep one of them"),
        (["--otlp", "none", "--places", "no-such-file"], "'no-such-file' cannot be read"),
        (["--otlp", "none", "--ports", "9-1"], "--ports: '9-1' is not auto, all or a range such as 57344-60999"),
        (["--otlp", "none", "--ipfix", "4739x"], "--ipfix: '4739x' has no port"),
        (["--otlp", "none", "--prots", "all"], "there is no flag '--prots'; did you mean '--ports'?"),
    ],
)
def test_what_cannot_be_used(
    arguments: list[str], said: str, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    assert main(["wire", *arguments]) == 2
    error = capsys.readouterr().err
    assert said in error
    assert error.count("\n") == 1


def test_ports() -> None:
    assert start._ports(USUAL, "auto") == (USUAL, True)
    assert start._ports(USUAL, "all") == (None, False)
    assert start._ports(USUAL, "1024-2000") == (PortRange(1024, 2000), False)


@pytest.mark.parametrize(("given", "taken"), [(0, start.NICE), (19, 19)])
def test_it_lets_others_go_first(given: int, taken: int) -> None:
    code = "from proxy.layers import start; start._give_way(); print(os.nice(0))"
    code = f"import os; os.nice(max(0, {given} - os.nice(0))); {code}"
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=True)
    assert int(done.stdout) == taken


def test_samples_are_listened_for_on_loopback() -> None:
    assert start._collector("off") is None
    assert str(start._collector("4739")) == "127.0.0.1:4739"
    assert str(start._collector("10.8.0.1:4739")) == "10.8.0.1:4739"
