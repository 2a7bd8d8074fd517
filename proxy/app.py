"""The composition root: builds every part from the settings and wires them; nothing else does."""

from __future__ import annotations

import asyncio
import logging
import os
import sys
from collections.abc import Sequence
from typing import TYPE_CHECKING

import uvloop

from proxy import __version__, serving
from proxy.accept.certificates import Certificates
from proxy.route.spec import TableSpec
from proxy.saying import say
from proxy.supervisor import Supervisor
from proxy.trace import resource
from proxy.trace.export import Exporter, make_transport
from proxy.trace.semconv import SCHEMA_URL
from proxy.workers import Slot, Tree, listen

if TYPE_CHECKING:
    import socket

    from opentelemetry.sdk.trace import TracerProvider

    from proxy.admin.source import Companion
    from proxy.control.chronicle import Chronicle
    from proxy.settings import Address, Settings


def run(
    settings: Settings,
    *,
    table: TableSpec | None = None,
    companions: Sequence[Companion] = (),
    cluster: bool = False,
) -> int:
    """Serve until SIGTERM, Ctrl-C or `Running.stop`; returns the exit code.

    ``table`` is served as it is; without one the manifests of ``settings.ingress`` are, and are watched; with
    ``cluster`` the objects of a Kubernetes cluster.
    ``companions`` run in the supervisor from the moment every worker serves.

    Raises `SettingsError` for an address that cannot be listened on.
    """
    logging.basicConfig(level=logging.WARNING, format="spanway: %(message)s", stream=sys.stderr)
    workers = settings.workers or os.cpu_count() or 1
    http_sockets, http = listen(settings.http, workers)
    https_sockets, https = listen(settings.https, workers)
    slots = [Slot(index, http_sockets[index], https_sockets[index]) for index in range(workers)]

    certificates = None
    if settings.https:
        certificates = Certificates()
        certificates.update(TableSpec(0))  # makes the one default certificate that all workers show

    def supervise(news: socket.socket) -> int:
        return uvloop.run(_supervise(settings, http, https, workers, news, table, companions, cluster))

    def serve(slot: Slot, channel: socket.socket) -> int:
        return serving.run(settings, slot, channel, certificates)

    return Tree(slots, supervise, serve).run()


async def _supervise(
    settings: Settings,
    http: tuple[Address, ...],
    https: tuple[Address, ...],
    workers: int,
    news: socket.socket,
    table: TableSpec | None,
    companions: Sequence[Companion],
    cluster: bool,
) -> int:
    supervisor = Supervisor(settings, http, https, workers)
    end = asyncio.get_running_loop().create_task(supervisor.run(news))
    for scheme, addresses in (("http ", http), ("https", https)):
        for address in addresses:
            say(f"{scheme} {scheme.strip()}://{_reachable(address)}")
    server = None
    if settings.admin is not None:
        from proxy.admin.server import Admin

        server = Admin(supervisor, settings.admin, supervisor.received)
        supervisor.admin = await server.start()
        say(f"admin http://{supervisor.admin}")
    if table is not None:
        await supervisor.apply(table, ())
    elif cluster:
        from proxy.control.cluster.controller import Controller
        from proxy.control.cluster.spans import trace_config

        provider = _provider(settings, supervisor)
        controller = Controller(
            settings,
            supervisor,
            supervisor,
            trace=None if provider is None else trace_config(provider),
            chronicle=_chronicle(provider, supervisor),
        )
        await controller.open()
        supervisor.controller, supervisor.publisher = controller, controller.publisher
        supervisor.spawn(controller.run)
    else:
        from proxy.control.feed import Feed

        feed = Feed(settings, supervisor, chronicle=_chronicle(_provider(settings, supervisor), supervisor))
        supervisor.publisher = feed.publisher
        if not await feed.first():
            supervisor.stop(2)
        else:
            supervisor.spawn(feed.watch)
    started = asyncio.get_running_loop().create_task(_announce(supervisor, workers, companions))
    code = await end
    started.cancel()
    if server is not None:
        await server.stop()
    return code


def _provider(settings: Settings, supervisor: Supervisor) -> TracerProvider | None:
    """What makes the supervisor's own spans, which go where those of requests go; None where none go anywhere."""
    tracing = settings.tracing
    transport = make_transport(tracing, __version__)
    if transport is None and not tracing.ring:
        return None
    from proxy.trace.provider import provider

    made = resource.build(tracing, version=__version__)
    exporter = Exporter(
        tracing,
        transport,
        resource=resource.encode(made),
        scope=resource.encode_scope(__version__),
        schema_url=SCHEMA_URL,
        ring=supervisor.ring,
        probe=False,  # the workers do that
    )
    supervisor.trace(exporter)
    return provider(tracing, made, exporter)


def _chronicle(provider: TracerProvider | None, supervisor: Supervisor) -> Chronicle | None:
    if provider is None:
        return None
    from proxy.control.chronicle import Chronicle

    chronicle = Chronicle(provider)
    supervisor.on_first, supervisor.on_end = chronicle.served, chronicle.end
    return chronicle


async def _announce(supervisor: Supervisor, workers: int, companions: Sequence[Companion]) -> None:
    await supervisor.serving()
    if not supervisor.readiness().ready:
        return  # it stops before it ever served
    table = supervisor.table()
    routes = len(table.routes)
    say(
        f"ready: generation {table.generation}, {routes} route{'s' * (routes != 1)}, "
        f"{workers} worker{'s' * (workers != 1)}"
    )
    for companion in companions:
        supervisor.spawn(companion)


def _reachable(address: Address) -> Address:
    """An address to click on: a wildcard is reached by loopback too."""
    from proxy.settings import Address

    return Address("127.0.0.1", address.port) if address.host == "0.0.0.0" else address  # noqa: S104 - only printed
