"""Manifests into a running proxy: the first table, and every one after it as files change."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Final

from proxy.control.annotations import Options
from proxy.control.build import Choices
from proxy.control.generations import Generations, Update
from proxy.control.watch import INTERVAL, Watcher
from proxy.saying import say

if TYPE_CHECKING:
    from proxy.control.chronicle import Chronicle
    from proxy.control.problem import Problem
    from proxy.control.publish import Publisher
    from proxy.control.rolling import Sink
    from proxy.settings import Settings

MOST_TOLD: Final = 20  # problems on standard error at a time; /routes and `spanway check` have them all


def choices_of(settings: Settings) -> Choices:
    """What settings say about building a table."""
    return Choices(
        ingress_class=settings.ingress_class,
        defaults=Options(tries=settings.retry_tries),
        most_tries=settings.retry_tries,
        verify_upstreams=bool(settings.upstream_ca),
        default_backend=settings.default_backend,
        zone=settings.cluster.zone,
        https=bool(settings.https),
        default_certificate=str(settings.default_certificate or ""),
    )


class Feed:
    """Feeds a sink with the tables that ``settings.ingress`` describes, and says on standard error what is wrong."""

    __slots__ = ("_generations", "_interval", "_refused", "_say")

    def __init__(
        self,
        settings: Settings,
        sink: Sink,
        say: Callable[[str], None] = say,
        interval: float = INTERVAL,
        chronicle: Chronicle | None = None,
    ) -> None:
        """``interval`` is the seconds between two looks at the files."""
        choices = choices_of(settings)
        self._generations = Generations(settings.ingress, sink, settings.upstream, choices, chronicle=chronicle)
        self._say = say
        self._interval = interval
        self._refused = False  # whether errors kept the files as last read from being served

    def __repr__(self) -> str:
        return f"Feed({self._generations!r})"

    async def first(self) -> bool:
        """Read the files and serve their table; False if errors leave none, which are then said."""
        update = await self._generations.refresh()
        self._tell(update.problems)
        if update.table is None:
            self._say("no table can be built from these manifests; mend the errors above and start again")
            return False
        return True

    @property
    def publisher(self) -> Publisher:
        """What makes generations of the files."""
        return self._generations.publisher

    async def watch(self, _running: object = None) -> None:
        """Follow the files until cancelled (an `admin.source.Companion`)."""
        await Watcher(self._generations, self._interval).run(self._changed)

    async def _changed(self, update: Update) -> None:
        self._tell(update.problems)
        mended, self._refused = self._refused and not update.refused, update.refused
        if update.table is not None:
            routes = len(update.table.routes)
            self._say(f"generation {update.table.generation} is served: {routes} route{'s' * (routes != 1)}")
            return
        served = self._generations.table
        if update.refused and served is not None:
            self._say(f"the files have errors: generation {served.generation} stays")
        elif mended and served is not None:
            self._say(f"the files are good again: generation {served.generation} stays")

    def _tell(self, problems: Sequence[Problem]) -> None:
        # Errors first: they are why nothing changes.
        ordered = sorted(problems, key=lambda problem: problem.severity)
        for problem in ordered[:MOST_TOLD]:
            self._say(str(problem))
        if len(ordered) > MOST_TOLD:
            self._say(f"and {len(ordered) - MOST_TOLD} more; 'spanway check' lists them all")
