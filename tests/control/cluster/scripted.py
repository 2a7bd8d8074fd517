"""A server that answers as a test says, byte by byte: what no API server does, and what a broken one might."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

from aiohttp import web

from proxy.control.cluster.access import find
from proxy.control.cluster.client import Client
from tests.control.cluster.answers import TURNS

Handler = Callable[[web.Request], Awaitable[web.StreamResponse]]


class Scripted:
    """What was asked, and who answers."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.asked: list[tuple[str, dict[str, str], dict[str, str]]] = []  # path, query, headers
        self.handler: Handler = self.empty
        self.url = ""
        self.token = "t0ken"

    async def empty(self, request: web.Request) -> web.StreamResponse:
        return web.json_response({"metadata": {"resourceVersion": "1"}, "items": []})

    def answers(self, body: bytes | str, status: int = 200, *, retry_after: str = "", encoding: str = "") -> None:
        """Each request, with this."""
        fields = {"Retry-After": retry_after, "Content-Encoding": encoding}
        headers = {name: value for name, value in fields.items() if value}

        async def handler(request: web.Request) -> web.StreamResponse:
            return web.Response(body=body, status=status, headers=headers, content_type="application/json")

        self.handler = handler

    def streams(self, produce: Callable[[web.StreamResponse], Awaitable[None]]) -> None:
        """Each request, with what ``produce`` writes."""

        async def handler(request: web.Request) -> web.StreamResponse:
            response = web.StreamResponse()
            await response.prepare(request)
            await produce(response)
            return response

        self.handler = handler

    async def serve(self, request: web.Request) -> web.StreamResponse:
        self.asked.append((request.path, dict(request.query), dict(request.headers)))
        return await self.handler(request)

    def kubeconfig(self) -> str:
        """Written anew: with the token as it is now."""
        path = self.folder / "kubeconfig"
        document = {
            "current-context": "test",
            "contexts": [{"name": "test", "context": {"cluster": "test", "user": "test"}}],
            "clusters": [{"name": "test", "cluster": {"server": self.url}}],
            "users": [{"name": "test", "user": {"token": self.token}}],
        }
        path.write_text(json.dumps(document))
        return str(path)


@asynccontextmanager
async def scripted(folder: Path, trace: Any = None) -> AsyncIterator[tuple[Scripted, Client]]:
    """A server and a client of it."""
    script = Scripted(folder)
    application = web.Application(client_max_size=1 << 26)
    application.router.add_route("*", "/{path:.*}", script.serve)
    runner = web.AppRunner(application, access_log=None, shutdown_timeout=0.01)
    await runner.setup()
    await web.TCPSite(runner, "127.0.0.1", 0).start()
    script.url = f"http://127.0.0.1:{runner.addresses[0][1]}"
    client = Client(find(script.kubeconfig(), {}), trace)
    await client.open()
    try:
        yield script, client
    finally:
        await client.close()
        await runner.cleanup()
        await asyncio.sleep(TURNS)
