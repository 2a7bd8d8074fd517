"""Real packets: requests through namespaces that the test makes, heard by rings, joined."""

from __future__ import annotations

import random

import pytest

from proxy.demo.lab.plan import Kind
from proxy.layers.split import Missing, Split
from tests.harness.namespaces import backend, laboratory
from tests.layers.wired import Load, mixed, rings

pytestmark = [pytest.mark.real, pytest.mark.alone, pytest.mark.timeout(300)]

PLACES = {2: ("link",), 4: ("link px", "switch", "link app")}


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
