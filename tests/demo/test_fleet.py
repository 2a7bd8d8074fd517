"""The services as processes: started, traced, watched, and gone whatever happens."""

import asyncio
import os
import signal
import subprocess
import sys
import textwrap
import time

import aiohttp
import pytest
from aiohttp import web
from aiohttp.test_utils import TestServer
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import (
    ExportTraceServiceRequest,
    ExportTraceServiceResponse,
)

from proxy.demo import fleet as fleet_module
from proxy.demo.fleet import Fleet, ServiceFailed
from proxy.demo.service import SERVICES
from proxy.settings import Override

STATES = {"Z"}  # a zombie is dead; whoever inherited it has only not said so yet


def alive(pid):
    try:
        with open(f"/proc/{pid}/stat") as stat:
            return stat.read().rpartition(")")[2].split()[0] not in STATES
    except FileNotFoundError:
        return False


async def until(condition, seconds=20.0):
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline, "waited in vain"
        await asyncio.sleep(0.05)


async def receiver(requests):
    async def handler(request):
        assert request.content_type == "application/x-protobuf"
        requests.append(ExportTraceServiceRequest.FromString(await request.read()))
        return web.Response(
            body=ExportTraceServiceResponse().SerializeToString(), content_type="application/x-protobuf"
        )

    app = web.Application(client_max_size=4 << 20)
    app.router.add_post("/v1/traces", handler)
    server = TestServer(app)
    await server.start_server()
    return server


def spans_of(requests):
    for request in requests:
        for resource in request.resource_spans:
            service = next(a.value.string_value for a in resource.resource.attributes if a.key == "service.name")
            for scope in resource.scope_spans:
                for span in scope.spans:
                    yield service, span


async def test_one_request_is_one_tree_over_all_services_and_they_stop_cleanly():
    requests: list[ExportTraceServiceRequest] = []
    server = await receiver(requests)
    fleet = Fleet()
    trace_id = "4bf92f3577b34da6a3ce929d0e0e4736"
    try:
        assert fleet.overrides() == tuple(
            Override("", name, "", "http", (fleet.addresses[name],)) for name in ("shop", "cart", "stock")
        )
        await fleet.start(str(server.make_url("/v1/traces")), {})
        assert fleet.pids.keys() == SERVICES.keys()
        fields = {"traceparent": f"00-{trace_id}-00f067aa0ba902b7-01"}
        async with aiohttp.ClientSession(headers=fields) as session:
            url = f"http://{fleet.addresses['cart']}/api/cart/ada/items"
            async with session.post(url, json={"item": "teapot"}) as answer:
                assert answer.status == 201
            async with session.post(f"http://{fleet.addresses['shop']}/checkout", json={"user": "ada"}) as answer:
                assert answer.status == 201
    finally:
        await fleet.stop()
    # Stopping sends what is still waiting, so everything is there now.
    await server.close()
    spans = [(service, span) for service, span in spans_of(requests) if span.trace_id.hex() == trace_id]
    assert {service for service, _ in spans} == {"shop", "cart", "stock"}
    ids = {span.span_id for _, span in spans} | {bytes.fromhex("00f067aa0ba902b7")}
    assert all(span.parent_span_id in ids for _, span in spans), "no span is orphaned"
    names = {f"{service} {span.name}" for service, span in spans}
    assert names >= {"shop POST /checkout", "shop charge card", "cart GET /api/cart/{user}", "stock UPDATE item"}
    assert "shop GET /healthz" not in {f"{service} {span.name}" for service, span in spans_of(requests)}
    codes = {process.returncode for process in fleet._processes.values()}
    assert codes == {0}


async def test_a_service_that_dies_is_reported_with_its_last_words():
    fleet = Fleet()
    try:
        await fleet.start("", {})
        watching = asyncio.create_task(fleet.failed())
        os.kill(fleet.pids["cart"], signal.SIGKILL)
        with pytest.raises(ServiceFailed, match="'cart' ended with exit code -9"):
            await watching
    finally:
        await fleet.stop()
    assert not any(alive(pid) for pid in fleet.pids.values())


async def test_a_service_that_does_not_end_is_killed(monkeypatch):
    monkeypatch.setattr(fleet_module, "STOP_S", 1.0)
    fleet = Fleet()
    try:
        await fleet.start("", {})
        os.kill(fleet.pids["shop"], signal.SIGSTOP)
    finally:
        await fleet.stop()
    assert not any(alive(pid) for pid in fleet.pids.values())
    assert fleet._processes["shop"].returncode == -signal.SIGKILL


async def test_stopping_that_is_cancelled_kills():
    fleet = Fleet()
    try:
        await fleet.start("", {})
        os.kill(fleet.pids["shop"], signal.SIGSTOP)
    finally:
        stopping = asyncio.create_task(fleet.stop())
        await asyncio.sleep(0)
        stopping.cancel()
        await asyncio.gather(stopping, return_exceptions=True)
        await fleet._ended()
    assert not any(alive(pid) for pid in fleet.pids.values())


async def test_a_service_that_cannot_start_is_reported_at_once():
    fleet = Fleet()
    broken = {
        "OTEL_EXPORTER_OTLP_ENDPOINT": "http://127.0.0.1:1",
        "OTEL_EXPORTER_OTLP_PROTOCOL": "http/protobuf",
        "OTEL_EXPORTER_OTLP_COMPRESSION": "no_such_option",
    }
    try:
        with pytest.raises(ServiceFailed, match=r"(?s)ended with exit code 1.*no_such_option"):
            await fleet.start("", broken)
    finally:
        await fleet.stop()


async def test_the_services_end_with_a_parent_that_was_killed(tmp_path):
    script = tmp_path / "parent.py"
    script.write_text(
        textwrap.dedent("""
        import asyncio
        from proxy.demo.fleet import Fleet

        async def main():
            fleet = Fleet()
            await fleet.start("", {})
            print(*fleet.pids.values(), flush=True)
            await asyncio.sleep(3600)

        asyncio.run(main())
        """)
    )
    parent = subprocess.Popen(
        [sys.executable, str(script)],
        stdout=subprocess.PIPE,
        env={**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)},
    )
    assert parent.stdout is not None
    with parent.stdout:
        line = await asyncio.to_thread(parent.stdout.readline)
    pids = [int(pid) for pid in line.split()]
    assert len(pids) == len(SERVICES)
    assert all(alive(pid) for pid in pids)
    parent.kill()
    parent.wait()
    await until(lambda: not any(alive(pid) for pid in pids))


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["shop", "--port", "0"], "shop calls cart: say where that is with --peer cart=URL"),
        (["bank", "--port", "0"], "invalid choice: 'bank'"),
        (["stock"], "one of the arguments --port --fd is required"),
    ],
)
def test_arguments_that_cannot_be_used(arguments, words):
    ended = subprocess.run(
        [sys.executable, "-m", "proxy.demo.service", *arguments],
        capture_output=True,
        text=True,
        check=False,
        timeout=30,
    )
    assert ended.returncode == 2
    assert words in ended.stderr
