"""Which layer owns a route's tail, from spans whose answer is known."""

from __future__ import annotations

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from proxy.layers import coverage
from proxy.layers.report import APPLICATION, BACKEND, BANDS, CONNECT, PROXY, Request, band, report
from proxy.trace.view import SpanView
from tests.layers.reported import request, slow_switch, view

PLACES = st.dictionaries(
    st.sampled_from(["proxy", "client", "link px", "ovs br0", "link app", "backend"]), st.integers(0, 10**7), min_size=1
)


def test_the_layer_that_owns_the_tail_is_named() -> None:
    (route,) = report(slow_switch()).routes
    assert (route.route, route.requests) == ("shop/web /", 200)
    assert route.owner == "ovs br0"
    assert route.owner_share > 0.99
    assert [layer.name for layer in route.layers] == [PROXY, "ovs br0", BACKEND, APPLICATION]
    by_name = {layer.name: layer for layer in route.layers}
    assert by_name["ovs br0"].mean_us["p99"] == pytest.approx(20_000)
    assert 60 <= by_name["ovs br0"].mean_us["p50"] <= 66
    assert by_name[APPLICATION].mean_us["p50"] == 900
    assert 100 <= by_name[BACKEND].mean_us["p50"] <= 110
    assert by_name[PROXY].mean_us["p50"] == 110
    assert route.verdicts == {"application": 196, "switch": 4}
    assert len(route.slowest) == 3
    assert route.coverage.joined == 200


@given(st.lists(st.tuples(PLACES, st.integers(2, 10**6), st.integers(0, 10**7)), min_size=1, max_size=40))
def test_layers_add_up_in_every_band_and_in_the_tail(made: list[tuple[dict[str, int], int, int]]) -> None:
    spans: list[SpanView] = []
    for number, (places, own, application) in enumerate(made):
        spans += request(number, places, own_us=own, application_us=application)
    (route,) = report(spans).routes
    assert route.requests == len(made)
    for label in BANDS:
        assert sum(layer.mean_us[label] for layer in route.layers) == pytest.approx(route.band_us[label], abs=0.01)
    gap = route.band_us["p99"] - route.band_us["p50"]
    assert sum(layer.tail_us for layer in route.layers) == pytest.approx(gap, abs=0.01)
    if gap > 0:
        assert sum(layer.tail_share for layer in route.layers) == pytest.approx(1, abs=0.01)
        assert route.owner_share == max(layer.tail_share for layer in route.layers)
    else:
        assert (route.owner, route.owner_share) == ("", 0)


@given(st.integers(1, 500))
def test_bands_are_never_empty_and_in_order(count: int) -> None:
    requests = [Request("/", "", total, {}, "", {}, 0) for total in range(count)]
    chosen = [[each.total_ns for each in band(requests, low, high)] for low, high in BANDS.values()]
    assert all(chosen)
    assert chosen[2][-1] == count - 1
    assert [found[0] for found in chosen] == sorted(found[0] for found in chosen)


def test_attempts_of_one_request_add_up() -> None:
    spans = request(
        1, {"proxy": 10, "backend": 500}, own_us=1000, client={"spanway.connect.us": 200, "spanway.dns.us": 50}
    )
    wire = next(span for span in spans if span.name == "wire")
    spans.append(view(1, 12, 1, "GET", "CLIENT", 700, 900, attributes={"spanway.request.end": 5}))
    figures = {**wire.attributes, "spanway.wire.us.backend": 190}
    assert report(spans).routes[0].requests == 0, "one of its attempts was not joined"
    spans.append(view(1, 13, 12, "wire", "INTERNAL", 700, 900, attributes=figures))
    (route,) = report(spans).routes
    mean = {layer.name: layer.mean_us["p50"] for layer in route.layers}
    assert mean == {PROXY: 1510 - 250 - 690, CONNECT: 250, BACKEND: 690}


def test_losses_are_told_by_place() -> None:
    spans: list[SpanView] = []
    for number in range(10):
        lost = ("ovs br0", 1448) if number < 3 else ("link px", 100) if number == 3 else None
        spans += request(number, {"proxy": 10, "backend": 500}, lost=lost)
    made = report(spans)
    (route,) = made.routes
    assert {place: (loss.requests, loss.bytes) for place, loss in route.lost.items()} == {
        "ovs br0": (3, 4344),
        "link px": (1, 100),
    }
    assert route.retransmitted_bytes == 4444
    assert made.coverage.incomplete == 4


def test_what_several_places_lost_is_each_ones_own() -> None:
    spans = request(1, {"proxy": 10, "backend": 500}, lost=("link px", 2600))
    for number, (place, number_of) in enumerate((("link px", 1500), ("ovs br0", 1000), ("ovs br0", 1000)), 20):
        told = {"spanway.wire.place": place, "spanway.wire.lost.bytes": number_of}
        spans.append(view(1, number, 3, place, "INTERNAL", 60, 61, attributes=told, service="spanway-wire"))
    (route,) = report(spans).routes
    # 100 of them are of a place without a span.
    assert {place: loss.bytes for place, loss in route.lost.items()} == {"link px": 1600, "ovs br0": 1000}


def test_coverage_says_what_is_missing_and_why() -> None:
    spans = [span for number in range(100, 110) for span in request(number, {"proxy": 1, "backend": 9})]
    spans += request(50, None)
    spans += request(150, None)
    spans += request(101 + 1000, None, path="/other")
    spans += request(103, None, path="/other")
    spans += request(2**40, None, client={"spanway.request.end": None})
    fresh: dict[str, dict[str, int | None]] = {
        coverage.TUNNEL: {"http.response.status_code": 101},
        coverage.UNANSWERED: {"spanway.response.end": None, "http.response.status_code": None},
        coverage.NO_SPAN: {},
    }
    for attributes in fresh.values():
        late = request(105, None, path="/more", client=attributes)
        spans += [_renamed(span, len(spans)) for span in late]
    made = report(spans)
    assert made.coverage.joined == 10
    assert made.coverage.missing == {
        coverage.AFTER: 2,
        coverage.BEFORE: 1,
        coverage.NO_SPAN: 1,
        coverage.TUNNEL: 1,
        coverage.UNANSWERED: 1,
    }
    assert made.coverage.attempts == 16
    assert made.coverage.unsent == 1
    assert set(made.coverage.missing) <= set(coverage.REASONS)


def _renamed(span: SpanView, number: int) -> SpanView:
    return msgspec.structs.replace(span, trace_id=f"{number // 2 * 2 + 10**9:032x}")


def test_without_a_wire_nothing_is_claimed() -> None:
    made = report([span for number in range(5) for span in request(number, None)])
    (route,) = made.routes
    assert (route.requests, route.layers, route.owner) == (0, [], "")
    assert made.coverage.missing == {coverage.NOT_RUNNING: 5}
    assert report([]).coverage.attempts == 0


def test_spans_of_others_are_no_requests_of_ours() -> None:
    spans = [view(1, 1, 0, "GET /", "SERVER", 0, 10, scope="otel", service="shop")]
    assert report(spans).routes == []


def test_routes_are_told_apart_and_the_busiest_comes_first() -> None:
    spans = request(1, {"backend": 5}, path="/few")
    spans += [span for number in range(2, 6) for span in request(number, {"backend": 5}, path="/many")]
    made = report(spans + spans)  # delivered twice
    assert [(route.route, route.requests) for route in made.routes] == [("shop/web /many", 4), ("shop/web /few", 1)]
