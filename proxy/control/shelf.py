"""Specs by name, in the order of their names, however they came: what makes a table the same whatever its history."""

from __future__ import annotations

from bisect import bisect_left, insort
from collections.abc import Iterator, Mapping
from typing import Generic, TypeVar

S = TypeVar("S")


class Shelf(Generic[S]):
    """A mapping whose order is that of its names. A change costs what it changes; reading it whole sorts nothing."""

    __slots__ = ("_names", "_specs", "_values")

    def __init__(self) -> None:
        self._specs: dict[str, S] = {}
        self._names: list[str] = []  # sorted
        self._values: list[S] | None = []  # in that order; None when it is to be made

    def __repr__(self) -> str:
        return f"Shelf({len(self._names)})"

    def __len__(self) -> int:
        return len(self._names)

    def get(self, name: str) -> S | None:
        """What has this name, None if nothing does."""
        return self._specs.get(name)

    def change(self, found: Mapping[str, S | None]) -> None:
        """Put these in, or in place of those of their names; None takes out what is there."""
        if not found:
            return
        self._values = None
        for name, spec in found.items():
            known = name in self._specs
            if spec is not None:
                self._specs[name] = spec
                if not known:
                    insort(self._names, name)
            elif known:
                del self._specs[name]
                del self._names[bisect_left(self._names, name)]

    def values(self) -> list[S]:
        """Everything, in the order of the names. Do not change it."""
        if self._values is None:
            specs = self._specs
            self._values = [specs[name] for name in self._names]
        return self._values

    def items(self) -> Iterator[tuple[str, S]]:
        """Names and specs, in order."""
        return zip(self._names, self.values(), strict=True)
