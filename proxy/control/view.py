"""What a compilation sees of the store, and a record of what it asked for.

A compilation is a pure function of what it is shown. So what it asked for is all that it depends on: it is redone when
one of those topics is touched, and never otherwise.
"""

from __future__ import annotations

from collections.abc import Hashable, Iterable
from typing import TYPE_CHECKING, Final, Generic, TypeVar

if TYPE_CHECKING:
    from proxy.control.objects import EndpointSlice, IngressClass, Key, Place, Secret, Service, Topic
    from proxy.control.store import Objects

N = TypeVar("N", bound=Hashable)


class View:
    """One compilation's eyes. ``asked`` grows with every question."""

    __slots__ = ("_objects", "asked")

    def __init__(self, objects: Objects) -> None:
        self._objects = objects
        self.asked: Final[set[Topic]] = set()

    def __repr__(self) -> str:
        return f"View({len(self.asked)} topics asked for)"

    def service(self, key: Key) -> Service | None:
        """A Service, by namespace and name."""
        self.asked.add(("Service", key))
        return self._objects.services.get(key)

    def slices(self, service: Key) -> tuple[EndpointSlice, ...]:
        """A Service's EndpointSlices, by name."""
        self.asked.add(("slices", service))
        return self._objects.slices_of(service)

    def names(self, namespace: str) -> list[str]:
        """The Services of a namespace."""
        self.asked.add(("names", (namespace, "")))
        return sorted(self._objects.names(namespace))

    def homes(self, name: str) -> list[str]:
        """The namespaces that have a Service of this name, in order."""
        self.asked.add(("homes", ("", name)))
        return sorted(self._objects.homes(name))

    def secret(self, key: Key) -> Secret | None:
        """A Secret, by namespace and name."""
        self.asked.add(("Secret", key))
        return self._objects.secrets.get(key)

    def classes(self) -> list[IngressClass]:
        """Every IngressClass."""
        self.asked.add(("classes", ("", "")))
        return list(self._objects.classes.values())

    def place(self, kind: str, key: Key) -> Place:
        """Where an object comes from."""
        return self._objects.place(kind, key)


class Supposed(View):
    """What a compilation would see if an IngressClass were as it is said to be."""

    __slots__ = ("_other",)

    def __init__(self, objects: Objects, other: IngressClass) -> None:
        super().__init__(objects)
        self._other = other

    def classes(self) -> list[IngressClass]:
        """Every IngressClass, with the other in place of the one of its name."""
        name = self._other.metadata.name
        return [*(one for one in super().classes() if one.metadata.name != name), self._other]


class Dependents(Generic[N]):
    """Who depends on what: nodes by the topics they have asked for."""

    __slots__ = ("_nodes", "_topics")

    def __init__(self) -> None:
        self._topics: dict[N, frozenset[Hashable]] = {}
        self._nodes: dict[Hashable, set[N]] = {}

    def __repr__(self) -> str:
        return f"Dependents({len(self._topics)} nodes, {len(self._nodes)} topics)"

    def assign(self, node: N, topics: Iterable[Hashable]) -> None:
        """Say what a node depends on, in place of what it did before; on nothing is to forget it."""
        before, now = self._topics.get(node, frozenset()), frozenset(topics)
        for topic in before - now:
            nodes = self._nodes[topic]
            nodes.discard(node)
            if not nodes:
                del self._nodes[topic]
        for topic in now - before:
            self._nodes.setdefault(topic, set()).add(node)
        if now:
            self._topics[node] = now
        else:
            self._topics.pop(node, None)

    def on(self, topics: Iterable[Hashable]) -> set[N]:
        """The nodes that depend on any of these."""
        found: set[N] = set()
        for topic in topics:
            found |= self._nodes.get(topic, set())
        return found

    def asked(self, topic: Hashable) -> bool:
        """Whether a node depends on this."""
        return topic in self._nodes
