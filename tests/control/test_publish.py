from __future__ import annotations

import asyncio
import contextlib
import time
from collections.abc import AsyncIterator
from typing import Any

import msgspec
import pytest
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export import SimpleSpanProcessor
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter

from proxy.control import publish, trails
from proxy.control.build import Builder, Choices
from proxy.control.chronicle import Chronicle
from proxy.control.objects import (
    CLASS_ANNOTATION,
    BackendPort,
    HTTPPath,
    HTTPRule,
    Ingress,
    IngressBackend,
    IngressRule,
    IngressSpec,
    Metadata,
    ServiceBackend,
)
from proxy.control.problem import Problem
from proxy.control.publish import Change, Publisher
from proxy.control.store import Objects
from tests.control.cluster.answers import settled
from tests.control.sinks import Sink
from tests.control.texts import API, objects


def ingress(name: str, host: str = "a.test", version: str = "1", **annotations: str) -> Ingress:
    path = HTTPPath("/", "Prefix", IngressBackend(ServiceBackend("api", BackendPort("", 80))))
    spec = IngressSpec(rules=(IngressRule(host, HTTPRule((path,))),))
    return Ingress(Metadata(name, "shop", "u", version, annotations=annotations), spec)


class Stage:
    """A publisher over a store, and what it told."""

    def __init__(self, strict: bool) -> None:
        self.objects: Objects = objects(API)
        self.sink = Sink()
        self.told: list[tuple[Problem, ...]] = []
        self.publisher = Publisher(self.objects, self.sink, listener=self.told.append, strict=strict)

    def put(self, item: Ingress, verb: Any = "modified") -> None:
        assert self.objects.put(item)
        self.note(item, verb)

    def note(self, item: Ingress, verb: Any = "modified") -> None:
        metadata = item.metadata
        change = Change("Ingress", "shop", metadata.name, metadata.resource_version, verb, time.time_ns())
        self.publisher.changed(change)


@contextlib.asynccontextmanager
async def stage(strict: bool = False) -> AsyncIterator[Stage]:
    made = Stage(strict)
    try:
        yield made
    finally:
        await made.publisher.close()


async def test_the_first_table_waits_for_everything() -> None:
    async with stage() as s:
        s.put(ingress("web"), "listed")
        await asyncio.sleep(0.02)
        assert s.sink.tables == []
        await s.publisher.synced()
        [table], [change] = s.sink.tables, s.sink.changes
        assert (table.generation, change.generation, change.base) == (1, 1, 0)
        assert (list(change.hosts), list(change.backends)) == (["a.test"], ["shop/api:80"])
        assert s.publisher.table is table
        assert s.told == [()]
        assert s.publisher.sample().propagation.buckets == (0,) * 14, "a list is no event that propagates"
        await s.publisher.synced()
        assert len(s.sink.tables) == 1
        assert repr(s.publisher) == "Publisher(generation 1, 0 changes, 0 problems)"


async def test_an_empty_cluster_has_a_table_too() -> None:
    async with stage() as s:
        await s.publisher.synced()
        assert [table.generation for table in s.sink.tables] == [1]


async def test_a_change_is_a_generation_of_what_differs() -> None:
    async with stage() as s:
        s.put(ingress("web"), "listed")
        await s.publisher.synced()
        s.put(ingress("other", "b.test"), "added")
        await s.sink.next()
        await s.publisher.flush()
        change = s.sink.changes[-1]
        assert (change.generation, change.base, list(change.hosts), change.backends) == (2, 1, ["b.test"], {})
        assert len(s.sink.tables[-1].routes) == 2
        sample = s.publisher.sample()
        assert sample.events == (("Ingress", "added", 1), ("Ingress", "listed", 1))
        assert (sum(sample.propagation.buckets), sum(sample.builds.buckets) >= 2) == (1, True)


async def test_what_arrives_together_is_built_together() -> None:
    async with stage() as s:
        await s.publisher.synced()
        for number in range(50):
            s.put(ingress(f"web-{number}", f"{number}.test"), "added")
        await s.publisher.flush()
        for number in range(50):
            s.put(ingress(f"web-{number}", f"{number}.test", "2", x="y"))
            await asyncio.sleep(0)
        await s.publisher.flush()
        assert [len(change.hosts) for change in s.sink.changes] == [0, 50, 50]


async def test_what_arrives_during_a_build_is_the_next_one_s(monkeypatch: pytest.MonkeyPatch) -> None:
    building, go = asyncio.Event(), asyncio.Event()
    loop = asyncio.get_running_loop()
    update = Builder.update

    def slow(self: Builder, *arguments: Any) -> Any:
        loop.call_soon_threadsafe(building.set)
        asyncio.run_coroutine_threadsafe(go.wait(), loop).result(20)
        return update(self, *arguments)

    async with stage() as s:
        await s.publisher.synced()
        monkeypatch.setattr(Builder, "update", slow)
        s.put(ingress("one", "1.test"))
        await building.wait()
        s.put(ingress("two", "2.test"))
        s.put(ingress("three", "3.test"))
        await asyncio.sleep(0.02)
        assert len(s.sink.tables) == 1, "and the loop goes on meanwhile"
        go.set()
        await s.publisher.flush()
        assert [sorted(change.hosts) for change in s.sink.changes[1:]] in (
            [["1.test"], ["2.test", "3.test"]],
            [["1.test", "2.test", "3.test"]],
        )


async def test_what_changes_nothing_makes_no_generation() -> None:
    async with stage() as s:
        s.put(ingress("web"), "listed")
        await s.publisher.synced()
        s.objects.put(objects(API.replace("name: api,", "name: other,")).services["shop", "other"])
        s.note(ingress("web", version="7"))
        await s.publisher.flush()
        assert len(s.sink.tables) == 1
        assert len(s.told) == 1


async def test_problems_are_told_when_they_change() -> None:
    async with stage() as s:
        await s.publisher.synced()
        s.put(ingress("web", **{"spanway.io/colour": "blue"}))
        await s.publisher.flush()
        assert [len(problems) for problems in s.told] == [0, 1]
        s.put(ingress("two", "b.test"))
        await s.publisher.flush()
        assert [len(problems) for problems in s.told] == [0, 1, 1]
        await s.publisher.flush()
        assert len(s.told) == 3
        assert s.publisher.problems == s.told[-1] == tuple(s.sink.problems[-1])


async def test_errors_keep_the_table_of_files_and_what_they_held_back_comes_as_one() -> None:
    bad = {"spanway.io/proxy-body-size": "huge"}
    async with stage(strict=True) as s:
        s.put(ingress("web"), "listed")
        await s.publisher.synced()
        s.put(ingress("bad", "b.test", **bad))
        await s.publisher.flush()
        assert s.publisher.refused
        s.put(ingress("web", "new.test"))
        await s.publisher.flush()
        assert len(s.sink.tables) == 1
        s.put(ingress("bad", "b.test"))
        await s.publisher.flush()
        assert not s.publisher.refused
        change = s.sink.changes[-1]
        assert (change.generation, change.base, sorted(change.hosts)) == (2, 1, ["a.test", "b.test", "new.test"])
        s.put(ingress("bad", "b.test", **bad))
        await s.publisher.flush()
        s.put(ingress("bad", "b.test"))
        await s.publisher.flush()
        assert len(s.sink.tables) == 2, "mended to what it was"
        assert s.publisher.problems == ()


async def test_a_controller_serves_what_it_can() -> None:
    async with stage() as s:
        s.put(ingress("bad", **{"spanway.io/proxy-body-size": "huge"}))
        await s.publisher.synced()
        assert (len(s.sink.tables[0].routes), s.publisher.refused) == (1, False)


async def test_problems_of_reading_count_too() -> None:
    async with stage(strict=True) as s:
        s.publisher.noted = (Problem("error", "cannot be read", file="a.yaml"),)
        await s.publisher.synced()
        assert (s.sink.tables, s.publisher.table, s.publisher.refused) == ([], None, True)
        s.publisher.noted = ()
        await s.publisher.flush()
        assert [table.generation for table in s.sink.tables] == [1]


async def test_a_build_that_fails_is_made_good_by_the_next(monkeypatch: pytest.MonkeyPatch, caplog: Any) -> None:
    async with stage() as s:
        s.put(ingress("web"), "listed")
        s.put(ingress("gone", "gone.test"), "listed")
        await s.publisher.synced()
        with monkeypatch.context() as broken:
            broken.setattr(Builder, "update", lambda *_: 1 / 0)
            s.put(ingress("lost", "lost.test"))
            s.objects.remove("Ingress", ("shop", "gone"))
            await s.publisher.flush()
        assert (len(s.sink.tables), s.publisher.sample().failures) == (1, 1)
        assert "generation 1 stays" in caplog.text
        s.put(ingress("next", "next.test"))
        await s.publisher.flush()
        change = s.sink.changes[-1]
        assert (change.base, sorted(change.hosts)) == (1, ["gone.test", "lost.test", "next.test"])
        assert change.hosts["gone.test"] is None


@pytest.mark.parametrize("where", ["update", "swap"])
async def test_what_a_build_that_fails_was_to_take_in_is_the_next_one_s(
    where: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its events have their trace, are followed, and count as propagated when they are."""
    async with told() as (s, spans):
        await s.publisher.synced()
        with monkeypatch.context() as broken:
            owner, name = (Builder, "update") if where == "update" else (Sink, "swap")
            broken.setattr(owner, name, lambda *_: 1 / 0)
            s.objects.put(ingress("ours", "ours.test", **{CLASS_ANNOTATION: "mine"}))
            s.publisher.changed(carrying("ours", 2))
            await s.publisher.flush()
        assert s.publisher.followed(f"{2:032x}") is None
        await s.publisher.flush()
        found = s.publisher.followed(f"{2:032x}")
        assert found is not None
        assert found.objects == (("Ingress", "shop", "ours", "1"),)
        assert (found.generation, len(found.traces)) == (s.sink.tables[-1].generation, 1)
        await settled(lambda: sum(s.publisher.sample().propagation.buckets) == 1)
        assert s.publisher.sample().events == (("Ingress", "modified", 1),)
    whole = [span for span in spans.get_finished_spans() if span.name == "table generation" and span.links]
    assert [link.context.trace_id for link in whole[-1].links] == [2]


async def test_a_build_that_fails_is_tried_again_though_nothing_changes(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(publish, "_AGAIN", 0.01)
    async with stage() as s:
        s.put(ingress("web"), "listed")
        with monkeypatch.context() as broken:
            broken.setattr(Builder, "update", lambda *_: 1 / 0)
            await s.publisher.synced()
        async with asyncio.timeout(5):
            while not s.sink.tables:
                await asyncio.sleep(0.01)
        assert [route.name for route in s.sink.tables[-1].routes] == ["web"]


async def test_what_changes_while_nothing_can_be_built_is_kept_within_bounds(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(publish, "_UNBUILT", 10)
    async with stage() as s:
        for number in range(100):
            s.note(ingress("web", version=str(number)))
        assert len(s.publisher._changes) <= 20
        assert s.publisher._changes[-1].resource_version == "99"


async def test_it_never_waits_for_a_worker_that_is_behind() -> None:
    async with stage() as s:
        await s.publisher.synced()
        s.sink.prompt = 1
        for number in range(3):
            s.put(ingress("web", f"{number}.test"))
            await s.publisher.flush()
        assert [table.generation for table in s.sink.tables] == [1, 2, 3, 4]
        assert sum(s.publisher.sample().propagation.buckets) == 0
        for rolling in s.sink.rollings[1:]:
            rolling.arrive(1)
        await asyncio.sleep(0.01)
        assert sum(s.publisher.sample().propagation.buckets) == 3


async def test_a_certificate_s_age_is_looked_at_now_and_then(monkeypatch: pytest.MonkeyPatch) -> None:
    looks = iter((False, False))
    monkeypatch.setattr(publish, "_AGE", 0.001)
    monkeypatch.setattr(Builder, "due", lambda *_: next(looks, True))
    async with stage() as s:
        await s.publisher.synced()
        before = len(s.sink.problems)
        async with asyncio.timeout(20):
            while len(s.sink.problems) == before:
                await asyncio.sleep(0.001)


CONTEXT = "00-{}-b7ad6b7169203331-01"


def carrying(name: str, trace: int, version: str = "1") -> Change:
    traceparent = CONTEXT.format(f"{trace:032x}")
    return Change("Ingress", "shop", name, version, "modified", time.time_ns(), traceparent=traceparent)


async def test_what_has_become_of_a_trace_s_objects_is_known() -> None:
    async with stage() as s:
        s.objects.put(ingress("one", "1.test"))
        s.publisher.changed(carrying("one", 1))
        await s.publisher.synced()
        s.objects.put(ingress("two", "2.test"))
        s.publisher.changed(carrying("two", 1))
        s.publisher.changed(carrying("three", 2))
        await s.publisher.flush()
        s.publisher.changed(carrying("two", 1, "9"))
        await s.publisher.flush()
        found = s.publisher.followed(f"{1:032x}")
        assert found is not None
        assert found.objects == (("Ingress", "shop", "one", "1"), ("Ingress", "shop", "two", "9"))
        assert (found.generation, found.traces, found.first) == (2, (), "")
        assert s.publisher.followed("f" * 32) is None
        s.publisher.changed(Change("Ingress", "shop", "x", "1", "modified", 1, traceparent="nonsense"))
        await s.publisher.flush()


@contextlib.asynccontextmanager
async def told() -> AsyncIterator[tuple[Stage, InMemorySpanExporter]]:
    """A stage whose generations are traces, and which serves one class."""
    spans = InMemorySpanExporter()
    provider = TracerProvider()
    provider.add_span_processor(SimpleSpanProcessor(spans))
    made = Stage(False)
    chronicle = Chronicle(provider)
    made.publisher = Publisher(made.objects, made.sink, choices=Choices("mine"), chronicle=chronicle)
    try:
        yield made, spans
    finally:
        await made.publisher.close()
        chronicle.end()


async def test_an_ingress_of_another_class_is_seen_but_not_served() -> None:
    """Though another's change makes a generation in the same moment."""
    foreign = msgspec.structs.replace(ingress("theirs", "theirs.test"), spec=IngressSpec(ingress_class_name="yours"))
    mine = ingress("ours", "ours.test", **{CLASS_ANNOTATION: "mine"})
    async with told() as (s, spans):
        await s.publisher.synced()
        s.objects.put(foreign)
        s.objects.put(mine)
        s.publisher.changed(carrying("theirs", 1))
        s.publisher.changed(carrying("ours", 2))
        await s.publisher.flush()
        theirs, ours = s.publisher.followed(f"{1:032x}"), s.publisher.followed(f"{2:032x}")
        assert theirs is not None
        assert ours is not None
        assert (theirs.objects, theirs.idle) == ((), (("Ingress", "shop", "theirs", "1"),))
        assert (theirs.generation, theirs.traces) == (0, ())
        assert (ours.objects, ours.idle, ours.generation) == ((("Ingress", "shop", "ours", "1"),), (), 2)
        assert len(ours.traces) == 1
    links = [link.context.trace_id for span in spans.get_finished_spans() for link in span.links]
    assert 2 in links
    assert 1 not in links


async def test_a_generation_is_theirs_who_made_it() -> None:
    """Whoever comes after it and changes nothing is served by it, and is no reason of it."""
    async with told() as (s, _):
        s.put(ingress("ours", "ours.test", **{CLASS_ANNOTATION: "mine"}), "listed")
        await s.publisher.synced()
        s.publisher.changed(carrying("ours", 1))
        await s.publisher.flush()
        found = s.publisher.followed(f"{1:032x}")
        assert found is not None
        assert (found.generation, found.traces) == (1, ())
        assert found.objects == (("Ingress", "shop", "ours", "1"),)


async def test_what_is_named_later_is_in_use_from_then_on() -> None:
    async with stage() as s:
        await s.publisher.synced()
        one = CONTEXT.format(f"{1:032x}")
        for kind, name in (("Service", "api"), ("Service", "lonely"), ("EndpointSlice", "none"), ("Secret", "pair")):
            s.publisher.changed(Change(kind, "shop", name, "1", "added", 1, traceparent=one))
        await s.publisher.flush()
        found = s.publisher.followed(f"{1:032x}")
        assert found is not None
        assert [thing[2] for thing in found.idle] == ["api", "lonely", "none", "pair"]
        s.put(ingress("web"), "added")
        await s.publisher.flush()
        found = s.publisher.followed(f"{1:032x}")
        assert found is not None
        assert [thing[2] for thing in found.objects] == ["api"]
        assert [thing[2] for thing in found.idle] == ["lonely", "none", "pair"]
        assert found.generation == 2
        s.objects.remove("Ingress", ("shop", "web"))
        s.publisher.changed(Change("Service", "shop", "api", "2", "deleted", 1, traceparent=one))
        await s.publisher.flush()
        found = s.publisher.followed(f"{1:032x}")
        assert found is not None
        assert found.objects == ()


async def test_what_errors_hold_back_is_not_served() -> None:
    """The files have errors: the good Ingress beside the bad one waits with it."""
    bad = ingress("bad", "b.test", **{"nginx.ingress.kubernetes.io/proxy-body-size": "many"})
    async with stage(strict=True) as s:
        s.put(ingress("web"), "listed")
        await s.publisher.synced()
        s.objects.put(bad)
        s.publisher.changed(carrying("bad", 1))
        s.objects.put(ingress("good", "g.test"))
        s.publisher.changed(carrying("good", 2))
        await s.publisher.flush()
        assert s.publisher.refused
        assert s.publisher.followed(f"{2:032x}") is None
        s.put(ingress("bad", "b.test"))
        await s.publisher.flush()
        found = s.publisher.followed(f"{2:032x}")
        assert found is not None
        assert (found.objects, found.generation) == ((("Ingress", "shop", "good", "1"),), 2)


async def test_what_is_remembered_is_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(trails, "TRACES", 2)
    async with stage() as s:
        for number in range(1, 5):
            s.publisher.changed(carrying("one", number))
        await s.publisher.synced()
        assert s.publisher.followed(f"{2:032x}") is None
        assert s.publisher.followed(f"{4:032x}") is not None
