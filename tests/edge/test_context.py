"""Trace context on its way through: read, judged, written anew (W3C Trace Context, Jaeger)."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator

import pytest

from tests.edge.conftest import clean
from tests.harness.edge import Edge, request
from tests.harness.wire import Request

TRACE, PARENT = "0af7651916cd43dd8448eb211c80319c", "b7ad6b7169203331"
TRACEPARENT = re.compile(r"00-([0-9a-f]{32})-([0-9a-f]{16})-([0-9a-f]{2})\Z")
UBER = re.compile(r"([0-9a-f]{32})(?::|%3A)([0-9a-f]{16})(?::|%3A)([0-9a-f]+)(?::|%3A)([0-9a-f]+)\Z")
STRANGER = "203.0.113.7"


@pytest.fixture(scope="module")
def unsampled(launch: Callable[..., Edge]) -> Edge:
    return launch(environment={"OTEL_TRACES_SAMPLER": "parentbased_always_off"})


@pytest.fixture
def quiet(unsampled: Edge) -> Iterator[Edge]:
    """A proxy that starts no trace of its own."""
    yield from clean(unsampled)


# Context.


def contexts(seen: Request) -> tuple[tuple[str, str, str], tuple[str, str, str]]:
    """(trace, span, flags) of traceparent and of uber-trace-id, each exactly once."""
    w3c = TRACEPARENT.match(seen.fields.one("traceparent"))
    jaeger = UBER.match(seen.fields.one("uber-trace-id"))
    assert w3c
    assert jaeger
    return (w3c[1], w3c[2], w3c[3]), (jaeger[1], jaeger[2], jaeger[4])


def test_context_is_made(edge: Edge) -> None:
    w3c, jaeger = contexts(edge.passed(request()))
    assert w3c[:2] == jaeger[:2]
    assert int(w3c[2], 16) & 1 == int(jaeger[2], 16) & 1 == 1
    assert w3c[0] != "0" * 32


def test_context_is_continued_with_a_new_parent(edge: Edge) -> None:
    seen = edge.passed(request(f"traceparent: 00-{TRACE}-{PARENT}-01", "tracestate: a=1,b=2"))
    w3c, jaeger = contexts(seen)
    assert w3c[0] == jaeger[0] == TRACE
    assert w3c[1] == jaeger[1] != PARENT
    assert ",".join(seen.fields.all("tracestate")).replace(" ", "") == "a=1,b=2"


def test_jaeger_context_is_continued(edge: Edge) -> None:
    w3c, jaeger = contexts(edge.passed(request(f"uber-trace-id: {TRACE}:{PARENT}:0:1")))
    assert w3c[0] == jaeger[0] == TRACE
    assert w3c[1] != PARENT


def test_precedence_is_the_list_of_formats(edge: Edge) -> None:
    other = "f" * 32
    w3c, _ = contexts(
        edge.passed(request(f"uber-trace-id: {other}:{PARENT}:0:1", f"traceparent: 00-{TRACE}-{PARENT}-01"))
    )
    assert w3c[0] == TRACE


def test_every_attempt_has_its_own_parent(edge: Edge) -> None:
    with edge.client() as client:
        for _ in range(3):
            client.ask(request(f"traceparent: 00-{TRACE}-{PARENT}-01"))
    spans = [contexts(seen)[0][1] for seen in edge.a.requests]
    assert len(set(spans)) == 3


@pytest.mark.parametrize(
    "value",
    [
        f"00-{TRACE}-{PARENT}",
        f"00-{TRACE}-{PARENT}-1",
        f"00-{TRACE}-{PARENT}-01-x",
        f"00-{'0' * 32}-{PARENT}-01",
        f"00-{TRACE}-{'0' * 16}-01",
        f"00-{TRACE.upper()}-{PARENT}-01",
        f"ff-{TRACE}-{PARENT}-01",
        f"00-{TRACE[:-1]}g-{PARENT}-01",
        "",
        "x" * 5000,
    ],
)
def test_malformed_context_starts_a_new_trace(edge: Edge, value: str) -> None:
    w3c, _ = contexts(edge.passed(request(f"traceparent: {value}")))
    assert w3c[0].lower() != TRACE


def test_two_contexts_are_none(edge: Edge) -> None:
    # W3C Trace Context section 3.2: a doubled traceparent is invalid.
    seen = edge.passed(request(f"traceparent: 00-{TRACE}-{PARENT}-01", f"traceparent: 00-{'f' * 32}-{PARENT}-01"))
    w3c, _ = contexts(seen)
    assert w3c[0] not in (TRACE, "f" * 32)


def test_stranger_does_not_choose_the_trace(wary: Edge) -> None:
    seen = wary.passed(
        request(f"traceparent: 00-{TRACE}-{PARENT}-00", "tracestate: evil=1", f"uber-trace-id: {TRACE}:{PARENT}:0:3")
    )
    w3c, jaeger = contexts(seen)
    assert w3c[0] != TRACE
    assert w3c[2] == "01", "a stranger switched tracing off"
    assert int(jaeger[2], 16) & 2 == 0, "a stranger asked for debug"
    assert b"evil" not in seen.head


def test_stranger_behind_a_trusted_peer_is_a_stranger(edge: Edge) -> None:
    # Trust is judged on the resolved client address (design, section 4).
    w3c, _ = contexts(edge.passed(request(f"X-Forwarded-For: {STRANGER}", f"traceparent: 00-{TRACE}-{PARENT}-01")))
    assert w3c[0] != TRACE


def test_unsampled_context_passes_unchanged(edge: Edge) -> None:
    # envoy#38222: never inject the id of a span that will not be exported.
    seen = edge.passed(request(f"traceparent: 00-{TRACE}-{PARENT}-00", "tracestate: a=1"))
    assert seen.fields.one("traceparent") == f"00-{TRACE}-{PARENT}-00"
    assert seen.fields.one("tracestate") == "a=1"


def test_nothing_sampled_is_a_fresh_unsampled_context(quiet: Edge) -> None:
    # So that nothing behind the proxy starts a trace of its own.
    w3c, jaeger = contexts(quiet.passed(request()))
    assert w3c[2] == "00"
    assert int(jaeger[2], 16) & 1 == 0
    assert w3c[0] != "0" * 32


def test_parent_based_sampling_follows_the_parent(quiet: Edge) -> None:
    w3c, _ = contexts(quiet.passed(request(f"traceparent: 00-{TRACE}-{PARENT}-01")))
    assert (w3c[0], w3c[2]) == (TRACE, "01")
    assert w3c[1] != PARENT


def test_baggage_passes(edge: Edge) -> None:
    seen = edge.passed(request("baggage: a=1,b=2", "uberctx-k: v"))
    assert seen.fields.one("baggage") == "a=1,b=2"
    assert seen.fields.one("uberctx-k") == "v"
