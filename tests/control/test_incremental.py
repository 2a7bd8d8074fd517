"""Whatever changes, a table that is kept up to date is the one that would be built anew."""

from __future__ import annotations

import base64
from datetime import datetime, timedelta
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from proxy.control import build as building
from proxy.control.annotations import Options
from proxy.control.build import Builder, Choices, Step
from proxy.control.certificates import CertificateReader
from proxy.control.objects import (
    SERVICE_NAME_LABEL,
    BackendPort,
    EndpointSlice,
    HTTPPath,
    HTTPRule,
    Ingress,
    IngressBackend,
    IngressClass,
    IngressClassSpec,
    IngressRule,
    IngressSpec,
    IngressTLS,
    Metadata,
    Secret,
    Service,
    ServiceBackend,
    ServicePort,
    ServiceSpec,
    SliceEndpoint,
    SlicePort,
    key_of,
)
from proxy.control.store import Objects
from proxy.route.change import certificates_of, hosts_of
from proxy.settings import Address, Override
from tests.control.pki import NOW, certificate, key, pem

NAMES = st.sampled_from(["a", "b", "api"])
NAMESPACES = st.sampled_from(["shop", "else"])
TIMES = st.sampled_from(["", "2026-01-01T00:00:00Z", "2026-01-02T00:00:00Z"])
HOSTS = st.sampled_from(["", "a.test", "b.test", "*.test", "www.a.test"])
SERVICES = st.sampled_from(["api", "apis", "web"])
CONTROLLER = "spanway.io/ingress-controller"


def backend(service: str, port: str) -> IngressBackend:
    return IngressBackend(ServiceBackend(service, BackendPort("", 80) if port == "80" else BackendPort(port)))


BACKENDS = st.one_of(st.just(IngressBackend()), st.builds(backend, SERVICES, st.sampled_from(["80", "http"])))
PATHS = st.builds(
    HTTPPath, st.sampled_from(["/", "/a", "/a/", "/a(.*)", "/(a"]), st.sampled_from(["Exact", "Prefix"]), BACKENDS
)
RULES = st.builds(IngressRule, HOSTS, st.one_of(st.none(), st.builds(HTTPRule, st.lists(PATHS, max_size=2).map(tuple))))
TLS = st.builds(IngressTLS, st.lists(HOSTS.filter(bool), max_size=2).map(tuple), st.sampled_from(["", "one", "two"]))
NGINX = "nginx.ingress.kubernetes.io/"
ANNOTATIONS = st.lists(
    st.one_of(
        st.tuples(
            st.sampled_from(
                ["kubernetes.io/ingress.class", *(NGINX + n for n in ("load-balance", "proxy-read-timeout", "canary"))]
            ),
            st.sampled_from(["spanway", "ewma", "5", "true"]),
        ),
        # What one of these says concerns a whole host, or another one.
        st.sampled_from(
            [
                (NGINX + "use-regex", "true"),
                (NGINX + "rewrite-target", "/$1"),
                (NGINX + "ssl-redirect", "false"),
                (NGINX + "server-alias", "b.test, c.test"),
                (NGINX + "server-alias", "a.test"),
                (NGINX + "from-to-www-redirect", "true"),
                (NGINX + "app-root", "/app"),
                (NGINX + "service-upstream", "true"),
            ]
        ),
    ),
    max_size=3,
).map(dict)
INGRESSES = st.builds(
    Ingress,
    st.builds(Metadata, NAMES, NAMESPACES, st.just("u"), st.sampled_from("12"), TIMES, annotations=ANNOTATIONS),
    st.builds(
        IngressSpec,
        st.sampled_from([None, "spanway", "other"]),
        st.one_of(st.none(), BACKENDS),
        st.lists(RULES, max_size=2).map(tuple),
        st.lists(TLS, max_size=2).map(tuple),
    ),
)
CLASSES = st.builds(
    IngressClass,
    st.builds(
        Metadata,
        st.sampled_from(["spanway", "other"]),
        annotations=st.sampled_from([{}, {"ingressclass.kubernetes.io/is-default-class": "true"}]),
    ),
    st.builds(IngressClassSpec, st.sampled_from([CONTROLLER, "example.org/other"])),
)
KUBE_SERVICES = st.builds(
    Service,
    st.builds(Metadata, SERVICES, NAMESPACES),
    st.builds(
        ServiceSpec,
        st.sampled_from(["ClusterIP", "ExternalName"]),
        external_name=st.just("example.org"),
        ports=st.sampled_from([(), (ServicePort(80, "http"),), (ServicePort(80, "http", app_protocol="https"),)]),
    ),
)
SLICES = st.builds(
    EndpointSlice,
    st.builds(
        Metadata,
        st.sampled_from(["s1", "s2"]),
        NAMESPACES,
        labels=SERVICES.map(lambda name: {SERVICE_NAME_LABEL: name}),
    ),
    st.just("IPv4"),
    st.lists(st.sampled_from("12").map(lambda n: SliceEndpoint((f"10.0.0.{n}",))), max_size=2).map(tuple),
    st.just((SlicePort("http", 8080),)),
)


def data(chain: bytes, private: bytes) -> dict[str, str]:
    return {"tls.crt": base64.b64encode(chain).decode(), "tls.key": base64.b64encode(private).decode()}


PAIRS = [
    data(certificate("a.test", "b.test"), pem()),
    data(certificate("*.test", ends=NOW + timedelta(days=3)), pem()),
    data(certificate("b.test"), pem(key("b"))),
    {"tls.crt": "%%%"},
]
SECRETS = st.builds(
    Secret,
    st.builds(Metadata, st.sampled_from(["one", "two"]), NAMESPACES),
    st.sampled_from(["kubernetes.io/tls", "Opaque"]),
    st.sampled_from(PAIRS),
)
OBJECTS = st.one_of(INGRESSES, INGRESSES, INGRESSES, CLASSES, KUBE_SERVICES, SLICES, SECRETS)
REMOVALS = st.one_of(
    st.tuples(st.just("Ingress"), st.tuples(NAMESPACES, NAMES)),
    st.tuples(st.just("Service"), st.tuples(NAMESPACES, SERVICES)),
    st.tuples(st.just("EndpointSlice"), st.tuples(NAMESPACES, st.sampled_from(["s1", "s2"]))),
    st.tuples(st.just("Secret"), st.tuples(NAMESPACES, st.sampled_from(["one", "two"]))),
    st.tuples(st.just("IngressClass"), st.tuples(st.just(""), st.sampled_from(["spanway", "other"]))),
)
READER = CertificateReader()
CHOICES = st.builds(
    Choices,
    st.sampled_from(["", "spanway"]),
    st.just(Options()),
    st.booleans(),
    st.sampled_from(["", "shop/one"]),
    controller=st.sampled_from(["", CONTROLLER]),
)
OVERRIDES = (Override("", "web", "", "http", (Address("127.0.0.1", 9000),)),)


def follow(table: dict[str, Any], found: dict[str, Any]) -> None:
    for name, spec in found.items():
        table[name] = spec
        if spec is None:
            del table[name]


class Kept:
    """A table kept by the changes that a builder told."""

    def __init__(self) -> None:
        self.hosts: dict[str, Any] = {}
        self.backends: dict[str, Any] = {}
        self.certificates: dict[str, Any] = {}

    def take(self, step: Step) -> None:
        follow(self.hosts, step.hosts)
        follow(self.backends, step.backends)
        follow(self.certificates, step.certificates)


@settings(max_examples=150, deadline=None)
@given(CHOICES, st.lists(st.tuples(st.one_of(OBJECTS, REMOVALS), st.booleans(), st.integers(0, 200)), max_size=30))
def test_any_sequence_of_changes_gives_the_table_of_a_full_build(choices: Choices, events: list[Any]) -> None:
    objects, kept, now = Objects(), Kept(), NOW
    good: dict[Any, Any] = {}  # certificates: the one thing that goes on from one table to the next
    builder = Builder(objects, OVERRIDES, choices, READER, good)
    kept.take(builder.update(None, now))
    objects.take()
    for number, (event, look, days) in enumerate(events):
        if isinstance(event, tuple):
            objects.remove(*event)
        else:
            objects.put(event)
        if not look:
            continue
        now += timedelta(days=days // 20)
        step = builder.update(objects.take(), now)
        kept.take(step)
        whole = Builder(objects, OVERRIDES, choices, READER, dict(good))
        problems, fresh = whole.update(None, now).problems, whole.table(number)
        assert builder.table(number) == fresh
        assert step.problems == problems
        assert kept.hosts == hosts_of(fresh)
        assert kept.backends == {spec.key: spec for spec in fresh.backends}
        assert kept.certificates == certificates_of(fresh)


def shop(name: str, host: str, service: str = "api") -> Ingress:
    path = HTTPPath("/", "Prefix", backend(service, "80"))
    return Ingress(Metadata(name, "shop"), IngressSpec(rules=(IngressRule(host, HTTPRule((path,))),)))


def api(name: str = "api") -> Service:
    return Service(Metadata(name, "shop"), ServiceSpec(ports=(ServicePort(80, "http"),)))


def api_slice(*addresses: str, service: str = "api", version: str = "1") -> EndpointSlice:
    metadata = Metadata(f"{service}-1", "shop", resource_version=version, labels={SERVICE_NAME_LABEL: service})
    return EndpointSlice(metadata, "IPv4", tuple(SliceEndpoint((one,)) for one in addresses), (SlicePort("http", 80),))


@pytest.fixture
def world() -> tuple[Objects, Builder]:
    objects = Objects()
    for number in range(20):
        objects.put(shop(f"web-{number}", f"{number}.test"))
    objects.put(api())
    objects.put(api_slice("10.0.0.1"))
    builder = Builder(objects)
    step = builder.update(objects.take())
    assert (step.compiled, step.resolved, len(step.hosts)) == (20, 20, 20)
    return objects, builder


def test_only_what_is_touched_is_redone(world: tuple[Objects, Builder]) -> None:
    objects, builder = world
    before = builder.table(1)
    objects.put(shop("web-3", "new.test"))
    step = builder.update(objects.take())
    assert (step.compiled, step.resolved) == (1, 2), "the host it had and the one it has"
    assert list(step.hosts) == ["3.test", "new.test"] or list(step.hosts) == ["new.test", "3.test"]
    assert step.hosts["3.test"] is None
    assert builder.table(2).backends is before.backends or builder.table(2).backends == before.backends


def test_endpoints_touch_no_ingress(world: tuple[Objects, Builder]) -> None:
    objects, builder = world
    objects.put(api_slice("10.0.0.2"))
    step = builder.update(objects.take())
    assert (step.compiled, step.hosts, list(step.backends)) == (0, {}, ["shop/api:80"])
    objects.put(api_slice())
    step = builder.update(objects.take())
    assert step.compiled == 20, "each of them has something to say now"
    assert (step.hosts, len(step.problems)) == ({}, 20)


def test_what_says_the_same_as_before_changes_nothing(world: tuple[Objects, Builder]) -> None:
    objects, builder = world
    assert not objects.put(api_slice("10.0.0.1", version="2"))
    assert objects.slices[("shop", "api-1")].metadata.resource_version == "1"
    assert objects.take() == set()
    assert objects.put(api("other"))
    step = builder.update(objects.take())
    assert (step.changed, step.compiled) == (False, 0), "nobody names that Service, nor looked for one"


def test_an_override_is_unused_when_the_last_that_asked_is_gone() -> None:
    objects = Objects()
    builder = Builder(objects, OVERRIDES)
    assert len(builder.update(None).problems) == 1
    objects.put(shop("web", "a.test", "web"))
    step = builder.update(objects.take())
    assert step.problems == ()
    objects.remove("Ingress", ("shop", "web"))
    step = builder.update(objects.take())
    assert (list(step.backends.values()), len(step.problems)) == ([None], 1)


def test_a_certificate_that_comes_of_age_is_told_without_an_event() -> None:
    objects = Objects()
    objects.put(Secret(Metadata("one", "shop"), "kubernetes.io/tls", PAIRS[0]))
    item = shop("web", "a.test")
    for one in (api(), api_slice("10.0.0.1")):
        objects.put(one)
    objects.put(Ingress(item.metadata, IngressSpec(rules=item.spec.rules, tls=(IngressTLS(("a.test",), "one"),))))
    builder = Builder(objects, reader=READER)

    def told(now: datetime) -> list[str]:
        return [problem.message.partition(" 20")[0] for problem in builder.update(objects.take(), now).problems]

    assert told(NOW) == []
    assert not builder.due(NOW + timedelta(days=70))
    assert builder.due(NOW + timedelta(days=80))
    assert told(NOW + timedelta(days=80)) == ["expires on"]
    assert not builder.due(NOW + timedelta(days=81))
    assert told(NOW + timedelta(days=91)) == ["expired on"]
    assert not builder.due(NOW + timedelta(days=9000))


def test_reprs(world: tuple[Objects, Builder]) -> None:
    objects, builder = world
    assert repr(builder) == "Builder(20 Ingresses, 20 hosts, Backends(1, 0 changed))"
    assert repr(objects) == "Objects(20 Ingress, 0 IngressClass, 1 Service, 1 EndpointSlice, 0 Secret)"
    assert Choices() == building.EVERYTHING
    assert key_of(shop("web", "a.test")) == ("shop", "web")
