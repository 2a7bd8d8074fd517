"""The API server by HTTP: pages of lists, lines of watches, and the few writes. Bytes in, bytes out.

`kubernetes_asyncio` brings the connection, TLS and the log-in; its generated models, which cost more than all the
rest, are not used. What goes wrong comes as an `ApiFault`.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncGenerator, AsyncIterator, Mapping
from contextlib import aclosing, asynccontextmanager, nullcontext
from typing import TYPE_CHECKING, Any, Final

import aiohttp

from proxy import __version__
from proxy.control.cluster.faults import ApiFault, Garbled, Unauthorized, Unreachable, fault_of
from proxy.control.cluster.lines import Lines
from proxy.control.cluster.spans import untraced
from proxy.errors import SettingsError
from proxy.settings import MIB

if TYPE_CHECKING:
    from kubernetes_asyncio.client.rest import RESTClientObject

    from proxy.control.cluster.access import Access

CONNECT: Final = 10.0  # seconds for TCP and TLS
CALL: Final = 30.0  # seconds for a whole call, or for the head of a watch's answer
PAGE: Final = 64 * MIB  # bytes of one page of a list, unpacked
ANSWER: Final = 4 * MIB  # bytes of any other answer
AGAIN: Final = 10.0  # seconds between two readings of the log-in because of 401
_STATUS: Final = 64 * 1024  # bytes of a Status that are read
_TURN: Final = 64  # lines of a storm that are handled before others have their turn

AGENT: Final = f"spanway/{__version__} (linux) kubernetes_asyncio"
MERGE_PATCH: Final = "application/merge-patch+json"  # RFC 7396
JSON: Final = "application/json"


class TooLarge(Garbled):
    """An answer beyond its bound."""


class Client:
    """One per controller; `open` before use, `close` after."""

    def __init__(self, access: Access, trace: aiohttp.TraceConfig | None = None) -> None:
        """``trace`` makes a span of each call, and gives it ``traceparent``."""
        self.access: Final = access
        self._trace: Final = trace
        self._rest: RESTClientObject | None = None
        self._opened_at = 0.0
        self._opening = asyncio.Lock()

    def __repr__(self) -> str:
        return f"Client({self.access.server or 'closed'}, {self.access!r})"

    async def open(self) -> None:
        """Read the access. Raises `SettingsError`."""
        rest = await self.access.open()
        if self._trace is not None:
            session: aiohttp.ClientSession = rest.pool_manager
            self._trace.freeze()
            session.trace_configs.append(self._trace)
        before, self._rest = self._rest, rest
        self._opened_at = time.monotonic()
        if before is not None:
            await before.close()

    async def close(self) -> None:
        """End every connection."""
        rest, self._rest = self._rest, None
        if rest is not None:
            await rest.close()

    async def get(self, path: str, *, quiet: bool = False) -> bytes:
        """One object. Raises `ApiFault`. A ``quiet`` call is no span: for what is asked every other second."""
        async with self._call("GET", path, None, "get", quiet=quiet) as response:
            return await _body(f"get {path}", response, ANSWER)

    async def page(self, path: str, query: Mapping[str, str], *, quiet: bool = False) -> bytes:
        """One page of a list."""
        async with self._call("GET", path, query, "list", quiet=quiet) as response:
            return await _body(f"list {path}", response, PAGE)

    async def send(self, method: str, path: str, document: Any, form: str = JSON, *, quiet: bool = False) -> bytes:
        """POST, PUT or PATCH a document (plain JSON values); the body of the answer."""
        async with self._call(method, path, None, document=document, form=form, quiet=quiet) as response:
            return await _body(f"{method} {path}", response, ANSWER)

    @asynccontextmanager
    async def watch(
        self, path: str, query: Mapping[str, str], silence: float, lines: Lines
    ) -> AsyncIterator[AsyncIterator[bytes]]:
        """A watch that the server has begun: its lines as they come, until the server ends it.

        Raises `ApiFault`: `Unreachable` also after ``silence`` seconds without a whole line.
        """
        what = f"watch {path}"
        async with (
            self._call("GET", path, {**query, "watch": "1"}, "watch") as response,
            aclosing(_lines(what, response, silence, lines)) as stream,
        ):
            yield stream

    @asynccontextmanager
    async def _call(
        self,
        method: str,
        path: str,
        query: Mapping[str, str] | None,
        verb: str = "",
        document: Any = None,
        form: str = JSON,
        quiet: bool = False,
    ) -> AsyncIterator[aiohttp.ClientResponse]:
        """A call's answer, if it is a success."""
        what = f"{verb or method} {path}"
        # A watch has no end of its own; everything else is over in time.
        timeout = aiohttp.ClientTimeout(total=None if verb == "watch" else CALL, sock_connect=CONNECT)
        try:
            headers = {
                "Accept": JSON,
                "Content-Type": form,
                "User-Agent": AGENT,  # its first word becomes the manager in managedFields
                **await self.access.headers(),
            }
            rest = self._rest  # only now: it may have been opened anew meanwhile
            if rest is None:
                raise Unreachable(what, "the client is closed")
            async with asyncio.timeout(CALL):
                with untraced() if quiet and self._trace is not None else nullcontext():
                    response: aiohttp.ClientResponse = await rest.request(
                        method,
                        f"{self.access.server}{path}",
                        query_params=dict(query) if query else None,
                        headers=headers,
                        body=document,
                        _preload_content=False,
                        _request_timeout=timeout,
                    )
        except TimeoutError:
            raise Unreachable(what, f"no answer within {CALL:g} s") from None
        except aiohttp.ClientSSLError as problem:
            await self._log_in_again()  # the cluster's authority may be another
            raise Unreachable(what, _said(problem)) from None
        except (aiohttp.ClientError, OSError, ValueError) as problem:
            raise Unreachable(what, _said(problem)) from None
        except SettingsError as problem:
            raise Unreachable(what, str(problem)) from None
        try:
            if response.status >= 300:
                fault = await _fault(what, response)
                if isinstance(fault, Unauthorized):
                    await self._log_in_again()
                raise fault
            yield response
        finally:
            _leave(response)

    async def _log_in_again(self) -> None:
        """Tokens and certificates may have been renewed: read them, but not in a hurry."""
        async with self._opening:
            if time.monotonic() - self._opened_at >= AGAIN:
                try:
                    await self.open()
                except SettingsError:
                    self._opened_at = time.monotonic()  # half-written; the 401 is what is told


async def _lines(
    what: str, response: aiohttp.ClientResponse, silence: float, lines: Lines
) -> AsyncGenerator[bytes, None]:
    taken, heard = 0, time.monotonic()
    while True:
        try:
            async with asyncio.timeout(max(heard + silence - time.monotonic(), 0.0)):
                data = await response.content.readany()
        except TimeoutError:
            raise Unreachable(what, f"nothing came for {silence:g} s") from None
        except aiohttp.ClientError as problem:
            raise Unreachable(what, _said(problem)) from None
        if not data:
            return
        before = taken
        for line in lines.feed(data):
            yield line
            taken += 1
            if taken % _TURN == 0:
                await asyncio.sleep(0)
        if taken != before:
            heard = time.monotonic()
        elif time.monotonic() - heard >= silence:
            raise Unreachable(what, f"no line has ended for {silence:g} s")


def _leave(response: aiohttp.ClientResponse) -> None:
    """Give the connection back; in the middle of a body, end it without waiting for the server to agree (TLS)."""
    if response.content.at_eof():
        response.release()
        return
    connection = response.connection
    if connection is not None and connection.transport is not None:
        connection.transport.abort()
    response.close()


async def _fault(what: str, response: aiohttp.ClientResponse) -> ApiFault:
    try:
        body = await _body(what, response, _STATUS)
    except ApiFault:
        body = b""
    return fault_of(what, response.status, body, response.headers.get("Retry-After", ""))


async def _body(what: str, response: aiohttp.ClientResponse, most: int) -> bytes:
    parts: list[bytes] = []
    size = 0
    try:
        async for part in response.content.iter_any():
            size += len(part)
            if size > most:
                raise TooLarge(what, f"the answer is larger than {most} bytes")
            parts.append(part)
    except TimeoutError:
        raise Unreachable(what, f"the answer was not whole within {CALL:g} s") from None
    except aiohttp.ClientError as problem:
        raise Unreachable(what, _said(problem)) from None
    return b"".join(parts)


def _said(problem: Exception) -> str:
    """An exception's words; its kind where it has none (a timeout, a reset)."""
    return str(problem) or type(problem).__name__
