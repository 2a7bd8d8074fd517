"""Manifest files as the source of a store of objects, from one state of the files to the next.

**Errors keep the last good table.** Whatever an API server would have refused, and whatever cannot be read or cannot
mean anything (a value of an annotation, a certificate that an Ingress uses with another's key), is an error
(`control.problem.Problem`); while there is one, in any file, the table that was built before stays as a whole, so
that half a change is never served. Warnings change nothing: what is missing or not supported is left out, said, and
the rest served. At the start, where there is nothing to keep, errors leave no table.

A file that goes away takes its objects with it. A path from the command line that goes away is an error.
"""

from __future__ import annotations

import asyncio
import time
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

from proxy.control.build import EVERYTHING, Choices
from proxy.control.manifests import Cache, load
from proxy.control.objects import TRACEPARENT_ANNOTATION
from proxy.control.publish import Change, Publisher, Verb
from proxy.control.store import Objects

if TYPE_CHECKING:
    from collections import Counter
    from collections.abc import Sequence

    from proxy.control.chronicle import Chronicle
    from proxy.control.problem import Problem
    from proxy.control.rolling import Sink
    from proxy.route.spec import TableSpec
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

    __slots__ = ("_cache", "_objects", "_paths", "publisher")

    def __init__(
        self,
        paths: Sequence[Path],
        sink: Sink,
        overrides: Sequence[Override] = (),
        choices: Choices = EVERYTHING,
        generation: int = 0,
        chronicle: Chronicle | None = None,
    ) -> None:
        """``generation`` is the last one given out; the first table gets the next."""
        self._paths = tuple(paths)
        self._cache: Cache = {}
        self._objects = Objects()
        self.publisher = Publisher(
            self._objects, sink, overrides, choices, strict=True, chronicle=chronicle, generation=generation
        )

    def __repr__(self) -> str:
        paths = ", ".join(map(str, self._paths))
        return f"Generations({paths}: {self.publisher.generation} so far, {len(self.problems)} problems)"

    @property
    def paths(self) -> tuple[Path, ...]:
        """The files and directories it reads."""
        return self._paths

    @property
    def table(self) -> TableSpec | None:
        """The last good one."""
        return self.publisher.table

    @property
    def problems(self) -> tuple[Problem, ...]:
        """As of the last look."""
        return self.publisher.problems

    async def refresh(self) -> Update:
        """Look at the files now, and have what has changed served."""
        publisher = self.publisher
        before = publisher.table
        reading = await asyncio.to_thread(load, self._paths, self._cache)
        received = time.time_ns()
        for verb, kind, namespace, name in self._objects.become(reading.objects):
            publisher.changed(self._change("listed" if before is None else verb, kind, namespace, name, received))
        publisher.noted = tuple(reading.problems)
        await publisher.synced()
        table = publisher.table if publisher.table is not before else None
        return Update(table, publisher.problems, publisher.refused, reading.files, reading.others)

    def _change(self, verb: Verb, kind: str, namespace: str, name: str, received: int) -> Change:
        """An object that differs from what it was; how old that is, is told by its file."""
        key = namespace, name
        item = self._objects.get(kind, key)
        known = self._cache.get(Path(self._objects.place(kind, key).file))
        return Change(
            kind=kind,
            namespace=namespace,
            name=name,
            resource_version="" if item is None else item.metadata.resource_version,
            verb=verb,
            received_ns=received,
            lag_ns=-1 if item is None or known is None else max(received - known[0].modified, 0),
            lag_source="" if item is None or known is None else "mtime",
            traceparent="" if item is None else item.metadata.annotations.get(TRACEPARENT_ANNOTATION, ""),
        )
