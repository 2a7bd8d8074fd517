"""Blame: whatever is slowed, stopped or lost somewhere on the way, the verdict names that place."""

from __future__ import annotations

import random
from collections.abc import Callable
from dataclasses import replace
from functools import partial

import pytest

from proxy.layers.baseline import Baseline
from proxy.layers.join import Joiner
from proxy.layers.packet import Flows
from proxy.layers.split import Layout, Split
from proxy.layers.verdict import Verdict, judge
from tests.layers.path import DOWN, MS, UP, US, Ask, Hop, Net

PLACES = ("link px", "ovs br0", "link app")
FOR_EVER = 1 << 62
MIXED = ((200, 200, 200, 1000, 20_000, 300_000), (200, 200, 4000, 70_000, 250_000))


def hops() -> list[Hop]:
    return [Hop(3 * US, jitter=US), Hop(), Hop(30 * US, jitter=20 * US), Hop(), Hop(5 * US)]


def mixed(rng: random.Random) -> Ask:
    return Ask(size=rng.choice(MIXED[0]), answer=rng.choice(MIXED[1]), think=rng.randrange(3 * MS))


class Trial:
    """Thirty requests as usual, then thirty with a fault; the verdicts on the latter."""

    def __init__(
        self, *, ask: Callable[[Ask], Ask] = lambda ask: ask, fault: Callable[[list[Hop], int, random.Random], None],
        made: Callable[[list[Hop]], None] = lambda hops: None, ready: Callable[[Net], None] = lambda net: None,
        room: int = 1 << 20, seed: int = 1,
    ) -> None:  # fmt: skip
        rng = random.Random(seed)
        self.hops = hops()
        made(self.hops)
        flows = Flows()
        self.net = Net(self.hops, seed, room=(1 << 20, room))
        ready(self.net)
        usual = self.net.run([mixed(rng) for _ in range(30)])
        fault(self.hops, self.net.now, rng)
        self.records = self.net.run([ask(mixed(rng)) for _ in range(30)])
        joiner, baseline = Joiner(flows), Baseline()
        layout = Layout(range(4), PLACES)
        for tap in range(4):
            joiner.feed(tap, self.net.packets(flows, tap))
        for record in usual:
            split = joiner.join(record, layout)
            assert isinstance(split, Split)
            baseline.add(record.route, record.end_ns, split.places())
        self.splits: list[Split] = []
        self.verdicts: list[Verdict] = []
        for record in self.records:
            split = joiner.join(record, layout)
            assert isinstance(split, Split), split
            assert split.stamps == self.net.stamps(record)
            assert sum(split.segments.values()) == record.end_ns - record.write_ns
            self.splits.append(split)
            self.verdicts.append(judge(split, baseline.usual(record.route)))

    def words(self) -> list[str]:
        return [verdict.verdict for verdict in self.verdicts]


def nothing(hops: list[Hop], now: int, rng: random.Random) -> None:
    pass


def test_nothing_is_charged_where_nothing_happens() -> None:
    trial = Trial(fault=nothing)
    assert {verdict.verdict for verdict in trial.verdicts if not verdict.usual} <= {
        "application"
    }  # it thinks 0 to 3 ms
    assert all(not split.lost and not split.retransmitted for split in trial.splits)


@pytest.mark.parametrize(("hop", "word"), [(1, "network"), (2, "switch"), (3, "network")])
def test_a_delay_is_charged_to_its_place(hop: int, word: str) -> None:
    def fault(hops: list[Hop], now: int, rng: random.Random) -> None:
        hops[hop].extra.append((now, FOR_EVER, 5 * MS))

    trial = Trial(fault=fault)
    assert [(verdict.verdict, verdict.place) for verdict in trial.verdicts] == [(word, PLACES[hop - 1])] * 30
    small = [
        verdict for verdict, record in zip(trial.verdicts, trial.records, strict=True)
        if record.request_end - record.request_start < 1400 and record.response_end - record.response_start < 1400
    ]  # fmt: skip
    assert small
    assert all(9.9 * MS < verdict.excess_ns < 10.1 * MS for verdict in small)


def test_a_switch_that_stops_while_its_neighbours_probe() -> None:
    """Senders with small windows, as after a loss: while nothing gets through, each sends one part by its own timer."""
    stops: list[tuple[int, int]] = []
    net: list[Net] = []

    def fault(hops: list[Hop], now: int, rng: random.Random) -> None:
        stops.extend((now + number * 43 * MS, now + number * 43 * MS + 40 * MS) for number in range(1000))
        hops[2].stops.extend(stops)

    def narrow(made: Net) -> None:
        net.append(made)
        for end in (made.proxy, made.backend):
            end.most, end.probe = 20 * end.mss, 15 * MS

    def large(ask: Ask) -> Ask:
        size, answer = (200, 250_000) if ask.answer > 200 else (300_000, 200)
        return replace(ask, size=size, answer=answer, think=0)

    trial = Trial(ask=large, fault=fault, ready=narrow)
    touched = 0
    for record, split, verdict in zip(trial.records, trial.splits, trial.verdicts, strict=True):
        met = sum(max(0, min(until, record.end_ns) - max(since, record.write_ns)) for since, until in stops)
        if met > 20 * MS:
            touched += 1
            assert verdict.verdict == "switch", split
            assert split.places()["ovs br0"] > met - 2 * MS
    assert touched > 8
    assert min(net[0].proxy.probes, net[0].backend.probes) >= 3


def test_a_switch_that_stops() -> None:
    stops: list[tuple[int, int]] = []

    def fault(hops: list[Hop], now: int, rng: random.Random) -> None:
        stops.extend((now + number * 11 * MS, now + number * 11 * MS + 6 * MS) for number in range(1000))
        hops[2].stops.extend(stops)

    trial = Trial(fault=fault)
    touched = 0
    for record, split, verdict in zip(trial.records, trial.splits, trial.verdicts, strict=True):
        places = split.places()
        if places["ovs br0"] > 3 * MS:
            touched += 1
            assert verdict.verdict == "switch"
            assert any(since < record.end_ns and until > record.write_ns for since, until in stops)
        else:
            assert verdict.verdict != "switch" or verdict.usual
    assert touched > 3


def test_a_queue_in_the_switch() -> None:
    def fault(hops: list[Hop], now: int, rng: random.Random) -> None:
        hops[2].rate = 5_000_000

    assert Trial(ask=lambda ask: replace(ask, size=300_000), fault=fault).words() == ["switch"] * 30


def rated(hop: int, round_ns: int, *, size: int, answer: int) -> Trial:
    """40 Mbit/s at one hop, on a way whose round trip takes so long."""

    def fault(hops: list[Hop], now: int, rng: random.Random) -> None:
        hops[hop].rate = 5_000_000

    def longer(hops: list[Hop]) -> None:
        hops[2].delay = round_ns // 2

    return Trial(ask=partial(replace, size=size, answer=answer), fault=fault, made=longer)


@pytest.mark.parametrize("round_ns", [60 * US, MS, 5 * MS])
@pytest.mark.parametrize(("hop", "word"), [(0, "proxy"), (1, "network"), (2, "switch"), (3, "network")])
def test_a_rate_on_the_requests_way(hop: int, word: str, round_ns: int) -> None:
    """Its queue is before a tap or behind it, however long the way that acknowledgements take beyond."""

    assert rated(hop, round_ns, size=100_000, answer=500).words() == [word] * 30


@pytest.mark.parametrize("round_ns", [60 * US, MS, 5 * MS])
@pytest.mark.parametrize(("hop", "word"), [(4, "application"), (3, "network"), (2, "switch"), (1, "network")])
def test_a_rate_on_the_responses_way(hop: int, word: str, round_ns: int) -> None:
    assert rated(hop, round_ns, size=300, answer=100_000).words() == [word] * 30


def test_a_long_way_is_not_the_senders_fault() -> None:
    """A window's worth goes at once, then the sender waits for what tells it to go on."""

    def fault(hops: list[Hop], now: int, rng: random.Random) -> None:
        hops[2].extra.append((now, FOR_EVER, 5 * MS))

    for size, answer in ((100_000, 500), (300, 100_000)):
        ask = partial(replace, size=size, answer=answer)
        trial = Trial(ask=ask, fault=fault)
        assert trial.words() == ["switch"] * 30
        for split in trial.splits:
            assert split.places()["ovs br0"] > 0.8 * (sum(split.segments.values()) - 3 * MS)


def test_a_slow_application() -> None:
    assert Trial(ask=lambda ask: replace(ask, think=ask.think + 20 * MS), fault=nothing).words() == ["application"] * 30
    in_parts = Trial(ask=lambda ask: replace(ask, answer=20_000, slow_parts=4, slow_pause=10 * MS), fault=nothing)
    assert in_parts.words() == ["application"] * 30


def test_a_stalled_proxy() -> None:
    stalled = Trial(ask=lambda ask: replace(ask, stalled=(US, ask.think + 40 * MS)), fault=nothing)
    assert stalled.words() == ["proxy"] * 30


def test_a_backend_that_does_not_read() -> None:
    trial = Trial(ask=lambda ask: replace(ask, size=300_000, not_reading=50 * MS), fault=nothing, room=16_384)
    assert trial.words() == ["peer not reading"] * 30
    assert all(split.zero_window_ns[1] == 0 for split in trial.splits)


def test_a_client_that_sends_its_request_slowly() -> None:
    trial = Trial(ask=lambda ask: replace(ask, size=20_000, parts=4, pause=10 * MS), fault=nothing)
    assert trial.words() == ["client"] * 30


@pytest.mark.parametrize(
    ("hop", "way", "place"),
    [(1, UP, "link px"), (1, DOWN, "link px"), (2, UP, "ovs br0"), (2, DOWN, "ovs br0"), (3, UP, "link app"),
     (3, DOWN, "link app"), (4, UP, "backend"), (0, DOWN, "proxy")],
)  # fmt: skip
def test_loss_is_found_where_copies_vanish(hop: int, way: int, place: str) -> None:
    def fault(hops: list[Hop], now: int, rng: random.Random) -> None:
        hops[hop].lose = lambda now, segment: segment.direction == way and segment.length > 0 and rng.random() < 0.02

    trial = Trial(fault=fault, seed=4)
    touched = slow = 0
    for record, split, verdict in zip(trial.records, trial.splits, trial.verdicts, strict=True):
        ranges = ((record.request_start, record.request_end), (record.response_start, record.response_end))
        low, high = ranges[way]
        vanished = sum(
            min(segment.start + segment.length, high) - max(segment.start, low)
            for _, segment in trial.hops[hop].lost
            if segment.start < high and segment.start + segment.length > low
        )
        assert split.lost == ({place: vanished} if vanished else {})
        touched += vanished > 0
        if verdict.excess_ns > 50 * MS:  # a retransmission timer
            slow += 1
            assert verdict.verdict == f"loss at {place}"
        elif not vanished:
            assert not verdict.verdict.startswith("loss")
    assert touched > 3
    assert slow > 0


def test_loss_before_the_first_tap_is_seen_by_the_hole_it_leaves() -> None:
    def fault(hops: list[Hop], now: int, rng: random.Random) -> None:
        hops[4].lose = lambda now, segment: segment.direction == DOWN and segment.length > 0 and rng.random() < 0.02

    trial = Trial(ask=lambda ask: replace(ask, answer=250_000), fault=fault)
    assert all(set(split.lost) <= {"backend"} for split in trial.splits)
    assert sum(1 for split in trial.splits if split.lost) > 15
