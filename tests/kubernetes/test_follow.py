"""A controller follows a cluster: whatever happens to objects and to the API server, requests go on."""

from __future__ import annotations

import pytest

from tests.harness import manifests, poll
from tests.harness.certificates import Certificate, any_server, served
from tests.harness.client import Client
from tests.harness.kube_store import Object
from tests.kubernetes.clusters import Cluster, FakeCluster, away, ingress_class, site
from tests.kubernetes.conftest import Backends, StartController, StartLoad
from tests.kubernetes.controller import Controller

pytestmark = [pytest.mark.real, pytest.mark.timeout(180)]

STEADY = "steady.test"  # the host under load, which no test touches


def steady(cluster: Cluster, backends: Backends) -> None:
    cluster.apply(ingress_class(), *site("steady", backends.address, [backends.ports[0]]))


def certificate_of(controller: Controller, host: str) -> bytes:
    with Client(controller.tls_address, tls=any_server(), server_name=host) as client:
        return served(client.socket)


def shows(controller: Controller, pair: Certificate) -> None:
    """Wait until web.test has this certificate."""
    poll.until(lambda: certificate_of(controller, "web.test") == pair.der, "the certificate")


def secret(name: str, certificate: Certificate) -> Object:
    made = manifests.secret(name, certificate.pem, certificate.key)
    made["metadata"] = {"name": name, "namespace": "default"}
    return made


def test_every_kind_made_changed_and_removed_under_load(
    cluster: Cluster, backends: Backends, start_controller: StartController, load: StartLoad
) -> None:
    steady(cluster, backends)
    controller = start_controller(cluster, workers=2)
    controller.serves(STEADY, backends.body(0))
    address, (_, first, second) = backends.address, backends.ports
    with load(controller.address, STEADY) as running:
        # Service, EndpointSlice, Ingress: made, changed, removed.
        service, endpoints, ingress = site("web", address, [first])
        cluster.apply(service, ingress)
        controller.serves("web.test", 503)  # a Service without endpoints
        cluster.apply(endpoints)
        controller.serves("web.test", backends.body(1))
        endpoints["ports"][0]["port"] = second
        cluster.apply(endpoints)
        controller.serves("web.test", backends.body(2))
        endpoints["endpoints"][0]["conditions"]["ready"] = False
        cluster.apply(endpoints)
        controller.serves("web.test", 503)
        endpoints["endpoints"][0]["conditions"]["ready"] = True
        cluster.apply(endpoints)
        ingress["spec"]["rules"][0]["http"]["paths"][0]["path"] = "/moved"
        cluster.apply(ingress)
        controller.serves("web.test", 404)
        controller.serves("web.test", backends.body(2), "/moved")
        service["spec"]["ports"][0]["port"] = 81  # the Ingress names 80
        cluster.apply(service)
        controller.serves("web.test", 503, "/moved")
        service["spec"]["ports"][0]["port"] = 80
        cluster.apply(service)
        controller.serves("web.test", backends.body(2), "/moved")
        # Secret: made, changed, removed.
        ingress["spec"]["tls"] = [{"hosts": ["web.test"], "secretName": "pair"}]
        ingress["metadata"]["annotations"] = {"nginx.ingress.kubernetes.io/ssl-redirect": "false"}
        cluster.apply(ingress)
        pairs = [Certificate("web.test") for _ in range(2)]
        for pair in pairs:
            cluster.apply(secret("pair", pair))
            shows(controller, pair)
        cluster.delete("Secret", "pair")
        poll.until(lambda: certificate_of(controller, "web.test") != pairs[1].der, "the default certificate")
        # Removed, one after another.
        cluster.delete("EndpointSlice", "web-0")
        controller.serves("web.test", 503, "/moved")
        cluster.delete("Service", "web")
        cluster.delete("Ingress", "web")
        controller.serves("web.test", 404, "/moved")
        # The class: another's, then ours again, then the default of those without one.
        other = ingress_class()
        other["spec"]["controller"] = "example.org/other"
        cluster.apply(*site("late", address, [first], ingress_class="second"), ingress_class("second"))
        unnamed = site("unnamed", address, [first])
        del unnamed[-1]["spec"]["ingressClassName"]
        cluster.apply(*unnamed)
        poll.until(lambda: controller.get("unnamed.test").status == 404, "an Ingress without a class is nobody's")
        cluster.apply(ingress_class(default=True))
        controller.serves("unnamed.test", backends.body(1))
        cluster.apply(ingress_class())
        controller.serves("unnamed.test", 404)
    assert running.result.errors == {}
    assert running.result.requests > 1000
    assert controller.count("spanway_watch_lists_total", kind="Ingress") == 1  # all of it came by the watch


def test_the_api_server_dies_and_comes_back_under_load(
    cluster: Cluster, backends: Backends, start_controller: StartController, load: StartLoad
) -> None:
    steady(cluster, backends)
    controller = start_controller(cluster)
    controller.serves(STEADY, backends.body(0))
    with load(controller.address, STEADY) as running:
        cluster.kill()
        poll.until(lambda: controller.count("spanway_watch_faults_total", code="unreachable") > 0, "a failed call")
        assert controller.admin("/readyz")[0] == 200  # the last table is served
        assert controller.get(STEADY).status == 200
        cluster.start()
        cluster.apply(*site("web", backends.address, [backends.ports[1]]))
        controller.serves("web.test", backends.body(1), within=60)
    assert running.result.errors == {}


def test_what_was_missed_is_listed_again(
    cluster: Cluster, backends: Backends, start_controller: StartController, load: StartLoad
) -> None:
    """410: the versions between have been compacted. No request fails while everything is listed anew."""
    steady(cluster, backends)
    cluster.apply(*site("old", backends.address, [backends.ports[1]]))
    controller = start_controller(cluster)
    controller.serves("old.test", backends.body(1))
    with load(controller.address, STEADY) as running:
        with away(cluster):
            cluster.client.delete("Ingress", "old")
            cluster.client.apply(*site("new", backends.address, [backends.ports[2]]))
            cluster.forget()
        controller.serves("new.test", backends.body(2), within=60)
        controller.serves("old.test", 404)
        poll.until(lambda: controller.count("spanway_watch_lists_total", kind="Ingress") >= 2, "another list")
    assert running.result.errors == {}


def test_a_watch_that_falls_silent_is_opened_anew(
    cluster: Cluster, backends: Backends, start_controller: StartController
) -> None:
    """A network that loses every packet ends no connection."""
    steady(cluster, backends)
    controller = start_controller(cluster, environment={"SPANWAY_CLUSTER_SILENCE": "2"})
    controller.serves(STEADY, backends.body(0))
    cluster.gate.freeze()
    cluster.client.apply(*site("web", backends.address, [backends.ports[1]]))
    poll.until(lambda: controller.count("spanway_watch_reconnects_total") >= 3, "watches opened anew", 30)
    assert controller.admin("/readyz")[0] == 200
    cluster.gate.cut()
    cluster.gate.open()
    controller.serves("web.test", backends.body(1), within=60)


def test_a_thousand_ingresses(
    cluster: Cluster, backends: Backends, start_controller: StartController, load: StartLoad
) -> None:
    steady(cluster, backends)
    cluster.client.create(*[only_ingress(number) for number in range(500)])
    controller = start_controller(cluster, workers=2)
    controller.serves("i499.test", backends.body(0))
    with load(controller.address, STEADY) as running:
        cluster.client.create(*[only_ingress(number) for number in range(500, 1000)])
        controller.serves("i999.test", backends.body(0))
        for number in range(0, 1000, 111):
            controller.serves(f"i{number}.test", backends.body(0))
        cluster.delete("Ingress", "i500")
        controller.serves("i500.test", 404)
    assert running.result.errors == {}
    assert len(controller.admin_json("/routes")["routes"]) >= 1000
    other = start_controller(cluster)  # ready means: all of them
    assert other.get("i999.test").status == 200


def only_ingress(number: int) -> Object:
    made = site(f"i{number}", "192.0.2.1", [80])[-1]
    made["spec"]["rules"][0]["http"]["paths"][0]["backend"]["service"]["name"] = "steady"
    return made


def test_not_ready_before_everything_is_listed(
    fake_cluster: FakeCluster, backends: Backends, start_controller: StartController
) -> None:
    steady(fake_cluster, backends)
    fake_cluster.kill()
    controller = start_controller(fake_cluster, ready=False)
    poll.until(lambda: "spanway: admin" in controller.said(), "the admin listener")
    controller.find_listeners()
    assert poll.until(lambda: controller.admin("/readyz")[0], "an answer") == 503
    assert controller.admin("/healthz")[0] == 200
    fake_cluster.start()
    poll.until(lambda: controller.admin("/readyz")[0] == 200, "/readyz", 60)
    controller.serves(STEADY, backends.body(0))
