"""Opening one connection to an upstream: its name, TCP, TLS; each phase timed, each with its own fault."""

from __future__ import annotations

import asyncio
import ipaddress
from typing import TYPE_CHECKING, cast

from proxy.errors import Fault, Kind
from proxy.net.now import time_ns
from proxy.net.ports import connect
from proxy.net.tls import TlsTransport
from proxy.net.transport import adopt

if TYPE_CHECKING:
    from proxy.connect.connection import Upstream
    from proxy.connect.pool import Caller, Connector, Pool


async def establish(upstream: Upstream, caller: Caller, recorded: bool) -> None:
    """Open ``upstream`` for ``caller``, whose ``dns_ns``, ``connect_ns`` and ``tls_ns`` it sets; ``recorded``: of the
    ports that the wire taps, where it listens.

    Raises `Fault` for a name or a handshake, `OSError` for TCP.
    """
    pool = upstream.pool
    connector = pool.connector
    hosts = [pool.host]
    if pool.by_name:
        start = time_ns()
        try:
            found = await connector.loop.getaddrinfo(pool.host, pool.port, type=1)
        except OSError as error:
            raise Fault(Kind.DNS_FAILED, f"{pool.host}: {error.strerror or error}") from None
        finally:
            caller.dns_ns = time_ns() - start
        hosts = list(dict.fromkeys(str(info[4][0]) for info in found))
    start = time_ns()
    try:
        if not pool.tls:
            await _first(connector, hosts, pool.port, cast("asyncio.Protocol", upstream), recorded)
            return
        raw = await _first(connector, hosts, pool.port, asyncio.Protocol(), recorded)
    finally:
        caller.connect_ns = time_ns() - start
    start = time_ns()
    try:
        await _handshake(pool, raw, upstream)
    finally:
        caller.tls_ns = time_ns() - start


async def _first(
    connector: Connector, hosts: list[str], port: int, protocol: asyncio.Protocol, recorded: bool
) -> asyncio.Transport:
    """Connect to the first address that accepts."""
    for host in hosts[:-1]:
        try:
            return await _connect(connector, host, port, protocol, recorded)
        except OSError:
            continue
    return await _connect(connector, hosts[-1], port, protocol, recorded)


async def _connect(
    connector: Connector, host: str, port: int, protocol: asyncio.Protocol, recorded: bool
) -> asyncio.Transport:
    if connector.divided:
        sock = await connector.ports.connect(connector.loop, host, port, recorded)
    else:
        sock = await connect(connector.loop, host, port, None)
    return await adopt(sock, protocol)


async def _handshake(pool: Pool, raw: asyncio.Transport, upstream: Upstream) -> None:
    opened: asyncio.Future[None] = pool.connector.loop.create_future()
    upstream.opened = opened
    # Never the client's Host: connections are shared by clients, and no client may choose what is verified. An
    # address is no SNI (RFC 6066 section 3), but is checked against the certificate where that is asked for.
    name = pool.server_name or pool.host
    tls = TlsTransport(
        pool.connector.tls,
        cast("asyncio.Protocol", upstream),
        server_side=False,
        server_hostname=name,
        on_failure=upstream.not_opened,
    )
    try:
        tls.start(raw)
        await opened
    except BaseException:
        raw.abort()
        raise
    finally:
        upstream.opened = None
        del opened  # a failure's traceback holds this frame, and the future the failure: a cycle


def is_address(host: str) -> bool:
    """Whether a host is an address, and no name."""
    try:
        ipaddress.ip_address(host)
    except ValueError:
        return False
    return True
