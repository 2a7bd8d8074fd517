"""The stand-in says what a real API server says, wherever the controller listens: the same checks for both."""

from __future__ import annotations

import http.client
import json
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import pytest

from tests.harness.kube_client import APPLY, KubeClient, Refusal
from tests.harness.kube_store import Object
from tests.kubernetes.clusters import Cluster, away, ingress_class, site

pytestmark = pytest.mark.timeout(120)

INGRESSES = "/apis/networking.k8s.io/v1/ingresses"
OF_DEFAULT = "/apis/networking.k8s.io/v1/namespaces/default/ingresses"
LEASES = "/apis/coordination.k8s.io/v1/namespaces/default/leases"


def ingress(name: str, path: str = "/") -> Object:
    return site(name, "198.51.100.1", [80], path=path)[-1]


class Watch:
    """A running watch's lines; bookmarks are left out."""

    def __init__(self, response: Any) -> None:
        self._response = response

    def event(self) -> tuple[str, Object]:
        while True:
            try:
                line = self._response.readline()
            except (OSError, http.client.HTTPException):
                line = b""
            if not line:
                return "END", {}
            found = json.loads(line)
            if found["type"] != "BOOKMARK":
                return found["type"], found["object"]

    def names(self, count: int) -> list[tuple[str, str]]:
        events = [self.event() for _ in range(count)]
        return [(kind, item["metadata"]["name"]) for kind, item in events]


@contextmanager
def watching(cluster: Cluster, query: str, path: str = INGRESSES) -> Iterator[Watch]:
    client = KubeClient(cluster.kubeconfig())
    connection, headers = client._connection, client._headers
    connection.request("GET", f"{path}?watch=true&allowWatchBookmarks=true&{query}", headers=headers)
    response = connection.getresponse()
    assert response.status == 200, response.read()
    try:
        yield Watch(response)
    finally:
        response.close()
        connection.close()


def test_a_list_in_pages(cluster: Cluster) -> None:
    client = cluster.client
    client.create(*[ingress(f"i{number}") for number in range(5)])
    first = client.ask("GET", f"{INGRESSES}?limit=2")
    client.create(ingress("i9"))
    second = client.ask("GET", f"{INGRESSES}?limit=2&continue={first['metadata']['continue']}")
    third = client.ask("GET", f"{INGRESSES}?limit=2&continue={second['metadata']['continue']}")
    pages = first, second, third
    assert [item["metadata"]["name"] for page in pages for item in page["items"]] == [f"i{n}" for n in range(5)]
    assert len({page["metadata"]["resourceVersion"] for page in pages}) == 1
    assert not third["metadata"].get("continue")
    assert (first["kind"], first["apiVersion"]) == ("IngressList", "networking.k8s.io/v1")
    assert "kind" not in first["items"][0]


def test_a_watch_from_a_list(cluster: Cluster) -> None:
    client = cluster.client
    client.create(ingress("old"))
    version = client.ask("GET", INGRESSES)["metadata"]["resourceVersion"]
    with watching(cluster, f"resourceVersion={version}") as watch:
        (made,) = client.create(ingress("new"))
        kind, item = watch.event()
        assert (kind, item["metadata"]["resourceVersion"]) == ("ADDED", made["metadata"]["resourceVersion"])
        (changed,) = client.apply(ingress("new", "/other"))
        assert watch.event()[1]["metadata"]["resourceVersion"] == changed["metadata"]["resourceVersion"]
        client.apply(ingress("new", "/other"))  # nothing new: no event
        client.delete("Ingress", "new")
        kind, item = watch.event()
        assert (kind, item["metadata"]["name"]) == ("DELETED", "new")
        assert int(item["metadata"]["resourceVersion"]) > int(changed["metadata"]["resourceVersion"])
    with watching(cluster, f"resourceVersion={version}") as again:
        assert again.names(3) == [("ADDED", "new"), ("MODIFIED", "new"), ("DELETED", "new")]


def test_a_watch_of_one_object(cluster: Cluster) -> None:
    client = cluster.client
    client.create(ingress("one"), ingress("two"))
    query = "fieldSelector=metadata.name%3Dtwo"
    version = client.ask("GET", f"{OF_DEFAULT}?{query}")["metadata"]["resourceVersion"]
    with watching(cluster, f"{query}&resourceVersion={version}", OF_DEFAULT) as watch:
        client.apply(ingress("one", "/x"), ingress("two", "/x"))
        assert watch.names(1) == [("MODIFIED", "two")]


def test_a_version_that_is_forgotten(cluster: Cluster) -> None:
    cluster.client.create(ingress("one"))
    version = cluster.client.ask("GET", INGRESSES)["metadata"]["resourceVersion"]
    with away(cluster):
        cluster.client.create(ingress("two"))
        cluster.forget()
    with watching(cluster, f"resourceVersion={version}") as watch:
        kind, status = watch.event()
        assert (kind, status["code"], status["reason"]) == ("ERROR", 410, "Expired")


def test_status_and_conflicts(cluster: Cluster) -> None:
    client = cluster.client
    (made,) = client.create(ingress("one"))
    status = {"loadBalancer": {"ingress": [{"ip": "192.0.2.1"}]}}
    written = client.ask("PUT", f"{OF_DEFAULT}/one/status", {**made, "status": status})
    assert written["status"] == status
    assert written["spec"] == made["spec"]
    assert written["metadata"]["generation"] == made["metadata"]["generation"] == 1
    with pytest.raises(Refusal, match="the object has been modified") as refused:
        client.ask("PUT", f"{OF_DEFAULT}/one/status", {**made, "status": {}})
    assert (refused.value.code, refused.value.status["reason"]) == (409, "Conflict")
    patched = client.ask(
        "PATCH", f"{OF_DEFAULT}/one/status", {"status": {"loadBalancer": {}}}, kind="application/merge-patch+json"
    )
    assert patched["status"]["loadBalancer"] in ({}, {"ingress": None}) or patched["status"] == status


def test_one_lease_two_holders(cluster: Cluster) -> None:
    client = cluster.client
    lease = {
        "apiVersion": "coordination.k8s.io/v1",
        "kind": "Lease",
        "metadata": {"name": "leader", "namespace": "default"},
        "spec": {"holderIdentity": "a"},
    }
    (made,) = client.create(lease)
    with pytest.raises(Refusal) as refused:
        client.create(lease)
    assert (refused.value.code, refused.value.status["reason"]) == (409, "AlreadyExists")
    client.ask("PUT", f"{LEASES}/leader", made | {"spec": {"holderIdentity": "b"}})
    with pytest.raises(Refusal) as refused:
        client.ask("PUT", f"{LEASES}/leader", made | {"spec": {"holderIdentity": "c"}})
    assert (refused.value.code, refused.value.status["reason"]) == (409, "Conflict")
    assert client.get("Lease", "leader")["spec"]["holderIdentity"] == "b"


def test_server_side_apply(cluster: Cluster) -> None:
    client = cluster.client
    with pytest.raises(Refusal) as refused:
        client.ask("PATCH", f"{OF_DEFAULT}/one", ingress("one"), kind=APPLY)
    assert refused.value.code in (400, 422)  # who applies?
    annotated = ingress("one")
    annotated["metadata"]["annotations"] = {"a": "1"}
    (made,) = client.apply(annotated)
    assert made["metadata"]["annotations"] == {"a": "1"}
    (changed,) = client.apply(ingress("one", "/other"))
    assert not changed["metadata"].get("annotations")
    assert changed["spec"]["rules"][0]["http"]["paths"][0]["path"] == "/other"
    assert changed["metadata"]["generation"] == 2
    assert changed["metadata"]["managedFields"][0]["manager"] == "test"


def test_who_may(cluster: Cluster) -> None:
    admin = cluster.client
    cluster.namespace("accounts")
    admin.apply({"apiVersion": "v1", "kind": "ServiceAccount", "metadata": {"name": "robot", "namespace": "accounts"}})
    with KubeClient(cluster.kubeconfig("nobodys-token")) as nobody, pytest.raises(Refusal) as refused:
        nobody.list("Ingress")
    assert refused.value.code == 401
    with KubeClient(cluster.kubeconfig(cluster.token("accounts", "robot"))) as robot:
        _may_what_the_role_says(admin, robot)


def _may_what_the_role_says(admin: KubeClient, robot: KubeClient) -> None:
    with pytest.raises(
        Refusal, match=r'cannot list resource "ingresses" in API group "networking\.k8s\.io"'
    ) as refused:
        robot.list("Ingress")
    assert (refused.value.code, refused.value.status["reason"]) == (403, "Forbidden")
    group = "rbac.authorization.k8s.io"
    subject = {"kind": "ServiceAccount", "namespace": "accounts", "name": "robot"}
    role = {
        "apiVersion": f"{group}/v1",
        "kind": "Role",
        "metadata": {"name": "reader", "namespace": "default"},
        "rules": [
            {"apiGroups": ["networking.k8s.io"], "resources": ["ingresses"], "verbs": ["list"]},
            {"apiGroups": [""], "resources": ["secrets"], "verbs": ["list"], "resourceNames": ["mine"]},
        ],
    }
    binding = {
        "apiVersion": f"{group}/v1",
        "kind": "RoleBinding",
        "metadata": {"name": "reader", "namespace": "default"},
        "roleRef": {"apiGroup": group, "kind": "Role", "name": "reader"},
        "subjects": [subject],
    }
    admin.apply(role, binding)
    _until_allowed(robot)
    secrets = "/api/v1/namespaces/default/secrets"
    robot.ask("GET", f"{secrets}?fieldSelector=metadata.name%3Dmine")
    for forbidden in (secrets, f"{secrets}?fieldSelector=metadata.name%3Dother", "/api/v1/secrets"):
        with pytest.raises(Refusal) as refused:
            robot.ask("GET", forbidden)
        assert refused.value.code == 403


def _until_allowed(robot: KubeClient) -> None:
    """The authorizer follows the API by a watch of its own: a moment later."""
    for _ in range(200):
        try:
            robot.list("Ingress", "default")
            return
        except Refusal:
            continue
    robot.list("Ingress", "default")


def test_cluster_wide_kinds_and_refusals(cluster: Cluster) -> None:
    client = cluster.client
    client.apply(ingress_class(default=True))
    assert client.get("IngressClass", "spanway")["spec"]["controller"] == "spanway.io/ingress-controller"
    loopback = site("web", "127.0.0.1", [80])[1]
    with pytest.raises(Refusal, match="loopback range") as refused:
        client.create(loopback)
    assert refused.value.code == 422
    with pytest.raises(Refusal, match="not found"):
        client.create(ingress("web") | {"metadata": {"name": "web", "namespace": "nowhere"}})
    with pytest.raises(Refusal) as refused:
        client.get("Ingress", "absent")
    assert (refused.value.code, refused.value.status["reason"]) == (404, "NotFound")


def test_it_goes_and_comes_back(cluster: Cluster) -> None:
    cluster.client.create(ingress("one"))
    version = cluster.client.ask("GET", INGRESSES)["metadata"]["resourceVersion"]
    with watching(cluster, f"resourceVersion={version}") as watch:
        cluster.kill()
        assert watch.event()[0] == "END"
    with pytest.raises(OSError):
        cluster.client.list("Ingress")
    cluster.start()
    assert [item["metadata"]["name"] for item in cluster.client.list("Ingress")] == ["one"]
