"""Clients of the API server: one that answers by itself, for writers whose rules need no server, and real ones."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from typing import Any, cast

from proxy.control.cluster.access import find
from proxy.control.cluster.client import Client
from proxy.control.cluster.faults import ApiFault
from tests.harness.kube_api import ADMIN, FakeApiServer

TURNS = 0.01  # seconds in which transports that were closed are gone, before their loop is

Answer = Callable[[str, str, Any], ApiFault | None]


class Answers:
    """Notes each write, and fails it if ``answer`` says so."""

    def __init__(self, answer: Answer = lambda method, path, document: None) -> None:
        self.answer = answer
        self.sent: list[tuple[str, str, Any]] = []

    async def send(self, method: str, path: str, document: Any, form: str = "") -> bytes:
        """See `Client.send`."""
        await asyncio.sleep(0)
        fault = self.answer(method, path, document)
        self.sent.append((method, path, document))
        if fault is not None:
            raise fault
        return json.dumps(document).encode()

    @property
    def client(self) -> Client:
        """As whoever writes wants it."""
        return cast("Client", self)


@asynccontextmanager
async def opened(fake: FakeApiServer, token: str = ADMIN) -> AsyncIterator[Client]:
    """A client of the stand-in, as the holder of ``token``."""
    made = Client(find(str(fake.kubeconfig(token)), {}))
    await made.open()
    try:
        yield made
    finally:
        await made.close()
        await asyncio.sleep(TURNS)


async def settled(probe: Callable[[], bool], what: str = "it") -> None:
    """Wait until something is so; AssertionError after 5 s."""
    for _ in range(1000):
        if probe():
            return
        await asyncio.sleep(0.005)
    raise AssertionError(f"waited in vain for {what}")
