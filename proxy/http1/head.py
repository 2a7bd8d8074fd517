"""The head of a message, taken apart."""

from __future__ import annotations

from typing import Final

from proxy.http1.fields import CONTEXT, FORWARDED

_FORWARDED: Final = frozenset(FORWARDED)
_CONTEXT: Final = frozenset(CONTEXT)
HEAD_END: Final = b"\r\n\r\n"


class RequestHead:
    """A request's head: ``fields`` pass on as they came, each line with its CRLF; ``noted`` is what the proxy reads
    (lower-case names).

    ``mark`` is where the target's "?" is, -1 without one. ``plain`` says that the target is a path that is in normal
    form as it stands: no escape, no ``//``, nothing that begins with a dot (`admit.target` for all others). ``claims``
    and ``context`` say whether any of `fields.FORWARDED` and of `fields.CONTEXT` is in ``noted``.
    """

    __slots__ = ("claims", "context", "fields", "mark", "method", "minor", "noted", "plain", "target")

    def __init__(self, method: bytes, target: bytes, minor: int, fields: bytes, noted: dict[bytes, bytes]) -> None:
        self.method = method
        self.target = target
        self.mark = mark = target.find(b"?")
        path = target if mark < 0 else target[:mark]
        self.plain = path[:1] == b"/" and b"%" not in path and b"//" not in path and b"/." not in path
        self.minor = minor
        self.fields = fields
        self.noted = noted
        self.claims = not _FORWARDED.isdisjoint(noted)
        self.context = not _CONTEXT.isdisjoint(noted)

    def __repr__(self) -> str:
        return f"RequestHead({self.method!r} HTTP/1.{self.minor}, {len(self.lines)} lines, noted {sorted(self.noted)})"

    @property
    def lines(self) -> list[bytes]:
        """``fields`` one by one, without their line ends."""
        return self.fields.split(b"\r\n")[:-1]


class ResponseHead:
    """A response's head; ``reason`` is the status line from the status on, for example ``b"200 OK"``; ``fields`` and
    ``noted`` as in a request's."""

    __slots__ = ("fields", "minor", "noted", "reason", "status")

    def __init__(self, status: int, reason: bytes, minor: int, fields: bytes, noted: dict[bytes, bytes]) -> None:
        self.status = status
        self.reason = reason
        self.minor = minor
        self.fields = fields
        self.noted = noted

    def __repr__(self) -> str:
        return f"ResponseHead({self.reason!r}, {len(self.lines)} lines, noted {sorted(self.noted)})"

    @property
    def lines(self) -> list[bytes]:
        """``fields`` one by one, without their line ends."""
        return self.fields.split(b"\r\n")[:-1]
