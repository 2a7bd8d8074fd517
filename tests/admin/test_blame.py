from hypothesis import given
from hypothesis import strategies as st

from proxy.admin.blame import BETWEEN, critical, shares
from proxy.trace.tree import assemble, grow
from proxy.trace.view import SpanView, decode
from tests.admin.spans import batch, checkout, plain, request, span

MS = 1_000_000


def tree(*batches):
    (trace,) = assemble(decode(batches))
    return trace


def by_name(trace):
    names = {node.span.span_id: f"{node.span.service} {node.span.name}" for node in trace.nodes}
    return {names[span_id]: ns / MS for span_id, ns in critical(trace).items() if ns}


def test_of_children_side_by_side_the_one_that_ended_last_has_the_time():
    trace = tree(
        batch(
            "app",
            span(1, 0, "root", 0, 100),
            span(2, 1, "long", 10, 90),
            span(3, 1, "short", 20, 50),
            span(4, 1, "tail", 80, 95),
        )
    )
    assert by_name(trace) == {"app root": 15, "app long": 70, "app tail": 15}


def test_a_child_behind_another_has_what_is_left():
    trace = tree(batch("app", span(1, 0, "root", 0, 100), span(2, 1, "first", 0, 40), span(3, 1, "second", 40, 100)))
    assert by_name(trace) == {"app first": 40, "app second": 60}


def test_work_that_outlives_its_parent_counts_while_the_parent_ran():
    trace = tree(batch("app", span(1, 0, "root", 0, 100), span(2, 1, "child", 50, 300)))
    assert by_name(trace) == {"app root": 50, "app child": 50}


def test_places_of_a_whole_request():
    parts = {part.place: part for part in shares(tree(*checkout()))}
    assert parts.keys() == {"stock", "shop", BETWEEN, "cart", "spanway"}
    assert parts["stock"].span.name == "wait for shelf lock"
    assert sum(part.ns for part in parts.values()) == 612 * MS
    # shop's calls begin before and end after what stock and cart say: that is between them
    assert parts[BETWEEN].ns == round((1.4 + 0.9 + 1.8 + 0.8 + 1.5 + 1) * MS)


def test_an_upstream_that_sends_no_spans_is_named():
    parts = shares(tree(plain()))
    assert [part.place for part in parts] == ["upstream 127.0.0.1:3000", "spanway"]


def test_a_call_without_receiver_is_its_services_own():
    trace = tree(
        batch("app", span(1, 0, "root", 0, 10, "SERVER"), span(2, 1, "SELECT", 1, 9, "CLIENT", **request("GET", 200)))
    )
    assert [part.place for part in shares(trace)] == ["app"]
    assert shares(trace)[0].span.name == "SELECT"


def test_a_very_deep_trace_is_no_recursion():
    spans = [span(n + 1, n, f"{n}", 0, 10) for n in range(3000)]
    trace = tree(batch("app", *spans))
    assert by_name(trace) == {"app 2999": 10}


times = st.integers(0, 1000)


def view(number, parent, start, end):
    return SpanView(
        "ab" * 16, f"{number:016x}", f"{parent:016x}" if parent else "", "n", "INTERNAL", "s", start, end,
        "UNSET", "", {}, [], [], "", "", {},
    )  # fmt: skip


@given(st.lists(st.tuples(st.integers(0, 9), times, times), min_size=1, max_size=20))
def test_every_moment_is_given_once(shape):
    """Whatever the times and parents are, circles too: the parts never exceed the whole; under one root they are it."""
    spans = [view(n + 1, parent, min(a, b), max(a, b)) for n, (parent, a, b) in enumerate(shape)]
    trace = grow(spans)
    total = sum(critical(trace).values())
    assert total <= trace.duration_ns
    roots = [node.span for node in trace.nodes if node.depth == 0]
    if len(roots) == 1:
        assert total == roots[0].duration_ns
    assert all(ns >= 0 for ns in critical(trace).values())
