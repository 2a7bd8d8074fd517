"""What has become of the objects that carried a trace's context: `spanway apply --trace` asks until all are served.

An object is **in use** if the table of this controller has a part of it. Whatever else is seen (an Ingress of another
class, a Service that no Ingress names) is seen, and nothing more: a generation that was made meanwhile is not its own.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable, Iterable
from typing import TYPE_CHECKING, Final

from proxy.admin.control import Followed, Seen
from proxy.trace.w3c import parse_traceparent

if TYPE_CHECKING:
    from proxy.control.objects import Key
    from proxy.control.publish import Change

TRACES: Final = 256  # whose objects are remembered
OBJECTS: Final = 256  # of one trace
_GENERATIONS: Final = 32  # of one trace


class Trails:
    """Objects by the trace that they carried."""

    def __init__(self, uses: Callable[[str, Key], bool]) -> None:
        """``uses`` says whether the table has a part of an object, by kind and key."""
        self._uses = uses
        self._known: OrderedDict[str, Followed] = OrderedDict()

    def __repr__(self) -> str:
        return f"Trails({len(self._known)} traces)"

    def note(self, changes: Iterable[Change], generation: int, made: str) -> None:
        """``generation`` serves these; ``made`` is its trace (hex) if it came of them, else ""."""
        for change in changes:
            trace_id = _trace_of(change)
            if trace_id:
                before = self._known.pop(trace_id, Followed((), 0))
                self._known[trace_id] = self._noted(before, change, generation, made)
                while len(self._known) > TRACES:
                    self._known.popitem(last=False)

    def _noted(self, before: Followed, change: Change, generation: int, made: str) -> Followed:
        thing = change.kind, change.namespace, change.name, change.resource_version
        objects, idle = _without(before.objects, thing), _without(before.idle, thing)
        if change.verb == "deleted":
            return Followed(objects, before.generation, idle=idle, traces=before.traces)
        if not self._uses(change.kind, thing[1:3]):
            idle = (*idle, thing)[-OBJECTS:]
            return Followed(objects, before.generation, idle=idle, traces=before.traces)
        traces = tuple(dict.fromkeys((*before.traces, made) if made else before.traces))[-_GENERATIONS:]
        return Followed((*objects, thing)[-OBJECTS:], generation, idle=idle, traces=traces)

    def of(self, trace_id: str, generation: int) -> Followed | None:
        """What is known of a trace (hex); ``generation`` is the one that is served, 0 while nobody can say.

        What was idle may be in use since: a Service comes before the Ingress that names it.
        """
        found = self._known.get(trace_id)
        if found is None or not generation:
            return found
        used = [thing for thing in found.idle if self._uses(thing[0], thing[1:3])]
        if used:
            idle = tuple(thing for thing in found.idle if thing not in used)
            found = Followed((*found.objects, *used)[-OBJECTS:], generation, idle=idle, traces=found.traces)
            self._known[trace_id] = found
        return found


def _without(things: tuple[Seen, ...], thing: Seen) -> tuple[Seen, ...]:
    return tuple(one for one in things if one[:3] != thing[:3])


def _trace_of(change: Change) -> str:
    link = parse_traceparent(change.traceparent.encode("utf-8", "replace")) if change.traceparent else None
    return "" if link is None else link[0].hex()
