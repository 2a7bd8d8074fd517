"""The stand-in for the API server keeps to what a real one says."""

from __future__ import annotations

import http.client
import json
import ssl
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Self

import pytest

from tests.harness import manifests
from tests.harness.kube_api import ADMIN, FakeApiServer, Trouble
from tests.harness.kube_store import Rule

INGRESSES = "/apis/networking.k8s.io/v1/ingresses"
LEASES = "/apis/coordination.k8s.io/v1/namespaces/default/leases"


@pytest.fixture
def fake(tmp_path: Path) -> Iterator[FakeApiServer]:
    with FakeApiServer(tmp_path, bookmarks=0.05) as server:
        yield server


def connect(fake: FakeApiServer) -> http.client.HTTPSConnection:
    context = ssl.create_default_context(cadata=fake.authority.pem.decode())
    return http.client.HTTPSConnection("127.0.0.1", fake.port, context=context, timeout=5)


def ask(
    fake: FakeApiServer,
    method: str,
    path: str,
    body: Any = None,
    token: str = ADMIN,
    kind: str = "application/json",
) -> tuple[int, Any]:
    connection = connect(fake)
    try:
        headers = {"Authorization": f"Bearer {token}", "Content-Type": kind}
        connection.request(method, path, None if body is None else json.dumps(body), headers)
        response = connection.getresponse()
        return response.status, json.loads(response.read())
    finally:
        connection.close()


class Watch:
    """One running watch: its events, one after another."""

    def __init__(self, fake: FakeApiServer, path: str) -> None:
        self._connection = connect(fake)
        joint = "&" if "?" in path else "?"
        self._connection.request("GET", f"{path}{joint}watch=true", headers={"Authorization": f"Bearer {ADMIN}"})
        self._response = self._connection.getresponse()
        self.status = self._response.status

    def event(self) -> tuple[str, dict[str, Any]]:
        line = json.loads(self._response.readline())
        return line["type"], line["object"]

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._response.close()
        self._connection.close()


def ingress(name: str, path: str = "/") -> dict[str, Any]:
    return manifests.ingress(name, [(path, "web", "Prefix")], host=f"{name}.test")


def test_a_list_comes_in_pages_of_one_version(fake: FakeApiServer) -> None:
    for number in range(5):
        fake.store.put(ingress(f"i{number}"))
    _, first = ask(fake, "GET", f"{INGRESSES}?limit=2")
    fake.store.put(ingress("i9"))
    _, second = ask(fake, "GET", f"{INGRESSES}?limit=2&continue={first['metadata']['continue']}")
    _, third = ask(fake, "GET", f"{INGRESSES}?limit=2&continue={second['metadata']['continue']}")
    names = [item["metadata"]["name"] for page in (first, second, third) for item in page["items"]]
    assert names == [f"i{number}" for number in range(5)]
    assert first["metadata"]["resourceVersion"] == third["metadata"]["resourceVersion"]
    assert first["metadata"]["remainingItemCount"] == 3
    assert "continue" not in third["metadata"]
    fake.compact()
    status, answer = ask(fake, "GET", f"{INGRESSES}?limit=2&continue={first['metadata']['continue']}")
    assert (status, answer["reason"]) == (410, "Expired")


def test_a_watch_tells_what_happens_and_bookmarks(fake: FakeApiServer) -> None:
    fake.store.put(ingress("old"))
    _, listed = ask(fake, "GET", INGRESSES)
    version = listed["metadata"]["resourceVersion"]
    with Watch(fake, f"{INGRESSES}?resourceVersion={version}&allowWatchBookmarks=true") as watch:
        made = fake.store.put(ingress("new"))
        assert watch.event() == ("ADDED", made)
        changed = fake.store.put(ingress("new", "/other"))
        assert int(changed["metadata"]["resourceVersion"]) > int(made["metadata"]["resourceVersion"])
        assert watch.event()[0] == "MODIFIED"
        fake.store.put(ingress("new", "/other"))  # nothing new: no event
        kind, item = watch.event()
        assert kind == "BOOKMARK"
        assert item["metadata"]["resourceVersion"] == changed["metadata"]["resourceVersion"]
        assert ask(fake, "DELETE", f"{INGRESSES.replace('v1/', 'v1/namespaces/default/')}/new")[0] == 200
        while kind == "BOOKMARK":
            kind, item = watch.event()
        assert (kind, item["metadata"]["name"]) == ("DELETED", "new")
    with Watch(fake, f"{INGRESSES}?resourceVersion={version}") as again:
        assert [again.event()[0] for _ in range(3)] == ["ADDED", "MODIFIED", "DELETED"]


def test_a_watch_may_begin_with_what_there_is(fake: FakeApiServer) -> None:
    fake.store.put(ingress("one"))
    path = f"{INGRESSES}?sendInitialEvents=true&resourceVersionMatch=NotOlderThan&allowWatchBookmarks=true"
    with Watch(fake, path) as watch:
        assert watch.event()[0] == "ADDED"
        kind, item = watch.event()
        assert (kind, item["metadata"]["annotations"]) == ("BOOKMARK", {"k8s.io/initial-events-end": "true"})


def test_a_compacted_version_is_gone(fake: FakeApiServer) -> None:
    fake.store.put(ingress("one"))
    fake.compact()
    with Watch(fake, f"{INGRESSES}?resourceVersion=2") as watch:
        kind, status = watch.event()
        assert (watch.status, kind, status["code"]) == (200, "ERROR", 410)
    fake.gone_as_status = True
    with Watch(fake, f"{INGRESSES}?resourceVersion=2") as watch:
        assert watch.status == 410


def test_selectors(fake: FakeApiServer) -> None:
    secret = manifests.secret("one", b"c", b"k")
    fake.store.put(secret)
    fake.store.put(manifests.secret("two", b"c", b"k"))
    path = "/api/v1/namespaces/default/secrets?fieldSelector=metadata.name%3Dtwo"
    _, listed = ask(fake, "GET", path)
    assert [item["metadata"]["name"] for item in listed["items"]] == ["two"]
    with Watch(fake, f"{path}&resourceVersion={listed['metadata']['resourceVersion']}") as watch:
        fake.store.put(manifests.secret("one", b"other", b"k"))
        fake.store.put(manifests.secret("two", b"other", b"k"))
        assert watch.event()[1]["metadata"]["name"] == "two"


def test_status_is_written_beside_the_rest(fake: FakeApiServer) -> None:
    made = fake.store.put(ingress("one"))
    path = "/apis/networking.k8s.io/v1/namespaces/default/ingresses/one/status"
    status = {"loadBalancer": {"ingress": [{"ip": "192.0.2.1"}]}}
    code, written = ask(fake, "PUT", path, {**made, "spec": {}, "status": status})
    assert (code, written["status"], written["spec"]) == (200, status, made["spec"])
    assert written["metadata"]["generation"] == made["metadata"]["generation"]
    code, refused = ask(fake, "PUT", path, {**made, "status": {}})  # made's resourceVersion is an old one now
    assert (code, refused["reason"]) == (409, "Conflict")
    code, patched = ask(fake, "PATCH", path, {"status": {"loadBalancer": {}}}, kind="application/merge-patch+json")
    assert (code, patched["spec"]) == (200, made["spec"])
    managers = [(each["manager"], each.get("subresource")) for each in patched["metadata"]["managedFields"]]
    assert managers == [("test", None), ("unknown", "status")]


def test_of_two_who_update_one_lease_one_wins(fake: FakeApiServer) -> None:
    lease = {"metadata": {"name": "leader"}, "spec": {"holderIdentity": "a"}}
    code, made = ask(fake, "POST", LEASES, lease)
    assert code == 201
    assert ask(fake, "POST", LEASES, lease)[1]["reason"] == "AlreadyExists"
    assert ask(fake, "PUT", f"{LEASES}/leader", made | {"spec": {"holderIdentity": "b"}})[0] == 200
    assert ask(fake, "PUT", f"{LEASES}/leader", made | {"spec": {"holderIdentity": "c"}})[0] == 409
    assert ask(fake, "GET", f"{LEASES}/leader")[1]["spec"] == {"holderIdentity": "b"}


def test_server_side_apply_makes_and_changes(fake: FakeApiServer) -> None:
    path, kind = f"{LEASES}/x", "application/apply-patch+yaml"
    lease = {"apiVersion": "coordination.k8s.io/v1", "kind": "Lease", "metadata": {"name": "x"}, "spec": {}}
    assert ask(fake, "PATCH", path, lease, kind=kind)[0] == 422  # who applies?
    assert ask(fake, "PATCH", f"{path}?fieldManager=me", lease, kind=kind)[0] == 201
    code, changed = ask(fake, "PATCH", f"{path}?fieldManager=me", lease | {"spec": {"holderIdentity": "a"}}, kind=kind)
    assert (code, changed["spec"]) == (200, {"holderIdentity": "a"})


def test_who_may_do_what(fake: FakeApiServer) -> None:
    assert ask(fake, "GET", INGRESSES, token="nobody")[0] == 401
    token = fake.token("default", "robot")
    code, refused = ask(fake, "GET", INGRESSES, token=token)
    assert (code, refused["reason"]) == (403, "Forbidden")
    fake.rules["system:serviceaccount:default:robot"] = [
        Rule("", ("networking.k8s.io",), ("ingresses",), ("list",)),
        Rule("default", ("",), ("secrets",), ("list", "get"), ("mine",)),
    ]
    assert ask(fake, "GET", INGRESSES, token=token)[0] == 200
    assert ask(fake, "GET", f"{INGRESSES}?watch=true", token=token)[0] == 403
    secrets = "/api/v1/namespaces/default/secrets"
    assert ask(fake, "GET", secrets, token=token)[0] == 403
    assert ask(fake, "GET", f"{secrets}?fieldSelector=metadata.name%3Dmine", token=token)[0] == 200
    assert ask(fake, "GET", f"{secrets}?fieldSelector=metadata.name%3Dother", token=token)[0] == 403
    role = {
        "apiVersion": "rbac.authorization.k8s.io/v1",
        "kind": "Role",
        "metadata": {"name": "reader"},
        "rules": [{"apiGroups": [""], "resources": ["secrets"], "verbs": ["list"]}],
    }
    binding = role | {
        "kind": "RoleBinding",
        "roleRef": {"kind": "Role", "name": "reader"},
        "subjects": [{"kind": "ServiceAccount", "namespace": "default", "name": "robot"}],
    }
    fake.store.put(role)
    fake.store.put(binding)
    assert ask(fake, "GET", secrets, token=token)[0] == 200


def test_it_goes_away_and_comes_back(fake: FakeApiServer) -> None:
    fake.store.put(ingress("one"))
    with Watch(fake, f"{INGRESSES}?resourceVersion={fake.store.version}") as watch:
        fake.stop()
        with pytest.raises((OSError, http.client.HTTPException, json.JSONDecodeError)):
            watch.event()
    with pytest.raises(ConnectionRefusedError):
        ask(fake, "GET", INGRESSES)
    fake.start()
    assert len(ask(fake, "GET", INGRESSES)[1]["items"]) == 1


def test_trouble_and_endings_on_order(fake: FakeApiServer) -> None:
    fake.troubles.append(Trouble(429, times=1, verb="list", resource="ingresses", headers={"Retry-After": "1"}))
    assert ask(fake, "GET", INGRESSES)[0] == 429
    assert ask(fake, "GET", INGRESSES)[0] == 200
    with Watch(fake, f"{INGRESSES}?timeoutSeconds=0") as watch, pytest.raises(json.JSONDecodeError):
        watch.event()
    with Watch(fake, f"{INGRESSES}?resourceVersion={fake.store.version}") as watch:
        fake.cut_watches()
        with pytest.raises((OSError, http.client.HTTPException, json.JSONDecodeError)):
            watch.event()
    assert [asked.verb for asked in fake.requests(resource="ingresses")] == ["list", "list", "watch", "watch"]


def test_what_a_real_one_refuses(fake: FakeApiServer) -> None:
    slices = "/apis/discovery.k8s.io/v1/namespaces/default/endpointslices"
    loopback = manifests.service("web", [8080])[1]
    assert ask(fake, "POST", slices, loopback)[0] == 422
    assert ask(fake, "POST", slices.replace("default", "nowhere"), {"metadata": {"name": "x"}})[0] == 404
    assert ask(fake, "GET", "/apis/nothing/v1/things")[0] == 404
    assert ask(fake, "POST", slices, {"metadata": {}})[0] == 422
