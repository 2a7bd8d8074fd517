"""`spanway wire` beside a real proxy, with a real switch in between: what it says is exact, or it says nothing."""

from __future__ import annotations

import sys
from collections.abc import Mapping, Sequence
from pathlib import Path

import pytest

from proxy.demo.lab.plan import Kind
from tests.harness.collector import Span
from tests.harness.namespaces import laboratory
from tests.real.wired import Answered, Wired

pytestmark = [pytest.mark.real, pytest.mark.alone, pytest.mark.timeout(300)]

PLACE_US = "spanway.wire.us."
TELLING = (sys.executable, "-m", "tests.real.wire_telling")


def check(answered: Sequence[Answered], wires: Mapping[str, Span], children: Mapping[str, Sequence[Span]]) -> int:
    """The invariants of every span there is; how many windows of the backend held its own times: with `TELLING` all."""
    windows = 0
    for each in answered:
        wire = wires.get(each.trace)
        if wire is None:
            continue
        places = [value for name, value in wire.attributes.items() if name.startswith(PLACE_US)]
        wait_us = (wire.end - wire.start) / 1000
        # Each place is rounded down.
        assert sum(places) <= wait_us < sum(places) + len(places) + 1, wire
        assert wire.start <= each.begun_ns <= each.ended_ns <= wire.end, (each, wire)
        assert each.ended_ns - each.begun_ns <= (wire.attributes[f"{PLACE_US}backend"] + 1) * 1000, (each, wire)
        for child in children.get(wire.span_id, ()):
            assert wire.start <= child.start <= child.end <= wire.end, (wire, child)
            if child.name == "backend":
                assert child.start <= each.begun_ns <= each.ended_ns <= child.end, (each, child)
                windows += 1
    return windows


def missing(counts: Mapping[str, float]) -> dict[str, float]:
    return {name: number for name, number in counts.items() if name.startswith("missing/")}


@pytest.mark.slow
@pytest.mark.parametrize("count", [10_000])
def test_every_request_through_open_vswitch_is_joined_exactly(tmp_path: Path, count: int) -> None:
    with laboratory("wovs", "ovs") as lab, Wired(lab, tmp_path, command=TELLING) as wired:
        before: Mapping[str, float] = {"joined": 0}
        for mark, connections in enumerate((1, 16, 64), 1):
            answered = wired.load(count, connections, "mixed", mark)
            counts = wired.settled(mark * count)
            joined = int(counts["joined"] - before["joined"])
            assert joined >= 0.999 * count, (connections, missing(counts))
            wires, children = wired.spans(mark, joined)
            assert len(wires) == joined
            assert check(answered, wires, children) == joined
            before = counts
        assert not {name for name in missing(before) if name in ("missing/order", "missing/sum")}, missing(before)
        assert before.get("packets_dropped/" + lab.proxy.port, 0) == 0


@pytest.mark.slow
def test_taps_that_miss_packets_leave_requests_out_and_no_stamp_is_wrong(tmp_path: Path) -> None:
    count = 3000
    deaf = (sys.executable, "-m", "tests.real.wire_deaf", "10")
    with laboratory("wovs", "ovs") as lab, Wired(lab, tmp_path, command=deaf) as wired:
        answered = wired.load(count, 16, "mixed", 1)
        counts = wired.settled(count)
        joined = int(counts["joined"])
        assert 0.3 * count < joined < 0.98 * count, missing(counts)
        wires, children = wired.spans(1, joined)
        assert check(answered, wires, children) == joined


@pytest.mark.parametrize(("kind", "here"), [("bridge", False), ("bridge", True), ("veth", True), ("ovs", True)])
def test_every_kind_of_way_has_the_same_invariants(tmp_path: Path, kind: Kind, here: bool) -> None:
    count = 400
    with laboratory("wway", kind, proxy_here=here) as lab, Wired(lab, tmp_path, command=TELLING) as wired:
        answered = wired.load(count, 16, "mixed", 1)
        counts = wired.settled(count)
        assert counts["joined"] == count, missing(counts)
        wires, children = wired.spans(1, count)
        assert check(answered, wires, children) == count
        (taps,) = {wire.attributes["spanway.wire.taps"] for wire in wires.values()}
        named = {wire.attributes["spanway.wire.split"].partition(" | ")[0].split()[0] for wire in wires.values()}
        assert named == {"proxy"}
        assert len(taps.split(", ")) == {"veth": 1, "bridge": 2, "ovs": 2}[kind] + (here and kind != "veth")


@pytest.mark.parametrize("kind", ["bridge", "ovs"])
@pytest.mark.parametrize(("six", "tls"), [(True, False), (False, True), (True, True)], ids=["IPv6", "TLS", "both"])
def test_over_ipv6_and_where_nothing_but_ciphertext_is_seen(tmp_path: Path, kind: Kind, six: bool, tls: bool) -> None:
    count = 400
    with laboratory("wsix", kind) as lab, Wired(lab, tmp_path, six=six, tls=tls, command=TELLING) as wired:
        answered = wired.load(count, 16, "mixed", 1)
        counts = wired.settled(count)
        assert counts["joined"] == count, missing(counts)
        wires, children = wired.spans(1, count)
        assert check(answered, wires, children) == count
        assert {wire.attributes["network.peer.address"] for wire in wires.values()} == {wired.address}


@pytest.mark.parametrize(
    ("kind", "here", "between"),
    [
        ("ovs", False, ["ovs wfnd-br0"]),
        ("bridge", False, ["bridge wfnd-br0"]),
        ("bridge", True, ["link", "bridge wfnd-br0"]),
        ("veth", True, []),
    ],
)
def test_the_way_is_found_for_the_address_of_the_backend(
    tmp_path: Path, kind: Kind, here: bool, between: list[str]
) -> None:
    with laboratory("wfnd", kind, proxy_here=here) as lab, Wired(lab, tmp_path, interfaces="auto") as wired:
        wired.load(20, 1, "small", 1)  # what makes the backend known
        begun = wired.settled(20)["joined"]
        wired.load(200, 4, "small", 2)
        counts = wired.settled(220)
        joined = int(counts["joined"] - begun)
        assert joined >= 190, missing(counts)  # a connection that is older than the taps is voted on
        wires, _ = wired.spans(2, joined)
        told = [wire.attributes for wire in wires.values()]
        assert {one["spanway.wire.taps"] for one in told} == {
            ", ".join(name for name, namespace in lab.plan.on_the_way("app") if namespace is None)
        }
        for place in between:
            assert all(f" {place} > " in f" {one['spanway.wire.split']}".replace("|", "") for one in told)
        if kind == "ovs":
            described = [one for one in told if "spanway.wire.ovs.bridge" in one]
            assert len(described) > joined / 2
            for one in described:
                assert one["spanway.wire.ovs.bridge"] == lab.plan.bridges[0]
                assert one["spanway.wire.ovs.in_port"] == lab.proxy.port
                assert one["spanway.wire.ovs.out_port"] == lab.backends["app"].port
                assert one["spanway.wire.ovs.tables"] == "0"
