"""Finding interfaces, on tables of the networks that are met: each CNI's own way, and each reason why not."""

from __future__ import annotations

import ipaddress
import json
import socket
import threading
from pathlib import Path

import pytest

from proxy.layers import find
from proxy.layers.find import Finder, Found, Interface, NotFound, OpenVSwitch, Silent
from proxy.layers.netlink import Link, Route
from proxy.layers.ovs.ovsdb import Port, Switch
from proxy.layers.ovs.rpc import OvsError

PROXY, APP, HOST = (ipaddress.ip_address(f"198.18.0.{number}") for number in (1, 2, 254))
MAC = "02:00:00:00:00:02"


class Tables:
    """A node's tables, written down."""

    def __init__(self, links: list[Link], routes: dict, neighbours=None, ports=None) -> None:
        self.links = {link.ifindex: link for link in links}
        self.routes = routes
        self.neighbours = neighbours or {}
        self.ports = ports or {}
        self.asked: list = []

    def route(self, address):
        return self.routes.get(address)

    def link(self, ifindex):
        return self.links.get(ifindex)

    def neighbour(self, address, ifindex):
        return self.neighbours.get((address, ifindex), "")

    def bridge_port(self, mac, bridge):
        return self.ports.get((mac, bridge), 0)

    def resolve(self, address):
        self.asked.append(address)


def link(number: int, name: str, kind: str = "veth", master: int = 0, peer: int = 0, elsewhere: bool = False) -> Link:
    return Link(name, number, kind, master, peer, elsewhere)


def port(name: str, number: int, bridge: str = "br0", kind: str = "", ids: dict | None = None, peer: str = "") -> Port:
    return Port(name, bridge, number, 1000 + number, kind, ids or {}, peer)


class Ovs(OpenVSwitch):
    """An Open vSwitch whose database and learned addresses are given."""

    def __init__(self, *ports: Port, learned: dict | None = None, stopped: bool = False) -> None:
        super().__init__(Path("/nowhere"))
        self.known = Switch({each.bridge: "netdev" for each in ports}, ports)
        self.learned = learned or {}
        self.stopped = stopped

    def switch(self):
        if self.stopped:
            raise OvsError("/nowhere/db.sock did not answer transact within 2 s: is Open vSwitch stopped?")
        return self.known

    def control(self):
        return self

    def call(self, command, bridge):
        assert command == "fdb/show"
        lines = [f"{number:5} 0  {mac}    3" for mac, number in self.learned.get(bridge, {}).items()]
        return "\n".join([" port  VLAN  MAC                Age", *lines])


def look(tables: Tables, ovs: OpenVSwitch | None = None, local=PROXY, peer=APP) -> Found:
    return Finder(tables, ovs, tables.resolve).find(local, peer)


HERE = {PROXY: Route(1, True)}


def test_a_pod_with_a_route_of_its_own():
    tables = Tables([link(7, "cali1", elsewhere=True)], {**HERE, APP: Route(7, False)})
    assert look(tables) == Found((Interface("cali1", 7),), ())


def test_two_pods_with_routes_of_their_own_and_the_node_between():
    routes = {PROXY: Route(6, False), APP: Route(7, False)}
    tables = Tables([link(6, "cali0", elsewhere=True), link(7, "cali1", elsewhere=True)], routes)
    assert look(tables) == Found((Interface("cali0", 6), Interface("cali1", 7)), ("node",))


def test_a_bridge_cni_and_a_proxy_of_the_hosts_network():
    tables = Tables(
        [link(3, "cni0", "bridge"), link(7, "veth7", master=3, elsewhere=True)],
        {**HERE, APP: Route(3, False)},
        {(APP, 3): MAC},
        {(MAC, 3): 7},
    )
    assert look(tables) == Found((Interface("cni0", 3), Interface("veth7", 7)), ("bridge cni0",))
    assert tables.asked == []


def test_a_bridge_cni_and_a_proxy_in_a_pod():
    tables = Tables(
        [link(3, "cni0", "bridge"), link(6, "veth6", master=3), link(7, "veth7", master=3)],
        {PROXY: Route(3, False), APP: Route(3, False)},
        {(PROXY, 3): "02:00:00:00:00:01", (APP, 3): MAC},
        {("02:00:00:00:00:01", 3): 6, (MAC, 3): 7},
    )
    assert look(tables) == Found((Interface("veth6", 6), Interface("veth7", 7)), ("bridge cni0",))


def test_open_vswitch_by_what_a_plugin_wrote():
    tables = Tables([], {PROXY: None, APP: None})
    px = port("antrea-px", 1, ids={"ip-address": str(PROXY)})
    app = port("antrea-app", 2, ids={"ip_addresses": f"{APP}, fd00::2"})
    assert look(tables, Ovs(px, app)) == Found(
        (Interface("antrea-px", 1001), Interface("antrea-app", 1002)), ("ovs br0",)
    )


def test_open_vswitch_by_the_address_that_is_attached():
    tables = Tables([link(3, "gw0", "tun")], {**HERE, APP: Route(3, False)}, {(APP, 3): MAC})
    ovs = Ovs(port("gw0", 65534, kind="internal"), port("app1", 2, ids={"attached-mac": MAC.upper()}))
    assert look(tables, ovs) == Found((Interface("gw0", 3), Interface("app1", 1002)), ("ovs br0",))


def test_open_vswitch_by_the_address_that_was_learned_behind_a_patch():
    tables = Tables([link(3, "gw0", "tun")], {**HERE, APP: Route(3, False)}, {(APP, 3): MAC})
    ovs = Ovs(
        port("gw0", 65534, kind="internal"),
        port("to-int", 5, kind="patch", peer="to-br0"),
        port("to-br0", 6, "br-int", kind="patch", peer="to-int"),
        port("app1", 2, "br-int"),
        learned={"br0": {MAC: 5}, "br-int": {MAC: 2}},
    )
    assert look(tables, ovs) == Found((Interface("gw0", 3), Interface("app1", 1002)), ("ovs br-int",))


def test_patches_in_a_circle_end():
    tables = Tables([link(3, "gw0", "tun")], {**HERE, APP: Route(3, False)}, {(APP, 3): MAC})
    one, other = port("one", 5, kind="patch", peer="other"), port("other", 6, "br1", kind="patch", peer="one")
    ovs = Ovs(port("gw0", 65534, kind="internal"), one, other, learned={"br0": {MAC: 5}, "br1": {MAC: 6}})
    with pytest.raises(NotFound, match="has not learned"):
        look(tables, ovs)


def test_a_veth_of_this_namespace_into_a_switch():
    tables = Tables([link(4, "px0", peer=5), link(5, "px1", peer=4)], {**HERE, APP: Route(4, False)}, {(APP, 4): MAC})
    ovs = Ovs(port("px1", 1), port("app1", 2), learned={"br0": {MAC: 2}})
    expected = (Interface("px0", 4), Interface("px1", 5), Interface("app1", 1002))
    assert look(tables, ovs) == Found(expected, ("link", "ovs br0"))


def test_a_veth_of_this_namespace_into_nothing_that_is_known():
    tables = Tables([link(4, "px0", peer=5), link(5, "px1", peer=4)], {**HERE, APP: Route(4, False)}, {(APP, 4): MAC})
    found = look(tables)
    assert found[:2] == ((Interface("px0", 4), Interface("px1", 5)), ("link",))
    assert "px1 is no port of a bridge" in found.note


def test_ports_of_two_bridges():
    tables = Tables([], {})
    ids = [{"ip-address": str(each)} for each in (PROXY, APP)]
    found = look(tables, Ovs(port("px1", 1, ids=ids[0]), port("app1", 2, "br1", ids=ids[1])))
    assert found.between == ("ovs br0 to ovs br1",)


def test_half_a_way_is_better_than_none():
    tables = Tables([link(6, "cali0", elsewhere=True)], {PROXY: Route(6, False)})
    found = look(tables)
    assert found[:2] == ((Interface("cali0", 6),), ())
    assert found.note == f"this node has no route to {APP}: it is not told which interface is its"


@pytest.mark.parametrize(
    ("tables", "reason"),
    [
        (Tables([], {}), "no route to 198.18.0.1"),
        (Tables([], HERE), "no route to 198.18.0.2"),
        (Tables([], {**HERE, APP: Route(1, True)}), "198.18.0.2 is an address of this node"),
        (Tables([], {**HERE, APP: Route(9, False)}), "the interface 9 of a route has gone"),
        (
            Tables([link(3, "cni0", "bridge")], {**HERE, APP: Route(3, False)}),
            "nobody on cni0 answers for 198.18.0.2: is the pod running",
        ),
        (
            Tables([link(3, "cni0", "bridge")], {**HERE, APP: Route(3, False)}, {(APP, 3): MAC}),
            f"the bridge cni0 has not learned {MAC}, the Ethernet address of 198.18.0.2",
        ),
        (
            Tables([link(3, "br-int", "openvswitch")], {**HERE, APP: Route(3, False)}),
            "behind Open vSwitch's br-int, and Open vSwitch's sockets are not here",
        ),
        (
            Tables([link(2, "eth0", "")], {PROXY: Route(2, False), APP: Route(2, False)}),
            "both behind eth0: their packets do not pass this node",
        ),
    ],
)
def test_each_reason_is_told(tables, reason, monkeypatch):
    monkeypatch.setattr(find, "RESOLVE_S", 0.0)
    with pytest.raises(NotFound, match=reason):
        look(tables)


def test_a_silent_neighbour_is_asked(monkeypatch):
    tables = Tables([link(3, "cni0", "bridge")], {**HERE, APP: Route(3, False)}, {}, {(MAC, 3): 7})
    tables.links[7] = link(7, "veth7")

    def answers(address):
        tables.neighbours[(address, 3)] = MAC

    found = Finder(tables, None, answers).find(PROXY, APP)
    assert found.interfaces[-1] == Interface("veth7", 7)


@pytest.mark.parametrize("kind", ["veth", ""])
def test_a_stopped_switch_is_no_matter_to_a_way_that_does_not_lead_over_it(kind):
    tables = Tables([link(7, "cali1", kind), link(9, "cali2", kind)], {PROXY: Route(7, False), APP: Route(9, False)})
    assert look(tables, Ovs(stopped=True)) == Found((Interface("cali1", 7), Interface("cali2", 9)), ("node",))


@pytest.mark.parametrize("kind", ["openvswitch", "tun"])
def test_a_stopped_switch_may_have_the_way_that_its_own_port_leads_to(kind):
    tables = Tables([link(7, "cali1"), link(3, "gw0", kind)], {PROXY: Route(7, False), APP: Route(3, False)})
    with pytest.raises(Silent, match="is Open vSwitch stopped"):
        look(tables, Ovs(stopped=True))


def test_a_stopped_switch_may_have_the_other_end_of_the_proxys_veth():
    with pytest.raises(Silent, match="is Open vSwitch stopped"):
        look(
            Tables([link(3, "px0", peer=4), link(4, "px1")], {**HERE, APP: Route(3, False)}, {(APP, 3): MAC}),
            Ovs(stopped=True),
        )


def test_a_stopped_switch_and_a_refusing_kernel_are_reasons():
    with pytest.raises(Silent, match="is Open vSwitch stopped"):
        look(Tables([], {}), Ovs(stopped=True))

    class Refusing(Tables):
        def route(self, address):
            raise PermissionError(1, "Operation not permitted")

    with pytest.raises(NotFound, match=r"the kernel does not tell the way to 198\.18\.0\.2: Operation not permitted"):
        look(Refusing([], {}))


def test_the_database_is_asked_once_in_a_while(tmp_path):
    answer: dict = {"id": 0, "error": None, "result": [{"rows": []}, {"rows": []}, {"rows": []}]}
    asked = []
    with socket.create_server(str(tmp_path / "db.sock"), family=socket.AF_UNIX) as server:

        def serve():
            while True:
                connection, _ = server.accept()
                with connection:
                    if not (data := connection.recv(65536)):
                        return
                    asked.append(json.loads(data)["method"])
                    connection.sendall(json.dumps(answer).encode())

        thread = threading.Thread(target=serve)
        thread.start()
        now = [0.0]
        ovs = OpenVSwitch(tmp_path, lambda: now[0])
        for moment in (0.0, 1.0, find.KEPT_S, find.KEPT_S + 1):
            now[0] = moment
            assert ovs.switch() == Switch({}, ())
        with socket.socket(socket.AF_UNIX) as last:
            last.connect(str(tmp_path / "db.sock"))
            last.shutdown(socket.SHUT_WR)
            thread.join(10)
    assert asked == ["transact", "transact"]
