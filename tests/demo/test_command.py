"""The command a newcomer runs first, with the real proxy."""

import os
import subprocess
import sys

from tests.harness.proxy import ROOT


def test_spanway_demo_shows_traces_of_proxy_and_services_and_ends_with_0():
    done = subprocess.run(
        [sys.executable, "-m", "proxy", "demo", "--for", "4", "--http", "127.0.0.1:0", "--admin", "127.0.0.1:0"],
        cwd=ROOT,
        env={**os.environ, "COLUMNS": "100", "NO_COLOR": "1", "PYTHONIOENCODING": "utf-8"},
        capture_output=True,
        text=True,
        encoding="utf-8",
        check=False,
        timeout=50,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    assert "▸ where the time went: " in done.stdout
    assert "\nshop " in done.stdout
    assert "\nspanway " in done.stdout
    assert " answered: " in done.stdout
    assert "ready: generation 1, 3 routes, 1 worker" in done.stderr
