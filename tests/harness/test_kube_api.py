"""What is the stand-in's own; what it shares with a real API server is in tests/kubernetes/test_api.py."""

from __future__ import annotations

import contextlib
import gc
import http.client
import json
import socket
import ssl
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Self

import pytest

from tests.harness import manifests
from tests.harness.kube_api import ADMIN, FakeApiServer, Trouble

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


def test_what_it_accepts_as_it_stops_is_cut(fake: FakeApiServer) -> None:
    """asyncio loses a connection whose server closes between its accepting and the task that is to make it one."""
    held, go = threading.Event(), threading.Event()

    def hold() -> None:
        held.set()
        go.wait(5)

    fake._loop.call_soon_threadsafe(hold)
    assert held.wait(5)
    stopping = threading.Thread(target=fake.stop)
    stopping.start()
    while not fake._loop._ready:  # type: ignore[attr-defined]  # until the stop is the next thing that its loop does
        time.sleep(0.001)
    with socket.create_connection(("127.0.0.1", fake.port), timeout=5) as client:
        go.set()
        client.shutdown(socket.SHUT_WR)
        with contextlib.suppress(ConnectionResetError):
            assert client.recv(1) == b""
    stopping.join()
    gc.collect()  # a connection that nobody has is reported here, as a warning, which is an error
