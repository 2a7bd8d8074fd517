"""Kubernetes objects into a table, and a change of some of them into the next.

objects > claims of each Ingress (`control.claims`) > each host resolved from all its claims (`control.hosts`) > table.
Each step is a pure function of what it is shown, and is redone when something that it has asked for is touched. A full
build is the same code with everything touched; so, but for certificates that stay, how a table came about is no matter.

Ingresses go in the order of their age. What one of them cannot have, or names in vain, is a problem of that Ingress
and leaves everything else as it is: the table that comes out is always complete.

An Ingress's ``defaultBackend`` serves what no rule of any Ingress matches: first on the hosts that its own rules name,
and, of the Ingresses that have one, the first serves every other host too; those whose rules name no host, or that
have none, go before the others in that.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from datetime import UTC, datetime
from operator import attrgetter
from typing import TYPE_CHECKING, NamedTuple

from msgspec.structs import replace

from proxy.control import hosts as resolving
from proxy.control.certificates import CertificateReader, Pair, Secrets, spec_of
from proxy.control.claims import (
    EVERYTHING,
    STANDING,
    Choices,
    Claims,
    compiled,
    counts,
    judge,
    places_of,
    selects,
    standing,
)
from proxy.control.endpoints import Backends
from proxy.control.hosts import Conflict
from proxy.control.objects import service_of
from proxy.control.problem import Problem, Subject
from proxy.control.shelf import Shelf
from proxy.control.view import Dependents, View
from proxy.route.spec import BackendSpec, CertificateSpec, HostSpec, RouteSpec, TableSpec

if TYPE_CHECKING:
    from proxy.control.objects import Key, Topic
    from proxy.control.store import Objects
    from proxy.settings import Override

__all__ = ["EVERYTHING", "Builder", "Choices", "Step", "build"]


def build(
    objects: Objects,
    overrides: Sequence[Override],
    generation: int,
    choices: Choices = EVERYTHING,
    *,
    reader: CertificateReader | None = None,
    now: datetime | None = None,
) -> tuple[TableSpec, list[Problem]]:
    """The table that the objects describe, and everything that is wrong with them.

    ``reader`` keeps what it has parsed from one build to the next. ``now`` is what certificates are judged by.
    """
    builder = Builder(objects, overrides, choices, reader)
    step = builder.update(None, now)
    return builder.table(generation), list(step.problems)


class Step(NamedTuple):
    """What an update changed, as `route.change.TableChange` has it, and everything that is wrong now."""

    hosts: dict[str, HostSpec | None]
    backends: dict[str, BackendSpec | None]
    certificates: dict[str, CertificateSpec | None]
    problems: tuple[Problem, ...]
    compiled: int  # Ingresses
    resolved: int  # hosts

    @property
    def changed(self) -> bool:
        """Whether the table is another than before."""
        return bool(self.hosts or self.backends or self.certificates)


class Builder:
    """The table of a store of objects, kept up to date."""

    def __init__(
        self,
        objects: Objects,
        overrides: Sequence[Override] = (),
        choices: Choices = EVERYTHING,
        reader: CertificateReader | None = None,
        good: dict[Key, Pair] | None = None,
    ) -> None:
        """``good`` as `certificates.Secrets` has it."""
        self._objects = objects
        self._overrides = overrides
        self._choices = choices
        self._backends = Backends(objects, overrides, choices.verify_upstreams, choices.zone)
        self._secrets = Secrets(objects, reader or CertificateReader(), good)
        self._claims: dict[Key, Claims] = {}
        self._dependents: Dependents[Key] = Dependents()  # Ingresses
        self._claimants: dict[tuple[str, str], set[Key]] = {}  # ("rules" or "tls", host) -> Ingresses
        self._fallback: RouteSpec | None = None
        self._conflicts: dict[tuple[str, str], tuple[Conflict, ...]] = {}
        self._shown: dict[str, Key] = {}  # host -> Secret
        self._shown_for: dict[Key, set[str]] = {}  # Secret -> hosts
        self._troubled: dict[Key, Claims] = {}  # with problems of their own
        # The table.
        self._hosts: Shelf[HostSpec] = Shelf()
        self._specs: Shelf[BackendSpec] = Shelf()
        self._certificates: Shelf[CertificateSpec] = Shelf()
        self._table: TableSpec | None = None

    def __repr__(self) -> str:
        return f"Builder({len(self._claims)} Ingresses, {len(self._hosts)} hosts, {self._backends!r})"

    def due(self, now: datetime) -> bool:
        """Whether there is something new to say, though nothing was touched: a certificate has come of age."""
        return self._secrets.due(now)

    def update(self, touched: Iterable[Topic] | None, now: datetime | None = None) -> Step:
        """Redo what depends on these; None is everything (once, at first)."""
        topics = set(touched) if touched is not None else {("Ingress", key) for key in list(self._objects.ingresses)}
        if touched is None and self._choices.default_backend is not None:
            topics.add(("Ingress", STANDING))
        secrets = {key for kind, key in topics if kind == "Secret"}
        default = self._default_certificate()
        altered = self._secrets.touch(secrets, now or datetime.now(UTC))
        if default is not None:
            self._secrets.of(default)
        news: list[tuple[str, object]] = [*topics]
        news += [("backend", key) for key in self._backends.touch(topics)]
        news += [("verdict", key) for key, was in altered.items() if was.verdict != self._secrets.of(key).verdict]
        dirty = {key for kind, key in topics if kind == "Ingress"} | self._dependents.on(news)
        places: set[tuple[str, str]] = set()
        for key in dirty:
            places |= self._compile(key)
        shown = self._show(host for kind, host in places if kind == "tls")
        hosts = self._resolve(self._concerned(places), ("", "") in places)
        backends = self._settle_backends()
        certificates = self._settle_certificates(shown | altered.keys() | ({default} if default is not None else set()))
        if hosts or backends or certificates:
            self._table = None
        return Step(hosts, backends, certificates, self._problems(), len(dirty), len(places))

    def table(self, generation: int) -> TableSpec:
        """The whole table, in an order that depends on nothing but the objects."""
        if self._table is None:
            ordered = self._hosts.values()
            self._table = TableSpec(
                generation=generation,
                routes=tuple([route for host in ordered for route in host.routes]),
                backends=tuple(self._specs.values()),
                certificates=tuple([spec for name, spec in self._certificates.items() if name]),
                default_route=self._fallback,
                default_certificate=self._certificates.get(""),
                host_defaults=tuple([host.default for host in ordered if host.default is not None and host.host]),
            )
        if self._table.generation != generation:
            self._table = replace(self._table, generation=generation)
        return self._table

    def uses(self, kind: str, key: Key) -> bool:
        """Whether the table has a part of an object: a route of an Ingress, or something that one names."""
        if kind == "Ingress":
            claims = self._claims.get(key)
            return claims is not None and any(self._has(host, key) for _, host in places_of(claims))
        if kind == "IngressClass":
            return (found := self._objects.classes.get(key)) is not None and counts(found, self._choices)
        if kind == "Secret":
            return self._dependents.asked(("verdict", key)) or key == self._default_certificate()
        if kind == "EndpointSlice":
            piece = self._objects.slices.get(key)
            return piece is not None and self._backends.asks(("slices", service_of(piece)))
        return self._backends.asks((kind, key))

    def _has(self, host: str, ingress: Key) -> bool:
        """Whether a route of a host, or its default, is an Ingress's."""
        spec = self._hosts.get(host)
        routes = () if spec is None else (*spec.routes, spec.default) if spec.default is not None else spec.routes
        return any((route.namespace, route.name) == ingress for route in routes)

    # One Ingress

    def _compile(self, key: Key) -> set[tuple[str, str]]:
        """Compile an Ingress anew; returns the places where it claims, or has claimed, something."""
        ingress = self._objects.ingresses.get(key)
        view = View(self._objects)
        before = self._claims.pop(key, None)
        self._troubled.pop(key, None)
        claims = None
        if key == STANDING and self._choices.default_backend is not None:
            claims = standing(self._choices.default_backend, self._backends, self._choices.defaults)
        elif ingress is not None:
            claims = compiled(ingress, view, self._backends, self._secrets, self._choices)
        topics: set[object] = set(view.asked)
        places = places_of(before)
        if claims is not None:
            self._claims[key] = claims
            if claims.problems:
                self._troubled[key] = claims
            topics.update(("backend", name) for name in claims.backends)
            topics.update(("verdict", name) for name in claims.secrets)
        for place in places - places_of(claims):
            claimants = self._claimants[place]
            claimants.discard(key)
            if not claimants:
                del self._claimants[place]
        for place in places_of(claims) - places:
            self._claimants.setdefault(place, set()).add(key)
        self._dependents.assign(key, topics)
        if before is not None:
            self._forget(before)
        return places | places_of(claims)

    def _forget(self, before: Claims) -> None:
        for name in before.backends:
            if not self._dependents.asked(("backend", name)) and self._backends.spec(name) is not None:
                self._backends.forget(name)
        for secret in before.secrets:
            if not self._dependents.asked(("verdict", secret)) and secret != self._default_certificate():
                self._secrets.forget(secret)

    # One host

    def _of(self, place: tuple[str, str]) -> list[Claims]:
        """Who claims something at a place, in order of precedence."""
        return sorted([self._claims[key] for key in self._claimants.get(place, ())], key=attrgetter("age"))

    def _concerned(self, places: set[tuple[str, str]]) -> set[str]:
        """The hosts that are to be resolved anew: those that have gained or lost a claim or TLS, and their aliases."""
        names = {host for kind, host in places if kind == "rules" or host}
        wild = {host[1:] for kind, host in places if kind == "tls" and host.startswith("*.")}
        if wild:
            names.update(host for kind, host in self._claimants if kind == "rules" and host[host.find(".") :] in wild)
        for host in list(names):
            for key in self._claimants.get(("rules", host), ()):
                if lends := self._claims[key].lends:
                    names.update(alias for alias, lender in lends.items() if lender == host)
        return names

    def _secured(self, host: str) -> bool:
        """Whether a host, or its wildcard, is in a TLS section."""
        dot = host.find(".")
        return ("tls", host) in self._claimants or (dot > 0 and ("tls", f"*{host[dot:]}") in self._claimants)

    def _host(self, host: str) -> resolving.Resolved:
        claimants, tls = self._of(("rules", host)), self._secured(host)
        found = resolving.resolve(host, claimants, tls=tls)
        if any(host in claims.lends or host in claims.www for claims in claimants):
            if found.spec.routes or found.spec.default is not None:
                return found._replace(conflicts=(*found.conflicts, *resolving.needless(host, claimants)))

            def lender(name: str) -> HostSpec:
                return resolving.resolve(name, self._of(("rules", name)), tls=tls).spec

            return found._replace(spec=resolving.borrowed(host, claimants, lender))
        return found

    def _resolve(self, names: set[str], fallback: bool) -> dict[str, HostSpec | None]:
        """Resolve hosts anew; returns those that are others than before."""
        if fallback:
            self._fallback, conflicts = resolving.fallback(self._of(("", "")))
            self._note(("", ""), conflicts)
            names.add("")
        found: dict[str, HostSpec | None] = {}
        for host in names:
            spec, conflicts = self._host(host)
            self._note(("rules", host), conflicts)
            if not host:
                spec = HostSpec("", spec.routes, self._fallback)
            now = spec if spec.routes or spec.default is not None else None
            if now != self._hosts.get(host):
                found[host] = now
        self._hosts.change(found)
        return found

    def _show(self, names: Iterable[str]) -> set[Key]:
        """Resolve anew which Secret is shown for hosts; returns the Secrets that have gained or lost one."""
        found: set[Key] = set()
        for host in names:
            secret, conflicts = resolving.certificate(host, self._of(("tls", host)))
            self._note(("tls", host), conflicts)
            before = self._shown.pop(host, None)
            if before is not None:
                self._shown_for[before].discard(host)
                found.add(before)
            if secret is not None:
                self._shown[host] = secret
                self._shown_for.setdefault(secret, set()).add(host)
                found.add(secret)
        return found

    def _note(self, place: tuple[str, str], conflicts: tuple[Conflict, ...]) -> None:
        if conflicts:
            self._conflicts[place] = conflicts
        else:
            self._conflicts.pop(place, None)

    # The sum

    def _settle_backends(self) -> dict[str, BackendSpec | None]:
        names, self._backends.changed = self._backends.changed, set()
        found = {key: spec for key in names if (spec := self._backends.spec(key)) != self._specs.get(key)}
        self._specs.change(found)
        return found

    def _settle_certificates(self, secrets: Iterable[Key]) -> dict[str, CertificateSpec | None]:
        found: dict[str, CertificateSpec | None] = {}
        default = self._default_certificate()
        for key in secrets:
            hosts = self._shown_for.get(key)
            if hosts is not None and not hosts:
                del self._shown_for[key]
            pair = self._secrets.of(key).pair if hosts or key == default else None
            if key == default:
                found[""] = None if pair is None else spec_of(key, pair, ())
            found["/".join(key)] = None if pair is None or not hosts else spec_of(key, pair, hosts)
        found = {name: spec for name, spec in found.items() if spec != self._certificates.get(name)}
        self._certificates.change(found)
        return found

    def _default_certificate(self) -> Key | None:
        namespace, _, name = self._choices.default_certificate.rpartition("/")
        return (namespace, name) if name else None

    def _problems(self) -> tuple[Problem, ...]:
        """Everything that is wrong: Ingress by Ingress, then Secret by Secret."""
        found = {key: list(claims.problems) for key, claims in self._troubled.items()}
        for place in sorted(self._conflicts):
            for conflict in self._conflicts[place]:
                found.setdefault(conflict.ingress, []).append(conflict.problem)
        problems = [problem for key in sorted(found) for problem in found[key]]
        for ingress, where in self._objects.broken:
            # In error already: what else is wrong with it is told at once.
            if selects(ingress, self._choices, View(self._objects)):
                subject = Subject("Ingress", ingress.metadata.namespace, ingress.metadata.name, where)
                judge(ingress, subject, self._choices)
                problems += subject.problems
        problems += self._secrets.problems()
        if (default := self._default_certificate()) is not None and not self._secrets.of(default).exists:
            message = f"the default certificate's Secret {'/'.join(default)} does not exist"
            problems.append(Problem("warning", message, "add its manifest", "Secret", *default))
        # While an Ingress may be missing, nobody knows what it names.
        return (*problems, *(self._backends.unused() if self._objects.whole else ()))
