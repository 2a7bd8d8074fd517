from __future__ import annotations

from collections import deque

from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule

from proxy.trace.ring import ITEM_COST, Ring


def test_newest_last_and_the_oldest_go_first() -> None:
    ring = Ring(3 * (10 + ITEM_COST))
    for letter in b"abcde":
        assert ring.add(bytes([letter]) * 10)
    cursor, batches = ring.since()
    assert batches == [b"c" * 10, b"d" * 10, b"e" * 10]
    assert ring.since(cursor) == (cursor, [])
    ring.add(b"f" * 10)
    assert ring.since(cursor) == (cursor + 1, [b"f" * 10])


def test_a_reader_that_was_away_for_long_gets_what_is_left() -> None:
    ring = Ring(2 * (1 + ITEM_COST))
    cursor, _ = ring.since()
    for letter in b"abc":
        ring.add(bytes([letter]))
    assert ring.since(cursor) == (3, [b"b", b"c"])


def test_a_cursor_of_another_life_starts_anew() -> None:
    ring = Ring(1000)
    ring.add(b"a")
    assert ring.since(17) == (1, [b"a"])
    assert ring.since(-1) == (1, [b"a"])


def test_what_is_larger_than_the_ring_is_not_kept_and_costs_the_others_nothing() -> None:
    ring = Ring(200)
    ring.add(b"small")
    assert not ring.add(b"x" * 200)
    assert ring.since() == (1, [b"small"])


def test_no_room_at_all() -> None:
    ring = Ring(0)
    assert not ring.add(b"")
    assert ring.since() == (0, [])
    assert len(ring) == 0


def test_tiny_batches_cannot_grow_past_the_bound() -> None:
    ring = Ring(10_000)
    for _ in range(100_000):
        ring.add(b"")
    assert len(ring) <= 10_000 // ITEM_COST


class RingMachine(RuleBasedStateMachine):
    """Against a plain list of everything ever kept."""

    def __init__(self) -> None:
        super().__init__()
        self.ring = Ring(500)
        self.kept: deque[bytes] = deque()
        self.all: list[bytes] = []
        self.cursors = [0]

    @rule(batch=st.binary(max_size=600))
    def add(self, batch: bytes) -> None:
        fits = len(batch) + ITEM_COST <= 500
        assert self.ring.add(batch) is fits
        if fits:
            self.kept.append(batch)
            self.all.append(batch)
            while sum(len(one) + ITEM_COST for one in self.kept) > 500:
                self.kept.popleft()

    @rule()
    def remember(self) -> None:
        self.cursors.append(self.ring.since()[0])

    @precondition(lambda self: self.cursors)
    @rule(data=st.data())
    def read(self, data: st.DataObject) -> None:
        cursor = data.draw(st.sampled_from(self.cursors))
        after, batches = self.ring.since(cursor)
        assert after == len(self.all)
        missed = self.all[cursor:]
        assert batches == missed[len(missed) - min(len(missed), len(self.kept)) :]

    @invariant()
    def bounded(self) -> None:
        assert self.ring.size == sum(len(one) + ITEM_COST for one in self.kept) <= self.ring.limit
        assert len(self.ring) == len(self.kept)
        assert str(self.ring.size) in repr(self.ring)


TestRing = RingMachine.TestCase
