"""What is counted, as a status line and as Prometheus reads it."""

from __future__ import annotations

import re

from prometheus_client.parser import text_string_to_metric_families

from proxy.layers.ipfix import Reader
from proxy.layers.joining import Frames
from proxy.layers.ovs import counters
from proxy.layers.ovs.counters import Sample
from proxy.layers.tally import CLOSED, ELSEWHERE, VERDICTS, Moment, Tally, expose
from proxy.trace.ledger import ExportCounters
from tests.harness.proxy import ROOT


def counted() -> Tally:
    tally = Tally()
    tally.received, tally.joined, tally.malformed = 10, 7, 1
    tally.missing.update({"no-anchor": 1, "hole": 1, "busy": 1})
    tally.proven = 2
    tally.verdicts.update({"switch": 6, "loss at ovs br0": 1})
    tally.packets.update({"veth0": 100, "veth1": 90})
    tally.drops["veth1"] = 3
    return tally


def test_prometheus_reads_every_count() -> None:
    switch = [
        Sample("spanway_ovs_datapath_lookups_total", (("datapath", "netdev@ovs-netdev"), ("result", "hit")), 7),
        Sample("spanway_ovs_datapath_flows", (("datapath", "netdev@ovs-netdev"),), 4),
        Sample("spanway_ovs_datapath_lookups_total", (("datapath", "netdev@ovs-netdev"), ("result", "missed")), 2),
    ]
    export = ExportCounters(acknowledged=5, dropped={"refused": 2})
    reader = Reader()
    reader.samples, reader.lost = 11, 12
    moment = Moment(
        rings=2, pending=3, ready=True, ways=(("veth0, veth1", True), ("veth2", False)), frames=Frames(4, 5, 6),
        switch=switch, ipfix=reader,
    )  # fmt: skip
    body, kind = expose(counted(), export, moment)
    assert kind.startswith("text/plain; version=0.0.4")
    samples = {
        (sample.name, *sample.labels.values()): sample.value
        for family in text_string_to_metric_families(body.decode())
        for sample in family.samples
        if family.name != "spanway_build"
    }
    assert samples[("spanway_wire_records_received_total",)] == 10
    assert samples[("spanway_wire_joined_total",)] == 7
    assert samples[("spanway_wire_missing_total", "no-anchor")] == 1
    assert samples[("spanway_wire_verdicts_total", "loss at ovs br0")] == 1
    assert samples[("spanway_wire_packets_total", "veth1")] == 90
    assert samples[("spanway_wire_packets_dropped_total", "veth1")] == 3
    assert samples[("spanway_spans_dropped_total", "refused")] == 2
    assert samples[("spanway_ovs_datapath_lookups_total", "netdev@ovs-netdev", "hit")] == 7
    assert samples[("spanway_ovs_datapath_lookups_total", "netdev@ovs-netdev", "missed")] == 2
    assert samples[("spanway_ovs_datapath_flows", "netdev@ovs-netdev")] == 4
    assert samples[("spanway_wire_packets_unread_total",)] == 4
    assert samples[("spanway_wire_packets_unknown_total",)] == 5
    assert samples[("spanway_wire_blocks_torn_total",)] == 6
    assert samples[("spanway_wire_way_up", "veth0, veth1")] == 1
    assert samples[("spanway_wire_way_up", "veth2")] == 0
    assert samples[("spanway_wire_ipfix_samples_total",)] == 11
    assert samples[("spanway_wire_ipfix_lost_total",)] == 12
    assert samples[("spanway_wire_ipfix_proven_total",)] == 2
    assert samples[("spanway_wire_rings",)] == 2
    assert samples[("spanway_wire_records_pending",)] == 3
    assert samples[("spanway_wire_ready",)] == 1


def test_the_documentation_has_every_metric_and_no_other() -> None:
    page = (ROOT / "docs/layers.md").read_text(encoding="utf-8").partition("## The pages")[2]
    documented = set()
    for head, middles, tail in re.findall(r"`(spanway_[a-z_]+)(?:\{([a-z_,]+)\}([a-z_]+))?(?:\{[a-z,]+\})?`", page):
        documented |= {f"{head}{middle}{tail}" for middle in middles.split(",")}
    shown = "netdev@ovs-netdev:\n  lookups: hit:1 missed:1 lost:1\n  flows: 1\n"
    calls = "netdev@ovs-netdev:\n  flows         : (current 1) (avg 1) (max 1) (limit 1)\n  dump duration : 1ms\n"
    rows = "".join(f"  {name}: 1\n" for name in counters._THREAD_COUNTS)
    switch = [*counters.datapaths(shown), *counters.upcalls(calls), *counters.threads(f"main thread:\n{rows}")]
    moment = Moment(rings=1, pending=1, ready=True, ways=(("veth0", True),), switch=switch, ipfix=Reader())
    body, _ = expose(counted(), ExportCounters(dropped={"refused": 1}), moment)
    named = {sample.name for family in text_string_to_metric_families(body.decode()) for sample in family.samples}
    assert documented == named


def test_pods_that_come_and_go_leave_nothing_behind() -> None:
    tally = counted()
    _, said = tally.line({})
    tally.judged("switch")
    for number in range(1000):
        tally.packets[f"veth1{number}"] += 2
        tally.closed(f"veth1{number}")
        tally.judged(f"loss at veth1{number} to bridge cni0")
    tally.closed("veth1")
    assert tally.packets == {"veth0": 100, CLOSED: 2090}
    assert tally.drops == {CLOSED: 3}
    assert (len(tally.verdicts), tally.verdicts["switch"]) == (VERDICTS + 1, 7)
    assert tally.verdicts[ELSEWHERE] == 1000 - (VERDICTS - 2)
    tally.joined += 1
    assert tally.line(said)[0] == "1 joined, 2000 packets"


def test_a_line_says_what_has_changed_and_nothing_else() -> None:
    tally = Tally()
    line, said = tally.line({})
    assert line == ""
    tally.packets["veth0"] += 4  # of a request that goes on
    line, said = tally.line(said)
    assert line == ""
    tally.joined += 2
    tally.packets["veth0"] += 10
    tally.missing["hole"] += 1
    line, said = tally.line(said)
    assert line == "2 joined, 10 packets, 1 missing (hole)"
    assert tally.line(said)[0] == ""


def test_without_ipfix_its_counters_are_absent() -> None:
    body, _ = expose(Tally(), ExportCounters(), Moment(rings=0, pending=0, ready=True))
    assert b"spanway_wire_packets_unread_total 0.0" in body
    assert b"ipfix" not in body
