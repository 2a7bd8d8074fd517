"""What serves tables, as the control plane sees it; `supervisor.Supervisor` and `link.Rollout` are these."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Protocol

if TYPE_CHECKING:
    import asyncio

    from proxy.control.problem import Problem
    from proxy.route.change import TableChange
    from proxy.route.spec import TableSpec


class Arrival(Protocol):
    """A generation in one worker. Times are Unix nanoseconds, 0 for what has not happened."""

    index: int
    pid: int
    whole: bool  # the whole table was sent, not what differs
    sent_ns: int
    prepared_ns: int  # its answer has come: the table is ready beside the one that is served
    busy_ns: int  # duration: what preparing it cost the worker's loop
    served_ns: int  # by the worker's own clock reading


class Rolling(Protocol):
    """A generation on its way into the workers."""

    @property
    def began_ns(self) -> int:
        """When it was sent."""
        ...

    @property
    def arrivals(self) -> Sequence[Arrival]:
        """The workers that serve it."""
        ...

    @property
    def done(self) -> asyncio.Future[None]:
        """Done when every worker serves it, or a later one."""
        ...

    async def settled(self) -> None:
        """Wait until every worker that keeps up serves it."""
        ...


class Sink(Protocol):
    """What serves tables."""

    async def swap(self, table: TableSpec, change: TableChange, problems: Sequence[Problem]) -> Rolling:
        """Begin to serve a table, which ``change`` makes of the one before."""
        ...

    def report(self, problems: Sequence[Problem]) -> None:
        """Keep what is wrong, while the table stays."""
        ...
