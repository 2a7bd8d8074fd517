"""The store of Kubernetes objects, which knows what has been touched since it was last asked."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Literal

from msgspec.structs import replace

from proxy.control.objects import NOWHERE, SERVICE_NAME_LABEL, EndpointSlice, key_of

if TYPE_CHECKING:
    from proxy.control.objects import Ingress, IngressClass, Key, Object, Place, Secret, Service, Topic


class Objects:
    """Every object known, by kind and key, with where it comes from, and what has been touched since `take`.

    ``whole`` is False where something that was meant to be here is not, as it was in error. Of those the ``broken``
    are the Ingresses that could still be read.

    One thread writes. Another may read meanwhile, by single look-ups: what it misses is touched, and so read again.
    """

    __slots__ = (
        "_homes",
        "_names",
        "_places",
        "_slices",
        "_stores",
        "_touched",
        "broken",
        "classes",
        "ingresses",
        "secrets",
        "services",
        "slices",
        "whole",
    )

    def __init__(self) -> None:
        self.ingresses: dict[Key, Ingress] = {}
        self.classes: dict[Key, IngressClass] = {}
        self.services: dict[Key, Service] = {}
        self.slices: dict[Key, EndpointSlice] = {}
        self.secrets: dict[Key, Secret] = {}
        self.whole = True
        self.broken: list[tuple[Ingress, Place]] = []
        self._stores: dict[str, dict[Key, Any]] = {
            "Ingress": self.ingresses,
            "IngressClass": self.classes,
            "Service": self.services,
            "EndpointSlice": self.slices,
            "Secret": self.secrets,
        }
        self._slices: dict[Key, tuple[EndpointSlice, ...]] = {}  # by their Service, in the order of their names
        self._names: dict[str, dict[str, None]] = {}  # namespace -> names of its Services
        self._homes: dict[str, dict[str, None]] = {}  # a Service's name -> namespaces
        self._places: dict[tuple[str, Key], Place] = {}
        self._touched: set[Topic] = set()

    def __repr__(self) -> str:
        counts = (f"{len(stored)} {name}" for name, stored in self._stores.items())
        return f"Objects({', '.join(counts)})"

    def put(self, item: Object, place: Place | None = None) -> bool:
        """Take an object in, in place of one of the same kind and name; returns whether it differs from that one.

        A difference in ``resourceVersion`` alone is none, and the older stays: what is written to an object's status
        changes no table.
        """
        kind, key = type(item).__name__, key_of(item)
        store = self._stores[kind]
        before = store.get(key)
        differs = before is None or not _same(before, item)
        found = place or NOWHERE
        if not differs and self._places[kind, key] is found:
            return False
        self._places[kind, key] = found
        store[key] = item if differs else before
        self._touch(kind, key, before, item)
        return differs

    def remove(self, kind: str, key: Key) -> bool:
        """Forget an object; returns whether it was there."""
        gone = self._stores[kind].pop(key, None)
        if gone is None:
            return False
        del self._places[kind, key]
        self._touch(kind, key, gone, None)
        return True

    def take(self) -> set[Topic]:
        """What has been touched since the last call."""
        touched, self._touched = self._touched, set()
        return touched

    def _touch(self, kind: str, key: Key, before: Object | None, after: Object | None) -> None:
        touched = self._touched
        touched.add((kind, key))
        if kind == "EndpointSlice":
            for one in (before, after):
                if isinstance(one, EndpointSlice):
                    self._gather(key[0], one.metadata.labels.get(SERVICE_NAME_LABEL, ""), key, after)
        elif kind == "Service" and (before is None or after is None):
            namespace, name = key
            _enter(self._names, namespace, name, after is not None)
            _enter(self._homes, name, namespace, after is not None)
            touched |= {("names", (namespace, "")), ("homes", ("", name))}
        elif kind == "IngressClass":
            touched.add(("classes", ("", "")))

    def _gather(self, namespace: str, service: str, key: Key, now: Object | None) -> None:
        """Put a slice in its place among those of a Service, or take it out."""
        owner = namespace, service
        others = [one for one in self._slices.get(owner, ()) if key_of(one) != key]
        if isinstance(now, EndpointSlice) and now.metadata.labels.get(SERVICE_NAME_LABEL, "") == service:
            others.append(now)
        self._slices[owner] = tuple(sorted(others, key=key_of))
        if not others:
            del self._slices[owner]
        self._touched.add(("slices", owner))

    def slices_of(self, service: Key) -> tuple[EndpointSlice, ...]:
        """A Service's slices, by name."""
        return self._slices.get(service, ())

    def names(self, namespace: str) -> list[str]:
        """The Services of a namespace."""
        return list(self._names.get(namespace, ()))

    def homes(self, name: str) -> list[str]:
        """The namespaces that have a Service of this name."""
        return list(self._homes.get(name, ()))

    def place(self, kind: str, key: Key) -> Place:
        """Where an object comes from."""
        return self._places.get((kind, key)) or NOWHERE

    def get(self, kind: str, key: Key) -> Object | None:
        """An object, if it is there."""
        return self._stores[kind].get(key)

    def become(self, other: Objects) -> list[tuple[Literal["added", "modified", "deleted"], str, str, str]]:
        """Hold what another store holds; returns what differed: how, and its kind, namespace and name."""
        found: list[tuple[Literal["added", "modified", "deleted"], str, str, str]] = []
        self.whole = other.whole
        self.broken = other.broken
        for kind, theirs in other._stores.items():
            ours = self._stores[kind]
            for key in [key for key in ours if key not in theirs]:
                self.remove(kind, key)
                found.append(("deleted", kind, *key))
            for key, item in theirs.items():
                known = key in ours
                if self.put(item, other.place(kind, key)):
                    found.append(("modified" if known else "added", kind, *key))
        return found

    def knows(self, kind: str, key: Key) -> bool:
        """Whether there is such an object."""
        return key in self._stores[kind]


def _enter(index: dict[str, dict[str, None]], key: str, value: str, present: bool) -> None:
    if present:
        index.setdefault(key, {})[value] = None
    else:
        del index[key][value]
        if not index[key]:
            del index[key]


def _same(one: Object, other: Object) -> bool:
    """Whether two objects of one kind say the same, whatever their versions."""
    if one is other:
        return True
    version = one.metadata.resource_version
    if other.metadata.resource_version != version:
        other = replace(other, metadata=replace(other.metadata, resource_version=version))
    return one == other
