from __future__ import annotations

import asyncio
import gc
import ssl
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule

from proxy.connect.connection import Upstream
from proxy.connect.pool import Connector, Pool
from proxy.errors import Fault, Kind
from proxy.net.clock import Clock
from proxy.settings_wire import PORTS
from tests.rig import Loop, NoPorts, Wire, check_pool


class Caller:
    """Who asks for a connection, and what it got."""

    def __init__(self) -> None:
        self.queue_ns = self.dns_ns = self.connect_ns = self.tls_ns = 0
        self.abandoned = False
        self.upstream: Upstream | None = None
        self.fault: Fault | None = None
        self.answers = 0
        self.heard: list[Any] = []

    def connected(self, upstream: Upstream) -> None:
        assert not self.abandoned
        self.answers += 1
        self.upstream = upstream
        upstream.borrower = self
        upstream.deadline = float("inf")

    def not_connected(self, fault: Fault) -> None:
        assert not self.abandoned
        self.answers += 1
        self.fault = fault

    def received(self, data: bytes) -> None:
        self.heard.append(data)

    def upstream_ended(self) -> bool:
        self.heard.append("end")
        return False

    def upstream_lost(self, error: Exception | None) -> None:
        self.heard.append(error)
        self.upstream = None

    def upstream_paused(self) -> None:
        self.heard.append("paused")

    def upstream_resumed(self) -> None:
        self.heard.append("resumed")

    def overdue(self) -> None:
        self.heard.append("overdue")


class Bench:
    """One pool on a loop without sockets."""

    def __init__(self, host: str = "10.9.9.9", *, most: int = 3, most_idle: int = 2, tls: bool = False) -> None:
        self.loop = Loop()
        self.clock = Clock(self.loop.time())
        self.connector = Connector(
            self.loop, self.clock, ssl.create_default_context(), most=most, most_idle=most_idle, idle_timeout=60.0
        )
        self.connector.ports = NoPorts(PORTS)
        self.pool = Pool(self.connector, host, 9001, tls=tls, server_name="")

    @property
    def dials(self) -> list[Any]:
        return [dial for dial in self.loop.dials if dial.pending]

    def ask(self, timeout: float = 5.0, *, recorded: bool = False) -> Caller:
        caller = Caller()
        self.pool.connect(caller, timeout, recorded)
        assert caller.answers == 0, "answered before connect returned"
        self.loop.settle()
        return caller

    def borrow(self, *, recorded: bool = False) -> Caller:
        """A caller with a connection, whether new or idle."""
        upstream = self.pool.take(recorded)
        if upstream is not None:
            caller = Caller()
            caller.connected(upstream)
            return caller
        caller = self.ask(recorded=recorded)
        self.dials[0].accept()
        assert caller.upstream is not None
        return caller

    def give(self, caller: Caller) -> Upstream:
        upstream = caller.upstream
        assert upstream is not None
        caller.upstream = None
        self.pool.give(upstream)
        self.loop.settle()
        return upstream

    def pass_time(self, seconds: float) -> None:
        self.loop.now += seconds
        self.loop.settle()
        self.clock.sweep(self.loop.now)
        self.connector.sweep(self.loop.now)
        self.pool.sweep(self.loop.now)
        self.loop.settle()

    def check(self) -> None:
        check_pool(self.pool, self.dials)
        assert not self.loop.problems, self.loop.problems
        assert len(self.connector.tasks) == len(self.dials)


@contextmanager
def bench(host: str = "10.9.9.9", **options: Any) -> Iterator[Bench]:
    made = Bench(host, **options)
    try:
        yield made
        made.loop.settle()
        made.check()
    finally:
        for task in asyncio.all_tasks(made.loop):
            task.cancel()
        made.loop.settle()
        made.loop.close()


def test_the_latest_returned_is_lent_first() -> None:
    with bench() as b:
        one, other = b.borrow(), b.borrow()
        first, second = b.give(one), b.give(other)
        assert b.pool.take() is second
        assert b.pool.take() is first
        assert b.pool.take() is None


def test_served_counts_what_came_back() -> None:
    with bench() as b:
        upstream = b.give(b.borrow())
        assert upstream.served == 1
        assert b.give(b.borrow()) is upstream
        assert upstream.served == 2
        assert b.connector.opened == 1


def test_idle_connections_are_bounded_and_expire() -> None:
    with bench(most=3, most_idle=2) as b:
        callers = [b.borrow() for _ in range(3)]
        for caller in callers:
            b.give(caller)
        assert (len(b.pool.idle), b.pool.open) == (2, 2)
        b.pass_time(30)
        kept = b.give(b.borrow())
        b.pass_time(31)
        assert b.pool.idle == [kept]
        b.pass_time(61)
        assert (b.pool.idle, b.pool.open) == ([], 0)


def test_an_idle_connection_that_speaks_or_ends_is_closed() -> None:
    with bench() as b:
        callers = [b.borrow(), b.borrow()]
        for caller in callers:
            b.give(caller)
        one, other = b.loop.wires
        one.feed(b"HTTP/1.1 408 Request Timeout\r\n\r\n")
        other.end()
        assert b.pool.take() is None  # before the loop has come round
        b.loop.settle()
        assert b.pool.open == 0


def test_a_closing_connection_is_not_lent() -> None:
    with bench() as b:
        b.give(b.borrow())
        b.loop.wires[0].closing = True
        assert b.pool.take() is None
        b.loop.wires[0].lose()


def test_those_above_the_bound_wait_in_turn() -> None:
    with bench(most=1) as b:
        holder = b.borrow()
        first, second = b.ask(), b.ask()
        assert len(b.pool.waiting) == 2
        upstream = b.give(holder)
        assert first.upstream is upstream
        assert second.upstream is None
        assert first.queue_ns > 0
        b.give(first)
        assert second.upstream is upstream
        b.give(second)
        assert b.pool.idle == [upstream]


def test_who_no_longer_waits_is_passed_over() -> None:
    with bench(most=1) as b:
        holder = b.borrow()
        first, second = b.ask(), b.ask()
        first.abandoned = True
        upstream = b.give(holder)
        assert (first.answers, second.upstream) == (0, upstream)


def test_a_lost_connection_lets_the_next_one_dial() -> None:
    with bench(most=1) as b:
        holder = b.borrow()
        first, second = b.ask(), b.ask()
        first.abandoned = True
        b.loop.wires[0].lose(ConnectionResetError(104, "reset"))
        b.loop.settle()
        assert holder.heard
        b.dials[0].accept()
        assert second.upstream is not None
        assert first.answers == 0


def test_a_failed_dial_lets_the_next_one_dial() -> None:
    with bench(most=1) as b:
        first, second = b.ask(), b.ask()
        b.dials[0].fail()
        assert first.fault is not None
        assert first.fault.kind is Kind.CONNECT_FAILED
        b.dials[0].accept()
        assert second.upstream is not None


def test_waiting_ends_in_time_and_in_order() -> None:
    with bench(most=1) as b:
        b.borrow()
        first, second = b.ask(5.0), b.ask(20.0)
        b.pass_time(6)
        assert first.fault is not None
        assert first.fault.kind is Kind.OVERLOADED
        assert first.queue_ns > 0
        assert second.answers == 0
        b.pass_time(20)
        assert second.fault is not None


def test_a_shorter_wait_ends_behind_a_longer_one() -> None:
    """Routes have timeouts of their own, and share a pool."""
    with bench(most=1) as b:
        b.borrow()
        patient, hasty = b.ask(1000.0), b.ask(1.0)
        b.pass_time(10)
        assert patient.answers == 0
        assert hasty.fault is not None


def test_the_queue_is_bounded() -> None:
    with bench(most=1) as b:
        b.borrow()
        for _ in range(1024):
            b.pool.connect(Caller(), 5.0)
        late = b.ask()
        assert late.fault is not None
        assert late.fault.kind is Kind.OVERLOADED
        assert len(b.pool.waiting) == 1024


def test_those_who_left_take_no_place_in_the_queue() -> None:
    with bench(most=1) as b:
        b.borrow()
        waiting = [Caller() for _ in range(1024)]
        for caller in waiting:
            b.pool.connect(caller, 5.0)
        for caller in waiting[1:]:
            caller.abandoned = True
        b.pass_time(0.25)
        assert b.ask().fault is None


def test_connect_timeout() -> None:
    with bench() as b:
        caller = b.ask(5.0)
        b.loop.now += 5.1
        b.loop.settle()
        assert caller.fault is not None
        assert caller.fault.kind is Kind.CONNECT_TIMEOUT
        assert b.pool.open == 0


def test_death_at_once() -> None:
    """The connection is lost between its opening and its registration."""
    with bench() as b:
        caller = b.ask()
        (dial,) = b.dials
        wire = Wire(b.loop, ("127.0.0.1", 1), ("10.9.9.9", 9001))
        wire.protocol = dial.protocol
        b.loop.wires.append(wire)
        wire.protocol.connection_made(wire)
        dial.future.set_result(wire)
        wire.lose()
        b.loop.settle()
        assert caller.fault is not None
        assert caller.fault.kind is Kind.CONNECT_FAILED
        assert b.pool.open == 0


def test_a_caller_that_left_meanwhile_leaves_its_connection_to_others() -> None:
    with bench() as b:
        caller = b.ask()
        caller.abandoned = True
        b.dials[0].accept()
        assert caller.answers == 0
        assert len(b.pool.idle) == 1


def test_retired_while_lent_and_while_opening() -> None:
    with bench() as b:
        idle, lent, opening = b.borrow(), b.borrow(), b.ask()
        b.give(idle)
        b.pool.retire()
        b.loop.settle()
        assert b.pool.idle == []
        assert lent.upstream is not None
        b.dials[0].accept()
        assert opening.upstream is not None
        b.give(lent)
        b.give(opening)
        assert b.pool.open == 0


def test_recorded_requests_have_connections_of_their_own_while_the_wire_listens() -> None:
    with bench() as b:
        before = b.give(b.borrow(recorded=True))
        assert not before.tapped
        b.connector.divide(True)
        one, other = b.borrow(recorded=True), b.borrow()
        assert one.upstream is not None
        assert one.upstream.tapped
        assert other.upstream is before
        tapped, plain = b.give(one), b.give(other)
        assert (b.pool.tapped, b.pool.idle) == ([tapped], [plain])
        assert b.pool.take(False) is plain
        assert b.pool.take(False) is None
        b.pass_time(1)
        b.pool.give(plain)
        b.connector.divide(False)
        assert (b.pool.tapped, len(b.pool.idle)) == ([], 2)
        assert b.pool.take(True) is plain  # the latest returned
        assert b.pool.take(False) is tapped
        b.connector.divide(True)
        b.pool.give(plain)
        b.pool.give(tapped)
        b.pool.retire()
        b.loop.settle()
        assert (b.pool.open, b.pool.idle, b.pool.tapped) == (0, [], [])


def test_what_is_kept_is_bounded_over_both_kinds() -> None:
    with bench(most=4, most_idle=2) as b:
        b.connector.divide(True)
        callers = [b.borrow(recorded=number == 3) for number in range(4)]
        kept = [b.give(caller) for caller in callers]
        assert (b.pool.idle, b.pool.tapped) == ([kept[1]], [kept[3]])
        b.pass_time(61)
        assert b.pool.open == 0


def test_at_the_bound_one_kind_makes_room_for_the_other() -> None:
    with bench(most=2) as b:
        b.connector.divide(True)
        callers = [b.borrow() for _ in range(2)]
        for caller in callers:
            b.give(caller)
        asked = b.ask(recorded=True)
        b.dials[0].accept()
        assert asked.upstream is not None
        assert asked.upstream.tapped
        assert (b.pool.open, len(b.pool.idle)) == (2, 1)
        # Who waits takes whatever comes: connections are not made anew for it.
        lent = b.borrow()
        waits = b.ask(recorded=True)
        plain = b.give(lent)
        assert waits.upstream is plain


def test_at_the_bound_what_is_not_recorded_goes_over_an_idle_one_that_is_tapped() -> None:
    with bench(most=2) as b:
        b.connector.divide(True)
        callers = [b.borrow(recorded=True) for _ in range(2)]
        first = b.give(callers[0])
        made = b.connector.opened
        asked = b.ask()
        assert asked.upstream is first
        assert (b.pool.open, b.connector.opened, b.pool.tapped) == (2, made, [])
        assert asked.queue_ns > 0
        assert b.give(asked) is first
        assert b.pool.tapped == [first]
        assert first.served == 2


def test_a_tapped_one_that_dies_meanwhile_makes_room() -> None:
    with bench(most=1) as b:
        b.connector.divide(True)
        upstream = b.give(b.borrow(recorded=True))
        asked = Caller()
        b.pool.connect(asked, 5.0, False)
        upstream.transport.abort()
        upstream.abort()
        b.loop.settle()
        b.dials[0].accept()
        assert asked.upstream is not None
        assert asked.upstream is not upstream


def test_sweep_tells_borrowers() -> None:
    with bench() as b:
        caller = b.borrow()
        assert caller.upstream is not None
        caller.upstream.deadline = b.loop.now + 1
        b.pass_time(2)
        assert caller.heard == ["overdue"]


def test_names_are_resolved_and_tried_in_turn() -> None:
    with bench("web.test") as b:
        b.loop.names["web.test"] = ["10.0.0.1", "10.0.0.2", "10.0.0.1"]
        caller = b.ask()
        (dial,) = b.dials
        assert dial.host == "10.0.0.1"
        dial.fail()
        (dial,) = b.dials
        assert dial.host == "10.0.0.2"
        dial.accept()
        assert caller.upstream is not None
        assert caller.upstream.peer_address == "10.0.0.2"
        assert caller.dns_ns > 0
        assert caller.connect_ns > 0


def test_an_unknown_name() -> None:
    with bench("nowhere.test") as b:
        caller = b.ask()
        assert caller.fault is not None
        assert caller.fault.kind is Kind.DNS_FAILED
        assert "nowhere.test" in caller.fault.detail
        assert b.pool.open == 0


def test_all_addresses_refuse() -> None:
    with bench("web.test") as b:
        b.loop.names["web.test"] = ["10.0.0.1", "10.0.0.2"]
        caller = b.ask()
        b.dials[0].fail()
        b.dials[0].fail()
        assert caller.fault is not None
        assert caller.fault.kind is Kind.CONNECT_FAILED
        assert b.pool.open == 0


@pytest.mark.parametrize("end", ["lose", "silence", "garbage"])
def test_tls_that_does_not_come_to_be(end: str) -> None:
    with bench(tls=True) as b:
        caller = b.ask(5.0)
        wire = b.dials[0].accept()
        assert wire.sent.startswith(b"\x16\x03")  # a ClientHello
        if end == "lose":
            wire.lose()
        elif end == "garbage":
            wire.feed(b"HTTP/1.1 400 Bad Request\r\n\r\n")
        b.loop.now += 6
        b.loop.settle()
        assert caller.fault is not None
        assert caller.fault.kind is (Kind.CONNECT_TIMEOUT if end == "silence" else Kind.TLS_FAILED)
        assert wire.gone
        assert (b.pool.open, caller.tls_ns > 0) == (0, True)


def upstreams() -> int:
    """How many upstream connections there are in this process, whoever holds them."""
    gc.collect()
    return sum(isinstance(each, Upstream) for each in gc.get_objects())


@pytest.mark.parametrize("end", ["lose", "silence", "garbage"])
def test_tls_that_did_not_come_to_be_leaves_nothing_in_memory(end: str) -> None:
    # A function within a coroutine holds the coroutine's variables; compiled, the garbage collector cannot undo that.
    before = upstreams()
    for _ in range(3):
        test_tls_that_does_not_come_to_be(end)
    assert upstreams() == before


class AnySequence(RuleBasedStateMachine):
    """No slot is ever lost or counted twice, and every caller that stays is answered once."""

    def __init__(self) -> None:
        super().__init__()
        self.bench = Bench("web.test", most=3, most_idle=2)
        self.bench.loop.names["web.test"] = ["10.0.0.1"]
        self.callers: list[Caller] = []

    def holders(self) -> list[Caller]:
        return [caller for caller in self.callers if caller.upstream is not None]

    def waiting(self) -> list[Caller]:
        return [caller for caller in self.callers if not caller.answers and not caller.abandoned]

    @rule(recorded=st.booleans())
    def ask(self, recorded: bool) -> None:
        upstream = self.bench.pool.take(recorded)
        if upstream is None:
            self.callers.append(self.bench.ask(recorded=recorded))
            return
        assert upstream.tapped == recorded or not self.bench.connector.divided
        caller = Caller()
        caller.connected(upstream)
        self.callers.append(caller)

    @precondition(lambda self: self.holders())
    @rule(data=st.data(), how=st.sampled_from(["give", "discard", "abort"]))
    def finish(self, data: st.DataObject, how: str) -> None:
        caller = data.draw(st.sampled_from(self.holders()))
        upstream = caller.upstream
        assert upstream is not None
        caller.upstream = None
        if how == "give":
            self.bench.pool.give(upstream)
        elif how == "discard":
            self.bench.pool.discard(upstream)
        else:
            upstream.borrower = None
            upstream.abort()
        self.bench.loop.settle()

    @precondition(lambda self: self.waiting())
    @rule(data=st.data())
    def abandon(self, data: st.DataObject) -> None:
        data.draw(st.sampled_from(self.waiting())).abandoned = True

    @precondition(lambda self: self.bench.dials)
    @rule(data=st.data(), works=st.booleans())
    def dial(self, data: st.DataObject, works: bool) -> None:
        dial = data.draw(st.sampled_from(self.bench.dials))
        if works:
            dial.accept()
        else:
            dial.fail()
        self.bench.loop.settle()

    @precondition(lambda self: any(not wire.gone for wire in self.bench.loop.wires))
    @rule(data=st.data(), how=st.sampled_from(["lose", "end", "say"]))
    def upstream(self, data: st.DataObject, how: str) -> None:
        wire = data.draw(st.sampled_from([wire for wire in self.bench.loop.wires if not wire.gone]))
        if how == "lose":
            wire.lose()
        elif how == "end":
            wire.end()
        else:
            wire.feed(b"x")
        self.bench.loop.settle()

    @rule(seconds=st.sampled_from([0.25, 4.0, 61.0]))
    def wait(self, seconds: float) -> None:
        self.bench.pass_time(seconds)

    @rule(on=st.booleans())
    def divide(self, on: bool) -> None:
        self.bench.connector.divide(on)

    @rule()
    def retire(self) -> None:
        self.bench.pool.retire()
        self.bench.loop.settle()

    @invariant()
    def books_are_straight(self) -> None:
        self.bench.check()
        assert all(caller.answers <= 1 for caller in self.callers)
        lent = [caller.upstream for caller in self.holders()]
        assert len(set(lent)) == len(lent), "lent twice"
        assert not set(lent) & set(self.bench.pool.idle + self.bench.pool.tapped)
        if self.bench.connector.divided:
            assert not any(upstream.tapped for upstream in self.bench.pool.idle)
            assert all(upstream.tapped for upstream in self.bench.pool.tapped)
        if self.bench.pool.open < 3:
            assert not [entry for entry in self.bench.pool.waiting if not entry[0].abandoned], (
                "waiting beside a free slot"
            )

    def teardown(self) -> None:
        for dial in self.bench.dials:
            dial.fail()
        self.bench.pass_time(100.0)
        while self.bench.dials:
            self.bench.dials[0].fail()
        for wire in self.bench.loop.wires:
            if not wire.gone:
                wire.lose()
        self.bench.pass_time(100.0)
        assert self.bench.pool.open == 0
        assert all(caller.answers == 1 for caller in self.callers if not caller.abandoned)
        self.bench.loop.close()


AnySequenceTest = AnySequence.TestCase
AnySequenceTest.settings = settings(max_examples=150, stateful_step_count=40, deadline=None)


def test_one_whose_transport_is_closing_already_is_not_lent() -> None:
    with bench(most=1) as b:
        upstream: Any = b.borrow().upstream
        asked = Caller()
        b.pool.connect(asked, 5.0)
        upstream.transport.is_closing = lambda: True  # `connection_lost` comes a turn later
        b.pool.give(upstream)
        assert asked.upstream is None
        assert b.pool.idle == []
        upstream.connection_lost(None)
        b.loop.settle()
        b.dials[-1].accept()
        assert asked.upstream is not None
        assert asked.upstream is not upstream
