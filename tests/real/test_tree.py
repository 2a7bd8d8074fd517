"""What makes a trace sound: the judge of the real tests, on traces made by hand."""

from __future__ import annotations

import dataclasses

from tests.real.tree import STEP, Kind, Span, Trace

TRACE = "ab" * 16


def span(span_id: str, parent_id: str, start: int, end: int, kind: Kind = "INTERNAL", service: str = "spanway") -> Span:
    return Span(TRACE, span_id, parent_id, f"span {span_id}", kind, service, start, end, "UNSET", {})


ROOT = span("1", "", 100, 200, "SERVER")
CHILD = span("2", "1", 110, 190, "CLIENT")
LEAF = span("3", "2", 110, 189, "SERVER", "b")


def test_a_tree_is_sound() -> None:
    trace = Trace.of([LEAF, ROOT, CHILD])
    assert trace.faults() == []
    assert [each.span_id for each in trace.spans] == ["1", "2", "3"]
    assert trace.children(ROOT) == (CHILD,)
    assert trace.parent(LEAF) == CHILD
    assert trace.services == {"spanway": 2, "b": 1}
    assert trace.select("spanway", "CLIENT") == (CHILD,)
    assert trace.select("b", name="span 3") == (LEAF,)


def test_no_spans_are_no_tree() -> None:
    assert Trace.of([]).faults() != []


def test_an_orphan_is_named() -> None:
    (fault,) = Trace.of([ROOT, LEAF]).faults()
    assert "orphaned" in fault
    assert "span 3" in fault


def test_two_roots_are_named() -> None:
    (fault,) = Trace.of([ROOT, dataclasses.replace(CHILD, parent_id="")]).faults()
    assert fault.startswith("2 roots")


def test_the_clients_own_span_is_no_orphans_parent() -> None:
    root = dataclasses.replace(ROOT, parent_id="f")
    trace = Trace.of([root, CHILD])
    assert trace.faults("f") == []
    assert len(trace.faults()) == 2  # no root, and an orphan
    assert len(Trace.of([root, CHILD, dataclasses.replace(LEAF, parent_id="f")]).faults("f")) == 1


def test_a_child_outside_its_parent_is_named() -> None:
    early, late = dataclasses.replace(CHILD, start=99), dataclasses.replace(CHILD, end=201)
    assert ["before its parent" in fault for fault in Trace.of([ROOT, early]).faults()] == [True]
    assert ["after its parent" in fault for fault in Trace.of([ROOT, late]).faults()] == [True]


def test_a_server_may_end_after_its_caller_has_the_answer() -> None:
    assert Trace.of([ROOT, CHILD, dataclasses.replace(LEAF, end=300)]).faults() == []
    assert len(Trace.of([ROOT, CHILD, dataclasses.replace(LEAF, end=300, kind="INTERNAL")]).faults()) == 1


def test_a_backend_that_rounds_is_forgiven_its_rounding() -> None:
    late = dataclasses.replace(CHILD, end=201)
    assert Trace.of([ROOT, late], resolution=1).faults() == []
    assert len(Trace.of([ROOT, dataclasses.replace(CHILD, end=202)], resolution=1).faults()) == 1


def test_an_application_is_forgiven_a_step_of_the_clock() -> None:
    root, child = (dataclasses.replace(each, service="b") for each in (ROOT, CHILD))
    for start, end in ((100 - STEP, 190), (110, 200 + STEP)):
        assert Trace.of([root, dataclasses.replace(child, start=start, end=end)]).faults() == []
    for start, end in ((99 - STEP, 190), (110, 201 + STEP)):
        assert len(Trace.of([root, dataclasses.replace(child, start=start, end=end)]).faults()) == 1
    assert len(Trace.of([ROOT, dataclasses.replace(child, end=201)]).faults()) == 1
    wire = [dataclasses.replace(each, service="spanway-wire") for each in (ROOT, dataclasses.replace(CHILD, end=201))]
    assert len(Trace.of(wire).faults()) == 1


def test_a_span_that_ends_before_it_starts_is_named() -> None:
    assert "before it starts" in Trace.of([dataclasses.replace(ROOT, end=50)]).faults()[0]


def test_double_ids_and_mixed_traces_are_named() -> None:
    assert "occurs 2 times" in Trace.of([ROOT, CHILD, CHILD]).faults()[0]
    assert Trace.of([ROOT, dataclasses.replace(CHILD, trace_id="cd" * 16)]).faults() == [
        "its spans are of several traces"
    ]


def test_the_drawing_shows_every_span_below_its_parent() -> None:
    lines = Trace.of([LEAF, ROOT, CHILD]).drawing().splitlines()
    assert [line.index("spanway:" if "spanway:" in line else "b:") for line in lines] == [25, 27, 29]
