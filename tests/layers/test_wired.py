"""Real packets: requests through namespaces that the test makes, heard by rings, joined."""

from __future__ import annotations

import random

import pytest

from proxy.demo.lab.plan import Kind
from proxy.layers.split import Missing, Split
from tests.harness.namespaces import backend, laboratory
from tests.layers.wired import Load, mixed, rings

pytestmark = [pytest.mark.real, pytest.mark.alone, pytest.mark.timeout(300)]

PLACES = {2: ("link",), 4: ("link px", "switch", "link app"), 8: tuple(f"place {number}" for number in range(7))}


@pytest.mark.parametrize("kind", ["veth", "bridge", "ovs"])
def test_real_requests_join_exactly(kind: Kind) -> None:
    with laboratory(f"join{kind[0]}", kind) as lab, backend(lab) as served:
        way = lab.plan.on_the_way("app")
        with rings(lab, way, served.port) as opened:
            rng = random.Random(1)
            load = Load(lab, served.host, served.port, opened, PLACES[len(way)])
            load.run([mixed(rng) for _ in range(1000)], 8)
    assert len(load.splits) == 1000
    assert load.drops == 0
    joined = 0
    for (record, asked_ns, answered_ns, _), split in load.splits:
        if isinstance(split, Missing):
            assert split.reason in ("hole", "order"), split
            continue
        assert isinstance(split, Split)
        joined += 1
        assert sum(split.segments.values()) == record.end_ns - record.write_ns
        whole, came = split.stamps[-1]
        assert whole <= asked_ns <= answered_ns <= came  # the backend's own time, inside the last tap's window
        outward, back = zip(*split.stamps, strict=True)
        assert [record.write_ns, *outward] == sorted([record.write_ns, *outward])
        assert [record.end_ns, *back] == sorted([record.end_ns, *back], reverse=True)
    assert joined >= 999


@pytest.mark.parametrize(("kind", "loss"), [("bridge", 0.0), ("ovs", 0.0), ("bridge", 0.01)])
def test_what_taps_miss_of_real_packets_never_makes_a_wrong_split(kind: Kind, loss: float) -> None:
    """The same packets joined whole, and with one in a hundred gone at each tap: the same, or missing."""
    with laboratory(f"joim{kind[0]}", kind, boxes=("switch",) if loss else ()) as lab, backend(lab) as served:
        if loss:
            lab.boxes["switch"].set(loss=loss, seed=3)
        way = lab.plan.on_the_way("app")
        with rings(lab, way, served.port) as opened:
            rng = random.Random(2)
            load = Load(lab, served.host, served.port, opened, PLACES[len(way)])
            load.run([mixed(rng) for _ in range(600)], 8)
    assert load.drops == 0
    whole = load.again(0.0, 0)
    # Where the network loses an acknowledgement while its sender is silent, it looks as if a tap had missed it.
    assert sum(isinstance(split, Split) for split in whole) >= (590 if loss else 599)
    given = missing = 0
    for seed in range(5):
        for right, split in zip(whole, load.again(0.01, seed), strict=True):
            if isinstance(split, Missing):
                missing += 1
            elif isinstance(right, Split):
                given += 1
                assert split.stamps == right.stamps
                assert split.segments == right.segments
                assert split.pieces == right.pieces
                assert split.incomplete
    assert given > 1500, missing  # of 3000
    assert missing > 50
