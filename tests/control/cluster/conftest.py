"""The stand-in for the API server, and a client of it."""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterator
from pathlib import Path

import pytest
import pytest_asyncio

from proxy.control.cluster.client import Client
from tests.control.cluster.answers import opened
from tests.harness.kube_api import FakeApiServer


@pytest.fixture
def fake(tmp_path: Path) -> Iterator[FakeApiServer]:
    with FakeApiServer(tmp_path / "api", bookmarks=0.05) as server:
        yield server


@pytest_asyncio.fixture
async def client(fake: FakeApiServer) -> AsyncIterator[Client]:
    async with opened(fake) as made:
        yield made
