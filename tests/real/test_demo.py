"""The demo application behind the proxy, both exporting to a real Jaeger: aiohttp and Python's SDK as users have it."""

from __future__ import annotations

import json
import secrets
import sys
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path
from typing import Final, get_args

import pytest

import proxy.demo
from proxy.demo.service import PEERS
from proxy.demo.traffic import HOST, MIX, Step
from tests.harness.proxy import ROOT, unsettled
from tests.real.client import Connection
from tests.real.conftest import StartSpanway
from tests.real.jaeger import Jaeger, Protocol
from tests.real.process import Process, free_ports
from tests.real.tree import Trace

pytestmark = [pytest.mark.real, pytest.mark.timeout(180)]

MANIFESTS: Final = Path(proxy.demo.__file__).parent / "manifests"
PROTOCOLS = get_args(Protocol)


def environment(**more: str) -> dict[str, str]:
    """This process's own, without what would configure tracing."""
    return unsettled() | {"PYTHONUNBUFFERED": "1"} | more


@pytest.fixture(scope="module")
def services(jaeger: Jaeger, tmp_path_factory: pytest.TempPathFactory) -> Iterator[dict[str, int]]:
    """The three services, each a process that exports to Jaeger, and their ports."""
    folder = tmp_path_factory.mktemp("demo")
    ports = dict(zip(PEERS, free_ports(len(PEERS)), strict=True))
    started: list[Process] = []
    try:
        for name, port in ports.items():
            command = [sys.executable, "-m", "proxy.demo.service", name, "--port", str(port)]
            command += ["--receiver", f"{jaeger.endpoint('http/protobuf')}/v1/traces"]
            for peer in PEERS[name]:
                command += ["--peer", f"{peer}=http://127.0.0.1:{ports[peer]}"]
            started.append(Process(name, command, folder / f"{name}.log", environ=environment(), cwd=ROOT))
        for process, port in zip(started, ports.values(), strict=True):
            process.until_listening(port)
        yield ports
    finally:
        for process in started:
            process.stop()


def expected_services(step: Step) -> set[str]:
    """Which services a step of the mix passes through."""
    if step.host != HOST:
        return {"spanway"}
    if step.path.startswith("/api/cart"):
        return {"spanway", "cart", "stock"} if step.method == "POST" else {"spanway", "cart"}
    if step.path.startswith("/api/stock"):
        return {"spanway", "stock"}
    if step.path == "/checkout":
        return {"spanway", "shop", "cart"} | ({"stock"} if step.body != {"user": "nobody"} else set())
    return {"spanway", "shop", "stock"}


@pytest.mark.parametrize("protocol", PROTOCOLS)
def test_every_request_of_the_mix_is_one_tree(
    start_spanway: StartSpanway, services: dict[str, int], jaeger: Jaeger, protocol: Protocol
) -> None:
    manifests = {path.name: path.read_text() for path in MANIFESTS.glob("*.yaml")}
    upstreams = [argument for name, port in services.items() for argument in ("--upstream", f"{name}=127.0.0.1:{port}")]
    spanway = start_spanway(manifests, "--otlp", jaeger.endpoint(protocol), "--otlp-protocol", protocol, *upstreams)
    sent: list[tuple[Step, str, str, int]] = []
    with Connection(spanway.address) as connection:
        for step in MIX:
            trace_id, parent_id = secrets.token_hex(16), secrets.token_hex(8)
            fields = {"Host": step.host, "traceparent": f"00-{trace_id}-{parent_id}-01"}
            fields |= {"Content-Type": "application/json"}
            body = None if step.body is None else json.dumps(step.body).encode()
            sent.append((step, trace_id, parent_id, connection.ask(step.method, step.path, fields, body).status))
    for step, trace_id, parent_id, status in sent:
        expected = expected_services(step)

        def whole(trace: Trace, parent_id: str = parent_id, expected: set[str] = expected) -> bool:
            return not trace.faults(parent_id) and set(trace.services) >= expected

        trace = jaeger.wait_for_trace(trace_id, whole)
        assert trace.faults(parent_id) == [], f"{step}\n{trace.drawing()}"
        assert set(trace.services) == expected, f"{step}\n{trace.drawing()}"
        (server,) = trace.select("spanway", "SERVER")
        assert server.parent_id == parent_id
        assert server.attributes["http.response.status_code"] == status
        if step.host == HOST:
            (client,) = trace.children(server)
            (application,) = trace.children(client)
            assert (client.kind, application.kind) == ("CLIENT", "SERVER"), trace.drawing()
            # An exception leaves aiohttp's instrumentation before it has become a 500.
            assert application.attributes.get("http.response.status_code", 500) == status, trace.drawing()
        else:
            assert trace.children(server) == ()


def test_the_demo_command_sends_its_traces_to_jaeger_too(jaeger: Jaeger, tmp_path: Path) -> None:
    since = datetime.now(UTC)
    environ = environment(
        OTEL_EXPORTER_OTLP_ENDPOINT=jaeger.endpoint("http/protobuf"), OTEL_EXPORTER_OTLP_PROTOCOL="http/protobuf"
    )
    command = [sys.executable, "-m", "proxy", "demo", "--for", "4"]
    with Process("demo", command, tmp_path / "demo.log", environ=environ, cwd=ROOT) as demo:
        assert demo.wait(within=60.0) == 0, demo.output()
        traces = [trace for trace in jaeger.traces("shop", since).values() if trace.select("spanway")]
        assert traces, demo.output()
        for trace in traces:
            assert trace.faults() == [], trace.drawing()
            assert set(trace.services) >= {"spanway", "shop"}
