from __future__ import annotations

import io
import sys

import pytest

from proxy.saying import flush, say


class Gone(io.StringIO):
    """A stream whose reader has gone away, or whose disk is full."""

    def write(self, _: str) -> int:
        raise BrokenPipeError(32, "Broken pipe")

    def flush(self) -> None:
        raise OSError(28, "No space left on device")


def closed() -> io.StringIO:
    stream = io.StringIO()
    stream.close()
    return stream


def test_a_line_is_written_at_once(capsys: pytest.CaptureFixture[str]) -> None:
    say("ready")
    assert capsys.readouterr() == ("", "spanway: ready\n")


def test_a_text_of_several_lines_is_one(capsys: pytest.CaptureFixture[str]) -> None:
    say("error: is no list; write\n\nways:\r\n  - taps: [a,  b]\u2028")
    assert capsys.readouterr().err == "spanway: error: is no list; write ways: - taps: [a,  b]\n"


@pytest.mark.parametrize("stream", [Gone(), closed(), None])
def test_nobody_to_read_it_is_no_failure(stream: io.StringIO | None, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "stderr", stream)
    say("ready")
    flush()
