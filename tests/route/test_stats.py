from __future__ import annotations

import bisect

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from proxy.route.samples import DURATION_BOUNDS, SELF_BOUNDS, Exemplar, RouteSample, merge
from proxy.route.stats import Ledger, RouteStats
from tests.route.strategies import rule

TRACE = bytes(range(16))
MS = 1_000_000


def observed(*requests: tuple[int, int]) -> RouteSample:
    """Of (status, duration in milliseconds)."""
    stats = RouteStats("ns", "web", "a.test", "/")
    for status, duration in requests:
        stats.observe(status, duration * MS, 40_000, "", TRACE, False, 0)
    return stats.snapshot()


def test_counts() -> None:
    stats = RouteStats("ns", "web", "a.test", "/")
    stats.observe(200, 3 * MS, 40_000, "", TRACE, True, 5_000_000_000)
    stats.observe(200, 30 * MS, 40_000, "", TRACE, False, 6_000_000_000)
    stats.observe(502, 20_000 * MS, 400_000_000, "connect_failed", b"z" * 16, True, 7_000_000_000)
    stats.observe(0, 1, 1, "client_gone", TRACE, False, 8_000_000_000)
    stats.observe(0, 1, 1, "client_gone", TRACE, False, 8_000_000_000)
    sample = stats.snapshot()
    assert sample.statuses == {200: 2, 502: 1, 0: 2}
    assert sample.faults == {"connect_failed": 1, "client_gone": 2}
    assert sample.requests == 5
    assert sample.buckets == (3, 0, 0, 1, *[0] * 10, 1)
    assert sample.seconds == pytest.approx(20.033, abs=1e-6)
    assert sample.self_buckets[0] == 2
    assert sample.self_buckets[SELF_BOUNDS.index(5e-05)] == 2
    assert sample.self_buckets[-1] == 1
    assert sample.exemplars[0] == Exemplar(TRACE, 0.003, 5.0), "an unrecorded request is no exemplar"
    assert sample.exemplars[3] is None
    assert sample.exemplars[-1] == Exemplar(b"z" * 16, 20.0, 7.0)


def test_a_clock_that_was_set_back_takes_nothing_away() -> None:
    stats = RouteStats("ns", "web", "a.test", "/")
    stats.observe(200, 3 * MS, 40_000, "", TRACE, False, 0)
    stats.observe(200, -3_600_000 * MS, -3_600_000 * MS, "", TRACE, True, 0)
    sample = stats.snapshot()
    assert sample.buckets[0] == 2
    assert (sample.seconds, sample.self_seconds) == (0.003, 4e-05)
    assert sample.exemplars[0] == Exemplar(TRACE, 0.0, 0.0)


@pytest.mark.parametrize("place", range(len(DURATION_BOUNDS)))
def test_a_bound_belongs_to_its_own_bucket(place: int) -> None:
    stats = RouteStats("", "", "", "")
    bound = round(DURATION_BOUNDS[place] * 1e9)
    stats.observe(200, bound, 0, "", TRACE, False, 0)
    stats.observe(200, bound + 1, 0, "", TRACE, False, 0)
    buckets = stats.snapshot().buckets
    assert (buckets[place], buckets[place + 1]) == (1, 1)


@given(st.lists(st.tuples(st.integers(0, 20 * 10**9), st.integers(0, 10**9))))
def test_histograms_agree_with_a_plain_count(requests: list[tuple[int, int]]) -> None:
    stats = RouteStats("", "", "", "")
    for duration, own in requests:
        stats.observe(200, duration, own, "", TRACE, False, 0)
    sample = stats.snapshot()
    wanted, wanted_self = [0] * (len(DURATION_BOUNDS) + 1), [0] * (len(SELF_BOUNDS) + 1)
    for duration, own in requests:
        wanted[bisect.bisect_left(DURATION_BOUNDS, duration / 1e9)] += 1
        wanted_self[bisect.bisect_left(SELF_BOUNDS, own / 1e9)] += 1
    assert (list(sample.buckets), list(sample.self_buckets)) == (wanted, wanted_self)
    assert sample.seconds == sum(duration for duration, _ in requests) / 1e9


def test_a_snapshot_does_not_change_and_crosses_as_msgpack() -> None:
    stats = RouteStats("ns", "web", "a.test", "/")
    stats.observe(200, MS, MS, "", TRACE, True, 1)
    sample = stats.snapshot()
    stats.observe(500, MS, MS, "internal", TRACE, True, 2)
    assert (sample.statuses, sample.faults, sample.requests) == ({200: 1}, {}, 1)
    assert msgspec.msgpack.decode(msgspec.msgpack.encode(sample), type=RouteSample) == sample


def test_a_ledger_keeps_counting_over_swaps_and_forgets_what_went() -> None:
    ledger = Ledger()
    stays, goes, fallback = rule("Prefix a.test/"), rule("Prefix b.test/"), rule("Prefix /")
    ledger.of(stays).observe(200, 1, 1, "", TRACE, False, 0)
    ledger.of(goes).observe(200, 1, 1, "", TRACE, False, 0)
    ledger.of(fallback).observe(200, 1, 1, "", TRACE, False, 0)
    ledger.unrouted.observe(404, 1, 1, "no_route", TRACE, False, 0)
    ledger.forget([ledger.of(goes)])
    assert ledger.of(stays) is ledger.of(rule("Prefix a.test/"))
    assert [(sample.host, sample.requests) for sample in ledger.samples()] == [("a.test", 1), ("", 1), ("", 1)]
    assert ledger.of(goes).snapshot().requests == 0
    ledger.forget([ledger.of(stays), ledger.of(fallback)])
    assert repr(ledger) == "Ledger(1 routes)"
    ledger.forget([ledger.of(goes), ledger.of(goes)])
    assert [sample.faults for sample in ledger.samples()] == [{"no_route": 1}]


def test_merge_adds_workers_up() -> None:
    one, other = observed((200, 1), (404, 30)), observed((200, 2), (500, 20_000))
    stranger = msgspec.structs.replace(observed((200, 1)), path="/else")
    old, new = Exemplar(TRACE, 0.001, 1.0), Exemplar(b"n" * 16, 0.002, 2.0)
    empty = (None,) * (len(DURATION_BOUNDS) - 1)
    one = msgspec.structs.replace(one, exemplars=(new, old, *empty), faults={"a": 1})
    other = msgspec.structs.replace(other, exemplars=(old, None, *empty), faults={"a": 2, "b": 1})
    both, alone = merge([one, stranger, other])
    assert alone == stranger
    assert both.statuses == {200: 2, 404: 1, 500: 1}
    assert both.faults == {"a": 3, "b": 1}
    assert both.requests == 4
    assert both.buckets[0] == 2
    assert both.seconds == pytest.approx(one.seconds + other.seconds)
    assert both.self_seconds == pytest.approx(4 * 40e-6)
    assert sum(both.self_buckets) == 4
    assert both.exemplars == (new, old, *empty)
    assert one.statuses == {200: 1, 404: 1}, "the samples themselves are left alone"


def test_repr_shows_the_counts() -> None:
    stats = RouteStats("ns", "web", "a.test", "/")
    stats.observe(404, 1, 1, "no_route", TRACE, False, 0)
    assert repr(stats) == "RouteStats(ns/web a.test/: {404: 1} {'no_route': 1})"
