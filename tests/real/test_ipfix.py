"""IPFIX as a real Open vSwitch sends it: the layouts are its own, and each connection is proven by its records."""

from __future__ import annotations

import contextlib
import socket
import time
from typing import Final

import pytest

from proxy.demo.lab.lab import Lab
from proxy.layers import ipfix
from proxy.layers.ipfix import Reader, Sample
from tests.harness.namespaces import backend, laboratory

pytestmark = [pytest.mark.real, pytest.mark.alone, pytest.mark.timeout(300)]

PREFIX: Final = "ipfx"
MARK: Final = 10  # DSCP


def send(lab: Lab, times: int = 5, *, six: bool = False, mark: int = MARK) -> int:
    """Requests on one connection whose requests are marked; its local port."""
    with backend(lab) as there, contextlib.ExitStack() as closing:
        host, port = there.host, there.port
        if six:
            host = lab.backends["app"].address6
            with lab.within(lab.backends["app"]):
                listener = closing.enter_context(socket.create_server((host, 0), family=socket.AF_INET6))
            port = listener.getsockname()[1]
        with lab.within():
            family = socket.AF_INET6 if six else socket.AF_INET
            connection = closing.enter_context(socket.socket(family))
        connection.settimeout(10)
        level, option = (socket.IPPROTO_IPV6, socket.IPV6_TCLASS) if six else (socket.IPPROTO_IP, socket.IP_TOS)
        connection.setsockopt(level, option, mark << 2)
        connection.connect((host, port))
        for _ in range(times):
            connection.sendall(b"GET / HTTP/1.1\r\n\r\n")
            if not six:
                assert connection.recv(1000)
        return int(connection.getsockname()[1])


def collect(endpoint: socket.socket, reader: Reader, enough: int, port: int = 0, wanted: int = 1) -> list[Sample]:
    """At least ``enough`` samples, ``wanted`` of them of packets from ``port`` where one is given, or those of 10 s."""
    found: list[Sample] = []
    deadline = time.monotonic() + 10
    while time.monotonic() < deadline and (
        len(found) < enough or (port and sum(each.source_port == port for each in found) < wanted)
    ):
        with contextlib.suppress(TimeoutError):
            found += reader.read(endpoint.recv(65536))
    return found


def test_a_bridges_samples_and_templates() -> None:
    with (
        laboratory(PREFIX, "ovs", proxy_here=True) as lab,
        socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as endpoint,
    ):
        assert lab.switch is not None
        endpoint.bind(("127.0.0.1", 0))
        endpoint.settimeout(0.5)
        target = f'targets="127.0.0.1:{endpoint.getsockname()[1]}"'
        settings = ["sampling=1", "obs_domain_id=3", "obs_point_id=4"]
        created = ["--", "--id=@i", "create", "IPFIX", target, *settings]
        lab.switch.vsctl("set", "Bridge", f"{PREFIX}-br0", "ipfix=@i", *created)
        before = time.time() - 2
        port = send(lab)
        reader = Reader()
        four = collect(endpoint, reader, 20, port, 4)
        six_port = send(lab, six=True)
        six = collect(endpoint, reader, 10, six_port)
        assert (reader.malformed, reader.unread, reader.lost) == (0, 0, 0)
        for number in (280, 281, 300, 301, 340, 341, 360, 361):
            assert reader._templates[3, number] == ipfix.KNOWN[number], number
        ours = [each for each in four if port in (each.source_port, each.destination_port)]
        assert {(each.egress, each.in_interface, each.out_interface) for each in ours} >= {
            (False, f"{PREFIX}-px1", ""),
            (True, f"{PREFIX}-px1", f"{PREFIX}-app1"),
            (True, f"{PREFIX}-app1", f"{PREFIX}-px1"),
        }
        for each in ours:
            assert {each.source, each.destination} == {lab.proxy.address, lab.backends["app"].address}
            assert (each.domain, each.point) == (3, 4)
            assert before <= each.start_us / 1e6 <= each.end_us / 1e6 <= time.time() + 1
            assert each.packets == 1
        assert any(each.source == lab.proxy.address6 and each.source_port == six_port for each in six)


def test_marked_connections_alone_are_sampled_and_a_late_collector_reads_them() -> None:
    with (
        laboratory(PREFIX, "ovs", proxy_here=True) as lab,
        socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as endpoint,
    ):
        assert lab.switch is not None
        endpoint.bind(("127.0.0.1", 0))
        endpoint.settimeout(0.5)
        bridge, target = f"{PREFIX}-br0", f'targets="127.0.0.1:{endpoint.getsockname()[1]}"'
        created = ["--", "--id=@i", "create", "IPFIX", target, "--", "--id=@c", "create", "Flow_Sample_Collector_Set"]
        lab.switch.vsctl("--id=@b", "get", "Bridge", bridge, *created, "id=1", "bridge=@b", "ipfix=@i")
        sample = "sample(probability=65535,collector_set_id=1,obs_domain_id=1,obs_point_id=7,ingress)"
        rule = f"priority=100,tcp,ip_dscp={MARK},actions={sample},NORMAL"
        lab.run("ovs-ofctl", "add-flow", str(lab.switch.run_directory / f"{bridge}.mgmt"), rule)
        send(lab, 1)
        collect(endpoint, Reader(), 1)
        with contextlib.suppress(TimeoutError):
            while endpoint.recv(65536):
                pass
        port, other = send(lab), send(lab, mark=0)
        late = Reader()
        found = collect(endpoint, late, 5)
        assert late._templates == {}, "the collector came after the templates"
        assert {each.source_port for each in found} == {port} != {other}
        assert {(each.dscp, each.point, each.in_interface) for each in found} == {(MARK, 7, f"{PREFIX}-px1")}
