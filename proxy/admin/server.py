"""The admin listener: health, readiness, metrics, routes, recent traces, and the receiver of applications' spans."""

from __future__ import annotations

import asyncio
import json
import os
import sys
from collections.abc import Callable, Sequence
from typing import Any, Final, TypeVar

import msgspec
from aiohttp import web

from proxy import __version__
from proxy.admin import metrics, views
from proxy.admin.departed import Departed
from proxy.admin.guard import guard, refusal
from proxy.admin.source import Source
from proxy.errors import SettingsError
from proxy.settings import MIB, Address
from proxy.trace.receive import PATH, Receiver
from proxy.trace.ring import Ring
from proxy.trace.tree import TraceSummary, assemble, matches, summaries, summary_document, trace_document
from proxy.trace.view import decode

T = TypeVar("T")

TRACES: Final = 50  # summaries without ?limit
MOST_TRACES: Final = 1000
SHORTEST_PREFIX: Final = 4  # hex digits of a trace id
AT_ONCE: Final = 2  # pages made in threads at a time: they compete with the supervisor for the interpreter
KEEP_ALIVE_S: Final = 30.0
BODY_LIMIT: Final = 1 * MIB  # of requests other than the receiver's, which has its own limits: none takes a body

PAGES: Final = (
    ("/healthz", "200 while the process lives"),
    ("/readyz", "200 when traffic may come, 503 with the reasons when not"),
    ("/metrics", "Prometheus text, or OpenMetrics with trace ids as exemplars when Accept asks for it"),
    ("/routes", "the table: routes, backends, endpoints and their health, problems of the configuration"),
    ("/traces", "recent traces, newest first; ?limit=50&service=NAME&min_ms=100&error=1"),
    ("/traces/ID", "one trace as a tree; the first digits of its id are enough"),
    ("/followed/TRACE", "what has become of the objects that were applied in a trace: 'spanway apply --trace' asks"),
    (f"{PATH} (POST)", "OTLP/HTTP: where applications on this machine may send their spans"),
)


class Admin:
    """The admin listener of ``source`` at ``address``: ``start``, then ``stop``, on one event loop.

    Spans that applications send go to ``store``; None: none are taken.
    """

    def __init__(self, source: Source, address: Address, store: Ring | None = None) -> None:
        self._source: Final = source
        self._address: Final = address
        self._receiver: Final = None if store is None else Receiver(store)
        self._departed: Final = Departed()
        self._places: Final = asyncio.Semaphore(AT_ONCE)
        self._runner: web.AppRunner | None = None

    def __repr__(self) -> str:
        return f"Admin({self._address}, {'stopped' if self._runner is None else 'listening'}, {self._receiver!r})"

    async def start(self) -> Address:
        """Listen; the address with the actual port. Raises `SettingsError` where that is impossible."""
        address = self._address
        runner = web.AppRunner(
            self.application(), access_log=None, keepalive_timeout=KEEP_ALIVE_S, shutdown_timeout=1.0
        )
        await runner.setup()
        try:
            await web.TCPSite(runner, address.host, address.port).start()
        except (OSError, UnicodeError) as error:
            await runner.cleanup()
            reason = os.strerror(error.errno) if isinstance(error, OSError) and error.errno else str(error)
            raise SettingsError(
                f"the admin listener cannot have {address}: {reason}. "
                "Choose another with --admin [HOST:]PORT, or --admin off."
            ) from error
        self._runner = runner
        return Address(address.host, runner.addresses[0][1])

    async def stop(self) -> None:
        """Close the listener and its connections."""
        if self._runner is not None:
            await self._runner.cleanup()
            self._runner = None

    def application(self) -> web.Application:
        """The pages, guarded as befits the address."""
        app = web.Application(middlewares=[guard(self._address.host)], client_max_size=BODY_LIMIT)
        app.router.add_get("/", self.index)
        app.router.add_get("/healthz", self.healthz)
        app.router.add_get("/readyz", self.readyz)
        app.router.add_get("/metrics", self.metrics)
        app.router.add_get("/routes", self.routes)
        app.router.add_get("/traces", self.traces)
        app.router.add_get("/traces/{id}", self.trace)
        app.router.add_get("/followed/{id}", self.followed)
        if self._receiver is not None:
            app.router.add_post(PATH, self._receiver.receive)
        return app

    async def index(self, _: web.Request) -> web.Response:
        """What there is, one line each."""
        lines = [f"  {path:18} {text}" for path, text in PAGES if self._receiver is not None or PATH not in path]
        return web.Response(text="\n".join([f"spanway {__version__}, admin", "", *lines, ""]))

    async def healthz(self, _: web.Request) -> web.Response:
        """200: the supervisor's loop answers."""
        return web.Response(text="ok\n")

    async def readyz(self, _: web.Request) -> web.Response:
        """200 or 503, and why."""
        readiness = self._source.readiness()
        return _json({"ready": readiness.ready, "reasons": readiness.reasons}, 200 if readiness.ready else 503)

    async def metrics(self, request: web.Request) -> web.Response:
        """The counters of all workers."""
        samples = self._departed.complete(await self._source.samples())
        source = self._source
        moment = metrics.Moment(
            samples,
            source.exits(),
            source.table(),
            source.problems(),
            source.readiness().ready,
            source.cluster(),
            source.control(),
        )
        body, content_type = await self._made(lambda: metrics.expose(moment, request.headers.get("Accept", "")))
        # aiohttp would put its own charset into `content_type`; the formats define theirs.
        return web.Response(body=body, headers={"Content-Type": content_type})

    async def routes(self, _: web.Request) -> web.Response:
        """The table and its health."""
        samples, table, problems = await self._source.samples(), self._source.table(), self._source.problems()
        return await self._page(lambda: views.routes(table, samples, problems))

    async def traces(self, request: web.Request) -> web.Response:
        """Summaries of recent traces."""
        try:
            wanted = _Wanted(request)
        except ValueError as error:
            return refusal(400, str(error))
        batches = await self._source.batches()
        return await self._page(lambda: wanted.page(summaries(batches, sys.maxsize)))

    async def trace(self, request: web.Request) -> web.Response:
        """One trace, by its id or the beginning of it."""
        prefix = request.match_info["id"].strip().lower()
        if not (SHORTEST_PREFIX <= len(prefix) <= 32) or not set(prefix) <= set("0123456789abcdef"):
            return refusal(
                400, f"a trace id is 32 hexadecimal digits; {SHORTEST_PREFIX} or more of its first are enough"
            )
        batches = await self._source.batches()
        found = await self._made(lambda: matches(batches, prefix))
        if not found:
            return refusal(
                404,
                f"no recent trace begins with {prefix}; only the newest are kept in memory, /traces lists them, "
                "and one that was not recorded (sampled) is nowhere",
            )
        if len(found) > 1:
            return refusal(409, f"{len(found)} traces begin with {prefix}; give more digits", traces=found[:20])
        return await self._page(lambda: trace_document(assemble(decode(batches, found[0]))[0]))

    async def followed(self, request: web.Request) -> web.Response:
        """The generations that objects of a trace have made."""
        found = self._source.followed(request.match_info["id"].strip().lower())
        if found is None:
            return refusal(404, "no object that carries this trace has been taken in lately")
        return _json(msgspec.to_builtins(found))

    async def _made(self, make: Callable[[], T]) -> T:
        async with self._places:
            return await asyncio.to_thread(make)

    async def _page(self, make: Callable[[], Any]) -> web.Response:
        return web.Response(text=await self._made(lambda: _text(make())), content_type="application/json")


class _Wanted:
    """The query of /traces. Raises ValueError, whose text says what is wrong with it."""

    def __init__(self, request: web.Request) -> None:
        query = request.query
        if unknown := sorted(set(query) - {"limit", "service", "min_ms", "error"}):
            raise ValueError(f"/traces knows limit, service, min_ms and error, not {unknown[0][:40]!r}")
        self.service: Final = query.get("service", "")
        self.least_ns: Final = _number(query.get("min_ms", "0"), "min_ms") * 1_000_000
        self.limit: Final = min(int(_number(query.get("limit", str(TRACES)), "limit")), MOST_TRACES)
        if query.get("error", "0") not in {"0", "1"}:
            raise ValueError("error is 1 for failed traces only, or 0")
        self.errors: Final = query.get("error") == "1"

    def page(self, traces: Sequence[TraceSummary]) -> dict[str, Any]:
        """The wanted ones, and of how many."""
        wanted = [trace for trace in traces if self._wants(trace)]
        shown = [summary_document(trace) for trace in wanted[: self.limit]]
        return {"traces": shown, "matching": len(wanted), "kept": len(traces)}

    def _wants(self, trace: TraceSummary) -> bool:
        return (
            (not self.service or self.service in trace.services)
            and trace.duration_ns >= self.least_ns
            and (not self.errors or trace.errors > 0)
        )


def _number(text: str, name: str) -> float:
    try:
        number = float(text)
    except ValueError:
        number = -1.0
    if not 0 <= number < 1e12:  # also what is no number at all
        raise ValueError(f"{name} is a number from 0 on, not {text[:40]!r}")
    return number


def _json(document: Any, status: int = 200) -> web.Response:
    return web.Response(status=status, text=_text(document), content_type="application/json")


def _text(document: Any) -> str:
    return json.dumps(document, ensure_ascii=False, indent=1) + "\n"
