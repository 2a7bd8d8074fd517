"""Tables change while requests come: none fails, and every worker ends up with the last one."""

from __future__ import annotations

import json
import subprocess
import sys

import pytest

from tests.harness.proxy import ROOT


def play(swaps: int, ingresses: int) -> None:
    """Two workers under load while ``swaps`` events change ``ingresses`` Ingresses and their endpoints."""
    command = [sys.executable, "-m", "tests.harness.swaps", str(swaps), str(ingresses)]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=150)
    assert done.returncode == 0, done.stderr
    found = json.loads(done.stdout)
    assert found["wrong"] == []
    assert found["faults"] == []
    assert found["statuses"] == [200]
    assert found["generation"] > swaps * 0.6, "some changes make no other table"
    assert found["served"] == [found["generation"]] * 2


def test_no_request_fails_while_tables_change() -> None:
    play(100, 50)


@pytest.mark.slow
@pytest.mark.timeout(180)
def test_a_thousand_swaps_of_a_thousand_ingresses() -> None:
    play(1000, 1000)
