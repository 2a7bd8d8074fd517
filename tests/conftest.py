"""What every test stands on: a clean environment, and property tests that depend on no clock."""

from __future__ import annotations

import os
from pathlib import Path

import pytest
from hypothesis import HealthCheck, settings

import proxy

# A shared machine stalls now and then: how long an example takes says nothing here. In CI the same examples every time.
settings.register_profile("default", deadline=None, suppress_health_check=[HealthCheck.too_slow])
settings.register_profile("ci", settings.get_profile("default"), derandomize=True, print_blob=True)
settings.load_profile("ci" if os.environ.get("CI") == "true" else "default")

# Whatever the developer's shell sets, a test sees only what it sets itself. SPANWAY_CACHE: see tests/real/parts.py.
# SPANWAY_PURE: which of the two forms is tested, in the processes that tests start as well.
KEPT = {"SPANWAY_CACHE", "SPANWAY_PURE"}
for name in [name for name in os.environ if name.startswith(("SPANWAY_", "OTEL_")) and name not in KEPT]:
    del os.environ[name]


def pytest_report_header() -> str:
    """Which form is tested; fails where a compiled module is older than its source, which it hides."""
    if not proxy.PURE:
        for types in Path(proxy.__file__).parent.rglob("*.pxd"):
            twin = types.with_suffix(".pyx")
            source = twin if twin.exists() else types.with_suffix(".py")
            newest = max(types.stat().st_mtime, source.stat().st_mtime)
            for built in types.parent.glob(f"{types.stem}.*.so"):
                if built.stat().st_mtime < newest:
                    raise pytest.UsageError(f"{built.name} is older than its source: './dev setup' compiles it anew")
    return f"spanway: {proxy.build()}"


@pytest.fixture(autouse=True)
def _wide_terminal(monkeypatch: pytest.MonkeyPatch) -> None:
    """Help and waterfalls are laid out for the terminal; tests have one of a fixed width and without colours."""
    monkeypatch.setenv("COLUMNS", "120")
    monkeypatch.setenv("NO_COLOR", "1")
