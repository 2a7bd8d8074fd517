"""What a connection to an upstream leaves behind: nothing, and that without the garbage collector."""

from __future__ import annotations

import asyncio
import gc
import ssl
from collections.abc import Iterator

import pytest

from proxy.connect.connection import Upstream
from proxy.connect.pool import Connector, Pool
from proxy.errors import Kind
from proxy.net.clock import Clock
from proxy.net.contexts import server_context, upstream_context
from proxy.net.tls import TlsTransport
from tests.connect.test_pool import Caller
from tests.harness.certificates import Certificate


@pytest.fixture(scope="module")
def certified(tmp_path_factory: pytest.TempPathFactory) -> ssl.SSLContext:
    certificate, folder = Certificate("shop.test"), tmp_path_factory.mktemp("tls")
    (folder / "crt").write_bytes(certificate.pem)
    (folder / "key").write_bytes(certificate.key)
    context = server_context()
    context.load_cert_chain(folder / "crt", folder / "key")
    return context


@pytest.fixture
def _no_collector() -> Iterator[None]:
    gc.collect()
    gc.disable()
    yield
    gc.enable()


def alive() -> int:
    return sum(type(each) in (Upstream, TlsTransport) for each in gc.get_objects())


@pytest.mark.usefixtures("_no_collector")
@pytest.mark.parametrize("how", ["ours", "theirs", "no handshake", "refused"])
def test_nothing_is_left_of_a_tls_connection(certified: ssl.SSLContext, how: str) -> None:
    async def serve(_: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        if how != "ours":
            writer.close()

    async def scenario() -> None:
        loop = asyncio.get_running_loop()
        listener = await asyncio.start_server(
            serve, "127.0.0.1", 0, ssl=certified if how in ("ours", "theirs") else None
        )
        port = listener.sockets[0].getsockname()[1]
        if how == "refused":
            listener.close()
        connector = Connector(
            loop, Clock(loop.time()), upstream_context(None, False), most=3, most_idle=2, idle_timeout=60.0
        )
        pool = Pool(connector, "127.0.0.1", port, tls=True, server_name="")
        before = alive()
        for _ in range(3):
            caller = Caller()
            pool.connect(caller, 5.0)
            while not caller.answers:
                await asyncio.sleep(0.01)
            if how in ("no handshake", "refused"):
                assert caller.fault is not None
                assert caller.fault.kind is (Kind.CONNECT_FAILED if how == "refused" else Kind.TLS_FAILED)
            elif how == "ours":
                assert caller.upstream is not None
                pool.discard(caller.upstream)
                caller.upstream = None
            del caller
        for _ in range(300):
            if alive() == before and not pool.open:
                break
            await asyncio.sleep(0.01)
        assert (alive() - before, pool.open) == (0, 0)
        listener.close()

    asyncio.run(scenario())
