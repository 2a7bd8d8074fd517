from __future__ import annotations

import logging
import time
from collections.abc import Iterator

import pytest
from hypothesis import given
from hypothesis import strategies as st

from proxy.trace.batch import Batch
from proxy.trace.ledger import EXHAUSTED, INTERNAL, REFUSED, SHUTDOWN, ExportCounters, Ledger
from proxy.trace.sender import LOG_EVERY, RareLog, Retry, Sender
from proxy.trace.transport import Outcome
from tests.trace.collectors import ACCEPTED, BUSY, Gate, ScriptedTransport, Step
from tests.trace.collectors import REFUSED as REFUSAL

SOON = Retry(first=0.001, longest=0.002, give_up=300.0)
PATIENCE = 20.0  # seconds, used up only by a failing test


class Rig:
    """A ledger, a scripted transport and the sender between them."""

    def __init__(
        self,
        *script: Step,
        otherwise: Step = ACCEPTED,
        retry: Retry = SOON,
        probe: bool = False,
        timeout: float = 5.0,
    ) -> None:
        self.ledger = Ledger()
        self.transport = ScriptedTransport(*script, otherwise=otherwise)
        self.sender = Sender(self.ledger, self.transport, timeout=timeout, retry=retry, probe=probe)

    def put(self, *bodies: bytes, spans: int = 2) -> None:
        for body in bodies:
            self.ledger.put(Batch(body, spans))

    def settled(self) -> ExportCounters:
        """The counters once nothing is pending."""
        assert self.ledger.wait_idle(PATIENCE)
        return self.counters()

    def failed(self) -> None:
        """Wait for the first call that failed."""
        while self.counters().failures == 0:
            time.sleep(0.001)

    def counters(self) -> ExportCounters:
        counters = self.ledger.counters(open_spans=0, open_bytes=0, limit=0, endpoint="", protocol="")
        assert counters.recorded == (
            counters.acknowledged + counters.rejected + sum(counters.dropped.values()) + counters.pending
        )
        return counters


@pytest.fixture
def rigs() -> Iterator[list[Rig]]:
    made: list[Rig] = []
    yield made
    for rig in made:
        rig.sender.close(0.0)
        assert rig.transport.closed.wait(PATIENCE)


def start(rigs: list[Rig], rig: Rig) -> Rig:
    rigs.append(rig)
    rig.sender.start()
    rig.sender.start()  # a second one does nothing
    return rig


def test_batches_leave_in_order_and_are_acknowledged(rigs: list[Rig]) -> None:
    rig = start(rigs, Rig())
    rig.put(b"1", b"2", b"3")
    counters = rig.settled()
    assert rig.transport.bodies == [b"1", b"2", b"3"]
    assert (counters.acknowledged, counters.sent, counters.calls, counters.retries) == (6, 6, 3, 0)
    assert counters.reachable is True
    assert "running" in repr(rig.sender)


def test_what_is_retryable_is_repeated_and_counted_once(rigs: list[Rig]) -> None:
    rig = start(rigs, Rig(BUSY, BUSY, ACCEPTED))
    rig.put(b"1", b"2")
    counters = rig.settled()
    assert rig.transport.bodies == [b"1", b"1", b"1", b"2"]
    assert (counters.acknowledged, counters.sent) == (4, 4)
    assert (counters.calls, counters.retries, counters.failures) == (4, 2, 2)


def test_what_is_not_retryable_is_dropped_at_once(rigs: list[Rig]) -> None:
    rig = start(rigs, Rig(REFUSAL))
    rig.put(b"1", b"2")
    counters = rig.settled()
    assert rig.transport.bodies == [b"1", b"2"]
    assert (counters.acknowledged, counters.dropped[REFUSED]) == (2, 2)
    assert counters.last_error == "400: bad span"


def test_partial_success(rigs: list[Rig], caplog: pytest.LogCaptureFixture) -> None:
    rig = start(rigs, Rig(Outcome("accepted", "OK", rejected=3, text="too old")))
    rig.put(b"1", spans=5)
    counters = rig.settled()
    rig.sender.close(PATIENCE)
    assert (counters.acknowledged, counters.rejected) == (2, 3)
    assert "rejected 3 of 5 spans: too old" in caplog.text


def test_it_gives_a_batch_up_after_a_time_and_goes_on_with_the_next(rigs: list[Rig]) -> None:
    rig = start(rigs, Rig(BUSY, retry=SOON._replace(give_up=0.0)))
    rig.put(b"1", b"2")
    counters = rig.settled()
    assert rig.transport.bodies == [b"1", b"2"]
    assert (counters.dropped[EXHAUSTED], counters.acknowledged) == (2, 2)


def test_it_waits_as_long_as_the_collector_asks(rigs: list[Rig]) -> None:
    rig = start(rigs, Rig(Outcome("retry", "429", delay=1000.0), retry=SOON._replace(give_up=2000.0)))
    rig.put(b"1", b"2")
    rig.failed()
    # Only a wait of a thousand seconds can outlast the shutdown below: neither our own of 2 ms nor a second call did.
    assert not rig.sender.close(0.2)
    assert rig.transport.bodies == [b"1"]
    assert rig.counters().dropped[SHUTDOWN] == 4


def test_a_wait_asked_for_is_bounded_by_what_a_batch_may_take(rigs: list[Rig]) -> None:
    # A collector with a wrong clock asks for a day: the batch is given up, and the next goes out.
    rig = start(rigs, Rig(Outcome("retry", "429", delay=86_400.0), retry=SOON._replace(give_up=0.0)))
    rig.put(b"1", b"2")
    counters = rig.settled()
    assert (counters.dropped[EXHAUSTED], counters.acknowledged) == (2, 2)


def test_a_short_wait_asked_for_is_kept_during_a_shutdown(rigs: list[Rig]) -> None:
    rig = Rig(Outcome("retry", "429", delay=0.01), Outcome("retry", "429", delay=0.01))
    rig.put(b"1")
    start(rigs, rig)
    assert rig.sender.close(PATIENCE)
    assert rig.transport.bodies == [b"1"] * 3
    assert rig.counters().acknowledged == 2


def test_a_shutdown_cuts_its_own_patience_short_once(rigs: list[Rig]) -> None:
    gate = Gate()
    rig = start(rigs, Rig(BUSY, gate, retry=Retry(first=1000.0, longest=1000.0, give_up=5000.0)))
    rig.put(b"1")
    rig.failed()
    gate.opened.set()
    # The backoff of at least 500 s is not waited for: one more call at once, which succeeds.
    assert rig.sender.close(PATIENCE)
    assert rig.transport.bodies == [b"1", b"1"]


def test_after_that_call_it_does_not_wait_beyond_the_deadline(rigs: list[Rig]) -> None:
    rig = start(rigs, Rig(otherwise=BUSY, retry=Retry(first=1000.0, longest=1000.0, give_up=5000.0)))
    rig.put(b"1", b"2")
    rig.failed()
    assert not rig.sender.close(PATIENCE)  # returns long before: the test would time out
    assert rig.transport.bodies == [b"1", b"1"]
    assert rig.counters().dropped[SHUTDOWN] == 4


def test_a_hanging_call_is_cut_and_its_batch_counted_once(rigs: list[Rig]) -> None:
    rig = start(rigs, Rig(Gate()))
    rig.put(b"1", b"2")
    while not rig.transport.bodies:
        time.sleep(0.001)
    assert not rig.sender.close(0.01)
    assert rig.transport.closed.wait(PATIENCE)
    assert rig.transport.aborted.is_set()
    assert rig.transport.bodies == [b"1"]
    assert rig.counters().dropped[SHUTDOWN] == 4
    assert "ended" in repr(rig.sender)


def test_a_call_that_cannot_even_be_cut_does_not_hold_the_shutdown(rigs: list[Rig]) -> None:
    gate = Gate()

    def deaf(_: bytes) -> Outcome:
        gate.pass_through()
        return ACCEPTED

    rig = start(rigs, Rig(deaf))
    rig.put(b"1")
    assert gate.reached.wait(PATIENCE)
    assert not rig.sender.close(0.0)
    assert rig.counters().dropped[SHUTDOWN] == 2
    gate.opened.set()
    assert rig.transport.closed.wait(PATIENCE)
    # The late success changes nothing any more.
    assert (rig.counters().acknowledged, rig.counters().dropped[SHUTDOWN]) == (0, 2)


def test_calls_are_bounded_by_the_timeout_and_by_what_the_shutdown_leaves(rigs: list[Rig]) -> None:
    gate = Gate()
    rig = start(rigs, Rig(gate, timeout=50.0))
    rig.put(b"1", b"2")
    assert gate.reached.wait(PATIENCE)
    assert rig.transport.timeouts == [50.0]
    rig.ledger.begin_shutdown(time.monotonic() + 20.0)
    gate.opened.set()
    rig.settled()
    assert 0 < rig.transport.timeouts[1] <= 20.0


def test_a_sender_that_was_never_started_closes_too() -> None:
    rig = Rig()
    rig.put(b"1")
    assert not rig.sender.close(0.0)
    assert rig.counters().dropped[SHUTDOWN] == 2
    assert "not started" in repr(rig.sender)


@pytest.mark.parametrize("surprise", [RuntimeError("what"), SystemExit(1), MemoryError(), KeyError("x")])
def test_nothing_kills_the_thread(rigs: list[Rig], surprise: BaseException, caplog: pytest.LogCaptureFixture) -> None:
    rig = start(rigs, Rig(surprise))
    rig.put(b"1", b"2")
    counters = rig.settled()
    assert (counters.dropped[INTERNAL], counters.acknowledged) == (2, 2)
    assert "please report" in caplog.text
    assert type(surprise).__name__ in counters.last_error


def test_a_transport_that_cannot_even_close(rigs: list[Rig], caplog: pytest.LogCaptureFixture) -> None:
    rig = start(rigs, Rig())
    close = rig.transport.close

    def broken() -> None:
        close()
        raise RuntimeError("no")

    rig.transport.close = broken  # type: ignore[method-assign] # a transport that breaks at the very end
    rig.sender.close(PATIENCE)
    assert "Closing the connection" in caplog.text


class TestProbe:
    def test_it_goes_out_before_any_span_and_says_nothing_when_all_is_well(
        self, rigs: list[Rig], caplog: pytest.LogCaptureFixture
    ) -> None:
        rig = start(rigs, Rig(probe=True))
        rig.put(b"1")
        rig.settled()
        assert rig.transport.probes == 1
        assert rig.counters().calls == 1
        assert not caplog.records

    def test_a_failing_probe_names_endpoint_error_and_next_step(
        self, rigs: list[Rig], caplog: pytest.LogCaptureFixture
    ) -> None:
        caplog.set_level(logging.INFO)
        rig = Rig(probe=True)
        rig.transport.probe_step = Outcome("retry", "UNAVAILABLE", text="connection refused", hint="Start a collector.")
        start(rigs, rig)
        while rig.counters().reachable is None:
            time.sleep(0.001)
        assert rig.counters().last_error == "UNAVAILABLE: connection refused"
        assert rig.counters().failures == 0
        rig.put(b"1")
        rig.settled()
        rig.sender.close(PATIENCE)
        warning, recovery = caplog.messages
        assert "http://collector.test:4317 (OTLP grpc): UNAVAILABLE: connection refused." in warning
        assert warning.endswith("Start a collector.")
        assert recovery == "http://collector.test:4317 accepts spans again"

    def test_a_collector_that_only_dislikes_empty_requests_is_none_of_our_business(
        self, rigs: list[Rig], caplog: pytest.LogCaptureFixture
    ) -> None:
        rig = Rig(probe=True)
        rig.transport.probe_step = Outcome("refused", "400", text="empty")
        start(rigs, rig)
        rig.put(b"1")
        assert rig.settled().acknowledged == 2
        assert not caplog.records

    def test_a_probe_that_breaks_is_survived(self, rigs: list[Rig], caplog: pytest.LogCaptureFixture) -> None:
        rig = Rig(probe=True)
        rig.transport.probe_step = SystemExit(3)
        start(rigs, rig)
        rig.put(b"1")
        assert rig.settled().acknowledged == 2
        assert "probe failed" in caplog.text


class TestBackoff:
    def test_it_doubles_up_to_its_longest(self) -> None:
        retry = Retry(first=1.0, longest=30.0)
        assert [retry.wait(failures, 1.0) for failures in range(1, 8)] == [1, 2, 4, 8, 16, 30, 30]
        assert retry.wait(1, 0.0) == 0.5
        assert retry.wait(10**6, 1.0) == 30.0

    @given(st.integers(1, 10**9), st.floats(0, 1))
    def test_it_is_always_between_half_the_first_and_the_longest(self, failures: int, chance: float) -> None:
        assert 0.5 <= Retry().wait(failures, chance) <= 30.0


class TestRareLog:
    def test_the_first_at_once_then_one_a_minute_with_the_number_left_out(
        self, caplog: pytest.LogCaptureFixture
    ) -> None:
        now = 100.0
        rare = RareLog(lambda: now)
        rare.warn("no %s", "luck")
        for _ in range(41):
            rare.warn("no %s", "luck")
        now += LOG_EVERY - 0.1
        rare.warn("no %s", "luck")
        now += 0.2
        rare.warn("no %s", "luck")
        now += LOG_EVERY
        rare.warn("no %s", "luck")
        assert caplog.messages == ["no luck", "no luck (42 more like it since the last such line)", "no luck"]

    def test_recovery_is_told_once_and_only_after_trouble(self, caplog: pytest.LogCaptureFixture) -> None:
        caplog.set_level(logging.INFO)
        rare = RareLog()
        rare.recovered("fine")
        rare.warn("bad")
        rare.recovered("fine")
        rare.recovered("fine")
        assert caplog.messages == ["bad", "fine"]

    def test_flapping_does_not_flood(self, caplog: pytest.LogCaptureFixture) -> None:
        caplog.set_level(logging.INFO)
        rare = RareLog(lambda: 5.0)
        for _ in range(100):
            rare.warn("bad")
            rare.recovered("fine")
        assert caplog.messages == ["bad", "fine"]
