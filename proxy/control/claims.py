"""One Ingress compiled: what it claims of each host, and what is wrong with it by itself.

A pure function of the Ingress and of what it names: its class, Services, EndpointSlices and Secrets. Who else claims
the same is the next step's business (`control.hosts`).
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final, NamedTuple

import msgspec

from proxy.control.actions import Meant, actions_of, www
from proxy.control.annotations import NGINX, Options, options_of
from proxy.control.certificates import Named, Secrets, claims
from proxy.control.objects import (
    CLASS_ANNOTATION,
    DEFAULT_CLASS_ANNOTATION,
    NOWHERE,
    BackendPort,
    IngressBackend,
    ServiceBackend,
)
from proxy.control.problem import Problem, Subject
from proxy.route.match import path_key
from proxy.route.spec import RouteSpec

if TYPE_CHECKING:
    from proxy.control.endpoints import Backends
    from proxy.control.objects import Ingress, IngressClass, Key, Place, Topic
    from proxy.control.view import View
    from proxy.settings import ServicePort

_NEVER: Final = "~"  # sorts after every timestamp: an object without one is taken for the newest


class Choices(NamedTuple):
    """What an operator chooses for all Ingresses."""

    ingress_class: str = ""  # only this class; "" for all
    defaults: Options = Options()  # where annotations say nothing
    verify_upstreams: bool = False  # TLS upstreams must prove who they are
    default_certificate: str = ""  # Secret, namespace/name
    most_tries: int = Options().tries  # attempts for one request, whatever annotations say
    controller: str = ""  # only classes that an IngressClass gives to this controller; "" asks for no such object
    zone: str = ""  # where we are, for topology hints
    https: bool = True  # somebody serves https: `ssl-redirect` leads somewhere
    default_backend: ServicePort | None = None  # for what no rule takes, where no Ingress says otherwise


EVERYTHING: Final = Choices()
STANDING: Final = "", "--default-backend"  # the key of what claims the default for every host if no Ingress does


class Rule(NamedTuple):
    """A path that an Ingress claims, what makes another the same, and the field that says it.

    One ``regex`` makes every path of its host a regular expression, but for those that are ``literal``.
    """

    route: RouteSpec
    same: tuple[str, bytes]
    field: str
    regex: bool = False
    literal: bool = False


class Claims(msgspec.Struct, frozen=True, gc=False):
    """What one Ingress claims. ``rules``, ``defaults`` and ``certificates`` are by host.

    ``lends`` are further hosts and the host whose rules these have; ``www`` are those that are redirected to another.
    """

    key: Key
    age: tuple[str, str, str]
    place: Place
    problems: tuple[Problem, ...]
    rules: dict[str, list[Rule]] = {}
    defaults: dict[str, RouteSpec] = {}
    fallback: RouteSpec | None = None  # its defaultBackend, for every host
    everywhere: bool = False  # it is for no host in particular, so its fallback goes before that of others
    certificates: dict[str, list[Named]] = {}
    tls: frozenset[str] = frozenset()  # hosts of its TLS sections, whether or not there is a certificate
    redirects: bool = True  # plain requests go to https where the host is in anybody's TLS section
    lends: dict[str, str] = {}
    www: dict[str, str] = {}
    backends: dict[str, None] = {}
    secrets: frozenset[Key] = frozenset()
    asked: frozenset[Topic] = frozenset()

    @property
    def owner(self) -> str:
        """``namespace/name``."""
        return "/".join(self.key)

    def subject(self) -> Subject:
        """The Ingress, for more problems."""
        return Subject("Ingress", *self.key, self.place)


class _Compiler:
    """The state of one compilation."""

    def __init__(self, ingress: Ingress, place: Place, backends: Backends, secrets: Secrets, choices: Choices) -> None:
        metadata = ingress.metadata
        self._ingress = ingress
        self._place = place
        self._backends = backends
        self._secrets = secrets
        self._subject = Subject("Ingress", metadata.namespace, metadata.name, place)
        self._options = judge(ingress, self._subject, choices)
        self._https = choices.https
        self._named: dict[str, None] = {}

    def claims(self, view: View) -> Claims:
        ingress, subject = self._ingress, self._subject
        spec, metadata = ingress.spec, ingress.metadata
        key = metadata.namespace, metadata.name
        if self._options.canary:
            field = f"metadata.annotations[{NGINX}canary]"
            hint = "as rules of its own it would take all requests instead of some"
            subject.warning(field, "canaries are not supported yet: this Ingress takes no requests", hint)
            return Claims(key, age(ingress), self._place, tuple(subject.problems), asked=frozenset(view.asked))
        rules = self._rules()
        fallback, defaults = None, dict[str, RouteSpec]()
        hosts = {rule.host.lower() for rule in spec.rules}
        if spec.default_backend is not None:
            to = spec.default_backend
            backend = self._backend(to, "spec.defaultBackend")
            fallback = self._route("", "", backend, to)
            defaults = {host: self._route(host, "", backend, to) for host in sorted(hosts - {""})}
        asked: set[Key] = set()
        certificates = claims(ingress, subject, self._secrets, asked)
        lends = self._lent(rules)
        return Claims(
            key=key,
            age=age(ingress),
            place=self._place,
            problems=tuple(subject.problems),
            rules=rules,
            defaults=defaults,
            fallback=fallback,
            everywhere=not hosts or "" in hosts,
            certificates=certificates,
            tls=frozenset((*certificates, *(host for tls in spec.tls for host in tls.hosts))),
            redirects=self._options.ssl_redirect and self._https,
            lends=lends,
            www={www(host): host for host in rules if host and "*" not in host} if self._options.www else {},
            backends=self._named,
            secrets=frozenset(asked),
            asked=frozenset(view.asked),
        )

    def _rules(self) -> dict[str, list[Rule]]:
        found: dict[str, list[Rule]] = {}
        spec = self._ingress.spec
        for number, rule in enumerate(spec.rules):
            field = f"spec.rules[{number}]"
            if rule.http is None:
                if spec.default_backend is None:
                    message = "has no paths, and there is no defaultBackend to take its host's requests"
                    self._subject.warning(field, message)
                continue
            host = rule.host.lower()
            for place, path in enumerate(rule.http.paths):
                where = f"{field}.http.paths[{place}]"
                backend = self._backend(path.backend, f"{where}.backend")
                exact = path.path_type == "Exact"
                route = self._route(host, path.path or "/", backend, path.backend, exact=exact)
                key = path_key(route.path)
                same = route.path_type, key if exact else key.rstrip(b"/")
                regex = self._options.use_regex or (route.actions is not None and bool(route.actions.rewrite))
                found.setdefault(host, []).append(Rule(route, same, f"{where}.path", regex))
        if self._options.app_root:
            for rules in found.values():
                rules.append(self._root(rules))
        return found

    def _root(self, rules: list[Rule]) -> Rule:
        """The rule by which "/" is redirected, also where the Ingress has no such path (ingress-nginx: app-root)."""
        route = min((rule.route for rule in rules), key=lambda each: each.path != "/")
        made = msgspec.structs.replace(route, path="/", path_type="Exact")
        return Rule(made, ("Exact", b"/"), f"metadata.annotations[{NGINX}app-root]", literal=True)

    def _lent(self, rules: dict[str, list[Rule]]) -> dict[str, str]:
        """Each alias, and the first host of the Ingress, whose rules it has."""
        host = next((host for host in rules if host), "")
        if self._options.aliases and not host:
            field = f"metadata.annotations[{NGINX}server-alias]"
            self._subject.warning(field, "has no effect: no rule has a host that it could be an alias of", "add a host")
        return dict.fromkeys(self._options.aliases, host) if host else {}

    def _backend(self, backend: IngressBackend, field: str) -> str:
        namespace = self._ingress.metadata.namespace
        return self._backends.of(namespace, backend, self._options, self._subject, field, self._named)

    def _route(self, host: str, path: str, backend: str, to: IngressBackend, *, exact: bool = False) -> RouteSpec:
        metadata, options = self._ingress.metadata, self._options
        service = to.service or ServiceBackend()
        meant = Meant(metadata.namespace, metadata.name, service.name, str(service.port), path)
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
            actions=actions_of(options, meant),
        )


def compiled(
    ingress: Ingress, view: View, backends: Backends, secrets: Secrets, choices: Choices = EVERYTHING
) -> Claims | None:
    """What an Ingress claims, None if it is not ours; ``view`` then tells why."""
    if not selects(ingress, choices, view):
        return None
    place = view.place("Ingress", (ingress.metadata.namespace, ingress.metadata.name))
    return _Compiler(ingress, place, backends, secrets, choices).claims(view)


def standing(wanted: ServicePort, backends: Backends, options: Options) -> Claims:
    """What --default-backend claims: the default for every host, after every Ingress."""
    port = BackendPort(number=int(wanted.port)) if wanted.port.isdecimal() else BackendPort(name=wanted.port)
    subject = Subject("", *STANDING, NOWHERE)
    named: dict[str, None] = {}
    service = IngressBackend(service=ServiceBackend(wanted.service, port))
    key = backends.of(wanted.namespace, service, options, subject, "defaultBackend", named)
    # Its Ingress's name is what spans, logs and metrics call the route by.
    route = RouteSpec(
        namespace=wanted.namespace,
        name="default-backend",
        uid="",
        resource_version="",
        host="",
        path="",
        path_type="Prefix",
        backend=key,
        tries=options.tries,
    )
    problems = tuple(subject.problems)
    return Claims(STANDING, (_NEVER * 2, "", ""), NOWHERE, problems, fallback=route, backends=named)


def judge(ingress: Ingress, subject: Subject, choices: Choices) -> Options:
    """What the annotations of an Ingress say, and what is wrong with them."""
    return options_of(ingress.metadata.annotations, choices.defaults, subject, choices.most_tries)


def age(ingress: Ingress) -> tuple[str, str, str]:
    """Sorts Ingresses by precedence: the oldest, then by namespace and name."""
    metadata = ingress.metadata
    return metadata.creation_timestamp or _NEVER, metadata.namespace, metadata.name


def selects(ingress: Ingress, choices: Choices, view: View) -> bool:
    """Whether an Ingress is of the class that was chosen; without a choice every Ingress is.

    The deprecated annotation goes before ``spec.ingressClassName`` (API reference), and names no object. An Ingress
    without a class is of the one that is marked as the default. With a ``controller`` a class counts if its object
    says that controller.
    """
    mine = choices.ingress_class
    if not mine and not choices.controller:
        return True
    annotated = ingress.metadata.annotations.get(CLASS_ANNOTATION)
    if annotated and mine:
        return annotated == mine
    named = annotated or ingress.spec.ingress_class_name
    if named and not choices.controller:
        return named == mine
    return any(
        counts(one, choices)
        and (one.metadata.name == named if named else one.metadata.annotations.get(DEFAULT_CLASS_ANNOTATION) == "true")
        for one in view.classes()
    )


def counts(one: IngressClass, choices: Choices) -> bool:
    """Whether an IngressClass is one of those that were chosen."""
    return (not choices.ingress_class or one.metadata.name == choices.ingress_class) and (
        not choices.controller or one.spec.controller == choices.controller
    )


def places_of(claims: Claims | None) -> set[tuple[str, str]]:
    """Where an Ingress claims something; ("", "") is the default for every host."""
    if claims is None:
        return set()
    found = {("rules", host) for host in claims.rules} | {("rules", host) for host in claims.defaults}
    found.update(("rules", host) for host in (*claims.lends, *claims.www))
    found.update(("tls", host) for host in claims.tls)
    return found | {("", "")} if claims.fallback is not None else found
