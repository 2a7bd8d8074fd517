"""Lines, acknowledgements, walks and losses by themselves, from packets made by hand."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from proxy.layers.direction import Direction
from proxy.layers.frames import ACK, FIN, RECORD, RST, SYN
from proxy.layers.loss import losses
from proxy.layers.stream import Acks, Line, View, view
from proxy.layers.walk import RECEIVER, SENDER, STEPS, Astray, Step, walk
from proxy.trace.handover import Record

MS = 1_000_000


def row(ts: int, direction: int, seq: int, length: int, ack: int = 0, window: int = 512, flags: int = ACK) -> bytes:
    return RECORD.pack(ts, 0, seq & 0xFFFFFFFF, ack & 0xFFFFFFFF, length, window, flags, -1, direction, 0, 0, 1, 0)


def acks(*news: tuple[int, int, int]) -> Acks:
    made = Acks()
    for ts, end, window in news:
        made.add(ts, end, window, 0)
    return made


def test_a_range_is_whole_when_its_hole_is_filled() -> None:
    line = Line(100, 400, [(1, 100, 200), (2, 300, 400), (3, 250, 320), (9, 150, 260), (10, 100, 200)])
    assert [line.complete(end) for end in (101, 200, 201, 400, 401)] == [1, 1, 9, 9, None]
    assert [line.passed(ts) for ts in (0, 1, 8, 9)] == [100, 200, 200, 400]
    assert (line.first_ns, line.carried) == (1, 100 + 100 + 70 + 110 + 100)
    assert line.holes == [(2, 9, 50)]
    assert (line.before(9), line.after(3), line.before(1), line.after(10)) == (3, 9, None, None)
    assert line.stamps(1, 9) == [2, 3]


def test_offsets_are_unwrapped_beyond_four_gigabytes() -> None:
    step = 1 << 30
    start = 5 * step + 17
    rows = b"".join(row(10 + n, 1, 77 + 1 + start + n * step, step, ack=5 + 1) for n in range(6))
    rows += row(30, 0, 5 + 1, 0, ack=77 + 1 + start + 6 * step)
    seen = view(rows, 1, (77, 5), (start, start + 6 * step), (0, 0))
    assert seen.up.complete(start + 6 * step) == 15
    assert seen.up.carried == 6 * step
    assert seen.up_acks.reached(start + 6 * step) == 30
    assert seen.up_acks.reached(start + 6 * step + 1) is None


def test_handshakes_and_resets_are_no_data_and_a_fin_is_one_byte() -> None:
    rows = (
        row(1, 0, 9, 0, flags=SYN) + row(2, 0, 10, 40) + row(3, 0, 50, 0, flags=FIN | ACK) + row(4, 0, 50, 0, flags=RST)
    )
    seen = view(rows, 0, (9, 20), (0, 40), (0, 0))
    assert (seen.up.complete(40), seen.up.complete(41), seen.up.carried, seen.packets) == (2, 3, 40, 2)
    assert seen.down_acks.shut(9) == 0


def test_news_of_acknowledgements() -> None:
    told = acks((1, 100, 8), (2, 100, 8), (3, 90, 8), (4, 100, 0), (7, 100, 0), (9, 100, 5), (12, 200, 5))
    assert (told.times, told.ends) == ([1, 9, 12], [100, 100, 200])
    assert told.repeats == [2, 4, 7]
    assert (told.shut(20), told.reached(101), told.reached(100), told.reached(300)) == (5, 12, 1, None)
    assert (told.same(100, 5), told.same(100, 99), told.same(150, 5), told.same(90, 8)) == (9, None, None, 1)
    told.add(30, 200, 0, 0)
    assert told.shut(37) == 5 + 7
    assert told.shut(29) == 5  # a late packet says what was only afterwards


@given(st.lists(st.tuples(st.integers(1, 3), st.integers(0, 20)), max_size=60))
def test_any_piece_of_news_is_found_at_its_first_place(told: list[tuple[int, int]]) -> None:
    made = Acks()
    for number, (end, window) in enumerate(told):
        made.add(number, end, window, 0)
        news = list(zip(made.ends, made.windows, strict=True))
        for each in ((end, window), (end, 21), (4, window)):
            assert made.place(*each) == (news.index(each) if each in news else -1)


def test_a_receiver_that_tells_every_window_there_is_does_not_stop_anything() -> None:
    """At the number of packets that are kept, what is looked for one by one would take minutes."""
    count = 60_000
    news = [(10 + n, 100, 1 + n) for n in range(count)]
    sender = Line(0, 200, [(0, 0, 100), (9 * MS, 100, 200)])
    receiver = Line(0, 200, [(5, 0, 100), (9 * MS + 5, 100, 200)])
    assert walk(Direction([sender, receiver], [acks(*news), acks(*news)]), 200, 0) == [Step(0, 9 * MS, SENDER)]


def test_a_walk_follows_the_acknowledgements_of_a_message() -> None:
    sender = Line(0, 300, [(10, 0, 100), (100, 100, 200), (101, 200, 300)])
    receiver = Line(0, 300, [(30, 0, 100), (120, 100, 200), (121, 200, 300)])
    direction = Direction([sender, receiver], [acks((99, 100, 9)), acks((80, 100, 9))])
    assert walk(direction, 300, 10) == [
        Step(99, 101, SENDER), Step(80, 99, 0, True), Step(30, 80, RECEIVER), Step(10, 30, 0),
    ]  # fmt: skip
    assert walk(direction, 300, 50) == [Step(99, 101, SENDER), Step(80, 99, 0, True), Step(50, 80, RECEIVER)]


def test_silence_before_a_reader_that_does_not_read_is_the_readers() -> None:
    sender = Line(0, 300, [(0, 0, 100), (20 * MS, 100, 300)])
    receiver = Line(0, 300, [(1, 0, 100), (20 * MS + 1, 100, 300)])
    direction = Direction([sender, receiver], [Acks(), Acks()])
    assert walk(direction, 300, 0) == [Step(0, 20 * MS, SENDER)]
    assert walk(direction, 300, 0, (1, 15 * MS)) == [
        Step(15 * MS, 20 * MS, SENDER), Step(1, 15 * MS, RECEIVER), Step(0, 1, SENDER),
    ]  # fmt: skip
    assert walk(direction, 300, 0, (1, MS)) == [Step(0, 20 * MS, SENDER)]


def test_a_walk_says_what_it_cannot_follow() -> None:
    sender = Line(0, 200, [(10, 0, 100), (100, 100, 200)])
    receiver = Line(0, 200, [(30, 0, 100), (120, 100, 200)])
    for told, line, reason in (
        (acks(), receiver, "hole"), (acks((99 + 1, 100, 9)), receiver, "order"),
        (acks((80, 100, 9)), Line(0, 200, []), "hole"), (acks((80, 100, 9)), Line(0, 200, [(90, 0, 200)]), "order"),
    ):  # fmt: skip
        with pytest.raises(Astray, match=reason):
            walk(Direction([sender, line], [acks((99, 100, 9)), told]), 200, 10)
    count = STEPS + 2
    long = Line(0, count, [(10 * n, n, n + 1) for n in range(count)])
    with pytest.raises(Astray, match="too-long"):
        walk(Direction([long], [acks(*((10 * n + 5, n + 1, 9) for n in range(count)))]), count, 0)


def lost(up: list[list[tuple[int, int, int]]], told: Acks | None = None) -> tuple[dict[str, int], int, int]:
    record = Record(b"", b"", b"", b"", 0, 0, 0, 300, 0, 100, 1, 1, 1, 1, 0, 0)
    views = [
        View(Line(0, 300, pieces), Line(0, 100, [(1, 0, 100)]), told or Acks(), Acks(), 0) for pieces in up
    ]  # fmt: skip
    found = losses(record, [f"place {number}" for number in range(len(up) - 1)], views)
    return found.lost, found.recovery_ns, found.retransmitted


def test_copies_that_vanish_between_two_taps_are_lost_there() -> None:
    once = [(10, 0, 300)]
    twice = [(10, 0, 300), (50, 100, 200)]  # sent again in another shape
    assert lost([once, once]) == ({}, 0, 0)
    assert lost([twice, twice, [(11, 0, 100), (12, 200, 300), (52, 100, 200)]]) == ({"place 1": 100}, 42, 100)
    # A later tap saw both copies: the one between has missed one.
    assert lost([twice, [(10, 0, 100), (10, 200, 300), (51, 100, 200)], twice])[0] == {}


def test_copies_beyond_the_last_tap() -> None:
    twice = [(10, 0, 300), (50, 100, 200)]
    assert lost([twice], acks((60, 300, 9))) == ({}, 0, 100)  # a probe of an impatient sender
    assert lost([twice], acks((20, 300, 9)))[0] == {}  # it had been acknowledged
    assert lost([twice], acks((20, 100, 9), (30, 100, 9), (60, 300, 9)))[0] == {"backend": 100}  # and repeated that
    late = [(10, 0, 300), (10 + 200 * MS, 0, 300)]
    assert lost([late], acks((10 + 201 * MS, 300, 9)))[0] == {"backend": 300}


def test_pieces_that_all_overlap_are_too_much() -> None:
    """A peer can send as many as are kept of a connection: the square of that is more than there is memory."""
    count = 20_000
    whole = [(n, n % 298, 300 - n % 2) for n in range(400)]
    assert lost([whole, whole])[2] > 0
    with pytest.raises(Astray, match="too-long"):
        losses(
            Record(b"", b"", b"", b"", 0, 0, 0, 3 * count, 0, 100, 1, 1, 1, 1, 0, 0),
            ["place 0"],
            [
                View(
                    Line(0, 3 * count, [(n, n, 2 * count + n) for n in range(count + 1)]),
                    Line(0, 100, [(1, 0, 100)]),
                    Acks(),
                    Acks(),
                    0,
                )
                for _ in range(2)
            ],
        )


def test_a_hole_at_the_first_tap_that_lasts_a_round_trip() -> None:
    told = acks((30, 100, 9), (90, 300, 9))
    assert lost([[(10, 0, 100), (11, 200, 300), (80, 100, 200)]], told)[0] == {"proxy": 100}
    assert lost([[(10, 0, 100), (11, 200, 300), (13, 100, 200)]], told)[0] == {}


def test_a_piece_of_news_that_a_tap_has_missed_is_not_taken_for_the_one_before_it() -> None:
    made = Acks()
    made.add(10, 100, 8, 0)
    made.add(20, 100, 16, 0)  # room again
    made.add(30, 100, 4, 0)  # no news
    made.add(40, 200, 4, 0)
    assert (made.ends, made.windows) == ([100, 100, 200], [8, 16, 4])
    assert (made.same(100, 8), made.same(100, 16), made.same(200, 4)) == (10, 20, 40)
    assert made.same(100, 32) is None, "what was told before it is not it"
    assert made.same(150, 4) is None, "nor is what came behind it: that passed later"
    assert [made.place(*news) for news in ((100, 16), (100, 4), (150, 4), (200, 4))] == [1, -1, -1, 2]
    made.add(50, 150, 4, 0)  # overtaken
    assert [made.heard(*news) for news in ((100, 16), (100, 4), (150, 4), (150, 8))] == [True, True, True, False]
    assert made.same(150, 4) == 40, "which told more in its place"
    assert made.ends == [100, 100, 200]
