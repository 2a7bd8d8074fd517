"""A table on its way into a worker: prepared beside the one that serves, then put in its place in one step.

What is prepared is nobody's yet: requests go on by the table that serves, however long it takes and however it ends.
`Swap.commit` is one call between two callbacks of the loop. What stays (routes, trees of paths, backends, endpoints
with their connections, certificates) is shared by both tables, so that the cost is that of what differs.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from proxy.errors import SettingsError

if TYPE_CHECKING:
    from proxy.accept.certificates import Certificates
    from proxy.route.change import TableChange
    from proxy.route.stats import RouteStats
    from proxy.worker import Worker


class Swap:
    """The change of a worker's table to the generation that ``first`` leads to; `take` it and its other parts.

    Raises `SettingsError` for a change of another table than the one that is served.
    """

    __slots__ = (
        "_certificates",
        "_gone",
        "_hosts",
        "_origin",
        "_secrets",
        "_shown",
        "_whole",
        "_worker",
        "backends",
        "generation",
        "table",
    )

    def __init__(self, worker: Worker, certificates: Certificates | None, first: TableChange) -> None:
        served = worker.table.generation
        if first.base not in (0, served):
            raise SettingsError(f"a change of generation {first.base}, but {served} is served; the whole table is due")
        self._worker = worker
        self._whole: Final = not first.base
        self._certificates = certificates
        self._shown = None if certificates is None else certificates.draft()
        self._gone: list[RouteStats] = []
        self._hosts: set[str] = set()  # of a whole table
        self._secrets: set[str] = set()
        self._origin: Final = first.origin
        self.generation: Final = first.generation
        self.table: Final = worker.table.successor(first.generation)
        self.backends: Final = worker.registry.plan(whole=self._whole)

    def __repr__(self) -> str:
        return f"Swap({self._worker.table.generation} to {self.generation}, {self.backends!r})"

    def take(self, part: TableChange) -> None:
        """Prepare a part. Raises `SettingsError` if it cannot be served; then forget this swap."""
        self.backends.take(part.backends)
        self._gone += self.table.take(part, self.backends.get, self._worker.ledger.of)
        if self._shown is not None:
            self._shown.take(part.certificates)
        if self._whole:
            self._hosts.update(part.hosts)
            self._secrets.update(part.certificates)

    def commit(self) -> list[str]:
        """Serve the table from the next request on; returns what is wrong with its certificates, one line each."""
        worker = self._worker
        if self._whole:
            self._gone += self.table.drop(self.table.hosts - self._hosts)
            if self._shown is not None:
                self._shown.keep(self._secrets)
        worker.registry.commit(self.backends)
        worker.settle()  # what has finished still counts for the routes it took
        worker.table = self.table
        worker.origin = self._origin
        worker.ledger.forget(self._gone)
        for endpoint in worker.registry.retire():
            worker.retire(endpoint)
        if self._certificates is None or self._shown is None:
            return []
        return self._certificates.show(self._shown)
