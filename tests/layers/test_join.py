"""The joiner against the simulator's truth: stamps right, sums exact, and Missing where a tap has not seen all."""

from __future__ import annotations

import random

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from proxy.layers.join import LATE_NS, Joiner
from proxy.layers.packet import ACK, RECORD, SYN, Flows, Packets, parse
from proxy.layers.split import Layout, Missing, Split
from proxy.layers.track import PACKETS
from proxy.trace.handover import CLOSED, FAILED, TLS, TUNNEL, Record
from tests.layers.blocks import Segment as Wired
from tests.layers.blocks import block
from tests.layers.path import DOWN, MS, START, UP, US, Ask, Hop, Net, Segment

NAMES = tuple(f"place {number}" for number in range(7))


def layout(taps: int) -> Layout:
    return Layout(range(taps), NAMES[: taps - 1])


def joined(net: Net, *, keep=lambda ts, segment: True) -> Joiner:
    flows = Flows()
    joiner = Joiner(flows)
    for tap in range(len(net.taps)):
        joiner.feed(tap, net.packets(flows, tap, keep))
    return joiner


def check(split: Split, record: Record, net: Net) -> None:
    """What holds for each split, whatever happened."""
    assert sum(split.segments.values()) == record.end_ns - record.write_ns
    assert tuple(split.segments) == split.layout.names
    at = record.write_ns
    for segment, start, end in split.pieces:
        assert (start, end > start) == (at, True), segment
        at = end
    assert at == record.end_ns
    assert split.stamps == net.stamps(record)
    assert sum(split.places().values()) == record.end_ns - record.write_ns


asks = st.builds(
    Ask,
    size=st.sampled_from([1, 200, 1448, 3000, 20_000, 150_000]),
    answer=st.sampled_from([1, 200, 1448, 4000, 70_000, 250_000]),
    think=st.integers(0, 5 * MS),
    gap=st.integers(20 * US, 5 * MS),
    not_reading=st.sampled_from([0, 0, 0, 10 * MS]),
    stalled=st.sampled_from([(0, 0), (0, 0), (US, 15 * MS)]),
    parts=st.integers(1, 3),
    pause=st.integers(0, 3 * MS),
    slow_parts=st.integers(1, 3),
    slow_pause=st.integers(0, 3 * MS),
)


@st.composite
def paths(draw) -> list[Hop]:
    count = draw(st.integers(1, 8))
    return [
        Hop(
            delay=draw(st.sampled_from([US, 30 * US, 2 * MS])),
            jitter=draw(st.sampled_from([0, 20 * US])),
            rate=draw(st.sampled_from([0, 0, 0, 20_000_000])),
            cut=draw(st.sampled_from([0, 0, 1448])),
        )
        for _ in range(count + 1)
    ]


@settings(max_examples=30, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(
    hops=paths(),
    requests=st.lists(asks, min_size=1, max_size=4),
    seed=st.integers(0, 1000),
    starts=st.tuples(st.integers(0, 2**32 - 1), st.integers(2**32 - 200_000, 2**32 - 1)),  # the second one wraps
    frame=st.sampled_from([1448, 14_480, 65_160]),
    room=st.sampled_from([16_384, 65_536, 1 << 20]),
    loss=st.sampled_from([0.0, 0.0, 0.01, 0.05]),
    swap=st.sampled_from([0.0, 0.0, 0.05]),
    probe=st.sampled_from([0, 3 * MS, 20 * MS]),
)
def test_every_stamp_is_right(hops, requests, seed, starts, frame, room, loss, swap, probe) -> None:
    rng = random.Random(seed)
    lossy = rng.choice(hops)
    lossy.swap = swap
    lossy.lose = lambda now, segment: segment.length > 0 and rng.random() < loss
    net = Net(hops, seed, starts=starts, frame=frame, room=(room, room))
    net.proxy.probe = net.backend.probe = probe
    records = net.run(requests)
    joiner = joined(net)
    for record in records:
        split = joiner.join(record, layout(len(net.taps)))
        assert isinstance(split, Split), split
        check(split, record, net)
        assert split.anchor == "syn"
        assert not split.lost or loss or swap  # what is overtaken for longer than a round trip looks lost
        assert not loss or set(split.lost) <= {*split.layout.places, "proxy", "backend"}
    assert joiner.counts == {"syn": len(records)}


@settings(max_examples=40, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(
    hops=paths(),
    requests=st.lists(asks, min_size=2, max_size=6),
    seed=st.integers(0, 1000),
    chance=st.sampled_from([0.01, 0.05, 0.3]),
    shake=st.booleans(),
)
def test_what_taps_miss_never_makes_a_wrong_stamp(hops, requests, seed, chance, shake) -> None:
    net = Net(hops, seed, shake=shake)
    records = net.run(requests)
    rng = random.Random(seed)
    joiner = joined(net, keep=lambda ts, segment: rng.random() >= chance)
    for record in records:
        split = joiner.join(record, layout(len(net.taps)))
        if isinstance(split, Split):
            check(split, record, net)
        else:
            assert split.reason in ("hole", "order", "no-anchor", "no-packets")


def small(count: int) -> list[Ask]:
    rng = random.Random(count)
    return [Ask(size=rng.randrange(100, 900), answer=rng.randrange(100, 900)) for _ in range(count)]


def test_a_tap_that_misses_one_in_a_hundred() -> None:
    net = Net([Hop(), Hop(), Hop(), Hop(), Hop()])
    records = net.run(small(300))
    rng = random.Random(1)
    joiner = joined(net, keep=lambda ts, segment: rng.random() >= 0.01)
    splits = [joiner.join(record, layout(4)) for record in records]
    for record, split in zip(records, splits, strict=True):
        if isinstance(split, Split):
            check(split, record, net)
    missing = sum(isinstance(split, Missing) for split in splits)
    assert 5 < missing < 60


@pytest.mark.parametrize("starts", [(5, 6), (0xFFFFFF00, 0xFFFFFF80)])
def test_a_late_tap_votes(starts) -> None:
    net = Net([Hop(), Hop(), Hop()], starts=starts)
    records = net.run(small(40))
    since = records[20].write_ns - 100 * US
    joiner = joined(net, keep=lambda ts, segment: ts >= since)
    assert isinstance(joiner.join(records[0], layout(2)), Missing)
    late = [joiner.join(record, layout(2)) for record in records[20:]]
    assert [split.reason for split in late if isinstance(split, Missing)] == ["no-anchor", "no-anchor"]
    for record, split in zip(records[22:], late[2:], strict=True):
        assert isinstance(split, Split)
        check(split, record, net)
        assert split.anchor == "vote"


def test_a_missed_first_packet_is_outvoted() -> None:
    """The tap has no SYN, and of one request in five only the second packet: that one's proposal is wrong."""
    net = Net([Hop(), Hop(), Hop()], shake=False)
    records = net.run([Ask(size=2500)] * 30)
    wrong = {record.request_start for record in records[::5]}
    joiner = joined(net, keep=lambda ts, segment: segment.direction == DOWN or segment.start not in wrong)
    splits = [joiner.join(record, layout(2)) for record in records]
    for number, (record, split) in enumerate(zip(records, splits, strict=True)):
        if isinstance(split, Split):
            check(split, record, net)
            assert number % 5
    assert sum(isinstance(split, Split) for split in splits) > 15


def test_the_same_ports_again() -> None:
    flows = Flows()
    joiner = Joiner(flows)
    first = Net([Hop(), Hop(), Hop()], starts=(1000, 2000))
    before = first.run(small(5))
    second = Net([Hop(), Hop(), Hop()], starts=(700_000, 900_000), now=first.now + 10 * MS)
    after = second.run(small(5))
    for net in (first, second):
        for tap in (1, 0):
            joiner.feed(tap, net.packets(flows, tap))
    for net, records in ((first, before), (second, after)):
        for record in records:
            split = joiner.join(record, layout(2))
            assert isinstance(split, Split)
            check(split, record, net)


def test_the_same_ports_again_while_all_taps_miss_the_handshake() -> None:
    flows = Flows()
    joiner = Joiner(flows)
    first = Net([Hop(), Hop(), Hop()], starts=(1000, 2000))
    second = Net([Hop(), Hop(), Hop()], starts=(700_000, 900_000), now=START + 1000 * MS, shake=False)
    for net in (first, second):
        records = net.run(small(8))
        for tap in (0, 1):
            joiner.feed(tap, net.packets(flows, tap))
        splits = [joiner.join(record, layout(2)) for record in records]
        for record, split in zip(records, splits, strict=True):
            if isinstance(split, Split):
                check(split, record, net)
        assert sum(isinstance(split, Missing) for split in splits) == (0 if net is first else 2)


def spoiled(net: Net, record: Record, *extra: tuple[int, Segment]) -> Split | Missing:
    """A join after further packets were seen at all taps."""
    for tap in net.taps:
        tap.extend(extra)
        tap.sort(key=lambda entry: entry[0])
    return joined(net).join(record, layout(len(net.taps)))


def test_probes_and_copies_of_what_has_arrived_change_nothing() -> None:
    net = Net([Hop(), Hop(), Hop()])
    *_, record = net.run([*small(3), Ask(think=90 * MS)])
    stamps = net.stamps(record)
    probe = Segment(UP, record.request_end - 1, 0, record.response_start, 512)
    probe_of_one = Segment(UP, record.request_end - 1, 1, record.response_start, 512)  # as some stacks do
    told = Segment(DOWN, record.response_start, 0, record.request_end, 512)
    again = Segment(
        UP, record.request_start - 40, 140, record.response_start, 512
    )  # of the request before, and this one
    extra = ((45, told), (50, probe), (51, told), (60, probe_of_one), (70, again))
    split = spoiled(net, record, *((record.write_ns + at * MS, one) for at, one in extra))
    assert isinstance(split, Split)
    assert split.stamps == stamps
    assert split.lost == {}
    assert split.retransmitted == 101


def test_a_response_that_ends_with_the_connection() -> None:
    """Its end is the FIN, wherever that has got to when; what the record does not call so is over at its last byte."""
    net = Net([Hop(), Hop(), Hop()])
    (record,) = net.run(small(1))
    closed = record.end_ns + 30 * MS
    fin = Segment(DOWN, record.response_end, 0, record.request_end, 512, ACK | 1)
    late = record._replace(end_ns=closed + 10 * MS, flags=record.flags | CLOSED)
    split = spoiled(net, late, (closed, fin))
    assert isinstance(split, Split)
    assert split.segments["backend"] > 30 * MS
    assert split.segments["proxy receive"] == 10 * MS
    assert split.stamps == net.stamps(record)
    for flags in (record.flags, late.flags | TLS):  # with TLS its end is a record (close_notify), within its range
        split = joined(net).join(late._replace(flags=flags), layout(2))
        assert isinstance(split, Split)
        assert split.segments["proxy receive"] > 40 * MS
    early = joined(net).join(late._replace(end_ns=closed - 1), layout(2))
    assert early == Missing("hole", "tap 0")


def test_a_fin_takes_its_way_as_data_does() -> None:
    net = Net([Hop(), Hop(), Hop()])
    (record,) = net.run(small(1))
    fin = Segment(DOWN, record.response_end, 0, record.request_end, 512, ACK | 1)
    closed = record.end_ns + 30 * MS
    for tap, late_ns in zip(reversed(net.taps), (0, 4 * MS), strict=True):
        tap.append((closed + late_ns, fin))
    split = joined(net).join(record._replace(end_ns=closed + 5 * MS, flags=record.flags | CLOSED), layout(2))
    assert isinstance(split, Split)
    assert split.segments["place 0 <"] == 4 * MS
    assert split.segments["proxy receive"] == 1 * MS


@pytest.mark.parametrize(
    ("seen", "segment"),
    [
        ((4, 0), "backend"),
        ((4, 1), "place 2 <"),
        ((4, 4), "proxy receive"),
        ((2, 0), "place 1 >"),
        ((1, 0), "place 0 >"),
    ],
)
def test_an_attempt_without_a_response_waits_where_it_got_to(seen: tuple[int, int], segment: str) -> None:
    """``seen``: taps that saw the request, and the response, which the proxy never read."""
    net = Net([Hop(), Hop(), Hop(), Hop(), Hop()])
    *_, record = net.run(small(2))
    for number, tap in enumerate(net.taps):
        asked, answered = number < seen[0], 3 - number < seen[1]
        until = record.first_byte_ns - 20 * US if asked else 0
        tap[:] = [
            (ts, one) for ts, one in tap if ts < record.write_ns or (ts < until if one.direction == UP else answered)
        ]
    failed = record._replace(
        end_ns=record.end_ns + 500 * MS, flags=FAILED, first_byte_ns=0, response_end=record.response_start
    )
    split = joined(net).join(failed, layout(4))
    assert isinstance(split, Split)
    assert sum(split.segments.values()) == failed.end_ns - failed.write_ns
    assert max(split.segments, key=split.segments.__getitem__) == segment
    assert split.segments[segment] > 495 * MS
    assert not split.answered


def test_a_response_that_stops_half_way() -> None:
    net = Net([Hop(), Hop(), Hop()])
    (record,) = net.run([Ask(answer=2000)])
    for tap in net.taps:
        tap[:] = [
            (ts, one) for ts, one in tap if not (one.direction == DOWN and one.start >= record.response_start + 1448)
        ]
    cut = record._replace(response_end=record.response_start + 1448, flags=FAILED, end_ns=record.end_ns + 300 * MS)
    split = joined(net).join(cut, layout(2))
    assert isinstance(split, Split)
    assert split.segments["backend"] > 299 * MS
    assert split.segments["proxy receive"] == 0


def test_an_answer_before_the_request_is_whole() -> None:
    """A backend that refuses an upload answers, and the rest of the request comes after."""
    net = Net([Hop(), Hop(), Hop()])
    (record,) = net.run([Ask(size=300, answer=300)])
    more = Segment(UP, 300, 500, 0, 512)
    longer = record._replace(request_end=800)
    split = spoiled(net, longer, (record.first_byte_ns - US, more))
    assert isinstance(split, Split)
    assert split.overlap
    assert sum(split.segments.values()) == record.end_ns - record.write_ns


def test_records_that_cannot_be_joined_say_why() -> None:
    net = Net([Hop(), Hop(), Hop()])
    first, second = net.run(small(2))
    joiner = joined(net)

    def reason(record: Record) -> str:
        found = joiner.join(record, layout(2))
        assert isinstance(found, Missing)
        return found.reason

    assert reason(second._replace(peer_port=81)) == "no-packets"
    assert reason(second._replace(flags=TUNNEL)) == "tunnel"
    assert reason(second._replace(end_ns=second.write_ns - 1)) == "record"
    assert reason(second._replace(write_ns=0)) == "record"
    assert reason(second._replace(request_end=second.request_start)) == "record"
    assert reason(second._replace(response_end=second.response_start - 1)) == "record"
    assert reason(second._replace(first_byte_ns=0)) == "record"
    assert reason(second._replace(write_ns=second.write_ns + 50 * US)) == "order"  # the clock was set
    assert reason(second._replace(first_byte_ns=second.write_ns)) == "order"
    assert reason(second._replace(response_end=second.response_end + 9)) == "hole"
    assert reason(second._replace(write_ns=second.end_ns, first_byte_ns=second.end_ns)) == "no-packets"
    joiner.forget(first.end_ns)
    assert reason(first) == "too-long"
    assert isinstance(joiner.join(second, layout(2)), Split)
    assert joiner.counts["no-packets"] == 2


def test_drops_of_a_ring_are_told() -> None:
    net = Net([Hop(), Hop(), Hop()])
    records = net.run(small(3))
    joiner = joined(net, keep=lambda ts, segment: ts < records[2].write_ns or segment.direction == DOWN)
    joiner.dropped(1, records[1].end_ns - US, records[1].end_ns + 10 * MS)
    first, second, third = (joiner.join(record, layout(2)) for record in records)
    assert isinstance(first, Split)
    assert not first.incomplete
    assert isinstance(second, Split)
    assert second.incomplete
    assert isinstance(third, Missing)
    assert third.reason == "ring-drops"


def test_memory_is_bounded() -> None:
    flows = Flows()
    joiner = Joiner(flows, bytes_kept=40 * 1000)
    net = Net([Hop(), Hop(), Hop()])
    records = net.run(small(800))
    packets = [net.packets(flows, tap) for tap in (0, 1)]
    size = RECORD.size * 50
    for at in range(0, len(packets[0].data), size):
        for tap in (0, 1):
            part = Packets()
            part.data.extend(packets[tap].data[at : at + size])
            joiner.feed(tap, part)
        assert len(joiner) <= 1000
    assert joiner.join(records[0], layout(2)) == Missing("too-long", "its packets have been forgotten")
    assert isinstance(joiner.join(records[-1], layout(2)), Split)
    joiner.closed(1)
    gone = joiner.join(records[-1], layout(2))
    assert isinstance(gone, Missing)
    assert gone.reason == "hole"
    joiner.forget(records[-1].end_ns + 10**9)
    assert len(joiner) == 0
    joiner.forget(records[-1].end_ns + 10**13)
    assert len(flows) == 0
    assert joiner.join(records[-1]._replace(write_ns=2**62, first_byte_ns=2**62, end_ns=2**62), layout(2)) == Missing(
        "no-packets", "connection not seen"
    )


def test_a_table_that_fills_up_makes_room_by_what_was_idle_longest() -> None:
    flows = Flows(16)
    joiner = Joiner(flows)
    for number in range(16):
        packets = Packets()
        made = Wired(
            source="10.8.0.2",
            target="10.8.0.9",
            source_port=5000 + number,
            target_port=80,
            ts_ns=START + number * 1000 * MS,
        )
        assert parse(block([made.frame()]), flows, packets) == 1
        joiner.feed(0, packets)
    joiner.forget(START)
    assert len(flows) == 16  # so many are in use
    joiner.forget(START + 16_000 * MS)
    assert 1 <= len(flows) <= 12  # by far not idle for `IDLE_NS`
    assert sorted(joiner._known) == list(flows)
    assert max(flows[number].low_port for number in flows) == 5015
    left = len(flows)
    joiner.forget(START + 20_000 * MS)
    assert len(flows) == left  # there is room


def test_a_record_of_more_than_there_is_contradicts_itself() -> None:
    net = Net([Hop(), Hop()])
    (record,) = net.run(small(1))
    joiner = joined(net)
    most = 2**64 - 1
    for wrong in (
        record._replace(request_end=most), record._replace(response_end=most), record._replace(end_ns=most),
        record._replace(sent_ns=most),
    ):  # fmt: skip
        assert joiner.join(wrong, layout(1)) == Missing("record")
    assert isinstance(joiner.join(record, layout(1)), Split)


def test_forgetting_in_parts_comes_to_the_same() -> None:
    flows = Flows()
    joiner = Joiner(flows)
    for number in range(8):
        packets = Packets()
        made = [Wired(source_port=5000 + number, target_port=80, ts_ns=START + MS * after).frame() for after in (0, 9)]
        assert parse(block(made), flows, packets) == 2
        joiner.feed(number % 2, packets)
    kept = []
    for _ in range(5):
        joiner.forget(START + 5 * MS, 2)
        kept.append(len(joiner))
    assert kept == [14, 12, 10, 8, 8]
    for _ in range(5):
        joiner.forget(START + 10**13, 3)
        kept.append(len(flows))
        assert sorted(joiner._known) == list(flows)
    assert kept[5:] == [5, 2, 0, 0, 0]
    assert len(joiner) == 0


def test_one_connection_keeps_its_latest_packets() -> None:
    flows = Flows()
    joiner = Joiner(flows)
    net = Net([Hop(), Hop()])
    (record,) = net.run(small(1))
    out = net.packets(flows, 0)
    joiner.feed(0, out)
    row = list(RECORD.unpack_from(out.data, len(out.data) - RECORD.size))
    filler = Packets()
    for number in range(PACKETS + 10):
        row[0] = record.end_ns + number
        filler.data.extend(RECORD.pack(*row))
    joiner.feed(0, filler)
    assert PACKETS // 2 < len(joiner) <= PACKETS + 20
    assert joiner.join(record, layout(1)) == Missing("too-long", "tap 0 keeps no more packets of a connection")


def test_stamps_of_two_processors_in_the_wrong_order() -> None:
    net = Net([Hop(), Hop(), Hop()])
    records = net.run(small(20))
    flows = Flows()
    joiner = Joiner(flows)
    for tap in (0, 1):
        rows = list(RECORD.iter_unpack(net.packets(flows, tap).data))
        for at in range(3, len(rows) - 1, 3):
            rows[at], rows[at + 1] = rows[at + 1], rows[at]
        mixed = Packets()
        for row in rows:
            mixed.data.extend(RECORD.pack(*row))
        joiner.feed(tap, mixed)
    for record in records:
        split = joiner.join(record, layout(2))
        assert isinstance(split, Split)
        check(split, record, net)


def test_layouts_have_one_place_fewer_than_taps() -> None:
    for taps, places in (((), ()), ((0, 1), ()), ((0,), ("a",)), ((0, 0), ("a",)), (range(9), tuple("abcdefgh"))):
        with pytest.raises(ValueError, match="one place fewer"):
            Layout(tuple(taps), places)
    assert Layout((3,), ()).names == ("proxy send", "client", "backend receive", "backend", "proxy receive")


def test_a_handshake_seen_in_part() -> None:
    """Whichever of SYN and answer is missed, the other must not be taken for both."""
    for lacking in (SYN, SYN | ACK):
        net = Net([Hop(), Hop(), Hop()])
        records = net.run(small(4))
        joiner = joined(net, keep=lambda ts, segment, lacking=lacking: segment.flags != lacking)
        anchors = [getattr(joiner.join(record, layout(2)), "anchor", None) for record in records]
        assert anchors == (["syn"] * 4 if lacking == SYN else [None, None, "vote", "vote"])


def test_loss_is_not_told_while_a_ring_drops_packets() -> None:
    """A tap that has missed the first of two copies looks like a place that has lost it."""
    lost: list[int] = []

    def lose(now: int, segment: Segment) -> bool:
        if segment.length and segment.direction == UP and not lost:
            lost.append(now)
            return True
        return False

    for dropping in (False, True):
        lost.clear()
        net = Net([Hop(), Hop(lose=lose), Hop()])
        (record,) = net.run([Ask()])
        assert lost
        joiner = joined(net)
        if dropping:
            joiner.dropped(0, record.write_ns, record.end_ns)
        split = joiner.join(record, layout(2))
        if dropping:
            assert isinstance(split, Missing)
            assert split.reason == "ring-drops"
        else:
            assert isinstance(split, Split)
            assert any(split.lost.values())


def test_an_acknowledgement_that_the_senders_tap_has_missed_is_a_hole() -> None:
    """Room again is what let the sender go on: without that piece of news the time would be the sender's own."""
    net = Net([Hop(), Hop(), Hop()], room=(16_384, 16_384))
    (record,) = net.run([Ask(size=60_000, not_reading=20 * MS)])
    right = joined(net).join(record, layout(2))
    assert isinstance(right, Split)
    assert right.places()["backend receive"] > 15 * MS
    told = [
        at
        for at, (_, one) in enumerate(net.taps[0])
        if one.direction == DOWN and not one.length and not one.flags & SYN
    ]
    missing = 0
    for gone in told:
        part = Net([Hop(), Hop(), Hop()], room=(16_384, 16_384))
        part.taps = [[each for at, each in enumerate(net.taps[0]) if at != gone], net.taps[1]]
        part.now = net.now
        split = joined(part).join(record, layout(2))
        if isinstance(split, Split):
            assert split.pieces == right.pieces
        else:
            missing += 1
            assert split.reason in ("hole", "order")
    assert missing


def test_acknowledgements_that_come_to_the_senders_tap_when_all_is_over_are_no_hole() -> None:
    """A switch that has stood still for one way only: what it held up there cannot be what the sender went by."""
    net = Net([Hop(), Hop(), Hop()])
    first, _ = net.run([Ask(answer=200_000, slow_parts=20, slow_pause=1 * MS), Ask()])
    right = joined(net).join(first, layout(2))
    assert isinstance(right, Split)
    since_ns = first.end_ns - 8 * MS

    def held_up(until_ns: int, *, gone: bool = False) -> Split | Missing:
        part = Net([Hop(), Hop(), Hop()])
        part.taps = [net.taps[0], []]
        for at_ns, one in net.taps[1]:
            held = one.direction == UP and not one.length and since_ns < at_ns < first.end_ns
            if not (held and gone):
                part.taps[1].append((max(at_ns, until_ns), one) if held else (at_ns, one))
        part.taps[1].sort(key=lambda entry: entry[0])
        part.now = net.now
        return joined(part).join(first, layout(2))

    for until_ns in (0, first.end_ns + MS):
        late = held_up(until_ns)
        assert isinstance(late, Split)
        assert late.pieces == right.pieces
    for lost in (held_up(0, gone=True), held_up(first.end_ns + LATE_NS + MS)):
        assert isinstance(lost, Missing)
        assert lost.reason == "hole"
