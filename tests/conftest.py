"""What every test stands on: a clean environment, and property tests that depend on no clock."""

from __future__ import annotations

import os

import pytest
from hypothesis import HealthCheck, settings

# A shared machine stalls now and then: how long an example takes says nothing here. In CI the same examples every time.
settings.register_profile("default", deadline=None, suppress_health_check=[HealthCheck.too_slow])
settings.register_profile("ci", settings.get_profile("default"), derandomize=True, print_blob=True)
settings.load_profile("ci" if os.environ.get("CI") == "true" else "default")

# Whatever the developer's shell sets, a test sees only what it sets itself. SPANWAY_CACHE: see tests/real/parts.py.
for name in [name for name in os.environ if name.startswith(("SPANWAY_", "OTEL_")) and name != "SPANWAY_CACHE"]:
    del os.environ[name]


@pytest.fixture(autouse=True)
def _wide_terminal(monkeypatch: pytest.MonkeyPatch) -> None:
    """Help and waterfalls are laid out for the terminal; tests have one of a fixed width and without colours."""
    monkeypatch.setenv("COLUMNS", "120")
    monkeypatch.setenv("NO_COLOR", "1")
