import pytest

from proxy.admin import gather
from proxy.admin.gather import LATEST_S, QUIET_S, ROOTLESS_S, Gatherer
from proxy.trace.view import decode
from tests.admin.spans import TRACE, batch, checkout, plain, request, span

OTHER = "ab" * 16


def ids(traces):
    return [trace.trace_id for trace in traces]


def test_a_trace_is_complete_when_its_root_has_ended_and_nothing_grows():
    gatherer = Gatherer()
    proxy, shop, cart, stock = checkout()
    gatherer.add(decode([shop, cart]), 10.0)
    assert gatherer.complete(10.0 + QUIET_S) == []
    assert gatherer.rooted == 0
    gatherer.add(decode([proxy]), 12.0)
    assert gatherer.rooted == 1
    gatherer.add(decode([stock]), 13.0)
    assert gatherer.complete(13.0 + QUIET_S - 0.01) == []
    (trace,) = gatherer.complete(13.0 + QUIET_S)
    assert len(trace.nodes) == 13
    assert all(not node.orphan for node in trace.nodes)
    assert gatherer.complete(100.0) == []


def test_what_is_delivered_twice_is_no_growth():
    gatherer = Gatherer()
    gatherer.add(decode(checkout()), 0.0)
    gatherer.add(decode(checkout()), QUIET_S - 0.1)
    (trace,) = gatherer.complete(QUIET_S)
    assert len(trace.nodes) == 13


def test_a_late_span_makes_no_second_trace():
    gatherer = Gatherer()
    proxy, *services = checkout()
    gatherer.add(decode([proxy]), 0.0)
    assert ids(gatherer.complete(QUIET_S)) == [TRACE]
    gatherer.add(decode(services), 3.0)
    assert len(gatherer) == 0
    assert gatherer.late == 11


def test_the_root_of_a_trace_that_a_caller_began_is_the_proxys_span():
    gatherer = Gatherer()
    continued = batch("spanway", span(1, 99, "GET /", 0, 5, "SERVER", **request("GET", 200)))
    gatherer.add(decode([continued]), 0.0)
    assert ids(gatherer.complete(QUIET_S)) == [TRACE]


def test_without_a_root_it_waits_for_long_but_not_for_ever():
    gatherer = Gatherer()
    gatherer.add(decode([checkout()[1]]), 0.0)
    assert gatherer.complete(LATEST_S + 1) == []
    gatherer.add(decode([checkout()[2]]), 20.0)
    assert gatherer.complete(19.0 + ROOTLESS_S) == []
    assert ids(gatherer.complete(20.0 + ROOTLESS_S)) == [TRACE]


def test_an_application_that_is_known_to_speak_is_waited_for():
    gatherer = Gatherer()
    gatherer.add(decode(checkout()), 0.0)
    assert ids(gatherer.complete(QUIET_S)) == [TRACE]
    proxy, *services = checkout(OTHER)
    gatherer.add(decode([proxy]), 10.0)
    assert gatherer.complete(10.0 + LATEST_S - 0.1) == []
    gatherer.add(decode(services), 10.0 + LATEST_S - 0.1)
    (trace,) = gatherer.complete(10.0 + LATEST_S)
    assert len(trace.nodes) == 13


def test_it_is_not_waited_for_longer_than_the_latest():
    gatherer = Gatherer()
    gatherer.add(decode(checkout()), 0.0)
    gatherer.complete(QUIET_S)
    gatherer.add(decode(checkout(OTHER)[:1]), 10.0)
    assert ids(gatherer.complete(10.0 + LATEST_S)) == [OTHER]


def test_an_attempt_that_got_no_answer_has_no_spans_to_wait_for():
    gatherer = Gatherer()
    gatherer.add(decode(checkout()), 0.0)
    gatherer.complete(QUIET_S)
    where = {"server__address": "127.0.0.1", "server__port": 41234}
    failed = batch(
        "spanway",
        span(1, 0, "GET /", 0, 5, "SERVER", "connect_failed", **request("GET", 502)),
        span(2, 1, "GET", 0, 5, "CLIENT", "connect_failed", http__request__method="GET", **where),
        trace=OTHER,
    )
    gatherer.add(decode([failed]), 10.0)
    assert ids(gatherer.complete(10.0 + QUIET_S)) == [OTHER]


def test_an_upstream_that_never_speaks_is_not_waited_for():
    gatherer = Gatherer()
    gatherer.add(decode([plain()]), 0.0)
    assert ids(gatherer.complete(QUIET_S)) == [TRACE]
    gatherer.add(decode([plain(OTHER)]), 5.0)
    assert ids(gatherer.complete(5.0 + QUIET_S)) == [OTHER]


def numbered(number):
    return f"{number + 1:032x}"


def test_memory_is_bounded_by_telling_the_oldest_early(monkeypatch):
    monkeypatch.setattr(gather, "MOST_TRACES", 5)
    gatherer = Gatherer()
    for number in range(9):
        gatherer.add(decode([batch("app", span(2, 1, "part", 0, 1), trace=numbered(number))]), float(number))
    assert ids(gatherer.complete(9.0)) == [numbered(number) for number in range(4)]
    assert len(gatherer) == 5


def test_spans_of_one_trace_and_told_ids_are_bounded(monkeypatch):
    monkeypatch.setattr(gather, "MOST_SPANS", 10)
    monkeypatch.setattr(gather, "MOST_TOLD", 3)
    gatherer = Gatherer()
    gatherer.add(decode([batch("app", *(span(n, 0, "x", 0, 1) for n in range(1, 100)))]), 0.0)
    (trace,) = gatherer.complete(QUIET_S)
    assert len(trace.nodes) == 10
    for number in range(10):
        gatherer.add(decode([plain(numbered(number))]), 10.0)
    gatherer.complete(20.0)
    assert len(gatherer._told) == 3


def test_at_the_end_everything_is_told():
    gatherer = Gatherer()
    gatherer.add(decode([checkout()[1], plain(OTHER)]), 0.0)
    assert sorted(ids(gatherer.finish())) == sorted([TRACE, OTHER])
    assert gatherer.finish() == []


@pytest.mark.parametrize("quiet", [0.5, 3.0])
def test_how_long_quiet_is_can_be_set(quiet):
    gatherer = Gatherer(quiet=quiet)
    gatherer.add(decode([plain()]), 0.0)
    assert gatherer.complete(quiet - 0.01) == []
    assert ids(gatherer.complete(quiet)) == [TRACE]


def test_the_wire_does_not_speak_for_an_upstream():
    gatherer = Gatherer()
    wire = span(20, 2, "wire", 0.2, 3.9, spanway__wire__split="backend 3.7 ms")
    gatherer.add(decode([plain(), batch("spanway-wire", wire)]), 0.0)
    assert ids(gatherer.complete(QUIET_S)) == [TRACE]
    gatherer.add(decode([plain(OTHER)]), 10.0)
    assert ids(gatherer.complete(10.0 + QUIET_S)) == [OTHER], "an upstream that sends no spans is not waited for"
