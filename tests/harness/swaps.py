"""A proxy of two workers whose table changes under load: `python -m tests.harness.swaps SWAPS INGRESSES` says what
came of it, as JSON."""

from __future__ import annotations

import asyncio
import json
import sys
import time
from typing import Any

from proxy import app
from proxy.control.objects import (
    SERVICE_NAME_LABEL,
    BackendPort,
    EndpointSlice,
    HTTPPath,
    HTTPRule,
    Ingress,
    IngressBackend,
    IngressRule,
    IngressSpec,
    Metadata,
    Service,
    ServiceBackend,
    ServicePort,
    ServiceSpec,
    SliceEndpoint,
    SlicePort,
)
from proxy.control.publish import Change, Publisher
from proxy.control.store import Objects
from proxy.route.spec import TableSpec
from proxy.settings import Address, Settings, Timeouts, Tracing

CLIENTS = 8
ASK = b"GET / HTTP/1.1\r\nHost: 0.test\r\n\r\n"


class Upstream(asyncio.Protocol):
    """Answers every request."""

    def connection_made(self, transport: Any) -> None:
        self.transport = transport

    def data_received(self, data: bytes) -> None:
        self.transport.write(b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok" * data.count(b"\r\n\r\n"))


class Site:
    """A cluster of many Ingresses, played by objects."""

    def __init__(self, running: Any, many: int) -> None:
        self.objects = Objects()
        self.publisher = Publisher(self.objects, running, generation=1)
        self.many = many

    async def open(self, port: int) -> None:
        self.objects.put(Service(Metadata("api", "shop"), ServiceSpec(ports=(ServicePort(80, "http"),))))
        self.slice(port, 1)
        for number in range(self.many):
            self.ingress(number, 60)
        await self.publisher.synced()

    def ingress(self, number: int, timeout: int) -> None:
        path = HTTPPath("/", "Prefix", IngressBackend(ServiceBackend("api", BackendPort("", 80))))
        annotations = {"nginx.ingress.kubernetes.io/proxy-read-timeout": str(timeout)}
        spec = IngressSpec(rules=(IngressRule(f"{number}.test", HTTPRule((path,))),))
        self.objects.put(Ingress(Metadata(f"web-{number}", "shop", annotations=annotations), spec))

    def slice(self, port: int, addresses: int) -> None:
        endpoints = tuple(SliceEndpoint((f"127.0.0.{number}",)) for number in range(1, addresses + 1))
        metadata = Metadata("api-1", "shop", labels={SERVICE_NAME_LABEL: "api"})
        self.objects.put(EndpointSlice(metadata, "IPv4", endpoints, (SlicePort("http", port),)))

    async def change(self, number: int, port: int) -> None:
        """One event, taken in and on its way into every worker."""
        if number % 3 == 0:
            self.slice(port, 1 + number // 3 % 4)
        else:  # also the Ingress that is asked for
            self.ingress(number % self.many if number % 2 else 0, 61 + number % 1000)
        self.publisher.changed(Change("Ingress", "shop", "any", "", "modified", time.time_ns()))
        await self.publisher.flush()


async def ask(address: Address, stop: asyncio.Event) -> list[bytes]:
    """Keep-alive requests, and now and then a new connection, until told to stop; what was no 200."""
    wrong: list[bytes] = []
    count = 0
    while not stop.is_set():
        reader, writer = await asyncio.open_connection(address.host, address.port)
        for _ in range(50):
            if stop.is_set():
                break
            writer.write(ASK)
            try:
                answer = await asyncio.wait_for(reader.readuntil(b"\r\n\r\nok"), 20)
            except (asyncio.IncompleteReadError, ConnectionError, TimeoutError) as problem:
                answer = repr(problem).encode()
            count += 1
            if not answer.startswith(b"HTTP/1.1 200 "):
                wrong.append(answer)
                break
        writer.close()
    assert count
    return wrong


def play(swaps: int, many: int) -> int:
    """Run it; the exit status."""

    async def story(running: Any) -> None:
        found: dict[str, Any] = {}
        loop = asyncio.get_running_loop()
        upstream = await loop.create_server(Upstream, "0.0.0.0", 0)
        port = upstream.sockets[0].getsockname()[1]
        site, stop = Site(running, many), asyncio.Event()
        await site.open(port)
        clients = [asyncio.ensure_future(ask(running.http[0], stop)) for _ in range(CLIENTS)]
        for number in range(swaps):
            await site.change(number, port)
            if number % 10 == 0:
                await asyncio.sleep(0.005)
        stop.set()
        found["wrong"] = [repr(answer) for answers in await asyncio.gather(*clients) for answer in answers]
        samples = await running.samples()
        found["generation"] = site.publisher.generation
        found["served"] = sorted(sample.generation for sample in samples)
        found["statuses"] = sorted({code for sample in samples for route in sample.routes for code in route.statuses})
        found["faults"] = [sorted(route.faults) for sample in samples for route in sample.routes if route.faults]
        await site.publisher.close()
        upstream.close()
        sys.stdout.write(json.dumps(found) + "\n")
        sys.stdout.flush()
        running.stop()

    settings = Settings(
        http=(Address("127.0.0.1", 0),),
        https=(),
        admin=None,
        workers=2,
        access_log="off",
        timeouts=Timeouts(drain=2.0),
        tracing=Tracing(endpoint="none"),
    )
    return app.run(settings, table=TableSpec(1), companions=(story,))


if __name__ == "__main__":
    sys.exit(play(int(sys.argv[1]), int(sys.argv[2])))
