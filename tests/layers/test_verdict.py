"""Baselines and verdicts, from splits made by hand."""

from __future__ import annotations

from collections.abc import Mapping

import pytest

from proxy.layers.baseline import APART_NS, ENOUGH, ROUTES, SAMPLES, Baseline
from proxy.layers.split import Layout, Split
from proxy.layers.verdict import judge
from proxy.trace.semconv_wire import LOSS_AT, VERDICTS

MS = 1_000_000
PLACES = ("link px", "ovs br0", "bridge cni0", "eth0..eth1")
USUAL = {"proxy": 30_000, "backend": 2 * MS, "ovs br0": 60_000, "link px": 2000}


def split(
    segments: Mapping[str, int], *, lost: Mapping[str, int] | None = None, recovery_ns: int = 0, zero_ns: int = 0
) -> Split:
    layout = Layout(range(5), PLACES)
    whole = {**dict.fromkeys(layout.names, 0), **segments}
    assert len(whole) == len(layout.names)
    return Split(layout, whole, (), (), dict(lost or {}), recovery_ns, 0, (zero_ns, 0), "syn", 8)


def test_the_places_add_up_both_ways() -> None:
    places = split(
        {"proxy send": 1, "proxy receive": 2, "ovs br0 >": 4, "ovs br0 <": 8, "backend receive": 16}
    ).places()
    assert {place: ns for place, ns in places.items() if ns} == {"proxy": 3, "ovs br0": 12, "backend receive": 16}
    assert set(places) == {"proxy", "client", *PLACES, "backend receive", "backend"}


@pytest.mark.parametrize(
    ("segment", "word"),
    [
        ("proxy send", "proxy"), ("proxy receive", "proxy"), ("client", "client"), ("link px >", "network"),
        ("ovs br0 <", "switch"), ("bridge cni0 >", "switch"), ("eth0..eth1 <", "network"), ("backend", "application"),
        ("backend receive", "peer not reading"),
    ],
)  # fmt: skip
def test_the_largest_excess_is_to_blame(segment: str, word: str) -> None:
    taken = {"proxy send": 10_000, "backend": 2 * MS, "ovs br0 >": 60_000}
    taken[segment] = taken.get(segment, 0) + 5 * MS
    verdict = judge(split(taken), USUAL)
    assert (verdict.verdict, verdict.usual) == (word, False)
    assert 4 * MS < verdict.excess_ns <= 5 * MS
    assert verdict.wait_ns == sum(taken.values())
    assert word in VERDICTS


def test_what_is_usual_is_said_to_be() -> None:
    verdict = judge(split({"backend": 2 * MS, "ovs br0 >": 500_000}), USUAL)
    assert (verdict.verdict, verdict.usual, verdict.excess_ns) == ("application", True, 0)
    # A tenth of a long wait is nothing to speak of.
    assert judge(split({"backend": 2 * MS, "client": 500 * MS, "ovs br0 >": 9 * MS}), {"client": 500 * MS}).usual


def test_without_a_baseline_the_longest_is_named() -> None:
    verdict = judge(split({"backend": 2 * MS, "ovs br0 <": 9 * MS}), None)
    assert (verdict.verdict, verdict.place, verdict.usual, verdict.medians) == ("switch", "ovs br0", True, {})


def test_loss_outranks_time() -> None:
    slow = {"ovs br0 >": 6 * MS, "backend": 2 * MS}
    lost = {"link px": 1448, "eth0..eth1": 2896}
    assert judge(split(slow, lost=lost, recovery_ns=4 * MS), USUAL).verdict == f"{LOSS_AT}eth0..eth1"
    assert judge(split(slow, lost=lost, recovery_ns=2 * MS), USUAL).verdict == "switch"
    # So long a wait was for a timer, wherever the walk found it.
    assert judge(split({"ovs br0 >": 200 * MS}, lost=lost), USUAL).place == "eth0..eth1"
    slow = {"ovs br0 >": 10_000, "backend": 90 * MS}
    assert judge(split(slow, lost=lost, recovery_ns=4 * MS), USUAL).verdict == "application"


def test_a_closed_window_means_not_reading() -> None:
    slow = {"backend": 50 * MS}
    shut = judge(split(slow, zero_ns=40 * MS), USUAL)
    assert (shut.verdict, shut.place) == ("peer not reading", "backend receive")
    # Of which it is said by how much the backend took too long: the place it is about had nothing to take.
    assert shut.excess_ns == judge(split(slow), USUAL).excess_ns > 40 * MS
    assert judge(split(slow, zero_ns=4 * MS), USUAL).verdict == "application"


def test_a_median_needs_enough_attempts() -> None:
    baseline = Baseline()
    for number in range(ENOUGH - 1):
        baseline.add(7, number, {"backend": 100 + number})
        assert baseline.usual(7) is None
    baseline.add(7, 99, {"backend": 9000, "client": 3})
    assert baseline.usual(7) == {"backend": 103, "client": 0}
    assert baseline.usual(8) is None


def test_a_baseline_moves_with_time_and_not_in_a_burst() -> None:
    baseline = Baseline()
    for number in range(SAMPLES):
        baseline.add(7, number, {"ovs br0": 100})
    last = SAMPLES
    for number in range(5000):  # a second full of slow ones
        baseline.add(7, last + number, {"ovs br0": 900})
    assert baseline.usual(7) == {"ovs br0": 100}
    for number in range(SAMPLES):
        baseline.add(7, last + number * APART_NS, {"ovs br0": 900})
    assert baseline.usual(7) == {"ovs br0": 900}
    baseline.add(7, 5, {"ovs br0": 1})  # the clock was set back
    assert baseline.usual(7) == {"ovs br0": 900}


def test_a_baseline_is_bounded() -> None:
    baseline = Baseline()
    for route in range(ROUTES + 5):
        for number in range(ENOUGH):
            baseline.add(route, number, {"backend": route})
        baseline.add(0, 0, {"backend": 0})
    assert len(baseline) == ROUTES
    assert baseline.usual(0) is not None
    assert baseline.usual(1) is None
    assert baseline.usual(ROUTES + 4) == {"backend": ROUTES + 4}
