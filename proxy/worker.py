"""What the exchanges of one worker process share: the table, the clock, tracing, counters and every connection."""

from __future__ import annotations

import logging
import time
from typing import TYPE_CHECKING, Final

from proxy.balance.registry import Registry
from proxy.bounds import Bounds
from proxy.connect.pool import Connector, Pool
from proxy.errors import Kind
from proxy.net import tcp_info
from proxy.net.addresses import Trust
from proxy.net.clock import Clock
from proxy.net.contexts import upstream_context
from proxy.route.change import Origin, whole
from proxy.route.counts import fetch
from proxy.route.spec import TableSpec
from proxy.route.stats import Ledger
from proxy.route.table import Table
from proxy.swap import Swap
from proxy.trace.allowance import Allowance
from proxy.trace.context import Propagation
from proxy.trace.encoder import Encoder
from proxy.trace.handover import Handover
from proxy.trace.record import Link
from proxy.trace.sampling import Sampler

if TYPE_CHECKING:
    import asyncio
    from collections.abc import Callable

    from proxy.accept.downstream import Downstream
    from proxy.accept.listener import Opening
    from proxy.balance.endpoint import Endpoint
    from proxy.exchange import Exchange
    from proxy.request import Request
    from proxy.settings import Settings
    from proxy.trace.access_log import AccessLog
    from proxy.trace.export import Exporter

_log = logging.getLogger(__name__)

_TOGETHER: Final = 32  # finished exchanges written in one go: some 0.1 ms of the loop, and 100 KiB held
GONE: Final = Kind.CLIENT_GONE.label


class Worker:
    """See the module. ``exporter`` and ``access_log`` None mean that nothing is traced, or logged."""

    def __init__(
        self,
        settings: Settings,
        loop: asyncio.AbstractEventLoop,
        exporter: Exporter | None,
        access_log: AccessLog | None,
    ) -> None:
        tracing = settings.tracing
        self.settings = settings
        self.limits = settings.limits
        self.bounds = Bounds(settings)
        self.timeouts = settings.timeouts
        self.clock = Clock(loop.time())
        self.trust = Trust(settings.trust)
        self.propagation = Propagation(tracing.propagators)
        self.sampler = Sampler(tracing.sampler, tracing.sampler_argument)
        self.untraced = frozenset(path.encode() for path in tracing.skip_paths)
        self.encoder = Encoder(tracing)
        self.exporter = exporter
        self.access_log = access_log
        self.handover = Handover(settings.wire.socket)
        self.allowance = Allowance(settings.wire.rate)  # of recorded requests that the wire is told of
        self.kernel = settings.wire.kernel == "always"  # whether all recorded requests have the kernel's account
        self.accounting = settings.wire.kernel != "never"  # whether those that the wire is told of have it
        self.watching = self.kernel  # whether recorded requests may have any of both
        self.ledger = Ledger()
        self.registry = Registry(settings.eject_after, settings.eject_time)
        self.connector = Connector(
            loop,
            self.clock,
            upstream_context(settings.upstream_ca or None, bool(settings.upstream_ca)),
            most=settings.upstream_connections,
            most_idle=settings.upstream_idle_connections,
            idle_timeout=settings.timeouts.upstream_idle,
            ports=settings.wire.ports,
        )
        self.pools: list[Pool] = []
        self.table = Table(TableSpec(0), {}, self.ledger.of)
        self.downstreams: set[Downstream] = set()
        self.ended: set[Downstream] = set()  # whose clients have ended their way while they wait for an answer
        self.openings: set[Opening] = set()
        self.connections = 0
        self.refused = 0
        self.handshake_failures = 0
        self.draining = False
        self.response_extra: Callable[[Request], bytes] | None = None
        if tracing.response_header or settings.via:
            self.response_extra = self._response_extra
        self.origin: Origin | None = None  # the trace of a generation of which no request has ended yet
        self.on_first: Callable[[Exchange], None] | None = None
        self._failures = 0
        self._finished: list[Exchange] = []

    def __repr__(self) -> str:
        return f"Worker({self.table!r}, {len(self.downstreams)} downstreams, {self.connector!r})"

    def apply(self, spec: TableSpec) -> None:
        """Route by another table from the next request on; raises `SettingsError` and keeps the old if it cannot."""
        change = whole(spec)
        swap = Swap(self, None, change)
        swap.take(change)
        swap.commit()

    def retire(self, endpoint: Endpoint) -> None:
        """No table names an endpoint any more: its idle connections close now, the others when they come back."""
        if isinstance(endpoint.pool, Pool):
            endpoint.pool.retire()

    def open_pool(self, endpoint: Endpoint) -> Pool:
        """The pool of an endpoint that is used for the first time."""
        tls = endpoint.scheme == "https"
        pool = Pool(self.connector, endpoint.host, endpoint.port, tls=tls, server_name=endpoint.server_name)
        endpoint.pool = pool
        if not endpoint.watchers:
            pool.retire()  # a request that was routed to it by an earlier table
        self.pools.append(pool)
        return pool

    def admit_connection(self, downstream: Downstream) -> bool:
        """Count a new client connection; False above the bound."""
        self.connections += 1
        if len(self.downstreams) >= self.limits.connections:
            self.refused += 1
            return False
        self.downstreams.add(downstream)
        return True

    @staticmethod
    def address_text(host: str) -> str:
        """A peer's address as it is logged: IPv4 also where it came over an IPv6 socket."""
        return host.removeprefix("::ffff:") if host.startswith("::ffff:") and "." in host else host

    def unrecorded_context(self, exchange: Exchange) -> bytes:
        """Context lines of a request that is not recorded.

        What came is passed unchanged, so that no id is ever sent that no span has (kong#11294). What brought none, or
        came from a stranger, gets a fresh context with the sampled flag off: nothing behind it starts a trace.
        """
        if exchange.remote:
            return self.propagation.passthrough(exchange.head.noted)
        return self.propagation.inject(exchange.trace_id, exchange.span_id, 0, b"")

    def record(self, exchange: Exchange) -> None:
        """Take a finished exchange: its span, metric sample and log record are written with those of the next few.

        A request's own code is met once per request, cold; a row of records in one loop costs half as much.
        """
        if exchange.tcp is not None:
            exchange.tcp = tcp_info.end(exchange.downstream, exchange.tcp)
        self._finished.append(exchange)
        if len(self._finished) >= _TOGETHER:
            self.settle()

    def settle(self) -> None:
        """Write what finished exchanges leave behind. Never raises: tracing takes nothing down."""
        finished, self._finished = self._finished, []
        unrouted, encoder = self.ledger.unrouted, self.encoder
        exporter, access_log, lag_us = self.exporter, self.access_log, self.clock.lag_us
        handover = self.handover if self.handover.listening else None
        allowance = self.allowance
        # Of many routes the memory of each is cold. Asked for together it comes together.
        for exchange in finished:
            route = exchange.route
            if route is not None:
                fetch(route.stats, route.span_parts)
        for exchange in finished:
            route = exchange.route
            error_type = exchange.error_type
            recorded = exchange.recorded
            end_ns = exchange.end_ns
            try:
                if self.origin is not None and route is not None:
                    self._first(exchange, self.origin)
                (unrouted if route is None else route.stats).observe(
                    exchange.status,
                    end_ns - exchange.start_ns,
                    exchange.self_ns,
                    error_type or (GONE if exchange.outcome == GONE else ""),
                    exchange.trace_id,
                    recorded,
                    end_ns,
                )
                if recorded and exporter is not None:
                    exchange.loop_lag_us = lag_us
                    exporter.record(encoder, exchange)
                    if handover is not None and exchange.watched:
                        handover.take(exchange)
                if access_log is not None and (route is None or route.actions is None or route.actions.logged):
                    access_log.offer(exchange, exchange.detail)
            except Exception:
                self._failures += 1
                if self._failures & (self._failures - 1) == 0:  # the 1st, 2nd, 4th, 8th ...
                    _log.exception("a span or log record could not be written (%d so far)", self._failures)
            if exchange.watched:
                allowance.ended()
            # An attempt points back here: cut the cycle, so that both are freed now and not by the collector.
            exchange.attempts = []
        if handover is not None:
            rest_ns = allowance.resting()
            if rest_ns:
                handover.rest(rest_ns)

    def _first(self, exchange: Exchange, origin: Origin) -> None:
        """Link the first request that a generation has served to the trace that it is, and tell of it."""
        if exchange.generation != self.table.generation:
            return  # an earlier one's
        self.origin = None
        exchange.link = Link(
            origin.trace_id, origin.span_id, origin.flags, generation=exchange.generation, more=exchange.link
        )
        if self.on_first is not None:
            self.on_first(exchange)

    def sweep(self, loop_time: float) -> None:
        """Once per `clock.PERIOD`: enforce deadlines, hand over spans, write the log."""
        self.clock.sweep(loop_time)
        for downstream in [each for each in self.downstreams if each.deadline <= loop_time]:
            _guard(downstream.overdue)
        for opening in [each for each in self.openings if each.deadline <= loop_time]:
            _guard(opening.overdue)
        for downstream in [each for each in self.ended if each.reset()]:
            _guard(downstream.abort)
        _guard(self.connector.sweep, loop_time)
        for pool in self.pools:
            if pool.waiting:
                _guard(pool.sweep, loop_time)
        self.pools = [pool for pool in self.pools if not pool.retired or pool.open or pool.waiting]
        self.settle()
        now_ns = time.time_ns()
        self.handover.busy = self.allowance.busy(now_ns)
        if self.handover.listening:
            # Here, and where many wait: nobody is in a hurry, and each datagram wakes the wire.
            self.handover.flush()
        listening = self.handover.look(loop_time)
        self.connector.divide(listening)
        self.watching = self.kernel or listening
        if listening:
            self.allowance.listen(now_ns)
        else:
            self.allowance.close()
        if self.exporter is not None:
            self.exporter.tick(loop_time)
        if self.access_log is not None:
            self.access_log.flush()

    def drain(self) -> None:
        """Finish: idle connections close now, busy ones after their exchange."""
        self.draining = True
        for downstream in list(self.downstreams):
            downstream.drain()

    def _response_extra(self, exchange: Request) -> bytes:
        lines = b""
        if self.settings.tracing.response_header:
            ids_text = f"{exchange.trace_id.hex()}-{exchange.span_id.hex()}-{exchange.flags & 0xFF:02x}"
            lines = f"traceresponse: 00-{ids_text}\r\n".encode("ascii")
        if self.settings.via:
            lines += b"Via: 1.1 spanway\r\n"
        return lines


def _guard(call: Callable[..., None], *arguments: float) -> None:
    """One connection's failure must not keep the sweep from the others."""
    try:
        call(*arguments)
    except Exception:
        _log.exception("%r failed", call)
