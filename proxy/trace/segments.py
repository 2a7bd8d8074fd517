"""The bytes of an open batch, as they come, in pieces of one size.

Compiled, ``segments.pyx`` beside it stands in its place. A batch of a megabyte is copied only once, while its spans are
in the processor's caches, and no block of memory is so large that the C library asks the kernel for fresh pages for it.
"""

from __future__ import annotations

from typing import Final

SIZE: Final = 120 * 1024
"""Bytes of a piece: below 128 KiB, from where on glibc maps each block anew (mallopt(3), M_MMAP_THRESHOLD)."""


class Segments:
    """What `add` was given since the last `take`, which gives it back in order."""

    __slots__ = ("_blobs", "size")

    def __init__(self) -> None:
        self._blobs: list[bytes] = []
        self.size = 0  # bytes

    def __repr__(self) -> str:
        return f"Segments({self.size} bytes)"

    def add(self, blob: bytes) -> None:
        """Append ``blob``."""
        self._blobs.append(blob)
        self.size += len(blob)

    def take(self) -> list[bytes]:
        """All of it, in pieces of `SIZE` but for the last; none if there is nothing."""
        whole = b"".join(self._blobs)
        self._blobs, self.size = [], 0
        return [whole[at : at + SIZE] for at in range(0, len(whole), SIZE)]
