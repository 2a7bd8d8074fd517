"""What drove a sender: its probes are found, and nothing else is taken for one."""

from __future__ import annotations

from proxy.layers.direction import Direction
from proxy.layers.sender import PROBE_NS, Sender
from proxy.layers.stream import Acks, Line
from proxy.layers.walk import RECEIVER, SENDER, Step, walk

MS = 1_000_000
FEW = 3 * 1000  # ns from one tap to the next
ROUND = 50 * 1000  # ns that are usual


def acks(*told: tuple[int, int]) -> Acks:
    made = Acks()
    for ts_ns, end in told:
        made.add(ts_ns, end, 9, 0)
    return made


def direction(
    sent: list[tuple[int, int, int]],
    told: list[tuple[int, int]],
    *,
    held: tuple[int, int] = (0, 0),
    there: int = FEW,
    back: int = FEW,
    known: int = ROUND,
) -> Direction:
    """Two taps. ``told``: when the receiver's tap has seen which acknowledgement. The place between them takes
    ``there`` and ``back``, and what comes to it within ``held`` leaves it at its end."""
    until = lambda ts: max(ts, held[1]) if held[0] <= ts < held[1] else ts  # noqa: E731
    return Direction(
        [Line(0, 9000, sent), Line(0, 9000, [(until(ts) + there, start, end) for ts, start, end in sent])],
        [acks(*((until(ts) + back, end) for ts, end in told)), acks(*told)],
        known,
    )


def probes(way: Direction, end_ns: int) -> list[int]:
    sender = Sender(way, way.lines[0].first_ns, end_ns)
    return [ts_ns for ts_ns, _, _ in way.lines[0].pieces if sender.probed(ts_ns)]


FLIGHT = [(1, 0, 100), (2, 100, 200)]
GOES_ON = (60 * MS + FEW + 1000, 260, 400)  # with what the switch has let through at last


def test_a_probe_is_time_of_the_place_that_held_up_the_answer() -> None:
    sent = [*FLIGHT, (40 * MS, 200, 260), GOES_ON]
    way = direction(sent, [(5000, 200)], held=(3000 + 1000, 60 * MS))
    assert probes(way, GOES_ON[0]) == [40 * MS]
    told = 60 * MS + FEW
    assert walk(way, 400, 1) == [
        Step(told, GOES_ON[0], SENDER), Step(5000, told, 0, True), Step(2 + FEW, 5000, RECEIVER), Step(2, 2 + FEW, 0),
        Step(1, 2, SENDER),
    ]  # fmt: skip
    # It was the last part: nobody was told of it, and still it was not the sender that took its time.
    last = direction([*FLIGHT, (40 * MS, 200, 400)], [(5000, 200)], held=(4000, 60 * MS))
    assert walk(last, 400, 1) == [
        Step(5000, 40 * MS, 0, True), Step(2 + FEW, 5000, SENDER), Step(2, 2 + FEW, 0), Step(1, 2, SENDER),
    ]  # fmt: skip


def test_a_segment_of_many_packets_is_one_probe() -> None:
    burst = [(40 * MS + 9 * number, 200 + 20 * number, 220 + 20 * number) for number in range(5)]
    way = direction([*FLIGHT, *burst, (60 * MS + 9000, 300, 400)], [(5000, 200)], held=(4000, 60 * MS))
    assert probes(way, 61 * MS) == [ts_ns for ts_ns, _, _ in burst]


def test_what_is_sent_again_is_no_end_of_a_pause() -> None:
    """The retransmission timer: nothing new until the switch goes on."""
    sent = [*FLIGHT, (30 * MS, 0, 100), (60 * MS + FEW + 1000, 200, 400)]
    way = direction(sent, [(5000, 200)], held=(4000, 60 * MS))
    assert probes(way, GOES_ON[0]) == []
    assert Step(5000, 60 * MS + FEW, 0, True) in walk(way, 400, 1)
    assert sum(step.end_ns - step.start_ns for step in walk(way, 400, 1) if step.where == SENDER) == 1000 + 1


def test_a_probe_and_then_a_sender_that_is_late() -> None:
    sent = [*FLIGHT, (40 * MS, 200, 260), (60 * MS + FEW + 1, 260, 300), (100 * MS, 300, 400)]
    way = direction(sent, [(5000, 200)], held=(4000, 60 * MS))
    assert probes(way, 100 * MS) == [40 * MS]
    assert walk(way, 400, 1)[:2] == [Step(60 * MS + FEW, 100 * MS, SENDER), Step(5000, 60 * MS + FEW, 0, True)]


def test_what_an_answer_goes_on_with_once_it_was_asked_is_no_probe() -> None:
    """A part of it came before the request was whole, and is held up; the rest took the application its time."""
    way = direction([*FLIGHT, (40 * MS, 200, 260), GOES_ON], [(5000, 200)], held=(4000, 60 * MS))
    assert Sender(way, 1, GOES_ON[0]).probed(40 * MS)
    assert not Sender(way, 10 * MS, GOES_ON[0]).probed(40 * MS)


def test_a_pause_of_one_that_was_told_all_leaves_the_next_its_probe() -> None:
    """What was told last before the probe was told before that pause too."""
    goes_on = (200 * MS + FEW + 1000, 360, 460)
    sent = [*FLIGHT, (100 * MS, 200, 250), (100 * MS + 2000, 250, 300), (140 * MS, 300, 360), goes_on]
    way = direction(sent, [(5000, 200), (200 * MS + 4, 300)], held=(100 * MS, 200 * MS))
    assert probes(way, goes_on[0]) == [140 * MS]


def test_what_is_no_probe() -> None:
    late = (40 * MS, 200, 260)
    held = (4000, 60 * MS)
    slow = 20 * MS
    for why, way in {
        "it was told meanwhile": direction([*FLIGHT, late, GOES_ON], [(5000, 200)]),
        "it goes on without being told": direction([*FLIGHT, late, (50 * MS, 260, 400)], [(5000, 200)], held=held),
        "told, it does not go on": direction([*FLIGHT, late, (80 * MS, 260, 400)], [(5000, 200)], held=held),
        "the receiver has said nothing (delayed ACK)": direction([*FLIGHT, late, GOES_ON], [(41 * MS, 200)]),
        "an answer could not be here yet": direction(
            [*FLIGHT, late], [(slow + 9, 200)], there=slow, back=slow, known=40 * MS
        ),
        "nobody knows how long answers take": direction([*FLIGHT, late], [], held=(0, 60 * MS), known=0),
        "no timer is so soon": direction([*FLIGHT, (PROBE_NS, 200, 260), GOES_ON], [(5000, 200)], held=held),
    }.items():
        assert probes(way, way.lines[0].pieces[-1][0]) == [], why


def test_an_answer_that_is_withheld_is_time_of_who_does_not_read() -> None:
    """Two full segments have come, and nothing is told of them: the receiver's program does not read."""
    sent = [(1, 0, 1000), (2, 1000, 2000), (30 * MS, 2000, 2600), (41 * MS, 2600, 3600)]
    way = direction(sent, [(40 * MS, 2600)])
    assert probes(way, 41 * MS) == [30 * MS]
    assert walk(way, 3600, 1) == [
        Step(40 * MS + FEW, 41 * MS, SENDER), Step(40 * MS, 40 * MS + FEW, 0, True),
        Step(30 * MS + FEW, 40 * MS, RECEIVER), Step(30 * MS, 30 * MS + FEW, 0),
        Step(2 + FEW, 30 * MS, RECEIVER), Step(2, 2 + FEW, 0), Step(1, 2, SENDER),
    ]  # fmt: skip
    small = [(1, 0, 100), (2, 100, 200), (30 * MS, 200, 260), (41 * MS, 260, 360)]
    assert probes(direction(small, [(40 * MS, 260)]), 41 * MS) == []


def test_packets_that_a_tap_has_missed_leave_no_gap() -> None:
    """Whatever is concluded, the steps join end to end."""
    full = 1448
    lost = [(1, 0, full), (1001, 2 * full, 3 * full), (2001, 3 * full, 4 * full), (3001, 4 * full, 5 * full)]
    repaired = Direction([Line(0, 5 * full, [*lost, (4 * MS, full, 2 * full)])], [acks((20001, full))], ROUND)
    unheard = direction([*FLIGHT, (3, 200, 300), (40 * MS, 300, 400)], [(6000, 300)])
    unheard = Direction(unheard.lines, [unheard.acks[0], acks()], ROUND)
    crossed = Direction(
        [
            Line(
                0, 202, [(1, 0, 100), (2, 100, 150), (43 * MS, 150, 151), (43 * MS + 1, 151, 152), (44 * MS, 152, 202)]
            ),
            Line(0, 202, [(3 * MS, 0, 100), (43 * MS, 148, 150), (46 * MS, 151, 152), (46 * MS + 1, 152, 202)]),
        ],
        [acks((46 * MS, 150), (48 * MS, 202)), acks((43 * MS, 150), (46 * MS + 1, 202))],
        ROUND,
    )
    for way, end in ((repaired, 5 * full), (unheard, 400), (crossed, 202)):
        at = way.lines[0].complete(end)
        assert at is not None
        for step in walk(way, end, 1):
            assert step.end_ns == at
            at = step.start_ns
        assert at == 1
