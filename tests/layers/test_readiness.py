"""What is ready while something is broken."""

from __future__ import annotations

from proxy.layers import readiness
from proxy.layers.find import Interface
from proxy.layers.readiness import MOST, Readiness
from proxy.layers.taps import UNUSED_S
from proxy.layers.ways import Way


def way(*names: str) -> Way:
    return Way(tuple(Interface(name, 1) for name in names), ("",) * (len(names) - 1))


GOOD, BAD = way("veth-px", "veth-a"), way("veth-px", "veth-b")


def test_one_broken_way_beside_a_working_one_is_said_and_changes_nothing() -> None:
    known = Readiness()
    assert known.reasons() == ()
    for turn in range(10):  # one record of each in turn
        known.note(GOOD, float(turn))
        known.note(BAD, float(turn), "veth-b has gone")
        assert known.reasons() == ()
        assert known.broken() == ("veth-b has gone",)
    assert known.states() == (("veth-px, veth-a", True), ("veth-px, veth-b", False))


def test_nothing_that_works_is_not_ready_until_it_does_again() -> None:
    known = Readiness()
    known.note(BAD, 0.0, "veth-b has gone")
    known.note(way("veth-c"), 0.0, "veth-c is down")
    assert known.reasons() == ("veth-b has gone", "veth-c is down")
    known.note(BAD, 1.0)
    assert known.reasons() == ()
    assert known.broken() == ("veth-c is down",)


def test_a_tap_that_closes_says_nothing_of_what_is_broken_already() -> None:
    known = Readiness()
    known.note(GOOD, 0.0)
    known.note(BAD, 0.0, "veth-b has gone")
    known.gone("veth-px")
    assert known.states() == (("veth-px, veth-b", False),)
    assert known.reasons() == ("veth-b has gone",)


def test_what_nobody_needs_is_forgotten() -> None:
    known = Readiness()
    known.note(GOOD, 0.0)
    known.note(BAD, UNUSED_S, "veth-b has gone")
    known.sweep(UNUSED_S + 1)
    assert known.states() == (("veth-px, veth-b", False),)
    known.note(BAD, UNUSED_S + readiness._STEP, "veth-b has gone")
    known.sweep(2 * UNUSED_S + 1)
    assert len(known.states()) == 1, "it is needed still"
    known.sweep(2 * UNUSED_S + readiness._STEP + 1)
    assert known.states() == ()


def test_it_is_bounded() -> None:
    known = Readiness()
    for number in range(3 * MOST):
        known.note(way(f"veth{number}"), 0.0, "gone")
    assert len(known.states()) == MOST
