"""Which packets the taps are to take: what is left out of the proxy's ports, and what brings it back."""

from __future__ import annotations

import time
from collections import Counter

import pytest

from proxy.layers.frames import Flows, Packets, parse
from proxy.layers.join import Joiner
from proxy.layers.select import MOST_PEERS, program
from proxy.layers.widening import SETTLE_NS, STRANGE, Widening
from proxy.settings_wire import PortRange
from proxy.trace.handover import Record
from tests.layers.blocks import Segment, block
from tests.layers.path import Ask, Hop, Net

PORTS = PortRange(57344, 60999)
POOL = (PORTS.low, PORTS.high)
(RECORD,) = Net([Hop(), Hop(), Hop()]).run([Ask()])


@pytest.fixture
def chosen() -> list[bytes]:
    return []


@pytest.fixture
def made(chosen: list[bytes]) -> Widening:
    return Widening(PORTS, True, chosen.append)


def of(port: int, peer_port: int) -> Record:
    return RECORD._replace(local_port=port, peer_port=peer_port)


def test_many_packets_and_no_record_are_left_out_until_one_comes(made: Widening, chosen: list[bytes]) -> None:
    assert made.takes(of(58_000, 8000))
    made.leave_out(lambda _: Counter({8000: 10 * STRANGE, 80: STRANGE, 4317: STRANGE - 1}))
    assert made.strangers == {80}
    made.leave_out(lambda _: Counter({80: 2 * STRANGE}))
    assert chosen == [program(POOL, (), {80})]
    assert made.takes(of(58_001, 80))
    made.leave_out(lambda _: Counter({80: 3 * STRANGE}))
    assert chosen == [program(POOL, (), {80}), program(POOL)]


def test_a_clock_that_is_set_back_is_no_reason_to_wait_for_as_long(
    chosen: list[bytes], monkeypatch: pytest.MonkeyPatch
) -> None:
    now = [RECORD.write_ns + 3_600_000_000_000]
    monkeypatch.setattr(time, "time_ns", lambda: now[0])
    made = Widening(PORTS, True, chosen.append)
    now[0] = RECORD.write_ns - 2 * SETTLE_NS  # an hour back
    assert not made.takes(of(40_000, 8000))
    made.narrow()  # every five seconds
    assert made.takes(of(40_000, 8000))


def test_what_is_left_out_is_bounded(made: Widening, chosen: list[bytes]) -> None:
    made.leave_out(lambda _: Counter(dict.fromkeys(range(1, 51), STRANGE)))
    made.leave_out(lambda _: Counter(dict.fromkeys(range(1000, 1050), STRANGE)))
    made.leave_out(lambda _: Counter({9: STRANGE}))
    assert len(made.strangers) == MOST_PEERS
    assert len(chosen) == 2


def test_nothing_is_left_out_where_all_is_asked_for(chosen: list[bytes]) -> None:
    made = Widening(None, False, chosen.append)
    made.leave_out(lambda _: Counter({80: STRANGE}))
    assert (chosen, made.strangers) == ([], set())


def test_strangers_are_what_no_record_was_of() -> None:
    flows, packets = Flows(), Packets()
    joiner = Joiner(flows)
    client = Segment(source_port=58_000, target_port=80)
    between = Segment(source_port=58_000, target_port=58_001)
    elsewhere = Segment(source_port=40_000, target_port=8000)
    parse(block([each.frame() for each in (client, client, between, elsewhere)]), flows, packets)
    joiner.feed(0, packets)
    joiner.feed(1, packets)  # the same ones, at another tap
    assert joiner.strangers(POOL) == {80: 2}
    parts = [joiner.strangers(POOL, 1) for _ in range(6)]  # of three connections
    assert sorted(parts[:3], key=len) == sorted(parts[3:], key=len) == [{}, {}, {80: 2}]
