"""The three services answering each other, in one process and without telemetry."""

import json
from contextlib import asynccontextmanager

import pytest
from aiohttp import web
from aiohttp.test_utils import BaseTestServer, TestClient, TestServer

from proxy.demo import cart, shop, stock
from proxy.demo.shop import PAYMENT_FAILS


def client(server: BaseTestServer) -> TestClient[web.Request, None]:
    return TestClient(server)


@asynccontextmanager
async def services():
    async with TestServer(stock.application({})) as stocks:
        urls = {"stock": str(stocks.make_url(""))}
        async with TestServer(cart.application(urls)) as carts:
            urls["cart"] = str(carts.make_url(""))
            async with (
                client(TestServer(shop.application(urls))) as shop_client,
                client(carts) as cart_client,
                client(stocks) as stock_client,
            ):
                yield shop_client, cart_client, stock_client


@pytest.fixture
def no_waiting(monkeypatch):
    """Nobody is slow, except where a test says so."""
    monkeypatch.setattr(stock, "LOCK_S", (0.0,))
    monkeypatch.setattr(stock, "READ_S", (0.0,))
    monkeypatch.setattr(shop, "SEARCH_S", (0.0,))
    monkeypatch.setattr(shop, "PAYMENT_S", (0.0,))
    monkeypatch.setattr(shop, "RENDER_S", 0.0)


@pytest.mark.usefixtures("no_waiting")
async def test_pages():
    async with services() as (client, _, _):
        for path, status in (
            ("/", 200),
            ("/products/teapot", 200),
            ("/products/unicorn", 404),
            ("/search?q=tea", 200),
            ("/no", 404),
        ):
            async with client.get(path) as answer:
                assert answer.status == status, path


@pytest.mark.usefixtures("no_waiting")
async def test_an_order_from_the_cart_to_the_shelf():
    async with services() as (client, carts, _):
        for item, quantity in (("teapot", 2), ("kettle", 1), ("teapot", 1)):
            async with carts.post("/api/cart/ada/items", json={"item": item, "quantity": quantity}) as answer:
                assert answer.status == 201
        async with carts.post("/api/cart/ada/items", json={"item": "unicorn"}) as answer:
            assert answer.status == 422
        async with client.post("/checkout", json={"user": "ada"}) as answer:
            assert answer.status == 201
            assert (await answer.json())["ordered"] == {"teapot": 3, "kettle": 1}
        async with carts.get("/api/cart/ada") as answer:
            assert (await answer.json())["items"] == {}
        async with client.post("/checkout", json={"user": "ada"}) as answer:
            assert answer.status == 409


@pytest.mark.usefixtures("no_waiting")
async def test_every_few_payments_fail_with_500():
    async with services() as (client, carts, _):
        statuses = []
        for _ in range(len(PAYMENT_FAILS) * 2):
            async with carts.post("/api/cart/eve/items", json={"item": "tent"}):
                pass
            async with client.post("/checkout", json={"user": "eve"}) as answer:
                statuses.append(answer.status)
        assert statuses == [500 if fails else 201 for fails in PAYMENT_FAILS] * 2
        assert 500 in statuses


@pytest.mark.usefixtures("no_waiting")
@pytest.mark.parametrize("body", [b"", b"not json", b"[1]", b"\xff\xfe"])
async def test_a_body_that_is_no_json_object_is_refused(body):
    async with services() as (client, carts, stocks):
        for each, path in (
            (client, "/checkout"),
            (carts, "/api/cart/x/items"),
            (stocks, "/api/stock/tent/reservations"),
        ):
            async with each.post(path, data=body) as answer:
                assert answer.status == 400, path


@pytest.mark.usefixtures("no_waiting")
async def test_carts_are_bounded(monkeypatch):
    monkeypatch.setattr(cart, "MOST_CARTS", 3)
    async with services() as (_, carts, _):
        for user in range(5):
            async with carts.post(f"/api/cart/{user}/items", json={"item": "tent"}) as answer:
                assert answer.status == 201
        contents = []
        for user in range(5):
            async with carts.get(f"/api/cart/{user}") as answer:
                contents.append(bool(json.loads(await answer.text())["items"]))
        assert contents == [False, False, True, True, True]


def test_the_stock_is_slow_now_and_then():
    slow = [wait for wait in stock.LOCK_S if wait > 0.3]
    assert 0 < len(slow) < len(stock.LOCK_S) / 2
