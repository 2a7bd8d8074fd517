"""The admin listener of `spanway wire`: health, readiness, metrics, guarded as the proxy's own is."""

from __future__ import annotations

import json
import os
from collections.abc import Callable
from typing import Final

from aiohttp import web

from proxy import __version__
from proxy.admin.guard import guard
from proxy.errors import SettingsError
from proxy.settings import KIB, Address

PAGES: Final = (
    ("/healthz", "200 while the process lives"),
    ("/readyz", "200 while records are read and packets of any way can be, 503 with the reasons when not"),
    ("/metrics", "Prometheus text: records, joins, packets, spans"),
)
_BODY_LIMIT: Final = 16 * KIB  # nothing here takes a body


class Pages:
    """The listener at ``address``: `start`, then `stop`, on one event loop.

    ``reasons`` says why no traffic is joined now, ``broken`` why some is not, one sentence each; ``metrics`` gives the
    page and its type.
    """

    def __init__(
        self,
        address: Address,
        reasons: Callable[[], tuple[str, ...]],
        broken: Callable[[], tuple[str, ...]],
        metrics: Callable[[], tuple[bytes, str]],
    ) -> None:
        self._address: Final = address
        self._reasons: Final = reasons
        self._broken: Final = broken
        self._metrics: Final = metrics
        self._runner: web.AppRunner | None = None

    def __repr__(self) -> str:
        return f"Pages({self._address}, {'stopped' if self._runner is None else 'listening'})"

    async def start(self) -> Address:
        """Listen; the address with the actual port. Raises `SettingsError` where that is impossible."""
        app = web.Application(middlewares=[guard(self._address.host)], client_max_size=_BODY_LIMIT)
        app.router.add_get("/", self._index)
        app.router.add_get("/healthz", self._healthz)
        app.router.add_get("/readyz", self._readyz)
        app.router.add_get("/metrics", self._page)
        runner = web.AppRunner(app, access_log=None, shutdown_timeout=1.0)
        await runner.setup()
        try:
            await web.TCPSite(runner, self._address.host, self._address.port).start()
        except (OSError, UnicodeError) as error:
            await runner.cleanup()
            reason = os.strerror(error.errno) if isinstance(error, OSError) and error.errno else str(error)
            raise SettingsError(
                f"the admin listener cannot have {self._address}: {reason}. "
                "Choose another with --admin [HOST:]PORT, or --admin off."
            ) from error
        self._runner = runner
        return Address(self._address.host, runner.addresses[0][1])

    async def stop(self) -> None:
        """Close the listener and its connections."""
        if self._runner is not None:
            await self._runner.cleanup()
            self._runner = None

    async def _index(self, _: web.Request) -> web.Response:
        lines = (f"  {path:10} {text}" for path, text in PAGES)
        return web.Response(text="\n".join([f"spanway {__version__}, wire", "", *lines, ""]))

    async def _healthz(self, _: web.Request) -> web.Response:
        return web.Response(text="ok\n")

    async def _readyz(self, _: web.Request) -> web.Response:
        reasons = self._reasons()
        said = {"ready": not reasons, "reasons": reasons, "broken": self._broken()}
        text = json.dumps(said, ensure_ascii=False, indent=1) + "\n"
        return web.Response(status=503 if reasons else 200, text=text, content_type="application/json")

    async def _page(self, _: web.Request) -> web.Response:
        body, kind = self._metrics()
        return web.Response(body=body, headers={"Content-Type": kind})
