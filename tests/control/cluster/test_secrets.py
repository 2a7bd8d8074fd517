from __future__ import annotations

import asyncio
import base64
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import pytest

from proxy.control.cluster.client import Client
from proxy.control.cluster.counters import Counters
from proxy.control.cluster.faults import ApiFault
from proxy.control.cluster.kinds import Scope
from proxy.control.cluster.secrets import Secrets, named_by
from proxy.control.objects import Ingress, IngressSpec, IngressTLS, Metadata
from proxy.control.publish import Change
from proxy.control.store import Objects
from tests.control.cluster.answers import opened, settled
from tests.harness.kube_api import FakeApiServer
from tests.harness.kube_store import RESOURCES, Rule

STORED = next(each for each in RESOURCES if each.kind == "Secret")
A, B, C = ("default", "a"), ("default", "b"), ("default", "c")


def secret(name: str, text: str = "x", namespace: str = "default") -> dict[str, Any]:
    return {
        "apiVersion": "v1",
        "kind": "Secret",
        "metadata": {"name": name, "namespace": namespace},
        "type": "Opaque",
        "data": {"x": base64.b64encode(text.encode()).decode()},
    }


class Kept:
    """Secrets at work."""

    def __init__(self, client: Client, **options: Any) -> None:
        self.objects = Objects()
        self.changes: list[Change] = []
        self.told: list[tuple[Scope, ApiFault | None]] = []
        self.left: list[Scope] = []
        self.counters = Counters("Secret")
        self.secrets = Secrets(
            client,
            self.objects,
            self.counters,
            self.changes.append,
            lambda scope, fault: self.told.append((scope, fault)),
            self.left.append,
            **options,
        )

    @property
    def names(self) -> set[str]:
        return {name for _, name in self.objects.secrets}

    async def has(self, *names: str) -> None:
        await settled(lambda: self.names == set(names), f"{names}; there are {self.names}")


@asynccontextmanager
async def keeping(client: Client, **options: Any) -> AsyncIterator[Kept]:
    kept = Kept(client, **options)
    task = asyncio.get_running_loop().create_task(kept.secrets.run())
    try:
        yield kept
    finally:
        task.cancel()
        await asyncio.wait([task])


def test_an_ingress_names_the_secrets_of_its_own_namespace() -> None:
    tls = (IngressTLS(("a",), "one"), IngressTLS(("b",), ""), IngressTLS(("c",), "two"), IngressTLS(("d",), "one"))
    assert named_by(Ingress(Metadata("web", "shop"), IngressSpec(tls=tls))) == {("shop", "one"), ("shop", "two")}


async def test_only_what_is_named_is_asked_for(fake: FakeApiServer, client: Client) -> None:
    for name in ("a", "b", "c"):
        fake.store.put(secret(name))
    async with keeping(client) as kept:
        kept.secrets.name("web", [A])
        await kept.secrets.sync()
        assert kept.names == {"a"}
        kept.secrets.name("web", [A, B])
        await kept.has("a", "b")
        await settled(lambda: sum(each.verb == "watch" for each in fake.requests(resource="secrets")) >= 2, "watches")
    asked = fake.requests(resource="secrets")
    assert {each.verb for each in asked} == {"list", "watch"}
    assert {(each.namespace, each.query["fieldSelector"]) for each in asked} == {
        ("default", "metadata.name=a"),
        ("default", "metadata.name=b"),
    }


async def test_a_secret_is_followed(fake: FakeApiServer, client: Client) -> None:
    async with keeping(client) as kept:
        kept.secrets.name("web", [A])
        await kept.secrets.sync()
        assert kept.secrets.known([A])
        assert kept.names == set()
        fake.store.put(secret("a", "one"))
        await kept.has("a")
        fake.store.put(secret("a", "two"))
        await settled(lambda: kept.objects.secrets[A].data["x"] == base64.b64encode(b"two").decode())
        fake.store.delete(STORED, A)
        await kept.has()
        assert [change.verb for change in kept.changes] == ["added", "modified", "deleted"]


async def test_what_nobody_names_any_more_is_forgotten_at_once(fake: FakeApiServer, client: Client) -> None:
    fake.store.put(secret("a"))
    fake.store.put(secret("b"))
    async with keeping(client) as kept:
        kept.secrets.name("web", [A, B])
        kept.secrets.name("api", [A])
        await kept.secrets.sync()
        kept.secrets.name("web", [])
        assert kept.names == {"a"}
        kept.secrets.name("api", [])
        assert kept.names == set()
        assert [scope.name for scope in kept.left] == ["b", "a"]
        assert kept.counters.sample().watches == 0
        await settled(lambda: fake.watches() == 0, "the watches to end")


async def test_a_secret_that_may_not_be_read_holds_nobody_up(fake: FakeApiServer) -> None:
    fake.store.put(secret("a"))
    fake.store.put(secret("b"))
    token = fake.token("spanway", "controller")
    fake.rules[fake.tokens[token]] = [Rule("default", ("",), ("secrets",), ("list", "watch"), ("a",))]
    async with opened(fake, token) as client, keeping(client) as kept:
        kept.secrets.name("web", [A, B])
        async with asyncio.timeout(5):
            await kept.secrets.sync()
        await kept.has("a")
        [(scope, fault)] = kept.told
        assert scope.name == "b"
        assert 'cannot list resource "secrets"' in str(fault)


async def test_beyond_the_bound_secrets_are_listed_in_turn(fake: FakeApiServer, client: Client) -> None:
    for name in ("a", "b", "c"):
        fake.store.put(secret(name, "one"))
    async with keeping(client, watched=1) as kept:
        kept.secrets.name("web", [A, B, C])
        await kept.secrets.sync()
        assert kept.names == {"a", "b", "c"}
        assert repr(kept.secrets) == "Secrets(3 followed, 1 of them by a watch)"
        for name in ("a", "b", "c"):
            fake.store.put(secret(name, "two"))
        two = base64.b64encode(b"two").decode()
        await settled(lambda: all(kept.objects.secrets[key].data["x"] == two for key in (A, B, C)))
        assert {each.query["fieldSelector"] for each in fake.requests("watch", "secrets")} == {"metadata.name=a"}
        # A place that becomes free goes to one that waits.
        kept.secrets.name("web", [B, C])
        await settled(lambda: len(fake.requests("watch", "secrets")) == 2)


async def test_a_thousand_at_once_are_asked_for_in_bounds(fake: FakeApiServer, client: Client) -> None:
    keys = [("default", f"s{number}") for number in range(300)]
    async with keeping(client, watched=50) as kept:
        kept.secrets.name("web", keys)
        async with asyncio.timeout(30):
            await kept.secrets.sync()
        assert kept.secrets.known(keys)
        assert len(fake.requests("list", "secrets")) >= 300


async def test_a_server_that_is_away_is_waited_for(fake: FakeApiServer, client: Client) -> None:
    fake.store.put(secret("a"))
    await asyncio.to_thread(fake.stop)
    async with keeping(client, watched=0) as kept:
        kept.secrets.name("web", [A])
        task = asyncio.get_running_loop().create_task(kept.secrets.sync())
        await settled(lambda: kept.told != [])
        assert not task.done()
        assert kept.secrets.waiting == 1
        await asyncio.to_thread(fake.start)
        async with asyncio.timeout(5):
            await task
        assert kept.names == {"a"}
        assert kept.secrets.waiting == 0


async def test_what_may_not_be_read_is_asked_for_less_and_less(fake: FakeApiServer) -> None:
    """And keeps no other one waiting."""
    fake.store.put(secret("a", "one"))
    token = fake.token("spanway", "controller")
    fake.rules[fake.tokens[token]] = [Rule("default", ("",), ("secrets",), ("list", "watch"), ("a",))]
    refused = [("default", f"no-{number}") for number in range(10)]
    async with opened(fake, token) as client, keeping(client, watched=0) as kept:
        kept.secrets.name("web", [*refused, A])
        await kept.secrets.sync()
        for text in ("two", "three", "four"):
            fake.store.put(secret("a", text))
            encoded = base64.b64encode(text.encode()).decode()
            await settled(lambda encoded=encoded: kept.objects.secrets[A].data["x"] == encoded)  # type: ignore[misc]
        asked = [each.query["fieldSelector"] for each in fake.requests("list", "secrets")]
        assert asked.count("metadata.name=a") >= 4
        assert all(asked.count(f"metadata.name=no-{number}") == 1 for number in range(10))


async def test_a_mistake_of_ours_is_one_secret_s(
    fake: FakeApiServer, client: Client, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    fake.store.put(secret("a"))
    fake.store.put(secret("b"))
    page = Client.page

    async def broken(self: Client, path: str, query: Any, **options: Any) -> bytes:
        if query["fieldSelector"] == "metadata.name=a":
            raise RuntimeError("ours")
        return await page(self, path, query, **options)

    monkeypatch.setattr(Client, "page", broken)
    async with keeping(client, watched=0) as kept:
        kept.secrets.name("web", [A, B])
        await kept.has("b")
        monkeypatch.setattr(Client, "page", page)
        await kept.has("a", "b")
    assert "asking for secrets a in namespace default" in caplog.text


async def test_a_list_under_way_does_not_undo_what_a_watch_has_brought(fake: FakeApiServer, client: Client) -> None:
    """B is being listed as the place of A becomes free, and it gets a watch."""
    fake.store.put(secret("a"))
    fake.store.put(secret("b", "old"))
    new = base64.b64encode(b"new").decode()
    async with keeping(client, watched=1) as kept:
        kept.secrets.name("web", [A, B])
        await kept.secrets.sync()
        fake.pauses["secrets"] = 0.3
        before = len(fake.requests("list", "secrets"))
        await settled(lambda: len(fake.requests("list", "secrets")) > before)  # with an answer that is old now
        fake.store.put(secret("b", "new"))
        fake.pauses.clear()
        kept.secrets.name("web", [B])
        await settled(lambda: len(fake.requests("watch", "secrets")) == 2)
        await settled(lambda: kept.objects.secrets[B].data["x"] == new)
        await asyncio.sleep(0.5)
        assert kept.objects.secrets[B].data["x"] == new


async def test_what_is_needed_for_a_while_is_forgotten_afterwards(fake: FakeApiServer, client: Client) -> None:
    fake.store.put(secret("a"))
    fake.store.put(secret("b"))
    async with keeping(client) as kept:
        need = kept.secrets.need([A, B])
        assert need is not None
        async with asyncio.timeout(5):
            await need.ready
        assert kept.names == {"a", "b"}
        kept.secrets.name("web", [A])
        need.release()
        assert kept.names == {"a"}
        assert kept.secrets.need([A]) is None


async def test_a_need_is_over_after_a_while(
    client: Client, fake: FakeApiServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("proxy.control.cluster.secrets.AHEAD", 0.05)
    fake.pauses["secrets"] = 0.5
    async with keeping(client) as kept:
        need = kept.secrets.need([A])
        assert need is not None
        await asyncio.wait_for(need.ready, 5)
        assert not kept.secrets.known([A])
        again = kept.secrets.need([A])
        assert again is not None
        need.release()
        again.release()  # before its time
        assert kept.secrets.waiting == 0
