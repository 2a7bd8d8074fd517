import asyncio

import aiohttp
from aiohttp import web
from aiohttp.test_utils import TestServer

from proxy.demo.traffic import HOST, MIX, PACE, Step, Traffic
from proxy.settings import Address


async def serve(handler):
    app = web.Application()
    app.router.add_route("*", "/{path:.*}", handler)
    server = TestServer(app)
    await server.start_server()
    return server, Address(server.host, server.port or 0)


async def test_the_whole_mix_arrives_as_written():
    seen = []

    async def handler(request):
        seen.append((request.method, request.path_qs, request.headers["Host"], await request.text()))
        return web.Response(status=201 if request.method == "POST" else 200)

    server, address = await serve(handler)
    traffic = Traffic(address, rate=10_000)
    running = asyncio.create_task(traffic.run())
    while len(seen) < 2 * len(MIX):
        await asyncio.sleep(0.01)
    running.cancel()
    await asyncio.gather(running, return_exceptions=True)
    await server.close()
    sent = {(method, path, host) for method, path, host, _ in seen}
    assert sent == {(step.method, step.path, step.host) for step in MIX}
    assert all(body == "" for method, _, _, body in seen if method in ("GET", "HEAD"))
    assert traffic.answered == len(seen)
    assert set(traffic.statuses) == {200, 201}
    assert not traffic.failures
    assert traffic.slowest is not None


async def test_a_proxy_that_is_not_there_is_counted_not_raised():
    traffic = Traffic(Address("127.0.0.1", 1), rate=1)
    async with aiohttp.ClientSession() as session:
        await traffic.send(session, Step("GET", "/"))
    assert traffic.answered == 0
    assert traffic.failures.total() == 1


async def test_no_more_than_a_bounded_number_of_requests_waits():
    release = asyncio.Event()
    arrived = 0

    async def handler(_):
        nonlocal arrived
        arrived += 1
        await release.wait()
        return web.Response()

    server, address = await serve(handler)
    traffic = Traffic(address, rate=20_000)
    running = asyncio.create_task(traffic.run())
    while traffic.skipped < 20:
        await asyncio.sleep(0.01)
    assert arrived <= 32
    release.set()
    running.cancel()
    await asyncio.gather(running, return_exceptions=True)
    await server.close()
    assert traffic.answered == 32


def test_the_mix_has_what_a_demo_must_show():
    assert {step.method for step in MIX} >= {"GET", "POST", "HEAD"}
    assert any(step.host != HOST for step in MIX)
    assert abs(sum(PACE) / len(PACE) - 1) < 1e-9, "the pace keeps the mean rate"
    users = {step.body["user"] for step in MIX if step.path == "/checkout" and step.body}
    fill = {step.path.split("/")[3] for step in MIX if step.path.endswith("/items")}
    assert users - fill == {"nobody"}


async def test_a_proxy_that_shuts_down_is_left_alone():
    traffic = Traffic(Address("127.0.0.1", 1), rate=10_000, open_for=lambda: False)
    running = asyncio.create_task(traffic.run())
    await asyncio.sleep(0.05)
    running.cancel()
    await asyncio.gather(running, return_exceptions=True)
    async with aiohttp.ClientSession() as session:
        await traffic.send(session, Step("GET", "/"))
    assert (traffic.answered, traffic.failures.total(), traffic.skipped) == (0, 0, 0)
