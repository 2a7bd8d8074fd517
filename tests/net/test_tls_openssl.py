"""`TlsTransport` against the openssl command: what Python's own TLS cannot be made to do."""

from __future__ import annotations

import asyncio
import contextlib
import ssl
from asyncio.subprocess import PIPE, Process
from collections.abc import AsyncIterator
from functools import partial
from pathlib import Path

from proxy.net.contexts import server_context, upstream_context
from proxy.net.tls import TlsTransport
from tests.net.openssl import openssl_command
from tests.net.peers import Inner, Run, listening


@contextlib.asynccontextmanager
async def openssl(*arguments: str | Path) -> AsyncIterator[Process]:
    process = await asyncio.create_subprocess_exec(
        openssl_command(), *map(str, arguments), stdin=PIPE, stdout=PIPE, stderr=asyncio.subprocess.STDOUT
    )
    try:
        yield process
    finally:
        with contextlib.suppress(ProcessLookupError):
            process.kill()
        await process.communicate()


async def said(process: Process, words: bytes) -> bytes:
    """The program's output up to and with ``words``."""
    assert process.stdout is not None
    return await process.stdout.readuntil(words)


async def type_in(process: Process, text: bytes) -> None:
    assert process.stdin is not None
    process.stdin.write(text)
    await process.stdin.drain()


def test_key_updates_go_unnoticed(run: Run, pem: Path) -> None:
    async def scenario() -> None:
        context = server_context()
        context.load_cert_chain(pem / "crt", pem / "key")
        inner = Inner()
        async with (
            listening(context, inner) as listener,
            openssl("s_client", "-connect", f"127.0.0.1:{listener.port}", "-tls1_3") as client,
        ):
            await inner.after("made")
            for turn in range(3):
                await type_in(client, b"K\n")  # a KeyUpdate that asks for one of ours
                await said(client, b"KEYUPDATE\n")
                ping = b"ping %d\n" % turn
                await type_in(client, ping)
                await inner.until(partial(inner.data.endswith, ping))
                inner.transport.write(b"pong %d\n" % turn)
                await said(client, b"pong %d\n" % turn)
            assert inner.events == ["made"]

    run(scenario())


@contextlib.asynccontextmanager
async def dialled(context: ssl.SSLContext, pem: Path, client: Inner) -> AsyncIterator[tuple[Process, TlsTransport]]:
    """A TLS 1.2 connection of ours to `openssl s_server`."""
    async with openssl(
        "s_server", "-accept", "127.0.0.1:0", "-tls1_2", "-cert", pem / "crt", "-key", pem / "key"
    ) as server:
        await said(server, b"ACCEPT 127.0.0.1:")
        port = int(await said(server, b"\n"))
        raw, _ = await asyncio.get_running_loop().create_connection(asyncio.Protocol, "127.0.0.1", port)
        tls = TlsTransport(context, client, server_side=False)
        tls.start(raw)
        await client.after("made")
        yield server, tls
        tls.abort()
        await client.after("lost")


def test_an_upstream_may_renegotiate_where_the_context_lets_it(run: Run, pem: Path) -> None:
    async def scenario() -> None:
        context = upstream_context()
        context.options &= ~ssl.OP_NO_RENEGOTIATION
        client = Inner()
        async with dialled(context, pem, client) as (server, tls):
            tls.write(b"before\n")
            await said(server, b"before\n")
            sent = tls.bytes_out
            await type_in(server, b"r\n")
            while tls.bytes_out == sent:
                await asyncio.sleep(0)
            # Our ClientHello is out, the server's answer is not in: what is written now has to wait.
            tls.write(b"during ")
            tls.write(b"it\n")
            assert tls.get_write_buffer_size() == 10
            await said(server, b"during it\n")
            assert tls.get_write_buffer_size() == 0
            await type_in(server, b"bye\n")
            await client.until(lambda: client.data.endswith(b"bye\n"))

    run(scenario())


def test_renegotiation_is_refused_by_our_own_contexts(run: Run, pem: Path) -> None:
    async def scenario() -> None:
        client = Inner()
        async with dialled(upstream_context(), pem, client) as (server, tls):
            sent = tls.bytes_out
            await type_in(server, b"r\n")
            await said(server, b"no renegotiation")  # OpenSSL's server takes that for the end
            assert 0 < tls.bytes_out - sent < 50  # a warning alert, and no ClientHello
            await client.after("lost")
            assert isinstance(client.lost_with, ssl.SSLError)

        context = server_context()
        context.load_cert_chain(pem / "crt", pem / "key")
        inner = Inner()
        async with (
            listening(context, inner) as listener,
            openssl("s_client", "-connect", f"127.0.0.1:{listener.port}", "-tls1_2") as peer,
        ):
            await inner.after("made")
            sent = inner.transport.bytes_out
            await type_in(peer, b"R\n")
            await said(peer, b"no renegotiation")
            assert 0 < inner.transport.bytes_out - sent < 50
            await inner.after("lost")

    run(scenario())
