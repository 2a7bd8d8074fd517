"""`stock`: what is on the shelves. Every few reservations it waits for a lock, which is the demo's slow spot."""

from __future__ import annotations

import asyncio
import itertools
from typing import TYPE_CHECKING, Final

from aiohttp import web
from opentelemetry import trace

from proxy.demo.bodies import body_of

if TYPE_CHECKING:
    from collections.abc import Mapping

CATALOGUE: Final[Mapping[str, int]] = {"kettle": 3900, "lantern": 2450, "teapot": 1800, "tent": 12900}  # price in cents

READ_S: Final = (0.004, 0.007, 0.005, 0.011)  # a query, in turn
LOCK_S: Final = (0.0, 0.0, 0.42, 0.0, 0.0, 0.0, 0.65)  # waiting for the shelf's lock, in turn: mostly free


def application(peers: Mapping[str, str]) -> web.Application:
    """The service; it calls no other, so ``peers`` is not used."""
    del peers
    tracer = trace.get_tracer("spanway.demo.stock")
    reads = itertools.cycle(READ_S)
    locks = itertools.cycle(LOCK_S)

    async def read(statement: str) -> None:
        with tracer.start_as_current_span(
            statement, kind=trace.SpanKind.CLIENT, attributes={"db.system.name": "sqlite", "db.query.text": statement}
        ):
            await asyncio.sleep(next(reads))

    async def items(_: web.Request) -> web.Response:
        await read("SELECT items")
        return web.json_response([{"item": name, "price": price} for name, price in CATALOGUE.items()])

    async def item(request: web.Request) -> web.Response:
        name = request.match_info["item"]
        await read("SELECT item")
        if name not in CATALOGUE:
            return web.json_response({"error": f"no item {name!r}"}, status=404)
        return web.json_response({"item": name, "price": CATALOGUE[name], "left": 7})

    async def reserve(request: web.Request) -> web.Response:
        name = request.match_info["item"]
        quantity = (await body_of(request)).get("quantity", 1)
        if name not in CATALOGUE:
            return web.json_response({"error": f"no item {name!r}"}, status=404)
        if wait := next(locks):
            with tracer.start_as_current_span("wait for shelf lock", attributes={"demo.shelf": name}):
                await asyncio.sleep(wait)
        await read("UPDATE item")
        return web.json_response({"item": name, "reserved": quantity}, status=201)

    app = web.Application()
    app.router.add_get("/api/stock", items)
    app.router.add_get("/api/stock/{item}", item)
    app.router.add_post("/api/stock/{item}/reservations", reserve)
    return app
