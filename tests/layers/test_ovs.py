"""What Open vSwitch says, read: printed answers of its releases, and whatever else a socket may send."""

from __future__ import annotations

import contextlib
import copy
import json
import os
import socket
import threading
import time
from pathlib import Path
from typing import Any, Self

import pytest
from hypothesis import given
from hypothesis import strategies as st

from proxy.layers.ovs import counters, fdb, flow_trace, ovsdb, rpc, unixctl
from proxy.layers.ovs.flow_trace import Connection, Step
from proxy.layers.ovs.rpc import OvsError
from proxy.layers.ovs.unixctl import Control


class Daemon:
    """A socket that answers each connection with the next of ``answers``."""

    def __init__(self, path: Path, *answers: bytes, open_after: bool = False) -> None:
        self.path, self.asked = path, list[dict]()
        self._server = socket.create_server(str(path), family=socket.AF_UNIX)
        self._answers, self._open = answers, open_after
        self._held: list[socket.socket] = []
        self._thread = threading.Thread(target=self._serve)
        self._thread.start()

    def _serve(self) -> None:
        for answer in self._answers:
            connection, _ = self._server.accept()
            self.asked.append(json.loads(connection.recv(1 << 20)))
            with contextlib.suppress(OSError):
                connection.sendall(answer)
            if self._open:
                self._held.append(connection)
            else:
                connection.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._thread.join(10)
        for connection in self._held:
            connection.close()
        self._server.close()


def answer(result: object, error: object = None, number: object = 0) -> bytes:
    return json.dumps({"id": number, "result": result, "error": error}).encode()


def test_a_question_and_its_answer(tmp_path):
    with Daemon(tmp_path / "s", answer("ovs-vswitchd (Open vSwitch) 3.1.0\n")) as daemon:
        assert Control(daemon.path).version() == "3.1.0"
    assert daemon.asked == [{"method": "version", "params": [], "id": 0}]


def test_a_notice_before_the_answer_is_passed_over(tmp_path):
    echo = json.dumps({"id": "echo", "method": "echo", "params": []}).encode()
    with Daemon(tmp_path / "s", echo + b"\n" + answer([1]), open_after=True) as daemon:
        assert rpc.ask(daemon.path, "transact", []) == [1]


def test_a_long_answer_is_read_whole(tmp_path):
    text = "}" * 3_000_000
    with Daemon(tmp_path / "s", answer(text), open_after=True) as daemon:
        assert Control(daemon.path).call("fdb/show", "br0") == text


@pytest.mark.parametrize(
    ("said", "complaint"),
    [
        (b"", "the connection was closed before the answer"),
        (b'{"id": 0, "res', "the connection was closed before the answer"),
        (b"[1]}", "the connection was closed|is no object"),
        (answer(None, "no such bridge\n"), "^fdb/show: no such bridge$"),
        (answer(7), "the answer is no text"),
        (b'{"id": 0, "result": ' + b"[" * 100_000 + b"]" * 100_000 + b"}", "nested too deeply"),
    ],
)
def test_what_is_no_answer_is_told(tmp_path, said, complaint):
    with Daemon(tmp_path / "s", said) as daemon, pytest.raises(OvsError, match=complaint):
        Control(daemon.path).call("fdb/show", "br0")


def test_nobody_there_and_nobody_answering(tmp_path, monkeypatch):
    with pytest.raises(OvsError, match="No such file"):
        rpc.ask(tmp_path / "none", "version", [])
    begin = time.monotonic()
    with (
        Daemon(tmp_path / "s", b"{", open_after=True) as daemon,
        pytest.raises(OvsError, match=r"did not answer version within 0.2 s: is Open vSwitch stopped\?"),
    ):
        rpc.ask(daemon.path, "version", [], timeout_s=0.2)
    assert time.monotonic() - begin < 30
    monkeypatch.setattr(rpc, "MOST_BYTES", 1 << 20)
    with Daemon(tmp_path / "t", b"{" * (2 << 20)) as daemon, pytest.raises(OvsError, match="longer than 1 MiB"):
        rpc.ask(daemon.path, "version", [])


def test_the_control_socket_is_found_by_the_pid_file_or_as_the_newest(tmp_path):
    with pytest.raises(OvsError, match="no control socket of ovs-vswitchd in"):
        unixctl.control_of(tmp_path)
    servers = [
        socket.create_server(str(tmp_path / f"ovs-vswitchd.{pid}.ctl"), family=socket.AF_UNIX) for pid in (41, 42)
    ]
    os.utime(tmp_path / "ovs-vswitchd.41.ctl", (1, 1))
    assert unixctl.control_of(tmp_path).name == "ovs-vswitchd.42.ctl"
    (tmp_path / "ovs-vswitchd.pid").write_text("41\n")
    assert unixctl.control_of(tmp_path).name == "ovs-vswitchd.41.ctl"
    (tmp_path / "ovs-vswitchd.pid").write_text("43\n")
    assert unixctl.control_of(tmp_path).name == "ovs-vswitchd.42.ctl"
    for server in servers:
        server.close()


ROWS = [
    {"rows": [{"name": "br0", "ports": ["set", [["uuid", "p1"], ["uuid", "p2"]]], "datapath_type": "netdev"},
              {"name": "br1", "ports": ["uuid", "p3"], "datapath_type": ""}]},
    {"rows": [{"_uuid": ["uuid", "p1"], "interfaces": ["uuid", "i1"]},
              {"_uuid": ["uuid", "p2"], "interfaces": ["set", [["uuid", "i2"], ["uuid", "i4"]]]},
              {"_uuid": ["uuid", "p3"], "interfaces": ["uuid", "i3"]}]},
    {"rows": [
        {"_uuid": ["uuid", "i1"], "name": "px1", "type": "", "ofport": 1, "ifindex": 9,
         "external_ids": ["map", [["attached-mac", "02:00"]]], "options": ["map", []]},
        {"_uuid": ["uuid", "i2"], "name": "patch", "type": "patch", "ofport": 2, "ifindex": ["set", []],
         "external_ids": ["map", []], "options": ["map", [["peer", "other"]]]},
        {"_uuid": ["uuid", "i3"], "name": "br1", "type": "internal", "ofport": ["set", []], "ifindex": 0,
         "external_ids": ["map", []], "options": ["map", []]},
        {"_uuid": ["uuid", "ix"], "name": "stray", "type": "", "ofport": 3, "ifindex": 1,
         "external_ids": ["map", []], "options": ["map", []]},
    ]},
]  # fmt: skip


def test_the_database_is_put_together(tmp_path):
    with Daemon(tmp_path / "s", answer(ROWS)) as daemon:
        found = ovsdb.read(daemon.path)
    assert found.bridges == {"br0": "netdev", "br1": ""}
    assert [(port.name, port.bridge, port.number, port.ifindex) for port in found.ports] == [
        ("px1", "br0", 1, 9),
        ("patch", "br0", 2, 0),
        ("br1", "br1", -1, 0),
    ]
    assert found.ports[1] == found.port("patch")
    assert found.ports[1].peer == "other"
    assert found.ports[0] == found.numbered("br0", 1)
    assert found.ports[0].external_ids == {"attached-mac": "02:00"}
    assert found.port("stray") is None
    assert daemon.asked[0]["params"][0] == "Open_vSwitch"


@pytest.mark.parametrize("rows", [[], [{"rows": [{}]}] * 3, [{"error": "x"}] * 3, 5, [{"rows": 7}] * 3])
def test_a_database_of_another_form_is_an_error(tmp_path, rows):
    with Daemon(tmp_path / "s", answer(rows)) as daemon, pytest.raises(OvsError, match="has not the form of RFC 7047"):
        ovsdb.read(daemon.path)


@pytest.mark.parametrize("number", [-1, 1 << 31, 1 << 70, 1.5, "9", None])
def test_a_number_that_no_interface_has_is_none(number):
    rows: Any = copy.deepcopy(ROWS)
    rows[2]["rows"][0].update(ofport=number, ifindex=number)
    port = ovsdb.switch(*(each["rows"] for each in rows)).port("px1")
    assert port is not None
    assert (port.number, port.ifindex) == (-1, 0)


LEARNED = """ port  VLAN  MAC                Age
    1     0  02:53:00:E7:00:01    7
LOCAL    10  02:53:00:e7:00:02    0
    2     0  02:53:00:e7:00:01    3
    3     0  02:53:00:e7:00:03  static
    ?     0  02:53:00:e7:00:04    1
"""


def test_learned_addresses():
    entries = fdb.parse(LEARNED)
    assert [entry.port for entry in entries] == [1, 65534, 2, 3]
    assert fdb.port_of(entries, "02:53:00:E7:00:01") == 2, "seen last there"
    assert fdb.port_of(entries, "02:53:00:e7:00:03") == 3
    assert fdb.port_of(entries, "02:53:00:e7:00:09") is None


TRACE = """Flow: tcp,in_port="plx-px1",vlan_tci=0x0000,nw_frag=no,tp_src=54236,tp_dst=8080,tcp_flags=0

bridge("plx-br0")
-----------------
 0. priority 0
    NORMAL
     -> forwarding to learned port

Final flow: unchanged
Megaflow: recirc_id=0,eth,ip,in_port="plx-px1",nw_frag=no
Datapath actions: plx-app1
"""

PIPELINE = """Flow: tcp,in_port=antrea-gw0

bridge("br-int")
----------------
 0. in_port=2, priority 200, cookie 0x1
    load:0x1->NXM_NX_REG0[0..3]
    goto_table:10
10. ip, priority 200
    ct(table=20,zone=65520,nat)
    nat
     -> A clone of the packet is forked to recirculate. The forked pipeline will be resumed at table 20.
     -> Sets the packet to an untracked state, and clears all the conntrack fields.

Final flow: reg0=0x1
Megaflow: recirc_id=0,eth,ip,in_port=antrea-gw0
Datapath actions: ct(zone=65520,nat),recirc(0x3)

===============================================================================
recirc(0x3) - resume conntrack with default ct_state=trk|new (use --ct-next to customize)
===============================================================================

Flow: recirc_id=0x3,ct_state=new|trk

bridge("br-int")
----------------
    thaw
        Resuming from table 20
20. No match.
    output:"app-1"
bridge("br-ex")
---------------
 0. priority 0
    NORMAL

Final flow: recirc_id=0x3
Megaflow: recirc_id=0x3
Datapath actions: set(eth(src=02:00,dst=03:00)),"app-1",push_vlan(vid=2,pcp=0),uplink
"""


def test_a_trace_of_a_plain_switch():
    found = flow_trace.parse(TRACE, "plx-px1")
    assert found.bridges == ("plx-br0",)
    assert (found.in_port, found.out_ports, found.tables) == ("plx-px1", ("plx-app1",), (0,))
    assert found.steps == (Step("plx-br0", 0, "priority 0", "NORMAL; -> forwarding to learned port"),)
    assert found.megaflow == 'recirc_id=0,eth,ip,in_port="plx-px1",nw_frag=no'


def test_a_trace_through_a_pipeline_that_recirculates():
    found = flow_trace.parse(PIPELINE)
    assert found.bridges == ("br-int", "br-ex")
    assert found.tables == (0, 10, 20, 0)
    assert found.out_ports == ("app-1", "uplink")
    assert found.steps[0].actions == "load:0x1->NXM_NX_REG0[0..3]; goto_table:10"
    assert found.steps[2] == Step("br-int", 20, "No match.", 'output:"app-1"')


def test_what_is_dropped_goes_nowhere():
    assert flow_trace.parse(TRACE.replace("plx-app1", "drop")).out_ports == ()
    with pytest.raises(ValueError, match="no datapath actions"):
        flow_trace.parse("Bad openflow flow syntax")


@given(st.text(max_size=300))
def test_no_text_breaks_a_parser(text):
    fdb.parse(text)
    counters.datapaths(text), counters.upcalls(text), counters.threads(text)
    flow_trace.parse(f'bridge("br0")\n 0. x\n{text}\nDatapath actions: {text}1\nDatapath actions: 1')


CONNECTION = Connection("br0", "px1", "198.18.0.1", 40000, "198.18.0.2", 8080, "02:00:00:00:00:01", "02:00:00:00:00:02")


def test_the_question_is_of_one_connection():
    assert CONNECTION.flow() == (
        "in_port=px1,tcp,dl_src=02:00:00:00:00:01,dl_dst=02:00:00:00:00:02,nw_src=198.18.0.1,nw_dst=198.18.0.2,"
        "nw_ttl=64,tp_src=40000,tp_dst=8080"
    )
    six = CONNECTION._replace(source="fd00::1", destination="fd00::2", source_mac="", destination_mac="")
    assert six.flow() == "in_port=px1,tcp6,ipv6_src=fd00::1,ipv6_dst=fd00::2,nw_ttl=64,tp_src=40000,tp_dst=8080"


def test_an_older_switch_is_asked_without_names_and_a_refusal_is_told(tmp_path):
    refused = answer(None, "ofproto/trace: unknown option --names")
    with Daemon(tmp_path / "s", refused, answer(TRACE)) as daemon:
        assert flow_trace.trace(Control(daemon.path), CONNECTION).out_ports == ("plx-app1",)
    with (
        Daemon(tmp_path / "t", refused, answer(None, "bad flow")) as daemon,
        pytest.raises(OvsError, match="bad flow"),
    ):
        flow_trace.trace(Control(daemon.path), CONNECTION)
    with Daemon(tmp_path / "u", answer("")) as daemon, pytest.raises(OvsError, match="no datapath actions"):
        flow_trace.trace(Control(daemon.path), CONNECTION)


SHOW = "netdev@ovs-netdev:\n  lookups: hit:30 missed:2 lost:1\n  flows: 2\n  port 0: ovs-netdev (tap)\n"
UPCALL = """netdev@ovs-netdev:
  flows         : (current 5) (avg 4) (max 9) (limit 10000)
  dump duration : 12ms
  ufid enabled : true

  5: (keys 2)
"""
THREADS = """main thread:
  packets received: 5
  packet recirculations: 0
  avg. datapath passes per packet: 1.00
  megaflow hits: 3
  miss with success upcall: 2
  miss with failed upcall: 0
pmd thread numa_id 0 core_id 1:
  packets received: 7
  idle cycles: 12 (40.00%)
"""


def test_counters_are_metrics(tmp_path):
    with Daemon(tmp_path / "s", answer(SHOW), answer(UPCALL), answer(THREADS)) as daemon:
        samples = counters.read(Control(daemon.path))
    values = {(sample.name, *(text for _, text in sample.labels)): sample.value for sample in samples}
    assert values["spanway_ovs_datapath_lookups_total", "netdev@ovs-netdev", "missed"] == 2
    assert values["spanway_ovs_datapath_flows", "netdev@ovs-netdev"] == 2
    assert values["spanway_ovs_upcall_flows", "netdev@ovs-netdev"] == 5
    assert values["spanway_ovs_upcall_flow_limit", "netdev@ovs-netdev"] == 10000
    assert values["spanway_ovs_flow_dump_duration_seconds", "netdev@ovs-netdev"] == 0.012
    assert values["spanway_ovs_thread_upcalls_total", "main"] == 2
    assert values["spanway_ovs_thread_packets_received_total", "pmd thread numa_id 0 core_id 1"] == 7
    assert {sample.kind for sample in samples} == {"counter", "gauge"}


def test_the_kernels_datapath_has_no_threads_of_its_own(tmp_path):
    with Daemon(tmp_path / "s", answer(SHOW), answer(UPCALL), answer(None, "no dp")) as daemon:
        assert not any("thread" in sample.name for sample in counters.read(Control(daemon.path)))
