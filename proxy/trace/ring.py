"""The most recent batches, kept in memory within a bound of bytes: what /traces and the terminal read."""

from __future__ import annotations

from collections import deque
from itertools import islice
from typing import TYPE_CHECKING, Final

from proxy.trace.batch import size_of, whole

if TYPE_CHECKING:
    from proxy.trace.batch import Body

# What one kept batch costs beyond its content: a bytes object's header and its place in the deque, rounded up. Charged
# so that a flood of tiny batches cannot grow past the bound.
ITEM_COST: Final = 64


class Ring:
    """Encoded export requests, newest last; the oldest go first when ``limit`` bytes would be exceeded.

    Used by one thread. A limit of 0 keeps nothing. Bytes are shared with whoever else holds the batch, not copied.
    """

    __slots__ = ("_added", "_batches", "_limit", "_size")

    def __init__(self, limit: int) -> None:
        self._limit = limit
        self._batches: deque[tuple[Body, int]] = deque()
        self._size = 0
        self._added = 0

    @property
    def limit(self) -> int:
        """The bound, in bytes."""
        return self._limit

    @property
    def size(self) -> int:
        """What is kept now, in bytes, each batch charged with `ITEM_COST`."""
        return self._size

    def __len__(self) -> int:
        return len(self._batches)

    def add(self, batch: Body) -> bool:
        """Keep ``batch``; False if it alone is larger than the ring, and so is not kept (the others stay)."""
        cost = size_of(batch) + ITEM_COST
        if cost > self._limit:
            return False
        batches = self._batches
        size = self._size + cost
        while size > self._limit:
            size -= batches.popleft()[1]
        batches.append((batch, cost))
        self._size = size
        self._added += 1
        return True

    def since(self, cursor: int = 0) -> tuple[int, list[bytes]]:
        """The batches added after ``cursor`` that are still kept, oldest first, and the next cursor.

        A cursor is a number that an earlier call returned, 0 for everything. One from another ring's life (larger than
        anything given out here) counts as 0.
        """
        kept = len(self._batches)
        new = self._added - cursor if 0 <= cursor <= self._added else kept
        return self._added, [whole(batch) for batch, _ in islice(self._batches, max(kept - new, 0), None)]

    def __repr__(self) -> str:
        return f"Ring({len(self._batches)} batches, {self._size} of {self._limit} bytes)"
