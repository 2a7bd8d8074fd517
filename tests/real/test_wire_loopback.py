"""On one machine without any network: the wire on loopback."""

from __future__ import annotations

import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.harness import manifests
from tests.harness.collector import Collector
from tests.harness.namespaces import cannot
from tests.harness.proxy import unsettled
from tests.real.client import many
from tests.real.conftest import StartNginx, StartSpanway, without
from tests.real.process import Process, free_ports
from tests.real.wired import SPANWAY

pytestmark = [pytest.mark.real, pytest.mark.alone, pytest.mark.timeout(120)]


@pytest.fixture
def collector() -> Iterator[Collector]:
    made = Collector()
    yield made
    made.stop()


def test_each_packet_counts_once(
    start_nginx: StartNginx, start_spanway: StartSpanway, collector: Collector, tmp_path: Path
) -> None:
    if reason := cannot("veth"):
        without(reason)
    (port,) = free_ports(1)
    start_nginx(f'server {{ listen 127.0.0.1:{port}; return 200 "{"x" * 1000}"; }}', port)
    command = [SPANWAY, "wire", "--interfaces", "lo", "--socket", str(tmp_path / "s"), "--admin", "off"]
    command += ["--otlp", collector.url, "--otlp-protocol", "http/protobuf"]
    with Process("wire", command, tmp_path / "wire.log", environ=unsettled()) as wire:
        wire.expect("spanway: wire ")
        proxy = start_spanway(manifests.documents(*manifests.site("files", [port])), "--wire", str(tmp_path / "s"))
        time.sleep(1.5)
        host = {"Host": "files.test"}
        many(proxy.address, 60, 2, lambda connection, number: connection.ask("GET", f"/{number}", host))
        wires = collector.wait(lambda span: span.name == "wire", 50, "wire span")
        for span in wires:
            assert "spanway.wire.retransmitted.bytes" not in span.attributes
            assert "spanway.wire.lost.bytes" not in span.attributes
            assert span.attributes["spanway.wire.taps"] == "lo"
            assert {"spanway.wire.us.proxy", "spanway.wire.us.backend"} <= set(span.attributes)
