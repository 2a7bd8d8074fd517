"""The admin listener of `spanway wire`."""

from __future__ import annotations

import socket

import aiohttp
import pytest

from proxy.errors import SettingsError
from proxy.layers.pages import Pages
from proxy.settings import Address


async def test_pages() -> None:
    reasons: list[str] = []
    broken: list[str] = []
    pages = Pages(
        Address("127.0.0.1", 0),
        lambda: tuple(reasons),
        lambda: tuple(broken),
        lambda: (b"x 1\n", "text/plain; version=0.0.4"),
    )
    address = await pages.start()
    async with aiohttp.ClientSession(f"http://{address}") as session:

        async def get(path: str) -> tuple[int, str]:
            async with session.get(path) as answer:
                return answer.status, await answer.text()

        assert await get("/healthz") == (200, "ok\n")
        assert await get("/readyz") == (200, '{\n "ready": true,\n "reasons": [],\n "broken": []\n}\n')
        broken.append("veth0 is down")
        status, text = await get("/readyz")
        assert (status, "veth0 is down" in text) == (200, True), "said, but ready: other ways work"
        reasons.append("no ring")
        assert (await get("/readyz"))[0] == 503
        assert "no ring" in (await get("/readyz"))[1]
        assert await get("/metrics") == (200, "x 1\n")
        assert "/metrics" in (await get("/"))[1]
        assert (await get("/traces"))[0] == 404
        async with session.get("/healthz", headers={"Host": "evil.test"}) as answer:
            assert answer.status == 421
    await pages.stop()
    await pages.stop()


async def test_an_address_that_is_taken() -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        pages = Pages(Address("127.0.0.1", taken.getsockname()[1]), tuple, tuple, lambda: (b"", ""))
        with pytest.raises(SettingsError, match=r"cannot have .*Choose another with --admin"):
            await pages.start()
