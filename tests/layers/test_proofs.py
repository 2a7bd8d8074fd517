"""Samples of a switch and the attempts they prove."""

from __future__ import annotations

import pytest

from proxy.layers import proofs
from proxy.layers.find import Interface
from proxy.layers.ipfix import Sample
from proxy.layers.proofs import SLACK_US, Proofs
from proxy.layers.ways import Way, address_text
from tests.layers.path import Ask, Hop, Net

WAY = Way(
    tuple(Interface(name, number) for number, name in enumerate(("px", "br-px", "br-app"), 1)), ("link", "ovs br0")
)
(RECORD,) = Net([Hop(), Hop(), Hop()]).run([Ask()])
US = RECORD.write_ns // 1000
END_US = RECORD.end_ns // 1000


def sample(at_us: int = US, *, back: bool = False, **changes: object) -> Sample:
    ends = [(address_text(RECORD.local), RECORD.local_port), (address_text(RECORD.peer), RECORD.peer_port)]
    (source, source_port), (destination, destination_port) = reversed(ends) if back else ends
    made = Sample(
        domain=1, point=7, egress=False, in_interface="br-app" if back else "br-px", out_interface="",
        source=source, source_port=source_port, destination=destination, destination_port=destination_port,
        dscp=10, start_us=at_us, end_us=at_us, packets=1, octets=100, dropped=0,
    )  # fmt: skip
    return made._replace(**changes)  # type: ignore[arg-type] # as a keyword says


def test_requests_alone_name_where_they_came_in() -> None:
    known = Proofs()
    assert known.of(RECORD, WAY) == {}
    known.take([sample(), sample()])
    assert known.of(RECORD, WAY) == {
        "spanway.wire.ipfix.packets": 2,
        "spanway.wire.ipfix.bridge": "br0",
        "spanway.wire.ipfix.point": "1/7",
        "spanway.wire.ipfix.in_port": "br-px",
    }


@pytest.mark.parametrize(
    "further",
    [sample(back=True, point=8), sample(egress=True, out_interface="br-app", point=8)],
    ids=["answers", "egress"],
)
def test_answers_or_egress_name_where_they_left(further: Sample) -> None:
    known = Proofs()
    known.take([sample(), further])
    told = known.of(RECORD, WAY)
    assert told["spanway.wire.ipfix.point"] == "1/7, 1/8"
    assert told["spanway.wire.ipfix.in_port"] == "br-px"
    assert told["spanway.wire.ipfix.out_port"] == "br-app"


def test_a_port_of_no_bridge_on_the_way_is_named_without_one() -> None:
    known = Proofs()
    known.take([sample(in_interface="patch-int")])
    told = known.of(RECORD, WAY)
    assert told["spanway.wire.ipfix.in_port"] == "patch-int"
    assert "spanway.wire.ipfix.bridge" not in told


def test_only_what_is_of_its_time_and_its_connection_proves_it() -> None:
    known = Proofs()
    known.take(
        [sample(US - SLACK_US - 1), sample(END_US + SLACK_US + 1), sample(source_port=1), sample(source="10.0.0.1")]
    )
    assert known.of(RECORD, WAY) == {}
    known.take([sample(US - SLACK_US), sample(END_US + SLACK_US), sample(US - 10**7, end_us=US + 10**7, packets=5)])
    assert known.of(RECORD, WAY)["spanway.wire.ipfix.packets"] == 7


def test_the_table_is_bounded_and_the_oldest_connection_goes_first(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(proofs, "MOST", 3)
    monkeypatch.setattr(proofs, "TOGETHER", 200)
    known = Proofs()
    for port in range(10):
        known.take([sample(source_port=port)])
    assert len(known) == 3
    known.take([sample()] * 1000)
    assert known.of(RECORD, WAY)["spanway.wire.ipfix.packets"] == 1000
    assert known._held == 3, "packets of one millisecond are counted, not kept"
    monkeypatch.setattr(proofs, "EACH", 150)
    known.take([sample(US - 1000 * number) for number in range(1, 400)])
    assert known._held <= 200
    assert known.of(RECORD, WAY) == {}, "the latest are kept, whatever their times"
    known.take([sample(source_port=77, start_us=number) for number in range(100)])
    assert (len(known), known._held) == (1, 100), "there was no room for both"
    for port in range(10):
        known.take([sample(source_port=port)] * 3)
        assert known._held == sum(map(len, known._seen.values())) <= 200


def test_names_are_cut_and_so_are_their_lists() -> None:
    known = Proofs()
    known.take([sample(in_interface="x" * 60_000), *(sample(in_interface=f"p{number}") for number in range(50))])
    names = str(known.of(RECORD, WAY)["spanway.wire.ipfix.in_port"]).split(", ")
    assert names == ["x" * 64, *(f"p{number}" for number in range(7))]
