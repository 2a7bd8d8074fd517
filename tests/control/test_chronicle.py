from __future__ import annotations

import asyncio
import time
from typing import Any

import pytest
from opentelemetry.sdk.trace import ReadableSpan, TracerProvider
from opentelemetry.sdk.trace.export import SimpleSpanProcessor
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter
from opentelemetry.sdk.trace.sampling import ALWAYS_OFF, ALWAYS_ON
from opentelemetry.trace import SpanKind

from proxy.channel import First
from proxy.control import chronicle as chronicling
from proxy.control.build import Step
from proxy.control.chronicle import Chronicle, Story, link_of
from proxy.control.publish import Change
from proxy.trace.provider import Linked
from tests.control.sinks import Rolling

STEP = Step({"a.test": None}, {}, {}, (), 3, 4)
TRACEPARENT = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"
T0 = 1_800_000_000_000_000_000
MS = 1_000_000


class Stage:
    def __init__(self, sampler: Any = ALWAYS_ON) -> None:
        self.memory = InMemorySpanExporter()
        provider = TracerProvider(sampler=Linked(sampler), shutdown_on_exit=False)
        provider.add_span_processor(SimpleSpanProcessor(self.memory))
        self.chronicle = Chronicle(provider)

    def begin(self, generation: int = 7, *changes: Change) -> Story:
        story = self.chronicle.begin(generation, changes, 40, STEP, T0 + 5 * MS, T0 + 6 * MS)
        assert story is not None
        return story

    def spans(self) -> dict[str, ReadableSpan]:
        return {span.name: span for span in self.memory.get_finished_spans()}


def change(name: str = "web", at: int = T0, **more: Any) -> Change:
    return Change("Ingress", "shop", name, "42", "modified", at, **more)


def rolled() -> Rolling:
    rolling = Rolling(2)
    rolling.began_ns = T0 + 7 * MS
    for worker in rolling.found:
        worker.sent_ns = T0 + 7 * MS
        worker.prepared_ns = T0 + 8 * MS
        worker.served_ns = T0 + (9 + worker.index) * MS
    return rolling


def ids(span: ReadableSpan) -> tuple[str, str]:
    assert span.context is not None
    return f"{span.context.trace_id:032x}", f"{span.context.span_id:016x}"


async def test_a_generation_from_its_event_to_its_first_request() -> None:
    s = Stage()
    story = s.begin(7, change(lag_ns=3_000_000, lag_source="managedFields", traceparent=TRACEPARENT))
    assert [*s.spans()] == ["receive Ingress", "build"]
    story.swapped(rolled())
    assert "table generation" not in s.spans(), "the first request is still to come"
    s.chronicle.served(First(0, 8, b"x" * 16, b"", T0, T0, 200))
    s.chronicle.served(First(0, 7, b"t" * 16, b"s" * 8, T0 + 20 * MS, T0 + 25 * MS, 200))
    s.chronicle.served(First(0, 7, b"u" * 16, b"v" * 8, T0 + 21 * MS, T0 + 26 * MS, 200))
    found = s.spans()
    root, event, build, swap, first = (
        found[name] for name in ("table generation", "receive Ingress", "build", "swap", "first request")
    )
    workers = [span for span in s.memory.get_finished_spans() if span.name == "swap worker"]
    assert (root.start_time, root.end_time, root.parent) == (T0, T0 + 25 * MS, None)
    assert root.attributes == {"spanway.generation": 7, "spanway.events": 40}
    assert (event.kind, event.start_time, event.end_time) == (SpanKind.CONSUMER, T0, T0 + 5 * MS)
    assert event.attributes == {
        "spanway.object.kind": "Ingress",
        "spanway.object.namespace": "shop",
        "spanway.object.name": "web",
        "spanway.object.resource_version": "42",
        "spanway.event.verb": "modified",
        "spanway.event.lag.us": 3000,
        "spanway.event.lag.source": "managedFields",
    }
    assert (build.start_time, build.end_time) == (T0 + 5 * MS, T0 + 6 * MS)
    assert build.attributes is not None
    assert (build.attributes["spanway.build.ingresses"], build.attributes["spanway.build.hosts"]) == (3, 1)
    assert (swap.start_time, swap.end_time) == (T0 + 7 * MS, T0 + 10 * MS), "until the last worker has it"
    assert [span.end_time for span in workers] == [T0 + 9 * MS, T0 + 10 * MS]
    assert workers[1].attributes == {
        "spanway.worker": 1,
        "process.pid": 101,
        "spanway.swap.whole": False,
        "spanway.swap.prepare.us": 1000,
        "spanway.swap.busy.us": 1,
    }
    assert (first.start_time, first.end_time) == (T0 + 10 * MS, T0 + 25 * MS)
    assert [f"{link.context.trace_id:032x}" for link in first.links] == ["74" * 16]
    for span in (root, event):
        [link] = span.links
        assert f"{link.context.trace_id:032x}-{link.context.span_id:016x}" == TRACEPARENT[3:52]
    for span in (event, build, swap, first):
        assert span.parent is not None
        assert f"{span.parent.span_id:016x}" == ids(root)[1]
    assert {ids(span)[0] for span in s.memory.get_finished_spans()} == {story.origin.trace_id.hex()}
    assert (story.origin.span_id.hex(), story.origin.flags & 1) == (ids(root)[1], 1)
    assert repr(s.chronicle) == "Chronicle([])"
    assert s.chronicle.first(story.origin.trace_id.hex()) == "74" * 16
    assert s.chronicle.first("f" * 32) == ""


async def test_a_request_that_was_quicker_than_the_last_worker() -> None:
    s = Stage()
    story = s.begin(7, change())
    s.chronicle.served(First(0, 7, b"t" * 16, b"", T0 + 8 * MS, T0 + 9 * MS, 0))
    assert "first request" not in s.spans()
    story.swapped(rolled())
    first, root = s.spans()["first request"], s.spans()["table generation"]
    assert (first.start_time, first.end_time, list(first.links)) == (T0 + 8 * MS, T0 + 9 * MS, [])
    assert root.end_time == T0 + 10 * MS


async def test_without_a_request_it_ends_with_the_next_generation_or_after_a_while(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    s = Stage()
    s.begin(7, change()).swapped(rolled())
    second = s.begin(8, change())
    second.swapped(rolled())
    [root] = [span for span in s.memory.get_finished_spans() if span.name == "table generation"]
    assert (root.attributes, root.end_time) == ({"spanway.generation": 7, "spanway.events": 40}, T0 + 10 * MS)
    monkeypatch.setattr(chronicling, "PATIENCE", 0.01)
    s.begin(9, change()).swapped(rolled())
    await asyncio.sleep(0.1)
    assert "first request" not in s.spans()
    assert len([span for span in s.memory.get_finished_spans() if span.name == "table generation"]) == 3
    s.begin(10)
    s.chronicle.end()
    assert repr(s.chronicle) == "Chronicle([])"


async def test_several_events_are_several_links_and_the_first_begins_it() -> None:
    s = Stage()
    other = TRACEPARENT.replace("0af7", "1af7")
    s.begin(7, change(at=T0 + 2 * MS, traceparent=TRACEPARENT), change(traceparent=other), change(traceparent=other))
    s.chronicle.end()
    root = s.spans()["table generation"]
    assert (len(root.links), root.start_time) == (2, T0)


async def test_where_tracing_is_off_only_what_is_traced_elsewhere_is_recorded() -> None:
    s = Stage(ALWAYS_OFF)
    assert s.chronicle.begin(7, (change(),), 1, STEP, T0, T0) is None
    unsampled = TRACEPARENT[:-1] + "0"
    assert s.chronicle.begin(7, (change(traceparent=unsampled),), 1, STEP, T0, T0) is None
    assert s.chronicle.begin(7, (change(traceparent=TRACEPARENT),), 1, STEP, T0, T0) is not None
    s.chronicle.end()


async def test_open_traces_are_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(chronicling, "_OPEN", 3)
    s = Stage()
    for generation in range(10):
        s.begin(generation)
    assert len(s.chronicle._open) == 3
    s.chronicle.end()


@pytest.mark.parametrize("text", ["", "nonsense", TRACEPARENT.upper(), "\udc80", "00-" + "0" * 32 + TRACEPARENT[35:]])
def test_what_is_no_context_is_no_link(text: str) -> None:
    assert link_of(text) is None


def test_times_of_a_clock_that_went_back_make_no_negative_span() -> None:
    s = Stage()
    s.chronicle.begin(7, (change(at=time.time_ns() + 10**12),), 1, STEP, T0, T0 - 1)
    s.chronicle.end()
    for span in s.memory.get_finished_spans():
        assert span.start_time is not None
        assert span.end_time is not None
