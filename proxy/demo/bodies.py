"""Reading JSON bodies, for the demo's services."""

from __future__ import annotations

import json
from typing import Any

from aiohttp import web


async def body_of(request: web.Request) -> dict[str, Any]:
    """The request's JSON object; anything else is answered with 400 (`web.HTTPBadRequest`)."""
    try:
        body = await request.json()
    except (json.JSONDecodeError, UnicodeDecodeError) as error:
        raise web.HTTPBadRequest(text="the body is not JSON") from error
    if not isinstance(body, dict):
        raise web.HTTPBadRequest(text="the body is not a JSON object")
    return body
