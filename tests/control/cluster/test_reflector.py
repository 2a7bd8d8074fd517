"""Reflectors against the stand-in for the API server, which does all that a real one does to a client, and against
one that is scripted, for what only a broken one does."""

from __future__ import annotations

import asyncio
import contextlib
import json
import time
from collections.abc import AsyncIterator, Callable
from pathlib import Path
from typing import Any

import pytest
import pytest_asyncio
from aiohttp import web

from proxy.control.cluster import client as clients
from proxy.control.cluster import reflector as reflectors
from proxy.control.cluster.ahead import Need
from proxy.control.cluster.client import Client
from proxy.control.cluster.counters import Counters
from proxy.control.cluster.faults import ApiFault
from proxy.control.cluster.intake import Intake
from proxy.control.cluster.kinds import SERVICE, Scope
from proxy.control.cluster.lines import Lines
from proxy.control.cluster.pace import Backoff
from proxy.control.cluster.reflector import Reflector
from proxy.control.publish import Change
from proxy.control.store import Objects
from tests.control.cluster.answers import opened, settled
from tests.control.cluster.scripted import Scripted, scripted
from tests.harness.kube_api import FakeApiServer, Trouble
from tests.harness.kube_store import RESOURCES, Rule

STORED = next(each for each in RESOURCES if each.kind == "Service")


def service(name: str, port: int = 80, namespace: str = "default") -> dict[str, Any]:
    return {
        "apiVersion": "v1",
        "kind": "Service",
        "metadata": {"name": name, "namespace": namespace},
        "spec": {"ports": [{"port": port}], "selector": None},
    }


class Followed:
    """A reflector of Services at work, and what it has brought."""

    def __init__(self, client: Client, scope: Scope = Scope(SERVICE), **options: Any) -> None:  # noqa: B008 - immutable
        self.objects = Objects()
        self.changes: list[Change] = []
        self.told: list[ApiFault | None] = []
        self.counters = Counters("Service")
        self.pulse = self.counters.join()
        intake = Intake("Service", self.objects, self.changes.append, self.pulse)
        options.setdefault("backoff", Backoff(0.02, 0.1))
        self.reflector = Reflector(
            client, scope, intake, self.counters, self.pulse, lambda _, fault: self.told.append(fault), **options
        )

    @property
    def names(self) -> set[str]:
        return {name for _, name in self.objects.services}

    def port(self, name: str) -> int:
        return self.objects.services["default", name].spec.ports[0].port

    @contextlib.asynccontextmanager
    async def running(self) -> AsyncIterator[Followed]:
        task = asyncio.get_running_loop().create_task(self.reflector.run())
        try:
            yield self
        finally:
            task.cancel()
            await asyncio.wait([task])

    async def synced(self) -> None:
        async with asyncio.timeout(10):
            await self.reflector.synced.wait()
        await settled(lambda: self.pulse.connected, "the watch")

    async def has(self, *names: str) -> None:
        await settled(lambda: self.names == set(names), f"{names}; there are {self.names}")


@contextlib.asynccontextmanager
async def following(client: Client, **options: Any) -> AsyncIterator[Followed]:
    async with Followed(client, **options).running() as followed:
        await followed.synced()
        yield followed


async def test_a_list_and_then_what_happens(fake: FakeApiServer, client: Client) -> None:
    fake.store.put(service("a"))
    async with following(client) as one:
        assert one.names == {"a"}
        fake.store.put(service("b"))
        await one.has("a", "b")
        fake.store.put(service("a", 81))
        await settled(lambda: one.port("a") == 81)
        fake.store.delete(STORED, ("default", "a"))
        await one.has("b")
        assert [change.verb for change in one.changes] == ["listed", "added", "modified", "deleted"]
        assert one.changes[2].lag_source == "managedFields"
        assert one.told == []


async def test_a_long_list_comes_in_pages(fake: FakeApiServer, client: Client) -> None:
    fake.page_limit = 7
    for number in range(40):
        fake.store.put(service(f"s{number}"))
    async with following(client) as one:
        assert len(one.names) == 40
    assert len(fake.requests("list", "services")) == 6


async def test_a_list_that_takes_too_long_is_taken_whole(
    fake: FakeApiServer, client: Client, monkeypatch: pytest.MonkeyPatch
) -> None:
    fake.page_limit = 5
    for number in range(20):
        fake.store.put(service(f"s{number}"))
    first: list[Any] = []
    listed = fake._list

    def compact_after_the_first(*arguments: Any) -> Any:
        answer = listed(*arguments)
        if not first:
            first.append(answer)
            fake.compact()
        return answer

    monkeypatch.setattr(fake, "_list", compact_after_the_first)
    async with following(client) as one:
        assert len(one.names) == 20
    limits = [asked.query.get("limit") for asked in fake.requests("list", "services")]
    assert limits == ["500", "500", None]


async def test_a_watch_that_ends_goes_on_where_it_was(fake: FakeApiServer, client: Client) -> None:
    fake.store.put(service("a"))
    async with following(client) as one:
        for name in ("b", "c", "d"):
            await asyncio.to_thread(fake.cut_watches)
            fake.store.put(service(name))
            await settled(lambda name=name: name in one.names)  # type: ignore[misc]
        assert one.names == {"a", "b", "c", "d"}
        assert len(fake.requests("list", "services")) == 1
        assert one.counters.reconnects["fault"] == 3
        assert one.told.count(None) <= 3


async def test_a_watch_goes_on_from_the_last_bookmark(fake: FakeApiServer, client: Client) -> None:
    async with following(client) as one:
        fake.store.put({"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": "x", "namespace": "default"}})
        version = fake.store.version
        await settled(lambda: one.reflector._version == str(version), "a bookmark")
        fake.compact()  # what came before the bookmark is forgotten
        await asyncio.to_thread(fake.cut_watches)
        fake.store.put(service("a"))
        await one.has("a")
        assert len(fake.requests("list", "services")) == 1
        assert one.counters.reconnects["gone"] == 0


@pytest.mark.parametrize("as_status", [False, True])
async def test_when_the_history_is_gone_everything_is_listed_and_compared(
    as_status: bool, fake: FakeApiServer, client: Client
) -> None:
    fake.gone_as_status = as_status
    fake.bookmarks = 3600
    for name in ("same", "changed", "gone"):
        fake.store.put(service(name))
    async with following(client) as one:
        one.changes.clear()
        await asyncio.to_thread(fake.stop)
        fake.store.put(service("changed", 81))
        fake.store.put(service("new"))
        fake.store.delete(STORED, ("default", "gone"))
        fake.compact()
        await asyncio.to_thread(fake.start)
        await one.has("same", "changed", "new")
        assert one.port("changed") == 81
        assert one.counters.reconnects["gone"] == 1
        assert {(change.verb, change.name) for change in one.changes} >= {("listed", "new"), ("deleted", "gone")}


async def test_nothing_is_missing_while_a_list_is_under_way(fake: FakeApiServer, client: Client) -> None:
    """Traffic goes on: what is served is a superset of what stays, at every moment."""
    fake.bookmarks = 3600
    fake.page_limit = 3
    for number in range(30):
        fake.store.put(service(f"s{number}"))
    async with following(client) as one:
        least = len(one.names)

        def watch_for_gaps(change: Change) -> None:
            nonlocal least
            least = min(least, len(one.names))

        one.changes = _Heard(watch_for_gaps)
        await asyncio.to_thread(fake.stop)
        for number in range(30):
            fake.store.put(service(f"s{number}", 81))
        fake.compact()
        await asyncio.to_thread(fake.start)
        await settled(lambda: all(one.port(f"s{number}") == 81 for number in range(30)))
        assert least == 30


class _Heard(list[Change]):
    def __init__(self, heard: Callable[[Change], None]) -> None:
        super().__init__()
        self._heard = heard

    def append(self, change: Change) -> None:
        self._heard(change)


async def test_a_server_that_is_away_is_waited_for_and_what_is_known_stays(fake: FakeApiServer, client: Client) -> None:
    fake.store.put(service("a"))
    async with following(client) as one:
        await asyncio.to_thread(fake.stop)
        await settled(lambda: one.told != [])
        fake.store.put(service("b"))
        await asyncio.sleep(0.3)
        assert one.names == {"a"}
        assert not one.pulse.connected
        assert 2 <= one.counters.faults["unreachable"] < 20
        await asyncio.to_thread(fake.start)
        await one.has("a", "b")
        await settled(lambda: one.told[-1] is None)
        assert len(one.told) == 2, "a fault is told once, and its end"


async def test_it_is_synced_only_after_a_whole_list(fake: FakeApiServer, client: Client) -> None:
    fake.store.put(service("a"))
    fake.troubles.append(Trouble(503, 3, "list", "services"))
    async with Followed(client).running() as one:
        await settled(lambda: one.told != [])
        assert not one.reflector.synced.is_set()
        await one.synced()
        assert one.names == {"a"}
        assert one.counters.faults["503"] == 3
    assert one.counters.sample().lists == 1


async def test_too_many_requests_are_answered_with_patience(fake: FakeApiServer, client: Client) -> None:
    fake.troubles.append(Trouble(429, 1, "list", "services", {"Retry-After": "1"}))
    async with following(client) as one:
        assert one.counters.faults["429"] == 1
    first, second, *_ = fake.requests("list", "services")
    assert second.at - first.at >= 1


async def test_a_refusal_is_told_with_verb_and_resource_and_mended_by_a_grant(fake: FakeApiServer) -> None:
    fake.store.put(service("a"))
    token = fake.token("spanway", "controller")
    user = fake.tokens[token]
    async with opened(fake, token) as client, Followed(client).running() as one:
        await settled(lambda: one.told != [])
        assert 'cannot list resource "services"' in str(one.told[0])
        fake.rules[user] = [Rule("", ("",), ("services",), ("list",))]
        await settled(lambda: one.names == {"a"})
        await settled(lambda: one.counters.faults["403"] > 3)
        assert not one.pulse.connected
        fake.rules[user] = [Rule("", ("",), ("services",), ("list", "watch"))]
        await settled(lambda: one.pulse.connected)
        await settled(lambda: one.told[-1] is None)


async def test_what_is_optional_counts_as_synced_where_it_is_refused(fake: FakeApiServer) -> None:
    token = fake.token("spanway", "controller")
    async with opened(fake, token) as client, Followed(client, optional=True).running() as one:
        async with asyncio.timeout(10):
            await one.reflector.synced.wait()
        assert one.names == set()


async def test_a_silent_watch_is_opened_anew(fake: FakeApiServer, client: Client) -> None:
    async with following(client, silence=0.3) as one:
        fake.silent.set()
        await settled(lambda: one.counters.faults["unreachable"] > 0)
        fake.silent.clear()
        fake.store.put(service("a"))
        await one.has("a")


async def test_after_two_silent_watches_everything_is_listed(fake: FakeApiServer, client: Client) -> None:
    async with following(client, silence=0.1) as one:
        fake.silent.set()  # as a server whose store is behind our version
        fake.store.put(service("a"))
        await one.has("a")
        fake.silent.clear()


async def test_an_event_was_received_before_what_it_waits_for(fake: FakeApiServer, client: Client) -> None:
    began: list[int] = []

    def before(_: Any) -> Need:
        began.append(time.time_ns())
        return later(0.02)

    async with following(client, before=before) as one:
        fake.store.put(service("a"))
        await one.has("a")
        assert one.changes[-1].received_ns <= began[0]


async def test_one_namespace_and_one_object(fake: FakeApiServer, client: Client) -> None:
    fake.store.put({"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": "shop"}})
    fake.store.put(service("a", namespace="shop"))
    fake.store.put(service("b"))
    async with following(client, scope=Scope(SERVICE, "shop")) as one:
        assert one.names == {"a"}
    async with following(client, scope=Scope(SERVICE, "default", "c")) as one:
        assert one.names == set()
        fake.store.put(service("c"))
        await one.has("c")
    watched = fake.requests("watch", "services")[-1]
    assert (watched.namespace, watched.query["fieldSelector"]) == ("default", "metadata.name=c")


async def test_watches_ask_for_bookmarks_and_for_an_end(fake: FakeApiServer, client: Client) -> None:
    async with following(client):
        pass
    query = fake.requests("watch", "services")[0].query
    assert query["allowWatchBookmarks"] == "true"
    assert 300 <= int(query["timeoutSeconds"]) <= 600
    assert query["resourceVersion"]


def later(seconds: float, released: Callable[[], None] = lambda: None) -> Need:
    """Something that is there after a while."""
    return Need(asyncio.get_running_loop().create_task(asyncio.sleep(seconds)), released)


async def test_what_events_need_comes_first_and_is_waited_for_together(fake: FakeApiServer, client: Client) -> None:
    there: list[bool] = []
    names = [f"s{number}" for number in range(30)]
    async with following(client, before=lambda _: later(0.3, lambda: there.append(True))) as one:
        began = time.monotonic()
        for name in names:
            fake.store.put(service(name))
        await one.has(*names)
        assert time.monotonic() - began < 30 * 0.3 / 2
        assert [change.name for change in one.changes] == names
        await settled(lambda: len(there) == 30)


async def test_what_is_listed_anew_has_what_it_needs(fake: FakeApiServer, client: Client) -> None:
    """The first list has not: everything is waited for then."""
    asked: list[int] = []
    released: list[bool] = []

    def before(_: Any) -> Need:
        asked.append(len(one.names))
        return later(0.02, lambda: released.append(True))

    fake.store.put(service("a"))
    one = Followed(client, before=before)
    async with one.running():
        await one.synced()
        assert asked == []
        await asyncio.to_thread(fake.stop)
        fake.store.put(service("b"))
        fake.compact()
        await asyncio.to_thread(fake.start)
        await one.has("a", "b")
        assert asked == [1, 1], "a and b, before either is taken in"
        await settled(lambda: len(released) == 2)


async def test_what_still_waits_as_a_watch_ends_comes_by_the_next(fake: FakeApiServer, client: Client) -> None:
    released: list[bool] = []
    pause = 60.0
    async with following(client, before=lambda _: later(pause, lambda: released.append(True))) as one:
        fake.store.put(service("a"))
        await asyncio.sleep(0.1)
        pause = 0.0
        await asyncio.to_thread(fake.stop)
        await settled(lambda: released == [True])
        assert one.names == set()
        await asyncio.to_thread(fake.start)
        await one.has("a")


# A server that is broken.


def line(kind: str, item: Any) -> bytes:
    return json.dumps({"type": kind, "object": item}).encode() + b"\n"


def versioned(name: str, version: int, port: int = 80) -> dict[str, Any]:
    made = service(name, port)
    made["metadata"]["resourceVersion"] = str(version)
    return made


class Broken:
    """Lists ``items`` at ``version``; each watch plays the next of ``plays`` (the last again and again)."""

    def __init__(self, script: Scripted) -> None:
        self.items: list[Any] = []
        self.version = 1
        self.plays: list[list[bytes]] = []
        self.later: tuple[int, list[Any]] | None = None  # from the second list on
        self.lists = 0
        self.froms: list[str] = []
        self.script = script
        script.handler = self.answer

    async def answer(self, request: web.Request) -> web.StreamResponse:
        if "watch" not in request.query:
            self.lists += 1
            if self.lists > 1 and self.later is not None:
                self.version, self.items = self.later
            return web.json_response({"metadata": {"resourceVersion": str(self.version)}, "items": self.items})
        self.froms.append(request.query["resourceVersion"])
        response = web.StreamResponse()
        await response.prepare(request)
        play = self.plays.pop(0) if len(self.plays) > 1 else self.plays[0]
        for piece in play:
            await response.write(piece)
        if play and play[-1].endswith(b"#"):
            return response
        await asyncio.sleep(5)
        return response


@pytest_asyncio.fixture
async def broken(tmp_path: Path) -> AsyncIterator[tuple[Broken, Client]]:
    async with scripted(tmp_path) as (script, made):
        yield Broken(script), made


@pytest.mark.parametrize(
    "bad",
    [
        b"this is no JSON\n",
        b'{"type":"ADDED"\n',
        b'{"type":"EXPLODED","object":{"metadata":{"name":"x"}}}\n',
        b'{"type":"BOOKMARK","object":{"metadata":7}}\n',
        b"\xff\xfe\xfd\n",
        b"[" * 100_000 + b"\n",
    ],
)
async def test_after_a_line_that_cannot_be_read_everything_is_listed_anew(
    bad: bytes, broken: tuple[Broken, Client]
) -> None:
    server, client = broken
    server.items = [versioned("a", 1)]
    server.plays = [[line("ADDED", versioned("b", 2)), bad, line("ADDED", versioned("never", 3))], []]
    async with Followed(client).running() as one:
        await settled(lambda: one.names == {"a", "b"})
        server.items = [versioned("a", 1), versioned("c", 4)]
        await one.has("a", "c")
        assert server.lists == 2
        assert one.counters.reconnects["fault"] == 1


async def test_a_bad_object_is_passed_over_and_the_watch_goes_on(broken: tuple[Broken, Client]) -> None:
    server, client = broken
    bad = versioned("b", 2)
    bad["spec"]["ports"] = "http"
    nameless: dict[str, Any] = {"metadata": {"name": {}}}
    play = [line("ADDED", bad), line("ADDED", nameless), line("DELETED", nameless), line("ADDED", versioned("c", 3))]
    server.plays = [play]
    async with Followed(client).running() as one:
        await one.has("c")
        assert server.lists == 1
        assert one.pulse.unusable == 2


async def test_a_list_of_bad_objects_is_a_list(broken: tuple[Broken, Client]) -> None:
    server, client = broken
    server.items = [{}, {"metadata": None}, versioned("a", 1), {"metadata": {"name": "x"}, "spec": []}]
    server.plays = [[]]
    async with Followed(client).running() as one:
        await one.synced()
        assert one.names == {"a"}


async def test_a_list_without_a_version_or_of_another_shape_is_asked_for_again(
    broken: tuple[Broken, Client],
) -> None:
    server, client = broken
    script = server.script
    answers = [b"[]", b"{}", b'{"metadata":{"resourceVersion":"1"},"items":{}}', b"<html>", b""]

    async def handler(request: web.Request) -> web.StreamResponse:
        return web.Response(body=answers.pop(0)) if answers else await server.answer(request)

    server.plays = [[]]
    script.handler = handler
    async with Followed(client).running() as one:
        await one.synced()
        assert one.counters.faults["unreachable"] == 5


async def test_versions_that_go_backwards_are_followed(broken: tuple[Broken, Client]) -> None:
    server, client = broken
    server.version = 500
    server.items = [versioned("a", 500, 81)]
    gone = line("ERROR", {"kind": "Status", "code": 410, "message": "too old resource version"})
    restored = versioned("a", 95, 80)
    server.plays = [[line("MODIFIED", versioned("a", 90, 82)), gone], []]
    server.later = 95, [restored]
    async with Followed(client).running() as one:
        await settled(lambda: len(server.froms) == 2)
        assert [change.resource_version for change in one.changes] == ["500", "90", "95"]
        assert one.port("a") == 80
        assert server.froms == ["500", "95"]


async def test_a_server_that_always_says_gone_is_not_asked_in_a_loop(broken: tuple[Broken, Client]) -> None:
    server, client = broken
    server.plays = [[line("ERROR", {"kind": "Status", "code": 410})]]
    async with Followed(client).running() as one:
        await asyncio.sleep(0.5)
        assert 3 <= one.counters.reconnects["gone"] < 30


async def test_a_server_that_ends_every_watch_at_once_is_not_asked_in_a_loop(broken: tuple[Broken, Client]) -> None:
    server, client = broken
    server.plays = [[b"\n#"]]
    async with Followed(client).running() as one:
        await asyncio.sleep(0.5)
        assert 3 <= len(server.froms) < 30
        assert (server.lists, one.told) == (1, [])


async def test_a_page_that_is_too_large_is_asked_for_in_smaller_pieces(
    fake: FakeApiServer, client: Client, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(clients, "PAGE", 6000)
    for number in range(50):
        fake.store.put(service(f"s{number}"))
    async with following(client) as one:
        assert len(one.names) == 50
    assert {asked.query.get("limit") for asked in fake.requests("list", "services")} == {"500", "62", "7"}


async def test_an_event_that_is_too_long_is_found_by_a_list(
    fake: FakeApiServer, client: Client, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(reflectors, "Lines", lambda: Lines(3000))
    async with following(client) as one:
        big = service("big")
        big["metadata"]["annotations"] = {"x": "y" * 10_000}
        fake.store.put(big)
        await one.has("big")
        assert one.counters.lists == 2


async def test_a_storm_of_events_is_taken_in(fake: FakeApiServer, client: Client) -> None:
    async with following(client) as one:
        for number in range(2000):
            fake.store.put(service("a", 1 + number % 60_000))
        await settled(lambda: "a" in one.names and one.port("a") == 2000)
        assert one.counters.events["modified"] >= 1999


async def test_a_mistake_of_ours_does_not_end_it(
    fake: FakeApiServer, client: Client, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    async with following(client) as one:
        monkeypatch.setattr(one.reflector._intake, "take", _fail)
        fake.store.put(service("a"))
        await settled(lambda: one.counters.reconnects["internal"] > 0)
        monkeypatch.undo()
        await one.has("a")
    assert "following services" in caplog.text


def _fail(*_: Any) -> Any:
    raise RuntimeError("a mistake")
