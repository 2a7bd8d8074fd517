"""What can go wrong between us and an API server, one class for each that somebody treats in a way of its own.

The texts are for people: they say what was asked for and what to do next. What the server sent is cut short, and
what we sent (tokens, objects) is never in them.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final

import msgspec

_LONGEST: Final = 300  # characters of a server's own words
_PATIENCE: Final = 120.0  # seconds; the longest Retry-After that is believed


class ApiFault(Exception):
    """Any of them. ``code`` is the HTTP status, 0 where there was no answer; ``what`` is verb and resource."""

    def __init__(self, what: str, message: str, code: int = 0) -> None:
        super().__init__(what, message, code)
        self.what: Final = what
        self.message: Final = message
        self.code: Final = code

    def __str__(self) -> str:
        status = f" ({self.code})" if self.code else ""
        return f"{self.what}: {self.message}{status}"


class Unreachable(ApiFault):
    """No answer: refused, reset, timed out, no name, a certificate that does not fit."""


class Unauthorized(ApiFault):
    """401: the token or client certificate is not accepted."""


class Forbidden(ApiFault):
    """403: the account may not do this; the message has verb and resource."""


class NotFound(ApiFault):
    """404."""


class Conflict(ApiFault):
    """409: the object is not as it was when it was read."""


class AlreadyExists(Conflict):
    """409, reason AlreadyExists: there is one of this name."""


class Gone(ApiFault):
    """410: the resourceVersion or continue token is older than what the server remembers."""


class TooMany(ApiFault):
    """429: ask again later, after ``retry_after`` seconds (0 if the server does not say)."""

    def __init__(self, what: str, message: str, retry_after: float = 0.0) -> None:
        super().__init__(what, message, 429)
        self.retry_after: Final = retry_after


class ServerFault(ApiFault):
    """5xx."""


class Garbled(ApiFault):
    """An answer that is not what the API promises: no JSON, too large, another shape."""


def refused(fault: ApiFault) -> bool:
    """Whether asking the same again is in vain: what was sent is not what the server takes."""
    return fault.code in (400, 405, 413, 415, 422)


class _Status(msgspec.Struct):
    """meta/v1 Status, as far as it is used."""

    message: str = ""
    reason: str = ""
    code: int = 0


_status = msgspec.json.Decoder(_Status)

_BY_CODE: Final[Mapping[int, type[ApiFault]]] = {
    401: Unauthorized,
    403: Forbidden,
    404: NotFound,
    409: Conflict,
    410: Gone,
}


def fault_of(what: str, code: int, body: bytes, retry_after: str = "") -> ApiFault:
    """The fault that an answer is, from its HTTP status and its body (a Status, if the API server itself wrote it).

    ``retry_after`` is the field's value: seconds; a date is not what API servers send, and counts as none.
    """
    status = _read(body)
    code = code or status.code or 500
    message = status.message or f"the API server answered {code}"
    message = message if len(message) <= _LONGEST else f"{message[: _LONGEST - 3]}..."
    if code == 429:
        return TooMany(what, message, min(float(retry_after), _PATIENCE) if retry_after.isdecimal() else 0.0)
    if code == 409 and status.reason == "AlreadyExists":
        return AlreadyExists(what, message, code)
    kind = _BY_CODE.get(code) or (ServerFault if code >= 500 else ApiFault)
    return kind(what, message, code)


def _read(body: bytes) -> _Status:
    try:
        return _status.decode(body)
    except (msgspec.DecodeError, UnicodeDecodeError):
        return _Status()  # a proxy's page, or nothing
