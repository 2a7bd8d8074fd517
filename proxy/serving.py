"""A worker process from start to exit: its loop, its listeners, the supervisor's orders, the sweep, the drain."""

from __future__ import annotations

import asyncio
import gc
import logging
import os
import resource
import signal
import socket
import time
from typing import TYPE_CHECKING, Final

import uvloop

from proxy import __version__
from proxy.accept.certificates import Certificates, ignore_malformed_names
from proxy.accept.listener import Listener
from proxy.admin.source import EndpointSample, WorkerSample
from proxy.channel import (
    Applied,
    AskBatches,
    AskSample,
    Batches,
    Channel,
    Commit,
    Drain,
    First,
    Order,
    Prepare,
    Prepared,
    Sampled,
    decoded,
)
from proxy.connect.pool import Pool
from proxy.net.clock import PERIOD
from proxy.swap import Swap
from proxy.trace import ids, semconv
from proxy.trace import resource as origin
from proxy.trace.access_log import AccessLog
from proxy.trace.export import Exporter, make_transport
from proxy.trace.ledger import ExportCounters
from proxy.trace.redact import Redactor
from proxy.trace.ring import Ring
from proxy.worker import Worker
from proxy.workers import LEAVING

if TYPE_CHECKING:
    from proxy.exchange import Exchange
    from proxy.settings import Settings
    from proxy.workers import Slot

_log = logging.getLogger(__name__)

RESTART: Final = 3  # exit status of a worker that left by itself; the parent acts on it if it missed the signal

_NOTICE: Final = 0.1  # seconds between the drain and the end of accepting: clients on their way still get in
_COLLECT: Final = (50_000, 20, 50)  # allocations before a collection (CPython: 700), then collections before an older
_FRESH: Final = 5_000  # routes and the like that are new since the last freeze: then it is worth its 10 ms
_FLUSH: Final = 5.0  # seconds for the last spans
_PAGE: Final = os.sysconf("SC_PAGE_SIZE")


def run(settings: Settings, slot: Slot, channel: socket.socket, certificates: Certificates | None) -> int:
    """A worker's main; returns its exit status. ``certificates`` was made before the fork: tickets suit all workers."""
    return uvloop.run(Serving(settings, slot, certificates).run(channel))


class Serving:
    """See the module."""

    def __init__(self, settings: Settings, slot: Slot, certificates: Certificates | None) -> None:
        self._settings = settings
        self._slot = slot
        self._started = time.time()
        self._stopping = asyncio.Event()
        self._refuse = False
        self._status = 0
        self._ring = Ring(settings.tracing.ring)
        self._certificates = certificates
        self._listeners: list[Listener] = []
        self._swap: Swap | None = None  # the next table, while it is prepared
        self._error = ""  # what is wrong with it
        self._busy_ns = 0  # what it has cost so far
        self._fresh = 0  # specs taken in since the last freeze
        self._worker: Worker

    def __repr__(self) -> str:
        return f"Serving({self._slot!r}, {self._listeners!r})"

    async def run(self, sock: socket.socket) -> int:
        """Serve until told to drain, then finish."""
        loop = asyncio.get_running_loop()
        ids.reseed()
        gc.set_threshold(*_COLLECT)
        if self._certificates is not None:
            ignore_malformed_names()
        _raise_file_limit()
        exporter = self._exporter()
        log = None
        if self._settings.access_log != "off":
            log = AccessLog(self._settings.access_log, Redactor(self._settings.tracing.redact))
        self._worker = worker = Worker(self._settings, loop, exporter, log)
        loop.add_signal_handler(signal.SIGTERM, self._leave)
        loop.add_signal_handler(signal.SIGHUP, lambda: None)
        loop.add_signal_handler(signal.SIGUSR1, lambda: log.reopen() if log else None)
        channel = await Channel.open(sock)
        worker.on_first = lambda exchange: channel.send(_first(exchange))
        orders = loop.create_task(self._obey(channel))
        sweep = loop.call_later(PERIOD, self._sweep, loop)
        await self._stopping.wait()
        await self._drain()
        orders.cancel()
        sweep.cancel()
        worker.sweep(loop.time())
        worker.handover.close()
        if exporter is not None:
            await asyncio.to_thread(exporter.close, _FLUSH)
        channel.close()
        return self._status

    def _exporter(self) -> Exporter | None:
        tracing = self._settings.tracing
        transport = make_transport(tracing, __version__)
        if transport is None and not tracing.ring:
            return None
        made = origin.build(tracing, version=__version__)
        exporter = Exporter(
            tracing,
            transport,
            resource=origin.encode(made),
            scope=origin.encode_scope(__version__),
            schema_url=semconv.SCHEMA_URL,
            ring=self._ring,
            probe=self._slot.index == 0,  # one warning, not one per worker
        )
        exporter.start()
        return exporter

    def _sweep(self, loop: asyncio.AbstractEventLoop) -> None:
        loop.call_later(PERIOD, self._sweep, loop)
        self._worker.sweep(loop.time())

    # The supervisor's orders

    async def _obey(self, channel: Channel) -> None:
        try:
            while True:
                await self._carry_out(await channel.order(), channel)
        except (asyncio.IncompleteReadError, ConnectionError):
            self._refuse = True
            self._stopping.set()  # the supervisor is gone

    async def _carry_out(self, order: Order, channel: Channel) -> None:
        if isinstance(order, Prepare):
            self._prepare(order)
            if order.last:
                generation = self._worker.table.generation if self._swap is None else self._swap.generation
                channel.send(Prepared(order.id, generation, self._error, self._busy_ns))
                self._error, self._busy_ns = "", 0
            await asyncio.sleep(0)  # requests go on between two parts
        elif isinstance(order, Commit):
            await self._commit()
            channel.send(Applied(order.id, self._worker.table.generation, time.time_ns()))
        elif isinstance(order, AskSample):
            self._worker.settle()
            channel.send(Sampled(order.id, self._sample()))
        elif isinstance(order, AskBatches):
            exporter = self._worker.exporter
            self._worker.settle()
            if exporter is not None:
                exporter.seal()
            cursor, batches = self._ring.since(order.cursor)
            channel.send(Batches(order.id, cursor, batches))
        elif isinstance(order, Drain):
            self._refuse = True
            self._stopping.set()

    def _prepare(self, order: Prepare) -> None:
        """Take in a part of the next table; of a table that cannot be served the other parts are passed over."""
        if self._error:
            return
        began = time.time_ns()
        try:
            part = decoded(order.change)
            if self._swap is None or self._swap.generation != part.generation:
                self._swap = Swap(self._worker, self._certificates, part)
            self._swap.take(part)
            self._fresh += len(part)
        except Exception as caught:
            _log.exception("a table cannot be served")
            self._swap, self._error = None, str(caught)
        self._busy_ns += time.time_ns() - began

    async def _commit(self) -> None:
        swap, self._swap = self._swap, None
        if swap is None:
            return
        for problem in swap.commit():
            _log.error("%s", problem)
        if not self._listeners and not self._stopping.is_set():
            self._freeze()
            # No request is taken before there is a table to answer it by.
            self._listeners = [Listener(self._worker, sock, None) for sock in self._slot.http]
            self._listeners += [Listener(self._worker, sock, self._certificates) for sock in self._slot.https]
            for listener in self._listeners:
                await listener.start()
        elif self._fresh > _FRESH:
            self._freeze()

    def _freeze(self) -> None:
        """Let the garbage collector never look at the table again.

        Requests make no cycles, so it finds nothing: let it look rarely, and not at what stays. Tables make none
        either: what an older one leaves behind is freed as the last request by it ends.
        """
        self._fresh = 0
        gc.collect()
        gc.freeze()

    def _sample(self) -> WorkerSample:
        worker = self._worker
        return WorkerSample(
            pid=os.getpid(),
            started=self._started,
            generation=worker.table.generation,
            connections_open=len(worker.downstreams) + len(worker.openings),
            connections_total=worker.connections,
            requests_active=sum(1 for each in worker.downstreams if each.exchange is not None),
            upstream_open=len(worker.connector.upstreams),
            upstream_total=worker.connector.opened,
            loop_lag=worker.clock.lag_us / 1e6,
            memory=_resident(),
            routes=tuple(worker.ledger.samples()),
            endpoints=tuple(self._endpoints()),
            connections_refused=worker.refused,
            handshake_failures=worker.handshake_failures,
            access_log_lost=worker.access_log.lost if worker.access_log is not None else 0,
            wire_listening=worker.handover.listening,
            wire_sent=worker.handover.sent,
            wire_full=worker.handover.full,
            wire_gone=worker.handover.gone,
            wire_spared=worker.allowance.spared,
            wire_outside=worker.handover.outside,
            wire_exhausted=worker.connector.ports.exhausted,
            export=worker.exporter.counters() if worker.exporter is not None else ExportCounters(),
        )

    def _endpoints(self) -> list[EndpointSample]:
        now = self._worker.clock.now
        samples: list[EndpointSample] = []
        for backend in self._worker.registry.current():
            for endpoint in backend.endpoints:
                pool = endpoint.pool if isinstance(endpoint.pool, Pool) else None
                samples.append(
                    EndpointSample(
                        backend=backend.spec.key,
                        host=endpoint.host,
                        port=endpoint.port,
                        zone=endpoint.zone,
                        in_flight=endpoint.in_flight,
                        connections=pool.open if pool else 0,
                        idle=len(pool.idle) + len(pool.tapped) if pool else 0,
                        requests=endpoint.requests,
                        errors=endpoint.errors,
                        ejections=endpoint.ejections,
                        ejected=endpoint.ejected_until > now,
                        latency=endpoint.ewma / 1e9,
                    )
                )
        return samples

    # The end

    def _leave(self) -> None:
        """SIGTERM to this worker alone: its successor takes over its sockets at once, while this one finishes."""
        if not self._stopping.is_set():
            self._status = RESTART
            if self._slot.parent:
                os.kill(self._slot.parent, LEAVING)
            self._stopping.set()

    async def _drain(self) -> None:
        worker = self._worker
        worker.draining = True
        await asyncio.sleep(_NOTICE)
        for listener in self._listeners:
            listener.stop(refuse=self._refuse)
        worker.drain()
        limit = time.monotonic() + self._settings.timeouts.drain
        while (worker.downstreams or worker.openings) and time.monotonic() < limit:
            await asyncio.sleep(0.05)
            worker.drain()
        for downstream in list(worker.downstreams):
            downstream.cut()
        await asyncio.sleep(_NOTICE)
        for downstream in list(worker.downstreams):
            downstream.abort()
        await asyncio.sleep(0)


def _first(exchange: Exchange) -> First:
    span_id = exchange.span_id if exchange.recorded else b""
    return First(
        0, exchange.generation, exchange.trace_id, span_id, exchange.start_ns, exchange.end_ns, exchange.status
    )


def _resident() -> int:
    with open("/proc/self/statm", "rb") as file:  # noqa: PTH123 - a pseudo file, read often
        return int(file.read().split()[1]) * _PAGE


def _raise_file_limit() -> None:
    """Two connections per request in flight: as many descriptors as the system allows (nginx worker_rlimit_nofile)."""
    _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
