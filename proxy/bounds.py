"""The settings that every request meets, as plain numbers: compiled, each is a field of a struct."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from proxy.settings import Settings


class Bounds:
    """Copies of `settings.Limits` (bytes, counts), of `settings.Timeouts` (seconds) and of switches, by their names."""

    __slots__ = (
        "body",
        "chunk_extensions",
        "fields",
        "forwarded",
        "head",
        "idle",
        "pipelined",
        "request_line",
        "retry_tries",
        "send",
        "underscores",
        "via",
    )

    def __init__(self, settings: Settings) -> None:
        limits, timeouts = settings.limits, settings.timeouts
        self.request_line: Final = limits.request_line
        self.head: Final = limits.head
        self.fields: Final = limits.fields
        self.pipelined: Final = limits.pipelined
        self.chunk_extensions: Final = limits.chunk_extensions
        self.idle: Final = timeouts.idle
        self.body: Final = timeouts.body
        self.send: Final = timeouts.send
        self.retry_tries: Final = settings.retry_tries
        self.underscores: Final = settings.underscores
        self.forwarded: Final = settings.forwarded
        self.via: Final = settings.via

    def __repr__(self) -> str:
        return f"Bounds({', '.join(f'{name}={getattr(self, name)}' for name in self.__slots__)})"
