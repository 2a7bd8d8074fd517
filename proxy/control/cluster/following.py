"""Everything that is followed: which scopes, how they fill the store, and whether all of it has been seen once.

With ``--watch-namespace`` nothing is read beyond that namespace, but for what a flag names in another one, and for
IngressClasses, which have no namespace. Where those may not be read the class counts by its name alone.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Literal

from proxy.control.claims import Choices, selects
from proxy.control.cluster.counters import Counters
from proxy.control.cluster.faults import Forbidden
from proxy.control.cluster.faulty import faulty
from proxy.control.cluster.intake import Intake, Look, Owner
from proxy.control.cluster.kinds import ENDPOINT_SLICE, INGRESS, INGRESS_CLASS, SERVICE, Scope
from proxy.control.cluster.reflector import Before, Reflector
from proxy.control.cluster.secrets import Secrets, named_by
from proxy.control.cluster.wire import Unreadable, object_of
from proxy.control.objects import Ingress, IngressClass, IngressClassSpec, Metadata
from proxy.control.problem import Problem
from proxy.control.publish import Change
from proxy.control.view import Supposed, View

if TYPE_CHECKING:
    import msgspec

    from proxy.admin.cluster import WatchSample
    from proxy.control.cluster.ahead import Need
    from proxy.control.cluster.client import Client
    from proxy.control.cluster.faults import ApiFault
    from proxy.control.cluster.kinds import Resource
    from proxy.control.objects import Key, Object
    from proxy.control.store import Objects
    from proxy.settings import Settings


class Following:
    """`run` it; `sync` waits for the first whole list of each kind."""

    def __init__(
        self,
        client: Client,
        objects: Objects,
        settings: Settings,
        changed: Callable[[Change], None],
        refused: Callable[[], None],
        choices: Choices,
        looks: Mapping[str, Look],
        say: Callable[[str], None],
    ) -> None:
        """``refused``: `problems` may be others. ``looks``: who else wants to see objects of a kind."""
        self._client = client
        self._objects = objects
        self._settings = settings
        self._choices = choices
        self._changed = changed
        self._refused = refused
        self._say = say
        self._faults: dict[Scope, ApiFault] = {}
        self._counters: dict[str, Counters] = {}
        self._intakes: list[Intake] = []
        self._reflectors: list[Reflector] = []
        self._by_name = False  # IngressClasses may not be read
        cluster = settings.cluster
        self.secrets = Secrets(
            client, objects, self._of("Secret"), self._took, self._told, self._left, silence=cluster.silence
        )
        space = cluster.watch_namespace
        self._add(INGRESS, space, looks, before=self._secrets_first)
        self._add(INGRESS_CLASS, "", looks, before=self._class_secrets_first, optional=bool(space))
        for namespace in self._spaces():
            self._add(SERVICE, namespace, looks)
            self._add(ENDPOINT_SLICE, namespace, looks)
        if settings.default_certificate is not None:
            name = settings.default_certificate
            self.secrets.name("--default-certificate", [(name.namespace, name.name)])

    def __repr__(self) -> str:
        return f"Following({self._reflectors}, {self.secrets!r})"

    async def run(self) -> None:
        """Follow until cancelled."""
        async with asyncio.TaskGroup() as group:
            for reflector in self._reflectors:
                group.create_task(reflector.run())
            group.create_task(self.secrets.run())

    async def sync(self) -> None:
        """Wait until each kind has had its first whole list, and each Secret that is named has been asked for."""
        for reflector in self._reflectors:
            await reflector.synced.wait()
        await self.secrets.sync()

    def waits(self) -> tuple[str, ...]:
        """What the first whole list is missing for, one sentence each."""
        found = [
            f"{reflector.scope} not yet listed: {self._faults.get(reflector.scope) or 'waiting for the API server'}"
            for reflector in self._reflectors
            if not reflector.synced.is_set()
        ]
        if self.secrets.waiting:
            found.append(f"{self.secrets.waiting} Secrets that Ingresses name not yet read")
        return tuple(found)

    def problems(self) -> list[Problem]:
        """What cannot be followed, and objects that cannot be used."""
        found = faulty(self._faults)
        return found + [problem for intake in self._intakes for problem in intake.problems] + self.secrets.problems

    def samples(self) -> tuple[WatchSample, ...]:
        """The counters, by kind."""
        return tuple(counters.sample() for counters in self._counters.values())

    def ours(self, key: Key) -> bool:
        """Whether an Ingress is of our class."""
        ingress = self._objects.ingresses.get(key)
        return ingress is not None and self._selects(ingress)

    def owner(self, kind: str, key: Key) -> Owner | None:
        """An object that is known, for an Event on it."""
        for intake in self._intakes:
            if intake.kind == kind and (found := intake.owner(key)) is not None:
                return found
        objects = self._objects
        stores: dict[str, Mapping[Key, Object]] = {
            "Ingress": objects.ingresses,
            "IngressClass": objects.classes,
            "Service": objects.services,
            "EndpointSlice": objects.slices,
            "Secret": objects.secrets,
        }
        item = stores[kind].get(key)
        return None if item is None else Owner(item.metadata.uid, item.metadata.resource_version)

    # Inside.

    def _spaces(self) -> list[str]:
        """The namespaces whose Services are followed; "" is all."""
        settings, space = self._settings, self._settings.cluster.watch_namespace
        named = [settings.default_backend, settings.cluster.publish_service]
        others = {one.namespace for one in named if one is not None and one.namespace != space}
        return [space, *sorted(others)] if space else [""]

    def _of(self, kind: str) -> Counters:
        return self._counters.setdefault(kind, Counters(kind))

    def _add(
        self,
        resource: Resource,
        namespace: str,
        looks: Mapping[str, Look],
        *,
        before: Before | None = None,
        optional: bool = False,
    ) -> None:
        counters = self._of(resource.kind)
        pulse = counters.join()
        ours = self._mine if resource is INGRESS else None
        look = looks.get(resource.kind)
        intake = Intake(resource.kind, self._objects, self._took, pulse, look, self._refused, ours)
        self._intakes.append(intake)
        self._reflectors.append(
            Reflector(
                self._client,
                Scope(resource, namespace),
                intake,
                counters,
                pulse,
                self._told,
                optional=optional,
                silence=self._settings.cluster.silence,
                before=before,
            )
        )

    def _mine(self, item: Object) -> bool:
        return isinstance(item, Ingress) and self._selects(item)

    def _selects(self, ingress: Ingress) -> bool:
        return selects(ingress, self._choices, View(self._objects))

    def _took(self, change: Change) -> None:
        """The store has changed."""
        if change.kind == "Ingress":
            self._name((change.namespace, change.name))
        elif change.kind == "IngressClass":
            for key in list(self._objects.ingresses):
                self._name(key)
            self._refused()  # Ingresses that cannot be used may be ours now
        self._changed(change)

    def _name(self, key: Key) -> None:
        """Follow the Secrets that an Ingress names, if it is ours."""
        ingress = self._objects.ingresses.get(key)
        ours = ingress is not None and self._selects(ingress)
        self.secrets.name(key, named_by(ingress) if ours and ingress is not None else ())

    def _secrets_first(self, raw: msgspec.Raw) -> Need | None:
        """An Ingress that names other Secrets than before waits for them, lest its hosts lack a certificate."""
        ingress = _read("Ingress", raw) if b'"secretName"' in bytes(raw) else None
        if not isinstance(ingress, Ingress) or not self._selects(ingress):
            return None
        return self.secrets.need(named_by(ingress))

    def _class_secrets_first(self, raw: msgspec.Raw) -> Need | None:
        """A class that comes to us waits for the Secrets of its Ingresses, for the same reason."""
        item = _read("IngressClass", raw)
        if not isinstance(item, IngressClass):
            return None
        view = Supposed(self._objects, item)
        found: set[Key] = set()
        for ingress in self._objects.ingresses.values():
            if ingress.spec.tls and selects(ingress, self._choices, view):
                found |= named_by(ingress)
        return self.secrets.need(found)

    def _told(self, scope: Scope, fault: ApiFault | None) -> None:
        """A scope cannot be followed, or can be again."""
        by_name = scope.resource is INGRESS_CLASS and bool(self._settings.cluster.watch_namespace)
        if fault is None:
            if self._faults.pop(scope, None) is not None and not self._faults:
                self._say("everything is followed again")
            if by_name and self._by_name:
                self._go_by_object()
        else:
            self._faults[scope] = fault
            if by_name and isinstance(fault, Forbidden):
                self._go_by_name()
        self._refused()

    def _left(self, scope: Scope) -> None:
        """Nobody asks for a Secret any more, so that it cannot be followed is nothing to tell."""
        self._faults.pop(scope, None)

    def _go_by_name(self) -> None:
        """Stand an IngressClass in for the one that may not be read, so that its name alone counts."""
        name = self._settings.ingress_class
        if name and ("", name) not in self._objects.classes:
            self._by_name = True
            self._objects.put(IngressClass(Metadata(name=name), IngressClassSpec(controller=self._choices.controller)))
            self._took(_class_changed(name, "added"))

    def _go_by_object(self) -> None:
        """IngressClasses may be read: the one that stood in leaves, unless its place is taken."""
        self._by_name = False
        name = self._settings.ingress_class
        known = any(intake.kind == "IngressClass" and intake.knows(("", name)) for intake in self._intakes)
        if not known and self._objects.remove("IngressClass", ("", name)):
            self._took(_class_changed(name, "deleted"))


def _class_changed(name: str, verb: Literal["added", "deleted"]) -> Change:
    return Change("IngressClass", "", name, "", verb, time.time_ns())


def _read(kind: str, raw: msgspec.Raw) -> Object | None:
    try:
        return object_of(kind, raw)
    except Unreadable:
        return None  # whoever takes it in says so
