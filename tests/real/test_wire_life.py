"""`spanway wire` when something is missing, goes away or comes late: it says so, and traffic is not touched."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from proxy.demo.lab.commands import run
from proxy.layers import find
from tests.harness.namespaces import laboratory
from tests.harness.proxy import unsettled
from tests.real.conftest import without
from tests.real.wired import SPANWAY, Wired

pytestmark = [pytest.mark.real, pytest.mark.alone, pytest.mark.timeout(120)]


def refused(*arguments: str, without: str = "") -> str:
    """What `spanway wire` says that does not start; ``without`` a capability."""
    drop = ("setpriv", f"--bounding-set=-{without}", f"--inh-caps=-{without}", "--") if without else ()
    command = (*drop, SPANWAY, "wire", "--otlp", "none", "--admin", "off", *arguments)
    done = subprocess.run(command, capture_output=True, text=True, timeout=20, check=False, env=unsettled())
    assert done.returncode == 2, done
    assert done.stderr.count("\n") == 1, done.stderr
    return done.stderr


@pytest.fixture
def bridged(tmp_path: Path) -> Iterator[Wired]:
    with laboratory("wlife", "bridge") as lab, Wired(lab, tmp_path) as wired:
        yield wired


def test_without_the_capability_it_says_which_and_how(tmp_path: Path) -> None:
    if os.geteuid():
        without("capabilities are dropped by root")
    said = refused("--socket", str(tmp_path / "s"), without="net_raw")
    assert "CAP_NET_RAW" in said
    assert "AmbientCapabilities" in said
    assert "add: [NET_RAW]" in said
    assert not (tmp_path / "s").exists()


def test_that_one_capability_is_enough(tmp_path: Path) -> None:
    """As the DaemonSet has it: user 0 without any other, the group of the proxy."""
    with laboratory("wlife", "bridge") as lab:
        only = (
            "setpriv", "--regid", "10001", "--clear-groups", "--bounding-set=-all,+net_raw", "--no-new-privs", "--",
            SPANWAY,
        )  # fmt: skip
        with Wired(lab, tmp_path, command=only) as wired:
            assert wired.socket.stat().st_gid == 10001
            wired.load(50, 4, "small", 1)
            assert wired.settled(50)["joined"] == 50
            status = Path(f"/proc/{wired.wire.pid}/status").read_text()
            assert f"CapEff:\t{1 << 13:016x}" in status  # CAP_NET_RAW


def test_an_interface_that_is_not_there(tmp_path: Path) -> None:
    said = refused("--socket", str(tmp_path / "s"), "--interfaces", "no-such-0")
    assert "there is no interface 'no-such-0' here; there are" in said


def test_a_second_instance_is_refused_and_the_first_goes_on(bridged: Wired) -> None:
    assert "another process reads from" in refused("--socket", str(bridged.socket))
    bridged.load(50, 4, "small", 1)
    assert bridged.settled(50)["joined"] == 50


def test_the_end_joins_what_is_due_sends_it_and_removes_the_socket(bridged: Wired) -> None:
    bridged.load(50, 4, "small", 1)
    bridged.wire.until(lambda: bridged.counts()["records_received"] == 50, "to have every record", 5.0)
    bridged.wire.signal(signal.SIGTERM)
    assert bridged.wire.wait(10.0) == 0
    assert not bridged.socket.exists()
    assert len([span for span in bridged.collector.spans if span.name == "wire"]) == 50
    assert len(bridged.load(20, 4, "small", 2)) == 20  # traffic goes on


def test_a_wire_that_comes_late_or_again_votes_on_connections_that_are_open(bridged: Wired) -> None:
    bridged.load(50, 4, "small", 1)
    bridged.settled(50)
    bridged.wire.signal(signal.SIGKILL)
    bridged.wire.wait(10.0)
    assert bridged.socket.exists()  # left behind
    bridged.start_wire()
    time.sleep(1.5)
    bridged.load(100, 4, "small", 2)
    counts = bridged.settled(100)
    assert counts["joined"] >= 80
    wires, _ = bridged.spans(2, int(counts["joined"]))
    assert "vote" in {wire.attributes["spanway.wire.anchor"] for wire in wires.values()}


def test_the_proxy_may_go_and_come_back(bridged: Wired) -> None:
    bridged.load(50, 4, "small", 1)
    bridged.settled(50)
    bridged.proxy.signal(signal.SIGKILL)
    bridged.proxy.wait(10.0)
    bridged.start_proxy()
    bridged.load(50, 4, "small", 2)
    assert bridged.settled(100)["joined"] == 100


def test_an_interface_that_goes_down_is_said_and_heard_again_once_it_is_up(bridged: Wired) -> None:
    port = bridged.lab.backends["app"].port
    bridged.load(20, 2, "small", 1)
    bridged.settled(20)
    run("ip", "link", "set", port, "down")
    bridged.wire.expect(f"{port}: .*down", within=5.0)
    run("ip", "link", "set", port, "up")
    bridged.load(20, 2, "small", 2)
    assert bridged.settled(40)["joined"] == 40


def test_addresses_that_are_changed_on_the_way_are_told(tmp_path: Path) -> None:
    """What NAT looks like: records of a connection that no tap has ever seen."""
    with laboratory("wlife", "bridge") as lab, Wired(lab, tmp_path, interfaces="lo") as wired:
        wired.load(120, 4, "small", 1)
        counts = wired.settled(120)
        assert counts["missing/no-packets"] >= 50
        assert counts["joined"] == 0
        wired.wire.expect(rf"connections to {wired.address} are not seen on lo: .*\(NAT; a Service's ClusterIP")


def test_the_socket_removed_is_made_again(bridged: Wired) -> None:
    bridged.socket.unlink()
    bridged.wire.expect("had been removed, and is there again", within=5.0)
    time.sleep(1.5)
    bridged.load(50, 4, "small", 1)
    assert bridged.settled(50)["joined"] == 50


def test_memory_is_bounded_and_an_idle_wire_does_nothing(bridged: Wired) -> None:
    bridged.load(2000, 16, "mixed", 1)
    bridged.settled(2000)
    ticks = os.sysconf("SC_CLK_TCK")

    def cpu() -> float:
        fields = Path(f"/proc/{bridged.wire.pid}/stat").read_text().rpartition(")")[2].split()
        return (int(fields[11]) + int(fields[12])) / ticks

    begun = cpu()
    time.sleep(3.0)
    assert cpu() - begun < 0.15  # of three seconds


def test_an_open_vswitch_that_does_not_answer_is_told_and_joining_goes_on(tmp_path: Path) -> None:
    with laboratory("wlife", "ovs") as lab, Wired(lab, tmp_path) as wired:
        assert lab.switch is not None
        control = lab.switch.control
        control.rename(control.with_suffix(".away"))
        wired.load(50, 2, "small", 1)
        assert wired.settled(50)["joined"] == 50
        wired.wire.expect("Open vSwitch is not asked about connections for now: ", within=5.0)


def test_ways_over_an_open_vswitch_that_is_away_stay_known(tmp_path: Path) -> None:
    forgetful = (sys.executable, "-m", "tests.real.wire_forgetful")
    with (
        laboratory("wlife", "ovs") as lab,
        Wired(lab, tmp_path, interfaces="auto", command=forgetful) as wired,
    ):
        assert lab.switch is not None
        wired.load(20, 4, "small", 1)  # what makes the backend known
        wired.settled(20)
        wired.load(50, 4, "small", 2)  # and its connections
        begun = wired.settled(70)["joined"]
        for socket in (lab.switch.control, lab.switch.database):
            socket.rename(socket.with_suffix(".away"))
        time.sleep(find.KEPT_S)
        wired.load(50, 4, "small", 3)
        wired.wire.expect(f"the way to {wired.address} is not known: ", within=10.0)
        wired.load(50, 4, "small", 4)
        assert wired.settled(170)["joined"] == begun + 100
