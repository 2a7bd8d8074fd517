"""Finding places and asking Open vSwitch, against real ones: each set-up, and each thing that may be missing."""

from __future__ import annotations

import asyncio
import ipaddress
import signal
import socket
import subprocess
import time
from typing import Final

import pytest

from proxy.demo.lab.lab import Lab
from proxy.demo.lab.plan import Kind
from proxy.layers import find
from proxy.layers.find import Found, NotFound, OpenVSwitch
from proxy.layers.ovs import counters, fdb, flow_trace, ovsdb
from proxy.layers.ovs.flow_trace import Connection
from proxy.layers.ovs.rpc import OvsError
from tests.harness.namespaces import backend, laboratory

pytestmark = [pytest.mark.real, pytest.mark.alone, pytest.mark.timeout(300)]

PREFIX: Final = "plct"
SECONDS: Final = 1.0  # an answer takes milliseconds; this is for a busy machine


def talk(lab: Lab, name: str = "app") -> int:
    """One connection from the proxy's end, so that the switch learns addresses; its local port."""
    with (
        backend(lab, name) as there,
        lab.within(),
        socket.create_connection((there.host, there.port), timeout=10) as connection,
    ):
        connection.sendall(b"GET / HTTP/1.1\r\n\r\n")
        assert connection.recv(100)
        return int(connection.getsockname()[1])


def way(lab: Lab, version: int = 4) -> Found:
    ovs = None if lab.switch is None else OpenVSwitch(lab.switch.run_directory)
    pods = (lab.proxy, lab.backends["app"])
    local, peer = (ipaddress.ip_address(pod.address if version == 4 else pod.address6) for pod in pods)
    begin = time.monotonic()
    found = find.find(local, peer, ovs)
    assert time.monotonic() - begin < SECONDS
    for interface in found.interfaces:
        assert socket.if_nametoindex(interface.name) == interface.ifindex
    return found


@pytest.mark.parametrize(
    ("kind", "here", "interfaces", "between"),
    [
        ("ovs", True, ("px0", "px1", "app1"), ("link", "ovs plct-br0")),
        ("ovs", False, ("px1", "app1"), ("ovs plct-br0",)),
        ("bridge", True, ("px0", "px1", "app1"), ("link", "bridge plct-br0")),
        ("bridge", False, ("px1", "app1"), ("bridge plct-br0",)),
        ("veth", True, ("app0",), ()),
    ],
)
def test_the_way_is_found(kind: Kind, here: bool, interfaces: tuple[str, ...], between: tuple[str, ...]) -> None:
    with laboratory(PREFIX, kind, ("app", "more"), proxy_here=here) as lab:
        if here:
            talk(lab)  # else the node asks for the pods itself
        found = way(lab)
        assert tuple(each.name for each in found.interfaces) == tuple(f"{PREFIX}-{name}" for name in interfaces)
        assert found.between == between
        assert found.note == ""
        if here:
            assert way(lab, 6)[:2] == found[:2]


def test_it_is_found_in_a_program_with_an_event_loop() -> None:
    async def look() -> Found:
        return await asyncio.to_thread(way, lab)

    with laboratory(PREFIX, "veth", proxy_here=True) as lab:
        assert asyncio.run(look()).interfaces[0].name == f"{PREFIX}-app0"


def test_what_is_not_found_has_a_reason() -> None:
    with laboratory(PREFIX, "bridge", proxy_here=True) as lab:
        app = ipaddress.ip_address(lab.backends["app"].address)
        with pytest.raises(NotFound, match="is an address of this node"):
            find.find(app - 1, app - 1)
        subprocess.run(["ip", "netns", "exec", f"{PREFIX}-app", "ip", "link", "set", "eth0", "down"], check=True)
        subprocess.run(["bridge", "fdb", "flush", "dev", f"{PREFIX}-app1", "master"], check=False, capture_output=True)
        nobody = ipaddress.ip_address(int(app) + 100)
        found = find.find(app - 1, nobody)
        assert f"nobody on {PREFIX}-px0 answers for {nobody}" in found.note
        assert found.between == ("link",)


def test_open_vswitch_tells_of_a_connection() -> None:
    with laboratory(PREFIX, "ovs", proxy_here=True) as lab:
        assert lab.switch is not None
        local_port = talk(lab)
        app = lab.backends["app"]
        ovs = OpenVSwitch(lab.switch.run_directory)
        control = ovs.control()
        assert control.path == lab.switch.control
        assert control.version().startswith(("2.", "3.", "4."))
        switch = ovsdb.read(lab.switch.database)
        assert switch.bridges == {f"{PREFIX}-br0": "netdev"}
        port = switch.port(f"{PREFIX}-app1")
        assert port is not None
        assert port.ifindex == socket.if_nametoindex(port.name)
        assert port.external_ids["attached-mac"] == app.mac
        entries = fdb.show(control, port.bridge)
        assert fdb.port_of(entries, app.mac) == port.number
        connection = Connection(
            port.bridge, f"{PREFIX}-px1", lab.proxy.address, local_port, app.address, 8080, lab.proxy.mac, app.mac
        )
        found = flow_trace.trace(control, connection)
        assert found.bridges == (port.bridge,)
        assert (found.in_port, found.out_ports, found.tables) == (f"{PREFIX}-px1", (port.name,), (0,))
        assert found.steps[0].actions.startswith("NORMAL")
        lab.run(
            "ovs-ofctl", "add-flow", str(lab.switch.run_directory / f"{PREFIX}-br0.mgmt"), "priority=9,tcp,actions=drop"
        )
        dropped = flow_trace.trace(control, connection)
        assert dropped.out_ports == ()
        assert "priority 9" in dropped.steps[0].rule
        six = connection._replace(source=lab.proxy.address6, destination=app.address6)
        assert flow_trace.trace(control, six).bridges == (port.bridge,)
        with pytest.raises(OvsError, match="ofproto/trace"):
            flow_trace.trace(control, connection._replace(bridge="moon"))


def test_open_vswitchs_counters_grow() -> None:
    with laboratory(PREFIX, "ovs") as lab:
        assert lab.switch is not None
        control = OpenVSwitch(lab.switch.run_directory).control()

        def total() -> dict[str, float]:
            sums: dict[str, float] = {}
            for sample in counters.read(control):
                sums[sample.name] = sums.get(sample.name, 0) + sample.value
            return sums

        before = total()
        talk(lab)
        after = total()
        for name in ("datapath_lookups_total", "thread_packets_received_total"):
            assert after[f"spanway_ovs_{name}"] > before[f"spanway_ovs_{name}"]
        assert after["spanway_ovs_upcall_flow_limit"] > 0


def test_a_stopped_or_absent_switch_is_a_reason_in_time() -> None:
    with laboratory(PREFIX, "ovs", proxy_here=True) as lab:
        assert lab.switch is not None
        talk(lab)
        control = OpenVSwitch(lab.switch.run_directory).control()
        lab.switch.signal(signal.SIGSTOP)
        begin = time.monotonic()
        with pytest.raises(OvsError, match="is Open vSwitch stopped"):
            control.call("version")
        assert time.monotonic() - begin < 10
        lab.switch.signal(signal.SIGCONT)
        lab.state.end("ovs-vswitchd")
        with pytest.raises(OvsError):
            control.call("version")
        lab.state.end("ovsdb-server")
        with pytest.raises(NotFound, match=r"db\.sock"):
            find.find(
                ipaddress.ip_address(lab.proxy.address),
                ipaddress.ip_address(lab.backends["app"].address),
                OpenVSwitch(lab.switch.run_directory),
            )
