"""Records and packets until they meet: the queue, what becomes of each record, and its spans."""

from __future__ import annotations

from collections.abc import Mapping

import pytest
from opentelemetry.proto.trace.v1.trace_pb2 import ScopeSpans, Span

from proxy.layers import joining, otlp
from proxy.layers.find import Interface
from proxy.layers.join import LATE_NS
from proxy.layers.joining import (
    AGAIN_NS,
    BUG,
    BUSY,
    FIND_NS,
    HELD_NS,
    LOOKS,
    NO_TAP,
    RESTED,
    UNSEEN,
    WAIT_NS,
    Frames,
    Joining,
    Resolved,
)
from proxy.layers.packet import Packets
from proxy.layers.spans import duration
from proxy.layers.tally import Tally
from proxy.layers.ways import Way, address_text
from proxy.trace.handover import Record
from tests.layers.blocks import Frame, block
from tests.layers.path import MS, US, Ask, Hop, Net

WAY = Way((Interface("veth-px", 7), Interface("veth-app", 9)), ("ovs br0",))


class Bench:
    """A joining with two taps on a simulated path."""

    def __init__(
        self, described: Mapping[str, otlp.Value] | None = None, proven: Mapping[str, otlp.Value] | None = None
    ) -> None:
        self.tally = Tally()
        self.blobs: list[tuple[bytes, int]] = []
        self.said: list[str] = []
        self.way: Resolved | None = Resolved((0, 1), WAY, 0)
        self.heard_ns = 1 << 63
        self.looks = 0  # for what has been heard
        self.rest = True
        self.joining = Joining(
            self.tally,
            lambda record: self.way,
            self.heard,
            lambda blob, number: self.blobs.append((blob, number)),
            self.said.append,
            None if described is None else lambda record, way: described,
            None if proven is None else lambda record, way: proven,
            lambda: self.rest,
        )

    def heard(self, _: tuple[int, ...]) -> int:
        self.looks += 1
        return self.heard_ns

    def hear(self, net: Net) -> None:
        for tap in range(len(net.taps)):
            packets: Packets = net.packets(self.joining._flows, tap)
            self.joining._joiner.feed(tap, packets)

    def spans(self) -> list[Span]:
        found = [span for blob, _ in self.blobs for span in ScopeSpans.FromString(blob).spans]
        assert len(found) == sum(number for _, number in self.blobs) == self.tally.spans
        return found


def run(*asks: Ask, hops: list[Hop] | None = None) -> tuple[Net, list[Record]]:
    net = Net(hops or [Hop(), Hop(), Hop()])
    return net, net.run(list(asks))


def attributes(span: Span) -> dict[str, object]:
    return {item.key: getattr(item.value, str(item.value.WhichOneof("value"))) for item in span.attributes}


def test_a_record_waits_for_its_packets_and_becomes_spans_once() -> None:
    bench = Bench()
    net, (record,) = run(Ask(think=5 * MS))
    bench.joining.add(record)
    assert not bench.joining.due(record.end_ns + WAIT_NS - 1)
    bench.joining.step(record.end_ns + WAIT_NS - 1, 1.0)
    assert bench.joining.pending == 1
    bench.hear(net)
    assert bench.joining.due(record.end_ns + WAIT_NS)
    bench.joining.step(record.end_ns + WAIT_NS, 1.0)
    assert (bench.joining.pending, bench.tally.joined, dict(bench.tally.missing)) == (0, 1, {})
    wire, *children = bench.spans()
    assert (wire.name, wire.kind, wire.trace_id) == ("wire", Span.SPAN_KIND_INTERNAL, record.trace_id)
    assert wire.parent_span_id == record.span_id
    assert wire.span_id == otlp.span_id(record.trace_id, record.span_id)
    assert (wire.start_time_unix_nano, wire.end_time_unix_nano) == (record.write_ns, record.end_ns)
    told = attributes(wire)
    assert told["spanway.wait.verdict"] == "application"
    assert told["spanway.wire.taps"] == "veth-px, veth-app"
    assert told["spanway.wire.anchor"] == "syn"
    assert told["spanway.wire.bytes"] == 800
    assert str(told["spanway.wire.split"]).startswith("proxy send ")
    assert 5000 <= int(str(told["spanway.wire.us.backend"])) < 6000
    (backend,) = children
    assert (backend.name, backend.parent_span_id) == ("backend", wire.span_id)
    assert attributes(backend)["spanway.wire.place"] == "backend"
    assert backend.span_id == otlp.span_id(record.trace_id, record.span_id, "backend", "")


def test_places_whose_names_make_one_key_share_it() -> None:
    # OpenTelemetry: the keys of a span's attributes are unique.
    bench = Bench()
    taps = tuple(Interface(f"tap{number}", number) for number in range(3))
    bench.way = Resolved((0, 1, 2), Way(taps, ("br.0", "br-0")), 0)
    net, (record,) = run(Ask(), hops=[Hop(), Hop(), Hop(), Hop()])
    bench.joining.add(record)
    bench.hear(net)
    bench.joining.step(record.end_ns + WAIT_NS, 1.0)
    wire = bench.spans()[0]
    keys = [item.key for item in wire.attributes]
    assert len(keys) == len(set(keys))
    spent = [int(str(value)) for key, value in attributes(wire).items() if key.startswith("spanway.wire.us.")]
    assert abs(sum(spent) - (record.end_ns - record.write_ns) // 1000) <= len(spent)


def test_where_there_is_no_time_to_rest_packets_have_their_turn() -> None:
    bench = Bench()
    net, records = run(*(Ask() for _ in range(3)))
    for record in records:
        bench.joining.add(record)
    bench.hear(net)
    bench.rest = False
    bench.joining.step(records[-1].end_ns + WAIT_NS, 1.0)
    assert (bench.joining.pending, bench.tally.joined) == (2, 1)
    bench.rest = True
    bench.joining.step(records[-1].end_ns + WAIT_NS, 1.0)
    assert (bench.joining.pending, bench.tally.joined) == (0, 3)


def test_what_ended_while_taps_were_aside_is_not_joined_however_much_was_seen() -> None:
    bench = Bench()
    net, (first, second) = run(Ask(), Ask())
    bench.hear(net)
    asked: list[tuple[int, int]] = []

    def aside(since_ns: int, until_ns: int) -> bool:
        asked.append((since_ns, until_ns))
        return since_ns == first.write_ns

    bench.joining._aside = aside  # type: ignore[misc] # as if it had been given
    for record in (first, second):
        bench.joining.add(record)
    bench.joining.step(second.end_ns + WAIT_NS, 1.0)
    assert (bench.tally.joined, dict(bench.tally.missing)) == (1, {RESTED: 1})
    assert asked == [(record.write_ns, record.end_ns + LATE_NS) for record in (first, second)]


def test_a_record_waits_for_what_a_ring_still_holds_but_not_for_ever() -> None:
    bench = Bench()
    net, (first, second) = run(Ask(), Ask())
    bench.joining.add(first)
    bench.heard_ns = first.end_ns + LATE_NS  # its very last packet may be held
    now_ns = second.end_ns + WAIT_NS
    bench.joining.step(now_ns, 1.0)
    bench.joining.step(now_ns + AGAIN_NS - 1, 1.0)
    assert (bench.joining.pending, bench.tally.joined) == (1, 0)
    bench.hear(net)
    bench.heard_ns += 1
    bench.joining.step(now_ns + AGAIN_NS, 1.0)
    assert (bench.joining.pending, bench.tally.joined) == (0, 1)
    bench.joining.add(second)
    tried_ns = second.end_ns + 3600 * 1000 * MS  # the machine stood still, and so did the timers that hand blocks over
    bench.joining.step(tried_ns, 1.0)
    bench.joining.step(tried_ns + HELD_NS - 1, 1.0)
    assert bench.joining.pending == 1
    bench.joining.step(tried_ns + HELD_NS + AGAIN_NS, 1.0)
    assert (bench.joining.pending, bench.tally.joined) == (0, 2)


def test_records_that_are_put_off_are_bounded_like_those_that_are_joined() -> None:
    bench = Bench()
    _, records = run(*(Ask() for _ in range(4)))
    for record in records:
        bench.joining.add(record)
    bench.heard_ns = 0
    now_ns = records[-1].end_ns + WAIT_NS
    bench.rest = False  # a ring is filling: to read it is what they wait for
    bench.joining.step(now_ns, 1.0)
    assert (bench.looks, bench.joining.pending) == (1, 4)
    bench.rest = True
    bench.joining.step(now_ns, 0.0)
    assert (bench.looks, bench.joining.pending) == (2, 4)
    bench.joining.step(now_ns, 1.0)
    assert (bench.looks, bench.joining.pending) == (4, 4)
    assert not bench.joining.due(now_ns)


def test_what_is_held_for_long_is_looked_for_less_and_less() -> None:
    bench = Bench()
    _, (record,) = run(Ask())
    bench.joining.add(record)
    bench.heard_ns = 0
    for now_ns in range(record.end_ns + WAIT_NS, record.end_ns + WAIT_NS + HELD_NS, AGAIN_NS // 2):
        bench.joining.step(now_ns, 1.0)
    assert 5 < bench.looks < 30
    assert bench.joining.pending == 1
    bench.joining.step(record.end_ns + WAIT_NS + HELD_NS, 1.0)
    assert bench.joining.pending == 0


def test_what_waits_at_the_end_is_counted() -> None:
    bench = Bench()
    _, records = run(Ask(), Ask())
    bench.joining.give_up()
    assert not bench.tally.missing
    for record in records:
        bench.joining.add(record)
    bench.joining.give_up()
    assert (bench.joining.pending, bench.tally.missing) == (0, {BUSY: 2})


def test_places_that_mattered_have_spans_and_others_have_none() -> None:
    bench = Bench()
    net, (record,) = run(Ask(think=50 * US), hops=[Hop(), Hop(delay=4 * MS), Hop()])
    bench.hear(net)
    bench.joining.add(record)
    bench.joining.step(record.end_ns + WAIT_NS, 1.0)
    wire, *children = bench.spans()
    assert [(child.name, attributes(child)["spanway.wire.direction"]) for child in children] == [
        ("ovs br0 >", "request"),
        ("ovs br0 <", "response"),
    ]
    assert len({span.span_id for span in (wire, *children)}) == 3
    assert attributes(wire)["spanway.wait.verdict"] == "switch"
    for child in children:
        assert wire.start_time_unix_nano <= child.start_time_unix_nano
        assert child.end_time_unix_nano <= wire.end_time_unix_nano
        assert 4000 <= int(str(attributes(child)["spanway.wire.time.us"])) < 4100


@pytest.mark.parametrize("described", [None, {"spanway.wire.ovs.bridge": "br0"}])
def test_what_was_sampled_is_on_the_span_and_counted(described: Mapping[str, otlp.Value] | None) -> None:
    bench = Bench(described, {"spanway.wire.ipfix.packets": 3})
    net, (record,) = run(Ask())
    bench.hear(net)
    bench.joining.add(record)
    assert bench.tally.proven == 0
    bench.joining.step(record.end_ns + WAIT_NS, 1.0)
    assert bench.tally.proven == 1
    wire = attributes(bench.spans()[0])
    assert wire["spanway.wire.ipfix.packets"] == 3
    assert ("spanway.wire.ovs.bridge" in wire) == (described is not None)


def test_nothing_sampled_is_no_proof() -> None:
    bench = Bench(None, {})
    net, (record,) = run(Ask())
    bench.hear(net)
    bench.joining.add(record)
    bench.joining.step(record.end_ns + WAIT_NS, 1.0)
    assert (bench.tally.joined, bench.tally.proven) == (1, 0)


def test_what_cannot_be_read_of_rings_is_counted() -> None:
    bench = Bench()
    for _ in range(3):
        bench.joining.hear(0, memoryview(b"no block"))
    bench.joining.hear(0, memoryview(block([Frame(b"\0" * 14, 14)])))
    assert bench.joining.frames == Frames(unread=1, unknown=0, torn=3)


def test_what_the_switch_says_is_on_the_span() -> None:
    bench = Bench({"spanway.wire.ovs.bridge": "br0"})
    net, (record,) = run(Ask())
    bench.hear(net)
    bench.joining.add(record)
    bench.joining.step(record.end_ns + WAIT_NS, 1.0)
    assert attributes(bench.spans()[0])["spanway.wire.ovs.bridge"] == "br0"


def test_each_record_ends_in_one_count() -> None:
    bench = Bench()
    net, records = run(*[Ask()] * 4)
    bench.hear(net)
    bench.way = None
    bench.joining.add(records[0])
    bench.joining.step(records[0].end_ns + WAIT_NS + FIND_NS, 1.0)
    bench.way = Resolved((0, 1), WAY, 0)
    bench.joining.add(records[1])
    bench.joining.add(records[2]._replace(local_port=1))
    bench.joining.add(records[3]._replace(flags=8))
    bench.joining.step(records[3].end_ns + WAIT_NS, 1.0)
    assert bench.tally.joined == 1
    assert dict(bench.tally.missing) == {NO_TAP: 1, "no-packets": 1, "tunnel": 1}


def test_a_record_that_is_beyond_it_is_counted_and_the_others_follow(monkeypatch: pytest.MonkeyPatch) -> None:
    bench = Bench()
    net, records = run(*[Ask()] * 3)
    bench.hear(net)
    for record in records:
        bench.joining.add(record)
    now = records[-1].end_ns + WAIT_NS
    for name in ("judge", "encode"):  # before and after what is usual is known
        with monkeypatch.context() as patched:
            patched.setattr(joining, name, lambda *_: 1 // 0)
            with pytest.raises(ZeroDivisionError):
                bench.joining.step(now, 1.0)
    bench.joining.step(now, 1.0)
    assert (bench.joining.pending, bench.tally.joined, dict(bench.tally.missing)) == (0, 1, {BUG: 2})
    assert bench.tally.verdicts.total() == 1


def test_records_that_are_due_as_they_arrive_wait_for_their_way_to_be_found() -> None:
    bench = Bench()
    net, records = run(*[Ask()] * 3)
    bench.hear(net)
    found, bench.way = bench.way, None
    for record in records:
        bench.joining.add(record)
    now = records[-1].end_ns + WAIT_NS
    assert not bench.joining.due(now)
    bench.way = found
    bench.joining.step(now + FIND_NS, 1.0)
    assert (bench.tally.joined, dict(bench.tally.missing)) == (3, {})


def test_what_waits_is_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(joining, "MOST", 3)
    bench = Bench()
    net, records = run(*[Ask()] * 5)
    bench.hear(net)
    for record in reversed(records):
        bench.joining.add(record)
    assert (bench.joining.pending, dict(bench.tally.missing)) == (3, {BUSY: 2})
    bench.joining.step(records[-1].end_ns + WAIT_NS, 1.0)
    assert (bench.joining.pending, bench.tally.joined) == (0, 3)


def test_a_slice_ends_in_time_and_the_rest_follows() -> None:
    bench = Bench()
    net, records = run(*[Ask()] * 5)
    bench.hear(net)
    for record in records:
        bench.joining.add(record)
    now = records[-1].end_ns + WAIT_NS
    bench.joining.step(now, 0.0)
    assert bench.tally.joined == 1
    while bench.joining.due(now):
        bench.joining.step(now, 0.0)
    assert bench.tally.joined == 5


def test_connections_that_no_tap_sees_are_told_of_once_in_a_while() -> None:
    bench = Bench()
    _, (record,) = run(Ask())
    for number in range(2 * UNSEEN):
        bench.joining.add(record._replace(local_port=number + 1))
    bench.joining.step(record.end_ns + WAIT_NS, 10.0)
    assert len(bench.said) == 2
    assert "are not seen on veth-px, veth-app" in bench.said[0]
    assert "NAT" in bench.said[0]


def test_what_was_before_the_taps_is_no_sign_of_another_address() -> None:
    bench = Bench()
    _, (record,) = run(Ask())
    bench.way = Resolved((0, 1), WAY, record.write_ns + 1)
    for _ in range(UNSEEN):
        bench.joining.add(record)
    bench.joining.step(record.end_ns + WAIT_NS, 10.0)
    assert (bench.said, dict(bench.tally.missing)) == ([], {NO_TAP: UNSEEN})


def test_drops_of_a_ring_make_a_split_incomplete() -> None:
    bench = Bench()
    net, (record,) = run(Ask())
    bench.hear(net)
    bench.joining.dropped(1, record.write_ns, record.end_ns)
    bench.joining.add(record)
    bench.joining.step(record.end_ns + WAIT_NS, 1.0)
    assert bench.tally.incomplete == 1
    assert attributes(bench.spans()[0])["spanway.wire.incomplete"] is True


@pytest.mark.parametrize(
    ("ns", "text"),
    [(0, "0 ns"), (850, "850 ns"), (12_340, "12.3 us"), (1_450_000, "1.45 ms"), (999_500_000, "1000 ms"),
     (150_000_000, "150 ms"), (2_100_000_000, "2.10 s"), (75_000_000_000, "75.0 s")],
)  # fmt: skip
def test_durations(ns: int, text: str) -> None:
    assert duration(ns) == text


def test_addresses() -> None:
    assert address_text(bytes(10) + b"\xff\xff\x0a\x00\x00\x01") == "10.0.0.1"
    assert address_text(bytes(15) + b"\x01") == "::1"


def test_what_waits_is_not_missing_because_it_stood_still() -> None:
    """Whether a process was stopped or the whole machine: nothing that had been seen of an attempt goes with that."""
    bench = Bench()
    net, (record,) = run(Ask())
    hour = 3600 * 1000 * MS
    bench.hear(net)
    bench.joining.forget(record.end_ns)
    for later in range(LOOKS - 1):
        bench.joining.forget(record.end_ns + hour + later * MS)
    bench.joining.add(record)  # what had handed it over stood still too
    bench.joining.step(record.end_ns + hour + WAIT_NS, 1.0)
    assert (bench.tally.joined, bench.tally.missing.total()) == (1, 0)
    bench.joining.forget(record.end_ns + 2 * hour)
    bench.joining.add(record)
    bench.joining.step(record.end_ns + 2 * hour, 1.0)
    assert bench.tally.missing["too-long"] == 1, "they are not kept for ever"


def test_a_clock_that_is_set_back_does_not_blind_it_for_as_long() -> None:
    bench = Bench()
    net, (record,) = run(Ask())
    hour = 3600 * 1000 * MS
    bench.joining.add(record._replace(end_ns=record.end_ns + hour))
    bench.joining.forget(record.end_ns + hour)
    bench.joining.forget(record.end_ns - MS)
    assert (bench.joining.pending, bench.tally.missing["order"]) == (0, 1)
    assert len(bench.said) == 1
    bench.hear(net)
    bench.joining.add(record)
    bench.joining.step(record.end_ns + WAIT_NS, 1.0)
    assert (bench.tally.joined, len(bench.said)) == (1, 1)
