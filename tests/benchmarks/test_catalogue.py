"""Which variants can run here, and that a run knows which build of Spanway it measures."""

from __future__ import annotations

import subprocess
import sys

import pytest

from benchmarks.measure.machine import ROOT
from benchmarks.peers import catalogue, spanway
from benchmarks.peers.catalogue import PURE, SPANWAY, VARIANTS
from tests.real import parts


@pytest.fixture(autouse=True)
def _fresh() -> None:
    spanway.version.cache_clear()


@pytest.mark.parametrize(
    ("said", "compiled"),
    [
        ("spanway 0.1.0 (compiled)", True),
        ("spanway 0.1.0 (pure Python, not compiled)", False),
        ("spanway 0.1.0 (pure Python, by SPANWAY_PURE)", False),
        ("spanway 0.1.0", False),
    ],
)
def test_the_build_is_what_the_program_says(monkeypatch: pytest.MonkeyPatch, said: str, compiled: bool) -> None:
    monkeypatch.setattr(spanway, "_version", lambda _: said)
    spanway.version.cache_clear()
    assert spanway.compiled() is compiled
    assert bool(catalogue.unavailable(PURE)) is not compiled
    assert catalogue.unavailable(SPANWAY) == ""


def test_the_program_says_the_truth(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("SPANWAY_PURE", raising=False)
    code = "import proxy.exchange; print(proxy.exchange.__file__)"
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=True)
    assert spanway.compiled() is not done.stdout.strip().endswith(".py")


def test_a_variant_differs_in_what_it_is_started_with_only(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OTEL_TRACES_SAMPLER", "always_off")
    monkeypatch.setenv("SPANWAY_PURE", "1")

    def differences(name: str) -> dict[str, str]:
        one, other = spanway.environ(VARIANTS[name]), spanway.environ(VARIANTS[SPANWAY])
        return {key: value for key, value in one.items() if other.get(key) != value}

    assert spanway.environ(VARIANTS[SPANWAY])["OTEL_TRACES_SAMPLER"] == "parentbased_always_on"
    assert "SPANWAY_PURE" not in spanway.environ(VARIANTS[SPANWAY])
    assert differences(PURE) == {"SPANWAY_PURE": "1"}
    assert differences("spanway-0") == {"OTEL_TRACES_SAMPLER": "always_off", "OTEL_TRACES_SAMPLER_ARG": "0"}
    assert differences("spanway-1") == {
        "OTEL_TRACES_SAMPLER": "parentbased_traceidratio",
        "OTEL_TRACES_SAMPLER_ARG": "0.01",
    }


def test_a_missing_program_is_one_line_with_the_way_to_get_it(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(parts, "find", lambda _: None)
    reason = catalogue.unavailable("envoy-traced")
    assert "\n" not in reason
    assert reason.endswith("python -m tests.real.parts install envoy'")
    assert catalogue.available(["envoy", SPANWAY]) == [SPANWAY]
