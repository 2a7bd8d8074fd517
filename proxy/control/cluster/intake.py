"""From what the API server sends into the store of objects, and word of each change to whoever builds tables.

An object that cannot be used (it does not decode, or says what no API server of ours would have let pass) is a
problem; what was known of it before stays, as a table with an error in its files stays.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Callable
from itertools import islice
from typing import TYPE_CHECKING, Final, Literal, NamedTuple

from proxy.control.cluster.lag import TRIGGER, Lag, lag_of
from proxy.control.cluster.wire import Unreadable, head_of, object_of
from proxy.control.objects import EndpointSlice, Key, Place
from proxy.control.problem import Problem, Subject
from proxy.control.publish import Change
from proxy.control.validate import check

if TYPE_CHECKING:
    import msgspec

    from proxy.control.cluster.counters import Pulse
    from proxy.control.cluster.wire import Head
    from proxy.control.objects import Object
    from proxy.control.store import Objects

_log = logging.getLogger(__name__)

Verb = Literal["added", "modified", "deleted", "listed"]
Changed = Callable[[Change], None]
"""Called after the store has the change."""
Look = Callable[[Key, "bytes | msgspec.Raw | None"], None]
"""Called with each object as it came, None for one that is gone: for what the store's types leave out."""


class Owner(NamedTuple):
    """An object that an Event is about, as far as its kind, namespace and name do not say it."""

    uid: str
    resource_version: str


_MOST_TOLD: Final = 100  # unusable objects of a scope that are told one by one


class Intake:
    """The objects of one scope (a kind, maybe of one namespace, maybe one object)."""

    def __init__(
        self,
        kind: str,
        objects: Objects,
        changed: Changed,
        pulse: Pulse,
        look: Look | None = None,
        refused: Callable[[], None] | None = None,
        ours: Callable[[Object], bool] | None = None,
    ) -> None:
        """``refused`` is called when `problems` changes; ``ours`` says whose mistakes are our business."""
        self.kind: Final = kind
        self._objects = objects
        self._changed = changed
        self._pulse = pulse
        self._look = look
        self._refused = refused
        self._ours = ours
        self._known: dict[Key, str] = {}  # resourceVersion of everything the API server has here
        self._unusable: dict[Key, tuple[tuple[Problem, ...], Object | None]] = {}
        self._owners: dict[Key, Owner] = {}  # of those
        self._listed: set[Key] = set()  # of the list that is under way
        self._forgotten = False

    def __repr__(self) -> str:
        return f"Intake({self.kind}, {len(self._known)} objects, {len(self._unusable)} unusable)"

    def knows(self, key: Key) -> bool:
        """Whether the API server has an object of this name, as far as was heard."""
        return key in self._known

    def owner(self, key: Key) -> Owner | None:
        """An object that cannot be used, for an Event on it."""
        return self._owners.get(key)

    @property
    def problems(self) -> list[Problem]:
        """What is wrong with the objects that cannot be used."""
        # Whose they are is asked now: the class that an Ingress names may have come after it.
        mine = (
            found for found, item in self._unusable.values() if item is None or self._ours is None or self._ours(item)
        )
        return [problem for found in islice(mine, _MOST_TOLD) for problem in found]

    # A list: begin, one or more pages, end. What is gone leaves only when the whole list is in.

    def begin(self) -> None:
        """A list begins."""
        self._restore(("", ""))
        self._listed = set()

    def page(self, items: tuple[msgspec.Raw, ...]) -> None:
        """Some of its objects."""
        for raw in items:
            head = self.take("listed", raw)
            if head is not None:
                self._listed.add(head.key)

    def end(self, version: str) -> None:
        """The list is whole, as of ``version``: what it does not have is gone."""
        for key in [key for key in self._known if key not in self._listed]:
            self._remove(key, version, time.time_ns())
        self._listed = set()

    def forget(self) -> None:
        """Nobody asks for these objects any more; an answer that is still on its way is ignored."""
        self._forgotten = True
        for key in list(self._known):
            self._remove(key, "", time.time_ns())

    # An event.

    def take(self, verb: Verb, raw: bytes | msgspec.Raw, received: int = 0) -> Head | None:
        """An object as it now is (with "deleted": as it was); its head, None if not even that can be read.

        ``received`` is when its bytes had been read (Unix ns), 0 for now.
        """
        received = received or time.time_ns()
        try:
            head = head_of(raw)
        except Unreadable as problem:
            self._refuse(("", ""), Subject(self.kind, "", "", Place()), problem)
            return None
        key = head.key
        if self._forgotten:
            return head
        if verb == "deleted":
            self._remove(key, head.resource_version, received, head)
        elif self._known.get(key) != head.resource_version or not head.resource_version:
            self._known[key] = head.resource_version
            self._put(verb, key, head, raw, received)
        return head

    def _put(self, verb: Verb, key: Key, head: Head, raw: bytes | msgspec.Raw, received: int) -> None:
        subject = Subject(self.kind, *key, Place())
        try:
            item = object_of(self.kind, raw)
            check(item, subject)
        except Unreadable as problem:
            self._refuse(key, subject, problem, head)
            return
        except Exception as problem:  # a mistake of ours must not end the watch
            _log.exception("%s %s/%s", self.kind, *key)
            self._refuse(key, subject, Unreadable(f"could not be taken in ({type(problem).__name__})"), head)
            return
        if self._look is not None:
            self._look(key, raw)
        if subject.broken:
            self._set_aside(key, tuple(subject.problems), head, item)
            return
        self._restore(key)
        lag = lag_of(verb, head, received, self._trigger(key))
        if self._objects.put(item):
            self._tell(verb, key, head.resource_version, received, lag, head.traceparent)

    def _trigger(self, key: Key) -> str:
        before = self._objects.slices.get(key) if self.kind == EndpointSlice.__name__ else None
        return before.metadata.annotations.get(TRIGGER, "") if before is not None else ""

    def _remove(self, key: Key, version: str, received: int, head: Head | None = None) -> None:
        if self._known.pop(key, None) is None:
            return
        self._restore(key)
        if self._look is not None:
            self._look(key, None)
        lag = Lag() if head is None else lag_of("deleted", head, received)
        if self._objects.remove(self.kind, key):
            self._tell("deleted", key, version, received, lag, "" if head is None else head.traceparent)

    def _refuse(self, key: Key, subject: Subject, problem: Unreadable, head: Head | None = None) -> None:
        subject.error(problem.field, problem.message, problem.hint or "what was known of it before stays in use")
        self._set_aside(key, tuple(subject.problems), head)

    def _set_aside(
        self, key: Key, problems: tuple[Problem, ...], head: Head | None, item: Object | None = None
    ) -> None:
        self._unusable[key] = problems, item if self._ours is not None else None
        if head is not None:
            self._owners[key] = Owner(head.uid, head.resource_version)
        self._count()

    def _restore(self, key: Key) -> None:
        if self._unusable.pop(key, None) is not None:
            self._owners.pop(key, None)
            self._count()

    def _count(self) -> None:
        self._pulse.unusable = len(self._unusable)
        if self._refused is not None:
            self._refused()

    def _tell(self, verb: Verb, key: Key, version: str, received: int, lag: Lag, traceparent: str) -> None:
        self._changed(
            Change(
                kind=self.kind,
                namespace=key[0],
                name=key[1],
                resource_version=version,
                verb=verb,
                received_ns=received,
                lag_ns=lag.ns,
                lag_source=lag.source,
                traceparent=traceparent,
            )
        )
