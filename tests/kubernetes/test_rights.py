"""The rights that k8s/ gives are those that the controller uses: none is missing, none is left over."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.harness import manifests, poll
from tests.harness.certificates import Certificate
from tests.harness.kube_store import Object
from tests.kubernetes.clusters import RIGHTS, Cluster, FakeCluster, RealCluster, ingress_class, site
from tests.kubernetes.conftest import Backends, StartController
from tests.kubernetes.controller import NAMESPACE, Controller
from tests.kubernetes.manifests_of import BASE, K8S, of_kind, rendered, rights
from tests.real.conftest import required

pytestmark = [pytest.mark.real, pytest.mark.timeout(180)]

NAMESPACED = K8S / "overlays" / "namespaced"


def granted(cluster: Cluster, folder: Path) -> str:
    """Apply a kustomization's account and rights; a token of the account."""
    cluster.apply(*of_kind(rendered(required("kubectl"), folder), "ServiceAccount", *RIGHTS))
    return cluster.token(NAMESPACE, "spanway")


def published_service() -> Object:
    return {
        "apiVersion": "v1",
        "kind": "Service",
        "metadata": {"name": "spanway", "namespace": NAMESPACE},
        "spec": {"ports": [{"name": "http", "port": 80}], "externalIPs": ["192.0.2.77"], "type": "LoadBalancer"},
    }


def everything(cluster: Cluster, backends: Backends, controller: Controller, namespace: str) -> None:
    """Let the controller do all that it ever does: serve, certificates, status, Events anew and counted on."""
    pair = Certificate("web.test")
    secret = manifests.secret("pair", pair.pem, pair.key)
    secret["metadata"] = {"name": "pair", "namespace": namespace}
    objects = site("web", backends.address, [backends.ports[0]], namespace=namespace, secret="pair")
    cluster.apply(secret, *objects)
    controller.serves("web.test", backends.body(0))
    poll.until(controller.leads, "the lead")
    poll.until(lambda: addresses(cluster, namespace) == ["192.0.2.77"], "the status", 30)
    ingress = objects[-1]
    for port, times in ((99, 1), (98, 1), (99, 2)):  # wrong, otherwise wrong, as wrong as before
        ingress["spec"]["rules"][0]["http"]["paths"][0]["backend"]["service"]["port"]["number"] = port
        cluster.apply(ingress)
        controller.serves("web.test", 503)
        until_told(cluster, namespace, str(port), times)


def until_told(cluster: Cluster, namespace: str, word: str, times: int) -> None:
    """Wait for an Event with this word that counts so many."""

    def counts() -> list[int]:
        return [event["count"] for event in cluster.events("web", namespace) if word in event["message"]]

    poll.until(lambda: counts() == [times], f"{times} of {word}", 30)


def addresses(cluster: Cluster, namespace: str) -> list[str]:
    status = cluster.client.get("Ingress", "web", namespace).get("status") or {}
    return [point.get("ip", "") for point in (status.get("loadBalancer") or {}).get("ingress") or ()]


def refusals(controller: Controller) -> float:
    """How often it has been told 403."""
    faults = ("spanway_status_faults_total", "spanway_event_faults_total")
    return controller.count("spanway_watch_faults_total", code="403") + sum(map(controller.count, faults))


def test_the_base_is_enough(cluster: Cluster, backends: Backends, start_controller: StartController) -> None:
    token = granted(cluster, BASE)
    cluster.apply(ingress_class(), published_service())
    controller = start_controller(cluster, "--publish-service", f"{NAMESPACE}/spanway", token=token)
    everything(cluster, backends, controller, "default")
    assert refusals(controller) == 0
    controller.terminate()
    assert controller.wait() == 0
    assert "forbidden" not in controller.said()
    if isinstance(cluster, FakeCluster):
        assert_no_more_than_used(cluster, BASE)


def test_one_namespace_is_enough_for_one_namespace(
    cluster: Cluster, backends: Backends, start_controller: StartController
) -> None:
    token = granted(cluster, NAMESPACED)
    cluster.apply(ingress_class(), published_service())
    arguments = ("--watch-namespace", NAMESPACE, "--publish-service", f"{NAMESPACE}/spanway")
    controller = start_controller(cluster, *arguments, token=token)
    cluster.apply(*site("outside", backends.address, [backends.ports[1]]))
    everything(cluster, backends, controller, NAMESPACE)
    assert refusals(controller) == 0
    assert controller.get("outside.test").status == 404
    controller.terminate()
    assert controller.wait() == 0
    if isinstance(cluster, FakeCluster):
        assert_no_more_than_used(cluster, NAMESPACED)


def assert_no_more_than_used(cluster: FakeCluster, folder: Path) -> None:
    """Each verb that is granted has been used, and each use was of something that is granted."""
    user = f"system:serviceaccount:{NAMESPACE}:spanway"
    used = {(asked.verb, asked.resource) for asked in cluster.server.requests() if asked.user == user}
    rules = rights(rendered(required("kubectl"), folder))
    given = {(verb, resource) for rule in rules for verb in rule.verbs for resource in rule.resources}
    assert used == given


def test_secrets_are_asked_for_one_by_one(
    fake_cluster: FakeCluster, backends: Backends, start_controller: StartController
) -> None:
    token = granted(fake_cluster, BASE)
    fake_cluster.apply(ingress_class(), published_service())
    controller = start_controller(fake_cluster, "--publish-service", f"{NAMESPACE}/spanway", token=token)
    everything(fake_cluster, backends, controller, "default")
    asked = fake_cluster.server.requests(resource="secrets")
    mine = [each for each in asked if each.user.endswith(":spanway")]
    assert {(each.namespace, each.query["fieldSelector"]) for each in mine} == {("default", "metadata.name=pair")}


def test_rights_to_certificates_in_one_namespace_only(
    cluster: Cluster, backends: Backends, start_controller: StartController
) -> None:
    """As docs/kubernetes.md says: no ClusterRoleBinding for Secrets, but a RoleBinding where there is TLS."""
    token = granted(cluster, BASE)
    cluster.client.delete("ClusterRoleBinding", "spanway-certificates", "")
    cluster.apply(role_binding("default"), ingress_class(), published_service())
    controller = start_controller(cluster, "--publish-service", f"{NAMESPACE}/spanway", token=token)
    everything(cluster, backends, controller, "default")
    assert refusals(controller) == 0
    pair = Certificate("other.test")
    secret = manifests.secret("pair", pair.pem, pair.key)
    secret["metadata"] = {"name": "pair", "namespace": NAMESPACE}
    cluster.apply(secret, *site("other", backends.address, [backends.ports[1]], namespace=NAMESPACE, secret="pair"))
    poll.until(lambda: controller.count("spanway_watch_faults_total", kind="Secret", code="403") > 0, "a refusal", 30)
    controller.serves("other.test", backends.body(1))  # by HTTP, and by HTTPS with the default certificate


def role_binding(namespace: str) -> Object:
    return {
        "apiVersion": "rbac.authorization.k8s.io/v1",
        "kind": "RoleBinding",
        "metadata": {"name": "spanway-certificates", "namespace": namespace},
        "roleRef": {"apiGroup": "rbac.authorization.k8s.io", "kind": "ClusterRole", "name": "spanway-certificates"},
        "subjects": [{"kind": "ServiceAccount", "name": "spanway", "namespace": NAMESPACE}],
    }


def test_a_missing_right_is_told(
    real_cluster: RealCluster, backends: Backends, start_controller: StartController
) -> None:
    """Without the right to endpoints nothing can be served: it is not ready, and says why."""
    objects = of_kind(rendered(required("kubectl"), BASE), "ServiceAccount", *RIGHTS)
    (role,) = (item for item in objects if (item["kind"], item["metadata"]["name"]) == ("ClusterRole", "spanway"))
    kept = [rule for rule in role["rules"] if rule["resources"] != ["endpointslices"]]
    real_cluster.apply(*[item if item is not role else {**role, "rules": kept} for item in objects])
    token = real_cluster.token(NAMESPACE, "spanway")
    controller = start_controller(real_cluster, token=token, ready=False)
    poll.until(lambda: "endpointslices" in controller.said(), "a word about it", 30)
    assert "forbidden" in controller.said().lower() or "may not" in controller.said()
    controller.find_listeners()
    assert controller.admin("/readyz")[0] == 503
