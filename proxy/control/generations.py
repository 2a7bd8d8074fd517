"""The table that manifest files describe, from one state of the files to the next.

**Errors keep the last good table.** Whatever an API server would have refused, and whatever cannot be read or cannot
mean anything (a value of an annotation, a certificate that an Ingress uses with another's key), is an error
(`control.problem.Problem`); while there is one, in any file, the table that was built before stays as a whole, so
that half a change is never served. Warnings change nothing: what is missing or not supported is left out, said, and
the rest served. At the start, where there is nothing to keep, errors leave no table.

A file that goes away takes its objects with it. A path from the command line that goes away is an error.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

import msgspec

from proxy.control.build import EVERYTHING, Choices, build
from proxy.control.certificates import CertificateReader
from proxy.control.manifests import Cache, load
from proxy.control.problem import Problem
from proxy.route.spec import TableSpec

if TYPE_CHECKING:
    from collections import Counter
    from collections.abc import Sequence
    from pathlib import Path

    from proxy.settings import Override


class Update(NamedTuple):
    """What one look at the files brought.

    ``table`` is the next generation, None where the one before stays: because nothing that matters has changed, or,
    with ``refused``, because of an error in ``problems``.
    """

    table: TableSpec | None
    problems: tuple[Problem, ...]
    refused: bool
    files: int
    others: Counter[str]  # objects of kinds that make no routes


class Generations:
    """Reads the same paths again and again; files that have not changed are not parsed again."""

    __slots__ = ("_cache", "_choices", "_generation", "_overrides", "_paths", "_reader", "problems", "table")

    def __init__(
        self,
        paths: Sequence[Path],
        overrides: Sequence[Override] = (),
        choices: Choices = EVERYTHING,
        generation: int = 0,
    ) -> None:
        """``generation`` is the last one given out; the first table gets the next."""
        self._paths = tuple(paths)
        self._overrides = tuple(overrides)
        self._choices = choices
        self._generation = generation
        self._cache: Cache = {}
        self._reader = CertificateReader()
        self.table: TableSpec | None = None  # the last good one
        self.problems: tuple[Problem, ...] = ()  # as of the last look

    def __repr__(self) -> str:
        paths = ", ".join(map(str, self._paths))
        return f"Generations({paths}: {self._generation} so far, {len(self.problems)} problems)"

    @property
    def paths(self) -> tuple[Path, ...]:
        """The files and directories it reads."""
        return self._paths

    def refresh(self) -> Update:
        """Look at the files now. Blocks while it reads and builds."""
        reading = load(self._paths, self._cache)
        built, found = build(reading.objects, self._overrides, self._generation + 1, self._choices, reader=self._reader)
        self.problems = tuple(sorted(reading.problems + found, key=lambda one: (one.file, one.line)))
        refused = any(problem.severity == "error" for problem in self.problems)
        table = None if refused or self._unchanged(built) else built
        if table is not None:
            self._generation += 1
            self.table = table
        return Update(table, self.problems, refused, reading.files, reading.others)

    def _unchanged(self, built: TableSpec) -> bool:
        return self.table is not None and msgspec.structs.replace(built, generation=self.table.generation) == self.table
