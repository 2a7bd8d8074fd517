"""A stand-in for `app.run`: the real admin listener, and a proxy of a few lines that does what its spans say."""

import asyncio
import os
import time

import aiohttp
from aiohttp import web

from proxy.admin.control import ControlSample
from proxy.admin.server import Admin
from proxy.admin.source import Cursor, Readiness
from proxy.route.spec import TableSpec
from proxy.settings import Address
from proxy.trace.ring import Ring
from tests.admin.samples import worker
from tests.admin.spans import BASE_NS, batch, request, span


class Proxy:
    """Implements `Source` and `Running`; ``traced`` False makes it record nothing."""

    def __init__(self, settings, traced=True):
        self.settings = settings
        self.source = self
        self.ring = Ring(1 << 22)
        self.http: tuple[Address, ...] = ()
        self.admin = None
        self.end = asyncio.get_running_loop().create_future()
        self.forwarded = 0
        self._traced = traced
        self._upstreams = {override.service: override.endpoints[0] for override in settings.upstream}

    async def samples(self):
        return [worker()]

    async def batches(self):
        return self.ring.since()[1]

    async def batches_since(self, cursor):
        position, batches = self.ring.since(cursor.positions.get("1", 0))
        return Cursor({"1": position}), batches

    def table(self):
        return TableSpec(1)

    def problems(self):
        return []

    def cluster(self):
        return None

    def control(self):
        return ControlSample()

    def followed(self, trace_id):
        return None

    def exits(self):
        return 0

    def readiness(self):
        return Readiness(True)

    def stop(self, code=0):
        if not self.end.done():
            self.end.set_result(code)

    async def forward(self, incoming):
        parts = incoming.path.split("/")
        service = parts[2] if parts[1] == "api" else "shop"
        trace_id, parent = os.urandom(16).hex(), int.from_bytes(os.urandom(7), "big") + 1
        start = (time.time_ns() - BASE_NS) / 1e6
        address = self._upstreams[service]
        known = incoming.headers["Host"].startswith("shop.")
        status, body = 404, b""
        if known:
            fields = {"traceparent": f"00-{trace_id}-{parent + 1:016x}-01", "Content-Type": "application/json"}
            async with (
                aiohttp.ClientSession() as session,
                session.request(
                    incoming.method, f"http://{address}{incoming.path_qs}", data=await incoming.read(), headers=fields
                ) as answer,
            ):
                status, body = answer.status, await answer.read()
        end = (time.time_ns() - BASE_NS) / 1e6
        where = {"url__path": incoming.path, "server__address": "shop.localhost", "spanway__self__us": 150}
        error = "500" if status >= 500 else ""
        spans = [
            span(
                parent,
                0,
                f"{incoming.method} /",
                start,
                end,
                "SERVER",
                error,
                **request(incoming.method, status, **where),
            )
        ]
        if known:
            peer = {"server__address": address.host, "server__port": address.port}
            call = request(incoming.method, status, **peer)
            spans.append(span(parent + 1, parent, incoming.method, start, end, "CLIENT", error, **call))
        self.forwarded += 1
        if self._traced:
            self.ring.add(batch("spanway", *spans, trace=trace_id))
        return web.Response(status=status, body=body)

    async def serve(self, companion):
        app = web.Application()
        app.router.add_route("*", "/{path:.*}", self.forward)
        runner = web.AppRunner(app, shutdown_timeout=0.1)
        await runner.setup()
        await web.TCPSite(runner, self.settings.http[0].host, self.settings.http[0].port).start()
        self.http = (Address(*runner.addresses[0][:2]),)
        admin = Admin(self, self.settings.admin, self.ring)
        self.admin = await admin.start()
        told = asyncio.create_task(companion(self))
        told.add_done_callback(lambda task: task.cancelled() or not task.exception() or self.stop(70))
        try:
            return await self.end
        finally:
            told.cancel()
            await asyncio.gather(told, return_exceptions=True)
            await admin.stop()
            await runner.cleanup()


def run(settings, *, table=None, companions=(), traced=True, meanwhile=None):
    """Serve until a companion says stop; ``meanwhile(proxy)`` runs beside it."""

    async def main():
        proxy = Proxy(settings, traced)

        if meanwhile is None:
            return await proxy.serve(companions[0])
        beside = asyncio.create_task(meanwhile(proxy))
        try:
            return await proxy.serve(companions[0])
        finally:
            beside.cancel()
            await asyncio.gather(beside, return_exceptions=True)

    return asyncio.run(main())
