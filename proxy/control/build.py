"""Kubernetes objects into a table.

Ingresses are taken in the order of their age, so that of two that want the same the older has it. What one of them
cannot have, or names in vain, is a problem of that Ingress and leaves everything else as it is: the table that comes
out is always complete.

An Ingress's ``defaultBackend`` serves what no rule of any Ingress matches: first on the hosts that its own rules name,
and, of the Ingresses that have one, the first serves every other host too; those whose rules name no host, or that
have none, go before the others in that.
"""

from __future__ import annotations

from datetime import UTC, datetime
from typing import TYPE_CHECKING, Final, NamedTuple

from proxy.control.actions import Rule, actions_of
from proxy.control.annotations import NGINX, Options, options_of
from proxy.control.certificates import CertificateReader, Certificates
from proxy.control.endpoints import Backends
from proxy.control.objects import CLASS_ANNOTATION, DEFAULT_CLASS_ANNOTATION, ServiceBackend
from proxy.control.problem import Problem, Subject
from proxy.route.match import path_key
from proxy.route.spec import RouteSpec, TableSpec

if TYPE_CHECKING:
    from collections.abc import Sequence

    from proxy.control.objects import Ingress, IngressBackend, Objects, Place
    from proxy.settings import Override

_NEVER: Final = "~"  # sorts after every timestamp: an object without one is taken for the newest


class Choices(NamedTuple):
    """What an operator chooses for all Ingresses."""

    ingress_class: str = ""  # only this class; "" for all
    defaults: Options = Options()  # where annotations say nothing
    verify_upstreams: bool = False  # TLS upstreams must prove who they are
    default_certificate: str = ""  # Secret, namespace/name
    most_tries: int = Options().tries  # attempts for one request, whatever annotations say


EVERYTHING: Final = Choices()


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
    builder = _Builder(objects, overrides, choices, reader or CertificateReader(), now or datetime.now(UTC))
    return builder.build(generation)


class _Default(NamedTuple):
    """A defaultBackend that may serve every host."""

    ingress: Ingress
    subject: Subject
    route: RouteSpec
    everywhere: bool  # its Ingress is for no host in particular


class _Builder:
    def __init__(
        self,
        objects: Objects,
        overrides: Sequence[Override],
        choices: Choices,
        reader: CertificateReader,
        now: datetime,
    ) -> None:
        self._objects = objects
        self._choices = choices
        self._backends = Backends(objects, overrides, choices.verify_upstreams)
        self._certificates = Certificates(objects, reader, now)
        self._routes: list[RouteSpec] = []
        self._owners: dict[tuple[str, str, bytes], RouteSpec] = {}  # what makes two rules the same -> the first
        self._host_defaults: dict[str, RouteSpec] = {}
        self._defaults: list[_Default] = []
        self._subjects: list[Subject] = []

    def build(self, generation: int) -> tuple[TableSpec, list[Problem]]:
        for ingress in sorted(self._objects.ingresses.values(), key=age):
            if selects(ingress, self._choices.ingress_class, self._objects):
                self._take(ingress)
        for ingress, place in self._objects.broken:
            if selects(ingress, self._choices.ingress_class, self._objects):
                self._judge(ingress, place)
        default = self._default_route()
        default_certificate = self._certificates.default(self._choices.default_certificate)
        table = TableSpec(
            generation=generation,
            routes=tuple(self._routes),
            backends=tuple(self._backends.specs.values()),
            certificates=self._certificates.specs(),
            default_route=default,
            default_certificate=default_certificate,
            host_defaults=tuple(self._host_defaults.values()),
        )
        problems = [problem for subject in self._subjects for problem in subject.problems]
        problems += self._certificates.problems
        # While an Ingress may be missing, nobody knows what it names.
        for override in self._backends.unused() if self._objects.whole else ():
            port = f":{override.port}" if override.port else ""
            name = f"{override.namespace}/{override.service}".lstrip("/") + port
            problems.append(Problem("warning", f"--upstream {name}: no Ingress names this Service", "check its name"))
        return table, problems

    def _take(self, ingress: Ingress) -> None:
        metadata = ingress.metadata
        key = metadata.namespace, metadata.name
        subject = Subject("Ingress", *key, self._objects.place("Ingress", key))
        self._subjects.append(subject)
        options = self._options(ingress, subject)
        if options.canary:
            field = f"metadata.annotations[{NGINX}canary]"
            hint = "as rules of its own it would take all requests instead of some"
            subject.warning(field, "canaries are not supported yet: this Ingress takes no requests", hint)
            return
        for number, rule in enumerate(ingress.spec.rules):
            field = f"spec.rules[{number}]"
            if rule.http is None and ingress.spec.default_backend is None:
                subject.warning(field, "has no paths, and there is no defaultBackend to take its host's requests")
            for place, path in enumerate(rule.http.paths if rule.http is not None else ()):
                where = f"{field}.http.paths[{place}]"
                backend = self._backends.of(metadata.namespace, path.backend, options, subject, f"{where}.backend")
                exact = path.path_type == "Exact"
                host = rule.host.lower()
                route = _route(ingress, options, host, path.path or "/", backend, path.backend, exact=exact)
                self._add(route, subject, f"{where}.path")
        if ingress.spec.default_backend is not None:
            self._take_default(ingress, ingress.spec.default_backend, options, subject)
        self._certificates.claim(ingress, subject)

    def _judge(self, ingress: Ingress, place: Place) -> None:
        """What else is wrong with an Ingress that is in error already: everything is told at once."""
        subject = Subject("Ingress", ingress.metadata.namespace, ingress.metadata.name, place)
        self._subjects.append(subject)
        self._options(ingress, subject)

    def _options(self, ingress: Ingress, subject: Subject) -> Options:
        choices = self._choices
        return options_of(ingress.metadata.annotations, choices.defaults, subject, choices.most_tries)

    def _add(self, route: RouteSpec, subject: Subject, field: str) -> None:
        key = path_key(route.path)
        same = route.host, route.path_type, key if route.path_type == "Exact" else key.rstrip(b"/")
        owner = self._owners.setdefault(same, route)
        if owner is route:
            self._routes.append(route)
        elif (owner.namespace, owner.name) != (route.namespace, route.name):
            rule = f"{route.path_type} {route.host or 'any host'} {owner.path}"
            message = f"{rule} already belongs to Ingress {owner.namespace}/{owner.name}, which goes first"
            subject.warning(field, f"{message}; this path takes no requests", "give one of them another host or path")
        elif owner.backend != route.backend:
            message = f"is the same rule as {owner.path} above, with another backend; it takes no requests"
            subject.warning(field, message, "remove one of them")

    def _take_default(self, ingress: Ingress, backend: IngressBackend, options: Options, subject: Subject) -> None:
        field = "spec.defaultBackend"
        key = self._backends.of(ingress.metadata.namespace, backend, options, subject, field)
        hosts = {rule.host.lower() for rule in ingress.spec.rules}
        for host in sorted(hosts - {""}):
            route = _route(ingress, options, host, "", key, backend)
            owner = self._host_defaults.setdefault(host, route)
            if owner is not route:
                message = f"{host} already has the defaultBackend of Ingress {owner.namespace}/{owner.name}"
                subject.warning(field, f"{message}, which goes first", "keep one of them")
        everywhere = not hosts or "" in hosts
        self._defaults.append(_Default(ingress, subject, _route(ingress, options, "", "", key, backend), everywhere))

    def _default_route(self) -> RouteSpec | None:
        if not self._defaults:
            return None
        winner = min(self._defaults, key=lambda default: not default.everywhere)  # of equals the first, the oldest
        for default in self._defaults:
            if default.everywhere and default is not winner:
                owner = f"{winner.route.namespace}/{winner.route.name}"
                message = f"Ingress {owner} already has the default for every host, and goes first"
                default.subject.warning("spec.defaultBackend", message, "keep one of them")
        return winner.route


def _route(
    ingress: Ingress, options: Options, host: str, path: str, backend: str, to: IngressBackend, *, exact: bool = False
) -> RouteSpec:
    metadata = ingress.metadata
    service = to.service or ServiceBackend()
    rule = Rule(metadata.namespace, metadata.name, service.name, str(service.port), path)
    return RouteSpec(
        namespace=metadata.namespace,
        name=metadata.name,
        uid=metadata.uid,
        resource_version=metadata.resource_version,
        host=host,
        path=path,
        path_type="Exact" if exact else "Prefix",
        backend=backend,
        body_limit=options.body_limit,
        connect_timeout=options.connect_timeout,
        read_timeout=options.read_timeout,
        send_timeout=options.send_timeout,
        tries=options.tries,
        sample_ratio=options.sample_ratio,
        actions=actions_of(options, rule, tls=False),
    )


def age(ingress: Ingress) -> tuple[str, str, str]:
    """Sorts Ingresses by precedence: the oldest, then by namespace and name."""
    metadata = ingress.metadata
    return metadata.creation_timestamp or _NEVER, metadata.namespace, metadata.name


def selects(ingress: Ingress, ingress_class: str, objects: Objects) -> bool:
    """Whether an Ingress is of a class; "" takes every Ingress.

    The deprecated annotation goes before ``spec.ingressClassName`` (API reference). An Ingress without a class is of
    the one that is marked as the default.
    """
    if not ingress_class:
        return True
    wanted = ingress.metadata.annotations.get(CLASS_ANNOTATION) or ingress.spec.ingress_class_name
    if wanted:
        return wanted == ingress_class
    found = objects.classes.get(("", ingress_class))
    return found is not None and found.metadata.annotations.get(DEFAULT_CLASS_ANNOTATION) == "true"
