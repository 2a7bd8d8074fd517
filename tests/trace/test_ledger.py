from __future__ import annotations

import threading
import time

from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule

from proxy.trace.batch import Batch
from proxy.trace.ledger import REASONS, REFUSED, SHUTDOWN, ExportCounters, Ledger


def read(ledger: Ledger) -> ExportCounters:
    return ledger.counters(open_spans=0, open_bytes=0, limit=1000, endpoint="here", protocol="grpc")


class LedgerMachine(RuleBasedStateMachine):
    """Every span is somewhere, exactly once, whatever is done in whatever order."""

    def __init__(self) -> None:
        super().__init__()
        self.ledger = Ledger()
        self.waiting: list[Batch] = []
        self.taken: list[Batch] = []
        self.ended = False
        self.recorded = 0
        self.open_spans = 0

    @rule(spans=st.integers(1, 600), size=st.integers(0, 50))
    def put(self, spans: int, size: int) -> None:
        batch = Batch(b"x" * size, spans)
        self.ledger.put(batch)
        self.recorded += spans
        if not self.ended:
            self.waiting.append(batch)

    @rule(spans=st.integers(1, 5), reason=st.sampled_from(REASONS))
    def lose(self, spans: int, reason: str) -> None:
        self.ledger.lose(spans, reason)
        self.recorded += spans

    @rule(spans=st.integers(1, 5))
    def keep_local(self, spans: int) -> None:
        self.ledger.keep_local(spans)
        self.recorded += spans

    @rule(spans=st.integers(0, 5))
    def more_in_the_open_batch(self, spans: int) -> None:
        self.open_spans = spans

    @precondition(lambda self: self.waiting and not self.taken)
    @rule()
    def take(self) -> None:
        batch = self.ledger.take()
        assert batch is self.waiting.pop(0)
        self.taken.append(batch)

    @precondition(lambda self: self.taken)
    @rule()
    def call(self) -> None:
        before = read(self.ledger)
        again = self.taken[0].sent
        self.ledger.called(self.taken[0])
        after = read(self.ledger)
        assert after.calls == before.calls + 1
        assert after.retries == before.retries + again
        assert after.sent == before.sent + (0 if again else self.taken[0].spans)

    @precondition(lambda self: self.taken)
    @rule(rejected=st.integers(-5, 1000), reason=st.sampled_from(["", *REASONS]), twice=st.booleans())
    def settle(self, rejected: int, reason: str, twice: bool) -> None:
        batch = self.taken.pop()
        self.ledger.settle(batch, rejected=rejected, dropped=reason)
        if twice:
            self.ledger.settle(batch, dropped=REFUSED)

    @rule()
    def end(self) -> None:
        before = read(self.ledger)
        assert self.ledger.end() == before.pending + before.dropped[SHUTDOWN]
        self.ended = True
        self.waiting.clear()

    @invariant()
    def nothing_is_lost_or_counted_twice(self) -> None:
        counters = self.ledger.counters(
            open_spans=self.open_spans, open_bytes=7, limit=1000, endpoint="here", protocol="grpc"
        )
        assert counters.recorded == self.recorded + self.open_spans
        assert counters.recorded == (
            counters.acknowledged
            + counters.rejected
            + counters.local
            + sum(counters.dropped.values())
            + counters.pending
        )
        unsettled = [*self.waiting, *(batch for batch in self.taken if not batch.settled)]
        assert counters.pending == sum(batch.spans for batch in unsettled) + self.open_spans
        assert counters.pending_bytes == sum(len(batch.body) for batch in unsettled) + 7
        assert min(counters.acknowledged, counters.rejected, *counters.dropped.values()) >= 0
        assert set(counters.dropped) == set(REASONS)
        assert self.ledger.pending_bytes == counters.pending_bytes - 7


TestLedger = LedgerMachine.TestCase


def test_rejected_is_bounded_by_what_was_sent() -> None:
    ledger = Ledger()
    for rejected, expected in ((2, (3, 2)), (99, (0, 5)), (-1, (5, 0))):
        before = read(ledger)
        batch = Batch(b"", 5)
        ledger.put(batch)
        assert ledger.take() is batch
        ledger.settle(batch, rejected=rejected)
        after = read(ledger)
        assert (after.acknowledged - before.acknowledged, after.rejected - before.rejected) == expected


def test_take_waits_for_a_batch_and_ends_with_the_shutdown() -> None:
    ledger = Ledger()
    taken: list[Batch | None] = []
    thread = threading.Thread(target=lambda: taken.extend((ledger.take(), ledger.take())))
    thread.start()
    batch = Batch(b"1", 1)
    ledger.put(batch)
    ledger.begin_shutdown(time.monotonic() + 100)
    thread.join(10)
    assert taken == [batch, None]


def test_a_shutdown_interrupts_a_pause_but_not_one_through_it() -> None:
    ledger = Ledger()
    assert ledger.pause(0.0)
    threading.Timer(0.01, ledger.begin_shutdown, (0.0,)).start()
    assert not ledger.pause(time.monotonic() + 1000)
    assert not ledger.pause(time.monotonic() + 1000)
    assert ledger.pause(time.monotonic() + 0.001, through_shutdown=True)


def test_waiting_until_nothing_is_pending() -> None:
    ledger = Ledger()
    assert ledger.wait_idle(0.0)
    batch = Batch(b"1", 1)
    ledger.put(batch)
    assert not ledger.wait_idle(0.0)
    threading.Timer(0.01, ledger.settle, (batch,)).start()
    assert ledger.wait_idle(30)


def test_errors_and_reachability() -> None:
    ledger = Ledger()
    assert read(ledger).reachable is None
    ledger.answered("503: busy", reachable=False)
    ledger.answered("probe failed", reachable=False, call=False)
    counters = read(ledger)
    assert (counters.reachable, counters.last_error, counters.failures) == (False, "probe failed", 1)
    assert 0 < counters.last_error_ns <= time.time_ns()
    ledger.answered("", reachable=True)
    assert read(ledger).reachable is True
    assert read(ledger).last_error == "probe failed"


def test_it_shows_its_state() -> None:
    ledger = Ledger()
    ledger.put(Batch(b"12", 3))
    assert repr(ledger) == "Ledger(open, 1 batches waiting, 3 spans pending, 2 bytes)"
    ledger.begin_shutdown(1.0)
    assert "finishing" in repr(ledger)
    ledger.end()
    assert "ended" in repr(ledger)
    assert read(ledger).dropped[SHUTDOWN] == 3
