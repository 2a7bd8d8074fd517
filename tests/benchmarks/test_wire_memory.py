"""What the benchmark of the wire's memory makes of what it saw."""

from __future__ import annotations

import os
import time

import pytest

from benchmarks.scenarios import wire_memory
from benchmarks.scenarios.wire_memory import Watch


def test_growth_is_between_two_medians_and_what_fills_at_first_is_none() -> None:
    watch = Watch({"wire": 1})
    for second in range(600):
        filling = min(second, 50) * 1000
        spike = 10**9 if second in (65, 590) else 0
        watch._seen["wire"].append((float(second), 10_000 + filling + spike + second, 5000 + filling))
    grown = watch.growth(60.0, 60.0)
    assert grown["wire"] == pytest.approx(480, abs=2)
    assert grown["wire_pss"] == 0
    assert grown["wire_resident"] == pytest.approx(60_570, abs=2)


def test_too_short_a_look_is_none() -> None:
    watch = Watch({"wire": 1})
    for seen in ([], [(float(second), 1, 1) for second in range(170)]):
        watch._seen["wire"][:] = seen
        with pytest.raises(ValueError, match="too short"):
            watch.growth(60.0, 60.0)


def test_it_looks_at_living_processes(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(wire_memory, "EVERY", 0.01)
    with Watch({"us": os.getpid()}) as watch:
        deadline = time.monotonic() + 10
        while len(watch._seen["us"]) < 3 and time.monotonic() < deadline:
            time.sleep(0.01)
    seen = watch._seen["us"]
    assert len(seen) >= 3
    assert all(resident > proportional // 2 > 0 for _, resident, proportional in seen)
