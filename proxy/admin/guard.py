"""Who may talk to the admin listener, and how it says no.

It has no passwords: it is safe because it listens to loopback. Two holes are left then, both made by a browser on the
same machine. A page whose name is rebound to 127.0.0.1 could read it: so the Host must be a loopback name or address.
A page could post to it blindly: so a POST must not come from another site. No CORS field is ever sent.
"""

from __future__ import annotations

import json
import logging
from typing import TYPE_CHECKING, Final

from aiohttp import web

from proxy.trace.receive import is_loopback

if TYPE_CHECKING:
    from aiohttp.typedefs import Handler, Middleware

log = logging.getLogger(__name__)

# Everything here is data for programs or plain text; a browser must not guess otherwise, nor keep it.
SAFE_FIELDS: Final = {
    "X-Content-Type-Options": "nosniff",
    "Cache-Control": "no-store",
    "Content-Security-Policy": "default-src 'none'; frame-ancestors 'none'",
}


def host_of(field: str) -> str:
    """The host of a Host field value, without port and brackets; "" when it is malformed (RFC 9110 section 7.2)."""
    if field.startswith("["):
        host, bracket, port = field[1:].partition("]")
        return host if bracket and (not port or port[0] == ":") else ""
    host, _, port = field.partition(":")
    return host if port == "" or port.isdecimal() else ""


def refusal(status: int, message: str, **extra: object) -> web.Response:
    """An error as every other answer here is written: JSON, with what to do about it in words."""
    text = json.dumps({"error": message, **extra}, ensure_ascii=False) + "\n"
    return web.Response(status=status, text=text, content_type="application/json")


def guard(bound: str) -> Middleware:
    """The middleware for a listener bound to the address ``bound``: checks, safe fields, and errors as JSON."""
    loopback = is_loopback(bound)

    @web.middleware
    async def middleware(request: web.Request, handler: Handler) -> web.StreamResponse:
        try:
            response = _refused(request, bound if loopback else "") or await handler(request)
        except web.HTTPException as error:
            if error.status < 400:
                raise
            response = refusal(error.status, _sentence(request, error))
            if "Allow" in error.headers:
                response.headers["Allow"] = error.headers["Allow"]
        except Exception:
            log.exception("the admin listener failed at %s %s", request.method, request.path)
            response = refusal(500, "the admin listener failed; the proxy's log says how")
        if not response.prepared:
            response.headers.update(SAFE_FIELDS)
        return response

    return middleware


def _refused(request: web.Request, bound: str) -> web.Response | None:
    """``bound`` is "" on a listener that is open to others on purpose, where names cannot be known."""
    if bound:
        host = host_of(request.headers.get("Host", ""))
        if not is_loopback(host) and host != bound:
            return refusal(421, "this listener answers to localhost and loopback addresses only", host=host[:255])
    if request.method != "GET" and request.headers.get("Sec-Fetch-Site", "none") not in ("none", "same-origin"):
        return refusal(403, "requests from other sites are refused")
    return None


def _sentence(request: web.Request, error: web.HTTPException) -> str:
    match error.status:
        case 404:
            return f"there is nothing at {request.path[:200]}; / lists what there is"
        case 405:
            return f"{request.method} is not possible at {request.path[:200]}"
        case 413:
            return "the request body is too large"
        case _:
            return error.text or error.reason
