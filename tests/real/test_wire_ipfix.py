"""`spanway wire --ipfix` beside a real Open vSwitch: what it sampled of an attempt is on the attempt's span."""

from __future__ import annotations

import time
from pathlib import Path

import pytest

from proxy.demo.lab.lab import Lab
from proxy.net import ports
from tests.harness.namespaces import laboratory
from tests.real.wired import Wired

pytestmark = [pytest.mark.real, pytest.mark.alone, pytest.mark.timeout(120)]

PREFIX = "wpfx"
RECORDED = "0xe000/0xf000"  # as docs/layers.md has it: the ports of recorded requests' connections, 57344 to 61439


def sample(lab: Lab, collector: str, *matches: str) -> None:
    """Have the bridge's packets that match sampled, as docs/layers.md says."""
    assert lab.switch is not None
    bridge = f"{PREFIX}-br0"
    created = ["--", "--id=@i", "create", "IPFIX", f'targets="{collector}"']
    created += ["--", "--id=@c", "create", "Flow_Sample_Collector_Set"]
    lab.switch.vsctl("--id=@b", "get", "Bridge", bridge, *created, "id=1", "bridge=@b", "ipfix=@i")
    for match in matches:
        action = "sample(probability=65535,collector_set_id=1,obs_domain_id=1,obs_point_id=7),NORMAL"
        rule = f"priority=100,tcp,{match},actions={action}"
        lab.run("ovs-ofctl", "add-flow", str(lab.switch.run_directory / f"{bridge}.mgmt"), rule)


@pytest.mark.skipif(not ports.supported(), reason="this kernel has no IP_LOCAL_PORT_RANGE (Linux 6.3)")
@pytest.mark.parametrize("both", [False, True], ids=["requests", "both ways"])
def test_the_span_has_what_the_switch_sampled(tmp_path: Path, both: bool) -> None:
    count = 200
    with laboratory(PREFIX, "ovs") as lab, Wired(lab, tmp_path, flags=("--ipfix", "0")) as wired:
        collector = wired.wire.expect(r"^spanway: ipfix (127\.0\.0\.1:\d+)$")[1]
        wired.load(20, 4, "small", 1)
        wired.settled(20)
        assert not [span for span in wired.spans(1, 20)[0].values() if "spanway.wire.ipfix.packets" in span.attributes]
        sample(lab, collector, f"tp_src={RECORDED}", *((f"tp_dst={RECORDED}",) if both else ()))
        wired.load(20, 4, "small", 2)
        wired.wire.until(lambda: wired.counts()["ipfix_samples"] > 0, "to get samples", 10.0)
        time.sleep(1.0)  # until the switch has looked at all flows that it has cached
        before = wired.settled(40)
        answered = wired.load(count, 4, "small", 3)
        counts = wired.settled(40 + count)
        wires, _ = wired.spans(3, count)
        told = [wires[each.trace].attributes for each in answered]
        assert len(told) == count
        proven = sum("spanway.wire.ipfix.packets" in one for one in told)
        assert proven == count, str(counts)
        for one in told:
            assert one["spanway.wire.ipfix.packets"] >= 1, one
            assert one["spanway.wire.ipfix.point"] == "1/7"
            assert one["spanway.wire.ipfix.bridge"] == f"{PREFIX}-br0"
            assert one["spanway.wire.ipfix.in_port"] == lab.proxy.port
            assert one.get("spanway.wire.ipfix.out_port") == (lab.backends["app"].port if both else None)
        assert counts["ipfix_proven"] - before["ipfix_proven"] == count
        assert counts["ipfix_samples"] >= count
        assert (counts["ipfix_unread"], counts["ipfix_malformed"]) == (0, 0)
