from __future__ import annotations

import json
from collections import Counter

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from proxy.trace import tree
from proxy.trace.tree import (
    TraceView,
    assemble,
    find,
    grow,
    matches,
    summaries,
    summary_document,
    trace_document,
)
from proxy.trace.view import SpanView, decode
from tests.trace.spans import batch, span


def view(number: int, parent: int = 0, *, start: int = 0, end: int = 0, trace: int = 1, service: str = "a") -> SpanView:
    (made,) = decode([batch(span(trace, number, parent, start=start, end=end), service=service)])
    return made


def drawn(trace: TraceView) -> list[tuple[int, int]]:
    """Number and depth of every span, in drawing order."""
    return [(int(node.span.span_id, 16), node.depth) for node in trace.nodes]


def marks(trace: TraceView) -> dict[int, str]:
    return {
        int(node.span.span_id, 16): "orphan" if node.orphan else "cycle"
        for node in trace.nodes
        if node.orphan or node.cycle
    }


def test_children_follow_their_parent_in_order_of_start() -> None:
    trace = grow(
        [view(5, 2, start=50), view(3, 1, start=30), view(1, start=10), view(4, 2, start=40), view(2, 1, start=20)]
    )
    assert drawn(trace) == [(1, 0), (2, 1), (4, 2), (5, 2), (3, 1)]
    assert marks(trace) == {}
    assert [len(node.children) for node in trace.nodes] == [2, 2, 0, 0, 0]
    assert trace.nodes[0].children == [f"{2:016x}", f"{3:016x}"]
    assert (trace.start_ns, trace.end_ns, trace.duration_ns) == (10, 60, 50)


def test_the_end_is_the_latest_end_not_the_roots() -> None:
    trace = grow([view(1, start=10, end=20), view(2, 1, start=15, end=500)])
    assert trace.duration_ns == 490


def test_a_span_whose_parent_is_missing_is_an_orphan_with_its_own_children() -> None:
    trace = grow([view(1, start=1), view(3, 99, start=3), view(4, 3, start=4), view(2, 1, start=2)])
    assert drawn(trace) == [(1, 0), (2, 1), (3, 0), (4, 1)]
    assert marks(trace) == {3: "orphan"}
    assert trace.root.span_id == f"{1:016x}"


def test_a_trace_continued_from_a_caller_has_an_orphan_for_a_root() -> None:
    trace = grow([view(2, 1, start=5), view(3, 2, start=6)])
    assert drawn(trace) == [(2, 0), (3, 1)]
    assert trace.root.span_id == f"{2:016x}"


def test_a_root_without_a_parent_stands_for_the_trace_even_if_it_started_later() -> None:
    trace = grow([view(2, 99, start=1), view(1, start=5)])
    assert trace.root.span_id == f"{1:016x}"
    assert drawn(trace) == [(2, 0), (1, 0)]


def test_a_span_that_came_twice_is_shown_once() -> None:
    trace = grow([view(1), view(2, 1), view(2, 1), view(1)])
    assert drawn(trace) == [(1, 0), (2, 1)]


def test_a_span_that_is_its_own_parent() -> None:
    trace = grow([view(1, 1), view(2, 1)])
    assert drawn(trace) == [(1, 0), (2, 1)]
    assert marks(trace) == {1: "cycle"}


def test_a_circle_is_broken_at_its_earliest_span_and_what_hangs_below_stays_below() -> None:
    # 4 > 2 > 3 > 4, and 1, the earliest of all, hangs below 3.
    trace = grow([view(2, 4, start=20), view(3, 2, start=30), view(4, 3, start=40), view(1, 3, start=10)])
    assert drawn(trace) == [(2, 0), (3, 1), (1, 2), (4, 2)]
    assert marks(trace) == {2: "cycle"}
    assert trace.nodes[-1].children == []


def test_two_circles_beside_a_tree() -> None:
    trace = grow([view(1), view(2, 3, start=5), view(3, 2, start=6), view(4, 5, start=8), view(5, 4, start=7)])
    assert drawn(trace) == [(1, 0), (2, 0), (3, 1), (5, 0), (4, 1)]
    assert marks(trace) == {2: "cycle", 5: "cycle"}


def test_a_very_deep_trace_needs_no_stack() -> None:
    trace = grow([view(1), *(view(number, number - 1) for number in range(2, 3001))])
    assert drawn(trace)[-1] == (3000, 2999)


def test_too_many_spans_are_counted_not_shown(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tree, "SPANS_MOST", 3)
    trace = grow([view(number, 1 if number > 1 else 0) for number in range(1, 8)])
    assert drawn(trace) == [(1, 0), (2, 1), (3, 1)]
    assert trace.truncated == 4


def test_services_and_errors() -> None:
    batches = [batch(span(1, 2, 1, error=True), service="shop"), batch(span(1, 1), service="spanway")]
    (trace,) = assemble(decode(batches))
    assert trace.services == ["spanway", "shop"]
    assert trace.errors == 1


def test_several_traces_newest_first() -> None:
    spans = [
        view(1, trace=7, start=10),
        view(1, trace=8, start=30),
        view(1, trace=9, start=20),
        view(2, trace=7, start=99),
    ]
    assert [int(trace.trace_id, 16) for trace in assemble(spans)] == [8, 9, 7]


@given(
    st.lists(
        st.tuples(st.integers(1, 12), st.integers(0, 14), st.integers(1, 30), st.integers(0, 50)),
        min_size=1,
        max_size=40,
    )
)
def test_whatever_comes_every_span_appears_exactly_once(rows: list[tuple[int, int, int, int]]) -> None:
    spans = [view(number, parent, start=start, end=start + length) for number, parent, start, length in rows]
    trace = grow(spans)
    first = {one.span_id: one for one in reversed(spans)}
    assert Counter(node.span.span_id for node in trace.nodes) == Counter(first.keys())
    assert all(node.span == first[node.span.span_id] for node in trace.nodes)
    at = {node.span.span_id: node for node in trace.nodes}
    order = [node.span.span_id for node in trace.nodes]
    path: list[str] = []  # the drawn ancestors of the row that is looked at
    for node in trace.nodes:
        assert node.depth <= len(path)
        del path[node.depth :]
        span = node.span
        if node.depth:
            # Below its own parent, and named by it.
            assert span.parent_id == path[-1]
            assert span.span_id in at[path[-1]].children
            assert not node.orphan
            assert not node.cycle
        else:
            assert node.orphan == (bool(span.parent_id) and span.parent_id not in at)
            # A root with a parent among the spans is there only because its parents lead back to it.
            if span.parent_id in at:
                assert node.cycle
                here, circle = span.parent_id, {span.parent_id}
                while here != span.span_id:
                    here = at[here].span.parent_id
                    circle.add(here)
                assert span.start_ns == min(at[one].span.start_ns for one in circle)
        path.append(span.span_id)
        starts = [(at[child].span.start_ns, child) for child in node.children]
        assert starts == sorted(starts)
        assert [child for child in order if child in node.children] == node.children
    roots = [(node.span.start_ns, node.span.span_id) for node in trace.nodes if node.depth == 0]
    assert roots == sorted(roots)
    # The same spans in another order make the same picture, doubles apart.
    assert drawn(grow(list(first.values())[::-1])) == drawn(trace)


class TestSummaries:
    def test_newest_first_and_no_more_than_asked(self) -> None:
        batches = [batch(*(span(trace, 1, start=100 + trace) for trace in range(1, 8)))]
        assert [int(line.trace_id, 16) for line in summaries(batches, 3)] == [7, 6, 5]
        assert summaries(batches, 0) == summaries(batches, -1) == summaries([]) == []

    def test_a_line_tells_of_the_whole_trace_by_its_root(self) -> None:
        root = span(1, 1, name="GET /cart", start=100, end=400)
        root.attributes.add(key="http.response.status_code").value.int_value = 503
        for key, text in (
            ("http.route", "/cart"),
            ("error.type", "503"),
            ("http.request.method", "GET"),
            ("url.path", "/cart"),
        ):
            root.attributes.add(key=key).value.string_value = text
        batches = [
            batch(span(1, 3, 2, start=150, end=600, error=True), service="shop"),
            batch(span(1, 2, 1, start=120), root, span(1, 2, 1, start=120), service="spanway"),
            b"\xffrubbish",
        ]
        (line,) = summaries(batches)
        assert (line.name, line.service, line.kind) == ("GET /cart", "spanway", "SERVER")
        assert (line.method, line.route, line.path) == ("GET", "/cart", "/cart")
        assert (line.status_code, line.error_type) == (503, "503")
        assert (line.spans, line.errors, line.services) == (3, 1, ["spanway", "shop"])
        assert (line.start_ns, line.duration_ns) == (100, 500)

    def test_attributes_of_the_wrong_type_do_no_harm(self) -> None:
        root = span(1, 1)
        root.attributes.add(key="http.route").value.int_value = 5
        root.attributes.add(key="http.response.status_code").value.string_value = "x"
        (line,) = summaries([batch(root)])
        assert (line.route, line.status_code) == ("", 0)

    @given(
        st.lists(
            st.tuples(st.integers(1, 4), st.integers(1, 6), st.integers(0, 6), st.integers(1, 30), st.booleans()),
            min_size=1,
            max_size=30,
            unique_by=lambda row: row[:2],
        )
    )
    def test_they_agree_with_the_trees(self, rows: list[tuple[int, int, int, int, bool]]) -> None:
        batches = [
            batch(span(trace, number, parent, start=start, error=error), service=f"s{number}")
            for trace, number, parent, start, error in rows
        ]
        lines, trees = summaries(batches), assemble(decode(batches))
        assert [line.trace_id for line in lines] == [trace.trace_id for trace in trees]
        for line, trace in zip(lines, trees, strict=True):
            assert (line.start_ns, line.duration_ns) == (trace.start_ns, trace.duration_ns)
            assert (line.spans, line.errors) == (len(trace.nodes), trace.errors)
            assert set(line.services) == set(trace.services)
            if any(not node.span.parent_id for node in trace.nodes):
                assert line.name == trace.root.name


class TestFind:
    BATCHES = (batch(span(0xABC, 1), span(0xABD, 2)), batch(span(0xABC, 3, 1)), batch(span(1 << 120, 4)))

    def test_by_id_and_by_prefix(self) -> None:
        found = find(self.BATCHES, f"{0xABC:032X} ")
        assert found is not None
        assert drawn(found) == [(1, 0), (3, 1)]
        other = find(self.BATCHES, "01")
        assert other is not None
        assert drawn(other) == [(4, 0)]

    def test_none_or_several(self) -> None:
        assert find(self.BATCHES, "0000") is None
        assert find(self.BATCHES, "f") is None
        assert find(self.BATCHES, " ") is None
        assert find(self.BATCHES, "not hex") is None

    def test_matches_say_which_they_are(self) -> None:
        assert matches(self.BATCHES, "0000") == [f"{0xABC:032x}", f"{0xABD:032x}"]
        assert matches(self.BATCHES, f"{0xABD:032X}") == [f"{0xABD:032x}"]
        assert len(matches(self.BATCHES, "")) == 3
        assert matches(self.BATCHES, "f") == []


class TestDocuments:
    NOW = 1_790_000_000_123_456_789

    def test_a_trace(self) -> None:
        root = span(1, 1, start=self.NOW, end=self.NOW + 5_000_000)
        root.events.add(name="e", time_unix_nano=self.NOW + 1500)
        (trace,) = assemble(decode([batch(root, span(1, 2, 1, start=self.NOW + 2000), service="shop")]))
        document = json.loads(msgspec.json.encode(trace_document(trace)))
        assert document["start_ns"] == str(self.NOW)
        assert (document["duration_us"], document["services"]) == (5000.0, ["shop"])
        assert document["resources"] == {"shop": {"service.name": "shop"}}
        first, second = document["spans"]
        assert (first["offset_us"], first["duration_us"], first["depth"]) == (0.0, 5000.0, 0)
        assert (first["children"], first["orphan"], first["cycle"]) == ([f"{2:016x}"], False, False)
        assert first["events"] == [{"name": "e", "time_ns": str(self.NOW + 1500), "offset_us": 1.5, "attributes": {}}]
        assert (second["offset_us"], second["start_ns"]) == (2.0, str(self.NOW + 2000))
        assert "resource" not in first

    def test_a_line(self) -> None:
        (line,) = summaries([batch(span(1, 1, start=self.NOW, end=self.NOW + 1500))])
        document = json.loads(msgspec.json.encode(summary_document(line)))
        assert (document["start_ns"], document["duration_us"]) == (str(self.NOW), 1.5)
        assert "duration_ns" not in document
