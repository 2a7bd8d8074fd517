"""The whole controller in one process, against the stand-in for the API server; tables go nowhere."""

from __future__ import annotations

import asyncio
import base64
import dataclasses
import gc
import inspect
import io
import time
import warnings
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest

from proxy.catalogue import CONTROLLER as DEFAULTS
from proxy.control.cluster.controller import CONTROLLER, Controller
from proxy.errors import SettingsError
from proxy.route.spec import TableSpec
from proxy.settings import ServicePort, Settings
from proxy.settings_cluster import Cluster, ObjectName
from tests.control import pki
from tests.control.cluster.answers import TURNS, settled
from tests.control.sinks import Sink
from tests.harness.kube_api import ADMIN, FakeApiServer
from tests.harness.kube_store import RESOURCES, Rule

BY_KIND = {each.kind: each for each in RESOURCES if each.group != "events.k8s.io"}
EVERYTHING = ("list", "watch")
DEFAULT_SAY = inspect.signature(Controller).parameters["say"].default


def thing(kind: str, name: str, namespace: str = "shop", **fields: Any) -> dict[str, Any]:
    resource = BY_KIND[kind]
    metadata: dict[str, Any] = {"name": name}
    if resource.namespaced:
        metadata["namespace"] = namespace
    metadata.update(fields.pop("metadata", {}))
    return {"apiVersion": resource.api_version, "kind": kind, "metadata": metadata, **fields}


def ingress(
    name: str, host: str = "", *, of: str | None = "spanway", secret: str = "", **options: Any
) -> dict[str, Any]:
    backend = {"service": {"name": options.pop("service", "web"), "port": {"number": 80}}}
    paths = [{"path": "/", "pathType": "Prefix", "backend": backend}]
    spec: dict[str, Any] = {"rules": [{"host": host or f"{name}.test", "http": {"paths": paths}}]}
    if of is not None:
        spec["ingressClassName"] = of
    if secret:
        spec["tls"] = [{"hosts": [host or f"{name}.test"], "secretName": secret}]
    return thing("Ingress", name, spec=spec, **options)


def ingress_class(name: str = "spanway", controller: str = CONTROLLER, **annotations: str) -> dict[str, Any]:
    return thing("IngressClass", name, metadata={"annotations": annotations}, spec={"controller": controller})


def service(name: str, namespace: str = "shop", **spec: Any) -> dict[str, Any]:
    return thing("Service", name, namespace, spec={"ports": [{"name": "http", "port": 80}], **spec})


def endpoints(name: str, *addresses: str, namespace: str = "shop", pods: tuple[str, ...] = ()) -> dict[str, Any]:
    made: list[dict[str, Any]] = [{"addresses": [address]} for address in addresses]
    for one, pod in zip(made, pods, strict=False):
        one["targetRef"] = {"kind": "Pod", "namespace": namespace, "name": pod}
    labels = {"kubernetes.io/service-name": name}
    ports = [{"name": "http", "port": 8080}]
    meta = {"labels": labels}
    return thing(
        "EndpointSlice", f"{name}-1", namespace, metadata=meta, addressType="IPv4", endpoints=made, ports=ports
    )


def certificate(name: str, *hosts: str, namespace: str = "shop") -> dict[str, Any]:
    now = datetime.now(UTC)
    chain = pki.certificate(*hosts, begins=now - timedelta(hours=1), ends=now + timedelta(days=90))
    pair = {"tls.crt": chain, "tls.key": pki.pem(pki.key())}
    data = {key: base64.b64encode(value).decode() for key, value in pair.items()}
    return thing("Secret", name, namespace, type="kubernetes.io/tls", data=data)


class End:
    """A proxy that is told to end."""

    def __init__(self) -> None:
        self.told = asyncio.Event()

    async def ending(self) -> None:
        await self.told.wait()


class Running:
    """A controller at work."""

    def __init__(
        self, fake: FakeApiServer, settings: Settings, token: str = ADMIN, pod: str = "pod-1", **options: Any
    ) -> None:
        cluster = dataclasses.replace(settings.cluster, kubeconfig=str(fake.kubeconfig(token)))
        self.fake = fake
        self.sink = Sink()
        self.end = End()
        self.said: list[str] = []
        environ = {"POD_NAME": pod, "POD_NAMESPACE": "default"}
        options.setdefault("say", self.said.append)
        self.controller = Controller(settings.replace(cluster=cluster), self.sink, self.end, environ=environ, **options)
        self.task: asyncio.Task[None] | None = None

    async def start(self) -> None:
        await self.controller.open()
        self.task = asyncio.get_running_loop().create_task(self.controller.run())

    async def stop(self) -> None:
        """As the supervisor ends it: a word before, then cancelled."""
        self.end.told.set()
        await asyncio.sleep(0)
        if self.task is not None:
            self.task.cancel()
            await asyncio.wait([self.task])
        await asyncio.sleep(TURNS)

    @property
    def table(self) -> TableSpec:
        return self.sink.tables[-1] if self.sink.tables else TableSpec(0)

    @property
    def hosts(self) -> set[str]:
        return {route.host for route in self.table.routes}

    def addresses(self, service: str) -> list[str]:
        return [endpoint.host for one in self.table.backends if one.service == service for endpoint in one.endpoints]

    async def serves(self, *hosts: str) -> None:
        await settled(lambda: self.hosts == set(hosts), f"{hosts}; served are {self.hosts}")

    def events(self) -> list[tuple[str, str, str]]:
        """Kind and name of the object, and the reason, of each Event."""
        found = self.fake.store.list(BY_KIND["Event"])[1]
        return sorted((one["involvedObject"]["kind"], one["involvedObject"]["name"], one["reason"]) for one in found)

    def status(self, name: str) -> Any:
        return self.fake.store.get(BY_KIND["Ingress"], ("shop", name))["status"]["loadBalancer"].get("ingress")


@pytest.fixture(autouse=True)
def _quick(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("proxy.control.cluster.events.SETTLE", 0.05)


@pytest.fixture
def fake(fake: FakeApiServer) -> FakeApiServer:
    for name in ("shop", "spanway", "other"):
        fake.store.put(thing("Namespace", name))
    fake.store.put(ingress_class())
    return fake


@asynccontextmanager
async def running(
    fake: FakeApiServer, settings: Settings = DEFAULTS, *, token: str = ADMIN, pod: str = "pod-1", sync: bool = True
) -> AsyncIterator[Running]:
    one = Running(fake, settings, token, pod)
    await one.start()
    try:
        if sync:
            await settled(lambda: one.sink.tables != [], "the first table")
        yield one
    finally:
        await one.stop()
        with warnings.catch_warnings():
            # asyncio leaves a TLS connection open whose making was cancelled before its first step (SSLProtocol does
            # nothing when it is closed in that state): whoever stops while it reconnects meets that now and then.
            warnings.simplefilter("ignore", ResourceWarning)
            gc.collect()


def with_cluster(base: Settings = DEFAULTS, **cluster: Any) -> Settings:
    return base.replace(cluster=Cluster(**cluster))


async def test_the_clusters_objects_become_a_table(fake: FakeApiServer) -> None:
    for item in (service("web"), endpoints("web", "10.0.0.1", "10.0.0.2"), ingress("web")):
        fake.store.put(item)
    async with running(fake) as one:
        assert one.hosts == {"web.test"}
        assert one.addresses("web") == ["10.0.0.1", "10.0.0.2"]
        fake.store.put(endpoints("web", "10.0.0.3"))
        await settled(lambda: one.addresses("web") == ["10.0.0.3"])
        fake.store.put(ingress("api"))
        await one.serves("web.test", "api.test")
        fake.store.delete(BY_KIND["Ingress"], ("shop", "web"))
        await one.serves("api.test")


async def test_there_is_no_table_before_every_kind_is_listed(
    fake: FakeApiServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("proxy.control.cluster.pace.FORBIDDEN", 0.1)
    fake.store.put(ingress("web"))
    token = fake.token("spanway", "spanway")
    rules = fake.rules.setdefault(fake.tokens[token], [])
    rules.append(Rule("", ("networking.k8s.io",), ("ingresses", "ingressclasses"), EVERYTHING))
    rules.append(Rule("", ("",), ("services", "secrets"), EVERYTHING))
    async with running(fake, token=token, sync=False) as one:
        await settled(lambda: len(one.controller.waits()) == 1 and "forbidden" in one.controller.waits()[0])
        assert one.sink.tables == []
        assert one.controller.waits()[0].startswith("endpointslices.discovery.k8s.io not yet listed: ")
        assert any("grant list and watch on endpointslices" in said for said in one.said)
        rules.append(Rule("", ("discovery.k8s.io",), ("endpointslices",), EVERYTHING))
        await settled(lambda: one.sink.tables != [])
        assert one.controller.waits() == ()


async def test_a_server_that_is_away_at_the_start_is_waited_for(fake: FakeApiServer) -> None:
    fake.store.put(ingress("web"))
    await asyncio.to_thread(fake.stop)
    async with running(fake, sync=False) as one:
        await settled(lambda: all("Cannot connect" in why for why in one.controller.waits()))
        await asyncio.to_thread(fake.start)
        await one.serves("web.test")


async def test_a_server_that_goes_away_leaves_the_table(fake: FakeApiServer) -> None:
    fake.store.put(ingress("web"))
    async with running(fake) as one:
        await asyncio.to_thread(fake.stop)
        await settled(lambda: any("is not followed" in problem.message for problem in one.controller.problems()))
        assert one.hosts == {"web.test"}
        fake.store.put(ingress("api"))
        fake.compact()
        await asyncio.to_thread(fake.start)
        await one.serves("web.test", "api.test")
        await settled(lambda: not any("is not followed" in problem.message for problem in one.controller.problems()))


@pytest.mark.parametrize(
    ("item", "served"),
    [
        (ingress("named"), True),
        (ingress("foreign", of="nginx"), False),
        (ingress("none", of=None), False),
        (ingress("old", of=None, metadata={"annotations": {"kubernetes.io/ingress.class": "spanway"}}), True),
        (ingress("older", metadata={"annotations": {"kubernetes.io/ingress.class": "nginx"}}), False),
    ],
)
async def test_classes(item: Any, served: bool, fake: FakeApiServer) -> None:
    fake.store.put(item)
    async with running(fake, with_cluster(publish_address=("192.0.2.1",))) as one:
        assert bool(one.hosts) is served
        await settled(lambda: one.controller.sample().leader)
        if served:
            await settled(lambda: one.status(item["metadata"]["name"]) == [{"ip": "192.0.2.1"}])
        else:
            await asyncio.sleep(0.2)
            assert one.status(item["metadata"]["name"]) is None
            assert one.events() == []


async def test_a_class_of_another_controller_is_not_ours(fake: FakeApiServer) -> None:
    fake.store.put(ingress_class(controller="k8s.io/ingress-nginx"))
    fake.store.put(ingress("web"))
    async with running(fake) as one:
        assert one.hosts == set()
        fake.store.put(ingress_class())
        await one.serves("web.test")


async def test_the_default_class_takes_what_names_none(fake: FakeApiServer) -> None:
    fake.store.put(ingress("web", of=None))
    async with running(fake) as one:
        assert one.hosts == set()
        fake.store.put(ingress_class(**{"ingressclass.kubernetes.io/is-default-class": "true"}))
        await one.serves("web.test")


# Secrets.


async def test_certificates_come_from_the_secrets_that_are_named_and_from_no_others(fake: FakeApiServer) -> None:
    fake.store.put(certificate("web-tls", "web.test"))
    fake.store.put(certificate("unnamed", "x.test"))
    fake.store.put(certificate("default", "*.test", namespace="spanway"))
    fake.store.put(ingress("web", secret="web-tls"))
    fake.store.put(ingress("foreign", of="nginx", secret="unnamed"))
    settings = DEFAULTS.replace(default_certificate=ObjectName("spanway", "default"))
    async with running(fake, settings) as one:
        assert [spec.secret for spec in one.table.certificates] == ["shop/web-tls"]
        assert one.table.default_certificate is not None
        assert one.table.default_certificate.secret == "spanway/default"
        fields = {each.query["fieldSelector"] for each in fake.requests(resource="secrets")}
        assert fields == {"metadata.name=web-tls", "metadata.name=default"}
        fake.store.put(ingress("foreign", secret="unnamed"))
        await settled(lambda: len(one.table.certificates) == 2)
    assert "PRIVATE" not in "".join(one.said)


async def test_an_ingress_that_names_another_secret_never_lacks_a_certificate(fake: FakeApiServer) -> None:
    fake.store.put(certificate("one", "web.test"))
    fake.store.put(certificate("two", "web.test"))
    fake.store.put(ingress("web", secret="one"))
    async with running(fake) as one:
        for _ in range(5):
            for name in ("two", "one"):
                fake.store.put(ingress("web", secret=name))
                await settled(lambda name=name: [spec.secret for spec in one.table.certificates] == [f"shop/{name}"])  # type: ignore[misc]
        assert all(len(table.certificates) == 1 for table in one.sink.tables)


async def test_many_new_ingresses_wait_for_their_secrets_together(fake: FakeApiServer) -> None:
    """An answer of the API server takes 0.2 s: 40 of them in a row would be 8 s."""
    names = [f"n{number}" for number in range(40)]
    for name in names:
        fake.store.put(certificate(name, f"{name}.test"))
    async with running(fake) as one:
        fake.pauses["secrets"] = 0.2
        for name in names:
            fake.store.put(ingress(name, secret=name))
        began = time.monotonic()
        await one.serves(*[f"{name}.test" for name in names])
        assert time.monotonic() - began < 4
        for table in one.sink.tables:
            assert {route.host for route in table.routes} == {
                host for each in table.certificates for host in each.hosts
            }


@pytest.mark.parametrize("how", ["controller", "new"])
async def test_a_class_that_comes_to_us_brings_its_certificates(how: str, fake: FakeApiServer) -> None:
    """No table has its hosts without them."""
    if how == "controller":
        fake.store.put(ingress_class(controller="example.org/another"))
    else:
        fake.store.delete(BY_KIND["IngressClass"], ("", "spanway"))
    for name in ("a", "b"):
        fake.store.put(certificate(name, f"{name}.test"))
        fake.store.put(ingress(name, secret=name))
    async with running(fake) as one:
        assert one.hosts == set()
        fake.pauses["secrets"] = 0.2
        fake.store.put(ingress_class())
        await one.serves("a.test", "b.test")
        for table in one.sink.tables:
            assert len(table.certificates) == len({route.host for route in table.routes})
        fake.store.put(ingress_class(controller="example.org/another"))
        await one.serves()
        await settled(lambda: fake.watches() == 4)


async def test_an_ingress_that_cannot_be_used_keeps_no_secrets(fake: FakeApiServer) -> None:
    fake.store.put(certificate("web-tls", "web.test"))
    async with running(fake) as one:
        bad = ingress("web", secret="web-tls")
        bad["spec"]["rules"][0]["http"]["paths"][0]["path"] = "no-slash"
        fake.store.put(bad)
        await settled(lambda: one.controller.problems() != [])
        await settled(lambda: fake.watches() == 4, "the Secret's watch to end")
        good = ingress("web", secret="web-tls")
        fake.store.put(good)
        await one.serves("web.test")
        assert len(one.table.certificates) == 1


async def test_a_missing_secret_is_told_and_found_when_it_comes(fake: FakeApiServer) -> None:
    fake.store.put(service("web"))
    fake.store.put(endpoints("web", "10.0.0.1"))
    fake.store.put(ingress("web", secret="web-tls"))
    async with running(fake) as one:
        await settled(lambda: ("Ingress", "web", "Certificate") in one.events())
        fake.store.put(certificate("web-tls", "web.test"))
        await settled(lambda: len(one.table.certificates) == 1)
        await settled(lambda: one.controller.publisher.problems == (), str(one.controller.publisher.problems))


async def test_a_bad_certificate_is_an_event_on_its_secret(fake: FakeApiServer) -> None:
    bad = certificate("web-tls", "web.test")
    bad["data"]["tls.key"] = base64.b64encode(b"-----BEGIN PRIVATE KEY-----\nsecret stuff").decode()
    fake.store.put(bad)
    fake.store.put(ingress("web", secret="web-tls"))
    async with running(fake) as one:
        await settled(lambda: ("Secret", "web-tls", "InvalidCertificate") in one.events())
        messages = [event["message"] for event in fake.store.list(BY_KIND["Event"])[1]]
        assert "secret stuff" not in f"{messages}{one.said}"


# One namespace.


def namespaced(fake: FakeApiServer) -> str:
    """The token of an account that may do what a Role in ``shop`` can allow, and nothing else."""
    token = fake.token("spanway", "spanway")
    fake.rules[fake.tokens[token]] = [
        Rule("shop", ("networking.k8s.io",), ("ingresses",), EVERYTHING),
        Rule("shop", ("networking.k8s.io",), ("ingresses/status",), ("patch",)),
        Rule("shop", ("",), ("services", "secrets"), EVERYTHING),
        Rule("shop", ("discovery.k8s.io",), ("endpointslices",), EVERYTHING),
        Rule("shop", ("",), ("events",), ("create", "patch")),
        Rule("default", ("coordination.k8s.io",), ("leases",), ("get", "create", "update")),
    ]
    return token


async def test_in_one_namespace_nothing_is_read_beyond_it(fake: FakeApiServer) -> None:
    fake.store.put(certificate("web-tls", "web.test"))
    for item in (service("web"), endpoints("web", "10.0.0.1"), ingress("web", secret="web-tls"), ingress("x", of="y")):
        fake.store.put(item)
    settings = with_cluster(watch_namespace="shop", publish_address=("192.0.2.1",))
    async with running(fake, settings, token=namespaced(fake)) as one:
        await one.serves("web.test")
        await settled(lambda: one.status("web") == [{"ip": "192.0.2.1"}])
        asked = {(each.resource, each.namespace) for each in fake.asked}
        assert {resource for resource, namespace in asked if not namespace} == {"ingressclasses"}
        assert {namespace for resource, namespace in asked if resource != "leases"} == {"", "shop"}
        [problem] = one.controller.problems()
        assert "the class counts by its name, and there is no default class" in problem.message
        assert "grant list and watch on ingressclasses" in problem.hint


async def test_a_class_that_may_be_read_later_counts_from_then_on(
    fake: FakeApiServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("proxy.control.cluster.pace.FORBIDDEN", 0.1)
    fake.store.put(ingress_class(controller="example.org/another"))
    fake.store.put(ingress("web"))
    token = namespaced(fake)
    async with running(fake, with_cluster(watch_namespace="shop"), token=token) as one:
        await one.serves("web.test")
        fake.rules[fake.tokens[token]].append(Rule("", ("networking.k8s.io",), ("ingressclasses",), EVERYTHING))
        await one.serves()
        fake.store.put(ingress_class())
        await one.serves("web.test")
        fake.store.delete(BY_KIND["IngressClass"], ("", "spanway"))
        await one.serves()


async def test_what_flags_name_elsewhere_is_read_there(fake: FakeApiServer) -> None:
    fake.store.put(service("rest", "other"))
    fake.store.put(endpoints("rest", "10.0.0.9", namespace="other"))
    settings = with_cluster(
        DEFAULTS.replace(default_backend=ServicePort("other", "rest", "http")), watch_namespace="shop"
    )
    async with running(fake, settings) as one:
        assert one.addresses("rest") == ["10.0.0.9"]
        asked = {each.namespace for each in fake.requests(resource="services")}
        assert asked == {"shop", "other"}


# The default backend.


async def test_the_default_backend_takes_what_no_rule_does(fake: FakeApiServer) -> None:
    fake.store.put(service("rest"))
    fake.store.put(endpoints("rest", "10.0.0.9"))
    settings = DEFAULTS.replace(default_backend=ServicePort("shop", "rest", "80"))
    async with running(fake, settings) as one:
        route = one.table.default_route
        assert route is not None
        assert (route.namespace, route.name) == ("shop", "default-backend")
        assert one.addresses("rest") == ["10.0.0.9"]
        mine = {"service": {"name": "mine", "port": {"number": 80}}}
        fake.store.put(thing("Ingress", "all", spec={"ingressClassName": "spanway", "defaultBackend": mine}))
        await settled(lambda: one.table.default_route is not None and one.table.default_route.name == "all")
        fake.store.delete(BY_KIND["Ingress"], ("shop", "all"))
        await settled(lambda: one.table.default_route is not None and one.table.default_route.name == "default-backend")
        fake.store.delete(BY_KIND["Service"], ("shop", "rest"))
        await settled(lambda: any("--default-backend" in str(problem) for problem in one.controller.publisher.problems))
        assert one.table.default_route is not None, "it answers 503"


# What is written back.


async def test_the_status_is_what_the_service_says(fake: FakeApiServer) -> None:
    fake.store.put(service("edge", "spanway", type="LoadBalancer"))
    fake.store.put(ingress("web"))
    settings = with_cluster(publish_service=ObjectName("spanway", "edge"), update_status_on_shutdown=False)
    async with running(fake, settings) as one:
        await settled(lambda: one.controller.sample().leader)
        edge = BY_KIND["Service"], ("spanway", "edge")
        balanced = {**fake.store.get(*edge), "status": {"loadBalancer": {"ingress": [{"ip": "192.0.2.7"}]}}}
        fake.store.replace(*edge, balanced, "status")
        await settled(lambda: one.status("web") == [{"ip": "192.0.2.7"}])
        fake.store.put(ingress("api"))
        await settled(lambda: one.status("api") == [{"ip": "192.0.2.7"}])
        fake.store.delete(*edge)
        await settled(
            lambda: any("Service spanway/edge does not exist" in str(one) for one in one.controller.problems())
        )
        await asyncio.sleep(0.2)
        assert one.status("web") == [{"ip": "192.0.2.7"}]
        writes = len(fake.requests("patch", "ingresses/status"))
        assert writes == 2
    assert one.status("web") == [{"ip": "192.0.2.7"}]


async def test_writing_the_status_makes_no_generation(fake: FakeApiServer) -> None:
    fake.store.put(service("web"))
    fake.store.put(endpoints("web", "10.0.0.1"))
    fake.store.put(ingress("web"))
    async with running(fake, with_cluster(publish_address=("192.0.2.1",))) as one:
        await settled(lambda: one.status("web") is not None)
        await asyncio.sleep(0.2)
        assert len(one.sink.tables) == 1


async def test_of_two_replicas_one_writes_and_each_problem_is_told_once(fake: FakeApiServer) -> None:
    fake.store.put(ingress("web"))
    fake.store.put(ingress("young", "web.test"))
    settings = with_cluster(publish_address=("192.0.2.1",), lease_duration=2.0)
    async with running(fake, settings) as one, running(fake, settings, pod="pod-2") as two:
        await settled(lambda: one.status("young") is not None and len(one.events()) >= 3)
        await asyncio.sleep(0.3)
        assert sum(each.controller.sample().leader for each in (one, two)) == 1
        expected = [("Ingress", "web", "Backend"), ("Ingress", "young", "Backend"), ("Ingress", "young", "Conflict")]
        assert one.events() == expected
        assert len(fake.requests("patch", "ingresses/status")) == 2
        leader, other = (one, two) if one.controller.sample().leader else (two, one)
        await leader.stop()
        await settled(lambda: other.controller.sample().leader, "the other replica to lead")
        await asyncio.sleep(0.3)
        assert one.events() == expected
        assert all(event["count"] == 1 for event in fake.store.list(BY_KIND["Event"])[1])
        fake.store.put(ingress("new", service="gone"))
        await settled(lambda: len(one.events()) == 4)


async def test_two_installations_of_one_class_do_not_write_in_turns_for_ever(fake: FakeApiServer) -> None:
    """Each has a leader of its own; neither knows of the other but by what it finds in the status."""
    fake.store.put(thing("IngressClass", "spanway", spec={"controller": CONTROLLER}))
    fake.store.put(service("web"))
    fake.store.put(endpoints("web", "192.0.2.8"))
    fake.store.put(ingress("web"))
    here = with_cluster(publish_address=("192.0.2.1",), election_namespace="default")
    there = with_cluster(publish_address=("192.0.2.2",), election_namespace="shop")
    async with running(fake, here) as one, running(fake, there, pod="pod-2") as two:
        await settled(lambda: any(event[2] == "StatusConflict" for event in one.events()), "an Event")
        await asyncio.sleep(1)
        written = [each.controller.sample().status_writes for each in (one, two)]
        assert sum(written) < 20, written
        [event, *_] = [event for event in fake.store.list(BY_KIND["Event"])[1] if event["reason"] == "StatusConflict"]
        assert event["involvedObject"]["name"] == "web"
        assert {"192.0.2.1", "192.0.2.2"} <= set(event["message"].replace(",", "").split())
        assert "--ingress-class" in event["message"]
        assert any("is overwritten again and again" in said for said in one.said + two.said)


async def test_an_unsupported_annotation_is_told(fake: FakeApiServer) -> None:
    fake.store.put(service("web"))
    fake.store.put(endpoints("web", "10.0.0.1"))
    annotations = {
        "nginx.ingress.kubernetes.io/configuration-snippet": "return 200;",
        "nginx.ingress.kubernetes.io/proxy-body-size": "big",
        "nginx.ingress.kubernetes.io/enable-cors": "true",
    }
    fake.store.put(ingress("web", metadata={"annotations": annotations}))
    async with running(fake) as one:
        reasons = ["IgnoredAnnotation", "InvalidAnnotation", "InvalidAnnotation"]
        await settled(lambda: one.events() == [("Ingress", "web", reason) for reason in reasons], "three Events")


async def test_ingresses_that_become_ours_get_their_status(fake: FakeApiServer) -> None:
    fake.store.put(ingress("web", of=None))
    async with running(fake, with_cluster(publish_address=("192.0.2.1",))) as one:
        await settled(lambda: one.controller.sample().leader)
        fake.store.put(ingress_class(**{"ingressclass.kubernetes.io/is-default-class": "true"}))
        await settled(lambda: one.status("web") == [{"ip": "192.0.2.1"}])


async def test_a_mistake_in_what_writes_does_not_end_what_serves(
    fake: FakeApiServer, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr("proxy.control.cluster.controller._AGAIN", 0.01)
    failing = [True]

    def wanted(self: Any, key: Any) -> Any:
        if failing:
            failing.pop()
            raise RuntimeError("a mistake")
        return self._points

    monkeypatch.setattr("proxy.control.cluster.status.Status._wanted", wanted)
    fake.store.put(ingress("web"))
    fake.store.put(ingress("api"))
    async with running(fake, with_cluster(publish_address=("192.0.2.1",))) as one:
        await settled(lambda: one.status("web") is not None or one.status("api") is not None)
        assert "a writer failed, and starts again" in caplog.text


async def test_a_secret_that_may_not_be_read_is_told_while_it_is_named(fake: FakeApiServer) -> None:
    token = fake.token("spanway", "spanway")
    fake.rules[fake.tokens[token]] = [
        Rule("", ("networking.k8s.io", "discovery.k8s.io"), ("*",), EVERYTHING),
        Rule("", ("",), ("services",), EVERYTHING),
    ]
    fake.store.put(ingress("web", secret="web-tls"))
    async with running(fake, token=token) as one:
        [problem] = one.controller.problems()
        assert "grant list and watch on secrets web-tls in namespace shop" in problem.hint
        fake.store.put(ingress("web"))
        await settled(lambda: one.controller.problems() == [])


# The end.


async def test_the_lease_is_given_up_and_the_status_stays_where_nothing_tells_who_else_runs(
    fake: FakeApiServer,
) -> None:
    fake.store.put(ingress("web"))
    async with running(fake, with_cluster(publish_address=("192.0.2.1",))) as one:
        await settled(lambda: one.status("web") is not None)
    lease = fake.store.get(BY_KIND["Lease"], ("default", "spanway-ingress-leader"))
    assert lease["spec"]["holderIdentity"] == ""
    assert one.status("web") == [{"ip": "192.0.2.1"}]


@pytest.mark.parametrize(("pods", "emptied"), [(("pod-1",), True), (("pod-1", "pod-2"), False), ((), True)])
async def test_the_last_replica_empties_the_status(pods: tuple[str, ...], emptied: bool, fake: FakeApiServer) -> None:
    fake.store.put(service("edge", "spanway", clusterIP="10.9.9.9"))
    addresses = [f"10.0.0.{number}" for number, _ in enumerate(pods, 1)]
    fake.store.put(endpoints("edge", *addresses, namespace="spanway", pods=pods))
    fake.store.put(ingress("web"))
    fake.store.put(ingress("foreign", of="nginx"))
    settings = with_cluster(publish_service=ObjectName("spanway", "edge"))
    async with running(fake, settings) as one:
        await settled(lambda: one.status("web") == [{"ip": "10.9.9.9"}])
    assert one.status("web") == (None if emptied else [{"ip": "10.9.9.9"}])
    lease = fake.store.get(BY_KIND["Lease"], ("default", "spanway-ingress-leader"))
    assert lease["spec"]["holderIdentity"] == ""


async def test_it_ends_in_time_though_the_server_is_gone(fake: FakeApiServer) -> None:
    fake.store.put(ingress("web"))
    async with running(fake, with_cluster(publish_address=("192.0.2.1",))) as one:
        await settled(lambda: one.status("web") is not None)
        await asyncio.to_thread(fake.stop)
        async with asyncio.timeout(5):
            await one.stop()


async def test_it_is_cancelled_before_it_was_told_to_end(fake: FakeApiServer) -> None:
    one = Running(fake, DEFAULTS)
    await one.start()
    await settled(lambda: one.controller.sample().leader)
    assert one.task is not None
    one.task.cancel()
    await asyncio.wait([one.task])
    lease = fake.store.get(BY_KIND["Lease"], ("default", "spanway-ingress-leader"))
    assert lease["spec"]["holderIdentity"] == ""


def test_without_a_cluster_the_error_is_one_line(tmp_path: Path) -> None:
    with pytest.raises(SettingsError, match="there is no cluster"):
        Controller(DEFAULTS, Sink(), End(), environ={"HOME": str(tmp_path)})


async def test_nobody_reads_what_it_says(fake: FakeApiServer, monkeypatch: pytest.MonkeyPatch) -> None:
    """Its standard error is a pipe whose reader has gone: it says things from within watches, builds and writers."""

    def gone(_: str) -> int:
        raise BrokenPipeError(32, "Broken pipe")

    class Pipe(io.StringIO):
        write = staticmethod(gone)

    monkeypatch.setattr("sys.stderr", Pipe())
    one = Running(fake, DEFAULTS, say=DEFAULT_SAY)
    await one.start()
    await settled(lambda: one.sink.tables != [], "the first table")
    fake.store.put(ingress("web", service="missing"))
    await one.serves("web.test")
    await asyncio.to_thread(fake.stop)
    await settled(lambda: any("is not followed" in problem.message for problem in one.controller.problems()))
    await asyncio.to_thread(fake.start)
    fake.store.put(ingress("api", service="missing"))
    await one.serves("web.test", "api.test")
    assert one.task is not None
    assert not one.task.done()
    await one.stop()


async def test_its_problems_are_said_once(fake: FakeApiServer) -> None:
    fake.store.put(ingress("web"))
    async with running(fake) as one:
        for number in range(3):
            fake.store.put(ingress(f"x{number}"))
            await settled(lambda number=number: f"x{number}.test" in one.hosts)  # type: ignore[misc]
        told = [said for said in one.said if "Ingress shop/web" in said]
        assert len(told) == 1
