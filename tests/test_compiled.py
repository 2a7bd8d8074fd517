"""What holds of the compiled form as a whole."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

import proxy
from tests.harness.twins import COMPILED

ROOT = Path(__file__).parents[1]


@pytest.mark.skipif(os.environ.get("CI") != "true", reason="which form a developer has is his own affair")
def test_both_forms_are_tested_where_it_counts() -> None:
    assert proxy.build() == ("pure Python, by SPANWAY_PURE" if proxy.PURE else "compiled")


@pytest.mark.skipif(not COMPILED, reason="of the compiled form: Python itself never reads beyond an object")
def test_nothing_that_is_called_wrongly_crashes() -> None:
    done = subprocess.run(
        [sys.executable, "-m", "tests.harness.blanks"], cwd=ROOT, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr[-4000:]
    assert int(done.stdout.split()[0]) > 10_000
    assert done.stdout.endswith("of the compiled form\n")
