"""The faults of `spanway demo --layers`, its settings and its words; tests/real has it with a real switch."""

from __future__ import annotations

import io
from pathlib import Path

import pytest
from rich.console import Console

from proxy.demo.layers import CALM_S, FAULTS, MIXES, QUICK, UPLOAD, WORST, Layers
from proxy.demo.summary import Wait
from proxy.usages import FAULTS as NAMED

MS = 1_000_000


def said(part) -> str:
    text = io.StringIO()
    Console(file=text, width=120, no_color=True, highlight=False).print(part)
    return text.getvalue()


def test_the_command_names_every_fault_in_the_same_order():
    assert tuple(FAULTS) == NAMED


@pytest.mark.parametrize("name", FAULTS)
def test_each_fault_is_told_and_has_requests_that_meet_it(name):
    layers = Layers(name)
    assert f"{name}: {FAULTS[name]}" in said(layers.opening())
    assert layers.mix == MIXES.get(name, QUICK)
    paths = " ".join(step.path for step in layers.mix)
    if name == "backend-not-reading":
        bodies = [step for step in layers.mix if "/cart/" in step.path]
        assert bodies, "cart is what stops"
        assert all(len(str(step.body)) > UPLOAD for step in bodies)
    elif name in {"slow-link", "switch-stall", "loss"}:
        assert {step.method for step in layers.mix} == {"GET"}, "to put an item into a cart is to ask stock"
        assert "/products/" not in paths, "nor a page"
    elif name == "slow-app":
        assert "/stock/" in paths, "stock is what stops"
    assert layers.rate * CALM_S > 100, "what is usual is known before anything is wrong"


def test_blame_is_by_time_of_those_that_were_the_most_beyond_the_usual():
    waits = [Wait("application", 5 * MS)] * 194 + [Wait("switch", 150 * MS)] * 3 + [Wait("application", 40 * MS)] * 3
    told = said(Layers("switch-stall").closing(waits))
    assert f"divided 200 waits; {200 * WORST // 100} of them took 590 ms beyond the usual" in told
    assert "to blame   switch for 450 ms, application for 140 ms" in told
    assert "was switch-stall: Open vSwitch stops" in told
    assert "spent in   switch for 450 ms" in said(Layers("none").closing(waits)), "nobody is to blame"


def test_the_page_names_every_fault():
    page = (Path(__file__).parents[2] / "docs" / "layers.md").read_text("utf-8")
    assert all(f"`{name}`" in page for name in FAULTS)


def test_no_wait_at_all_is_said():
    assert "divided no wait" in said(Layers("none").closing([]))
