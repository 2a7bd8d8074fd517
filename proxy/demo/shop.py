"""`shop`: the pages and the checkout, made of what `cart` and `stock` answer. Every few payments fail."""

from __future__ import annotations

import asyncio
import itertools
from typing import TYPE_CHECKING, Any, Final

from aiohttp import ClientSession, web
from opentelemetry import trace

from proxy.demo.bodies import body_of

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Mapping

RENDER_S: Final = 0.003
SEARCH_S: Final = (0.018, 0.030, 0.180)  # the search index, in turn: the last is a cold one
PAYMENT_S: Final = (0.045, 0.060, 0.038)
PAYMENT_FAILS: Final = (False, False, False, True)  # in turn


class PaymentFailed(Exception):
    """The bank did not answer in time."""


def application(peers: Mapping[str, str]) -> web.Application:
    """The service; ``peers`` maps "cart" and "stock" to their URLs."""
    cart, stock = peers["cart"], peers["stock"]
    tracer = trace.get_tracer("spanway.demo.shop")
    searches, payments, failures = map(itertools.cycle, (SEARCH_S, PAYMENT_S, PAYMENT_FAILS))
    session_key = web.AppKey("session", ClientSession)

    async def sessions(app: web.Application) -> AsyncIterator[None]:
        async with ClientSession() as session:
            app[session_key] = session
            yield

    async def fetch(request: web.Request, url: str) -> tuple[int, Any]:
        async with request.app[session_key].get(url) as answer:
            return answer.status, await answer.json()

    async def page(title: str, status: int = 200) -> web.Response:
        with tracer.start_as_current_span("render page", attributes={"demo.title": title}):
            await asyncio.sleep(RENDER_S)
        return web.Response(text=f"<!doctype html><title>{title}</title>", content_type="text/html", status=status)

    async def home(request: web.Request) -> web.Response:
        await fetch(request, f"{stock}/api/stock")
        return await page("The Shop")

    async def product(request: web.Request) -> web.Response:
        status, item = await fetch(request, f"{stock}/api/stock/{request.match_info['item']}")
        return await page(str(item["item"])) if status == 200 else await page("Not found", 404)

    async def search(request: web.Request) -> web.Response:
        with tracer.start_as_current_span("search index", attributes={"demo.terms": request.query.get("q", "")}):
            await asyncio.sleep(next(searches))
        await fetch(request, f"{stock}/api/stock")
        return await page("Found")

    async def reserve(request: web.Request, item: str, quantity: int) -> None:
        url = f"{stock}/api/stock/{item}/reservations"
        async with request.app[session_key].post(url, json={"quantity": quantity}) as answer:
            answer.raise_for_status()

    async def pay() -> None:
        with tracer.start_as_current_span("charge card"):
            await asyncio.sleep(next(payments))
            if next(failures):
                raise PaymentFailed("the bank did not answer in time")

    async def checkout(request: web.Request) -> web.Response:
        user = str((await body_of(request)).get("user", ""))
        _, content = await fetch(request, f"{cart}/api/cart/{user}")
        if not content["items"]:
            return web.json_response({"error": "the cart is empty"}, status=409)
        async with asyncio.TaskGroup() as group:  # the shelves at the same time: the waterfall shows them side by side
            for item, quantity in content["items"].items():
                group.create_task(reserve(request, item, quantity))
        await pay()
        async with request.app[session_key].delete(f"{cart}/api/cart/{user}"):
            return web.json_response({"user": user, "ordered": content["items"]}, status=201)

    app = web.Application()
    app.cleanup_ctx.append(sessions)
    app.router.add_get("/", home)
    app.router.add_get("/search", search)
    app.router.add_get("/products/{item}", product)
    app.router.add_post("/checkout", checkout)
    return app
