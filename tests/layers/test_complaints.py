"""What the wire complains of, to whom, and how often."""

from __future__ import annotations

import io

import pytest

from proxy.layers import complaints
from proxy.layers.complaints import Complaints


def broken() -> None:
    raise ValueError("what\nwent wrong")


def test_the_same_is_said_once_a_minute(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    now = 1000.0
    monkeypatch.setattr("proxy.layers.complaints.time.monotonic", lambda: now)
    made = Complaints()
    for number in range(3):
        made.make(f"tap {number} is\ndown", "tap")
    assert capsys.readouterr().err == "spanway: tap 0 is down\n"
    now += complaints.REPEAT
    made.make("tap 3 is down", "tap")
    assert capsys.readouterr().err == "spanway: tap 3 is down\n"


def test_what_is_remembered_is_bounded() -> None:
    made = Complaints()
    for number in range(5 * complaints.MOST):
        made.make(str(number))
    assert int(repr(made).split("(")[1].split()[0]) <= complaints.MOST


def test_a_bug_is_said_and_survived(capsys: pytest.CaptureFixture[str]) -> None:
    Complaints().guard(broken)
    said = capsys.readouterr().err
    assert "a bug, please report it" in said
    assert said.count("\n") == 1
    assert "what went wrong" in said


def test_nobody_who_reads_is_no_end(monkeypatch: pytest.MonkeyPatch) -> None:
    """Its standard error is a pipe whose reader has gone."""

    def gone(_: str) -> int:
        raise BrokenPipeError(32, "Broken pipe")

    class Pipe(io.StringIO):
        write = staticmethod(gone)

    monkeypatch.setattr("sys.stderr", Pipe())
    Complaints().guard(broken)
