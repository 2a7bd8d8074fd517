"""A watch's byte stream into lines, in bounded memory.

A watch is one JSON value a line (API concepts, "Efficient detection of changes"). A line that is longer than the
bound is dropped up to its end and counted, and one that never ends costs no more than the bound.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Final

from proxy.settings import MIB

LONGEST: Final = 16 * MIB  # bytes; etcd takes 1.5 MiB of protobuf, whose JSON may be some times that


class Lines:
    """Feed it bytes, take lines."""

    __slots__ = ("_dropping", "_held", "_longest", "_parts", "dropped")

    def __init__(self, longest: int = LONGEST) -> None:
        """``longest`` is bytes."""
        self._longest = longest
        self._parts: list[bytes] = []  # the beginning of a line whose end has not come
        self._held = 0
        self._dropping = False
        self.dropped = 0  # lines that were too long

    def __repr__(self) -> str:
        return f"Lines({self._held} bytes held, {self.dropped} dropped)"

    def feed(self, data: bytes) -> Iterator[bytes]:
        """The lines that ``data`` completes, without their ends; empty ones are left out."""
        start = 0
        while (end := data.find(b"\n", start)) >= 0:
            line = self._whole(data[start:end])
            start = end + 1
            if line is not None and line.strip():
                yield line
        self._hold(data[start:])

    def _whole(self, last: bytes) -> bytes | None:
        """The line that ``last`` ends; None if it was too long."""
        if not self._parts and not self._dropping and len(last) <= self._longest:
            return last
        self._hold(last)
        whole = None if self._dropping else b"".join(self._parts)
        self._parts.clear()
        self._held = 0
        self._dropping = False
        return whole

    def _hold(self, data: bytes) -> None:
        if not data or self._dropping:
            return
        self._held += len(data)
        if self._held > self._longest:
            self._parts.clear()
            self._held = 0
            self._dropping = True
            self.dropped += 1
        else:
            self._parts.append(data)
