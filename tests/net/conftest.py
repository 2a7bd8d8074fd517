"""Both kinds of loop, and a server's context, for the tests of TLS."""

from __future__ import annotations

import asyncio
import ssl
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import uvloop

from proxy.net.contexts import server_context
from tests.harness.certificates import Certificate
from tests.net.peers import Run


@pytest.fixture(params=["asyncio", "uvloop"])
def run(request: pytest.FixtureRequest) -> Iterator[Run]:
    """Run a coroutine on one kind of loop; anything the loop reports as an error fails the test."""
    factory = uvloop.new_event_loop if request.param == "uvloop" else asyncio.new_event_loop
    reports: list[dict[str, Any]] = []
    with asyncio.Runner(loop_factory=factory) as runner:
        runner.get_loop().set_exception_handler(lambda _, context: reports.append(context))
        yield lambda coroutine: runner.run(asyncio.wait_for(coroutine, 20))
    assert not reports


@pytest.fixture(scope="session")
def certificate() -> Certificate:
    return Certificate("shop.test")


@pytest.fixture(scope="session")
def pem(certificate: Certificate, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with ``crt`` and ``key``."""
    folder = tmp_path_factory.mktemp("tls")
    (folder / "crt").write_bytes(certificate.pem)
    (folder / "key").write_bytes(certificate.key)
    return folder


@pytest.fixture(scope="session")
def server(pem: Path) -> ssl.SSLContext:
    context = server_context()
    context.load_cert_chain(pem / "crt", pem / "key")
    context.sni_callback = lambda tls, name, _: setattr(tls, "requested_name", name or "")
    return context
