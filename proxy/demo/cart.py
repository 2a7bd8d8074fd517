"""`cart`: who wants what. Asks `stock` whether an item exists before it is put into a cart."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from aiohttp import ClientSession, web

from proxy.demo.bodies import body_of

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Mapping

MOST_CARTS: Final = 1000  # the demo's memory stays small however long it runs
MOST_ITEMS: Final = 50


def application(peers: Mapping[str, str]) -> web.Application:
    """The service; ``peers`` maps "stock" to its URL."""
    stock = peers["stock"]
    carts: dict[str, dict[str, int]] = {}
    session_key = web.AppKey("session", ClientSession)

    async def sessions(app: web.Application) -> AsyncIterator[None]:
        async with ClientSession() as session:
            app[session_key] = session
            yield

    async def show(request: web.Request) -> web.Response:
        user = request.match_info["user"]
        return web.json_response({"user": user, "items": carts.get(user, {})})

    async def add(request: web.Request) -> web.Response:
        user = request.match_info["user"]
        body = await body_of(request)
        name, quantity = str(body.get("item", "")), int(body.get("quantity", 1))
        async with request.app[session_key].get(f"{stock}/api/stock/{name}") as answer:
            if answer.status != 200:
                return web.json_response({"error": f"no item {name!r}"}, status=422)
        while len(carts) >= MOST_CARTS and user not in carts:
            del carts[next(iter(carts))]
        cart = carts.setdefault(user, {})
        if name in cart or len(cart) < MOST_ITEMS:
            cart[name] = cart.get(name, 0) + quantity
        return web.json_response({"user": user, "items": cart}, status=201)

    async def empty(request: web.Request) -> web.Response:
        carts.pop(request.match_info["user"], None)
        return web.Response(status=204)

    app = web.Application()
    app.cleanup_ctx.append(sessions)
    app.router.add_get("/api/cart/{user}", show)
    app.router.add_delete("/api/cart/{user}", empty)
    app.router.add_post("/api/cart/{user}/items", add)
    return app
