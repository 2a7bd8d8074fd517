"""Which layer owns the tail: the requests of some traces by route, each one's time split over the layers it crossed.

A request's layers add up to its SERVER span exactly. What is said of the tail are conditional means, E[layer | total
at or above p99] against E[layer | total between p40 and p60]: they too add up, which differences of each layer's own
percentiles do not. Pure: spans in, a report out.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Final

import msgspec

from proxy.admin.blame import is_proxy, is_wire
from proxy.layers.coverage import Coverage, cover
from proxy.trace import semconv
from proxy.trace.semconv_wire import LOST, LOST_AT, PLACE, RETRANSMITTED, SPLIT, US, VERDICT
from proxy.trace.view import SpanView

PROXY: Final = "proxy"
CONNECT: Final = "connect"
APPLICATION: Final = "application"
BACKEND: Final = "backend"
"""Layers beside the places of the wire: what is the proxy's own, opening connections, what the application's own span
covers, and what is left of the backend: its kernel, its event loop, its queue."""

BANDS: Final = {"p50": (0.40, 0.60), "p90": (0.85, 0.95), "p99": (0.99, 1.0)}
"""The requests that stand for a percentile: between these two, by their total."""

_OPENING: Final = (semconv.QUEUE_US, semconv.DNS_US, semconv.CONNECT_US, semconv.TLS_US)


class Request(msgspec.Struct, frozen=True):
    """One request whose every attempt was joined. ``layers`` are nanoseconds, from the proxy to the backend."""

    route: str
    trace_id: str
    total_ns: int
    layers: dict[str, int]
    verdict: str  # of the longest attempt
    lost: dict[str, int]  # bytes by place
    retransmitted: int  # bytes


class Layer(msgspec.Struct, frozen=True):
    """One layer of one route: its mean time (microseconds) in the requests of each band, and its part of the tail."""

    name: str
    mean_us: dict[str, float]
    tail_us: float  # in the tail beyond the typical request
    tail_share: float  # of all that the tail takes beyond it, 0 to 1; negative where the layer is faster there


class RouteReport(msgspec.Struct, frozen=True):
    """One route. ``layers`` go from the proxy to the backend; ``owner`` is the one with most of the tail.

    ``total_us`` are percentiles of the whole request, ``slowest`` are the trace ids of its slowest, slowest first.
    """

    route: str
    requests: int
    total_us: dict[str, float]
    band_us: dict[str, float]  # the mean of each band, which the layers add up to
    layers: list[Layer]
    owner: str
    owner_share: float
    verdicts: dict[str, int]
    lost: dict[str, Loss]
    retransmitted_bytes: int
    slowest: list[str]
    coverage: Coverage


class Loss(msgspec.Struct, frozen=True):
    """What vanished at one place."""

    requests: int
    bytes: int


class Report(msgspec.Struct, frozen=True):
    """All routes, those with the most requests first, and what was and was not joined."""

    routes: list[RouteReport]
    coverage: Coverage
    traces: int


class _Trace:
    """The spans of one trace, by id and by parent."""

    def __init__(self, spans: Iterable[SpanView]) -> None:
        self.spans: dict[str, SpanView] = {}
        for span in spans:
            self.spans.setdefault(span.span_id, span)
        self.below: dict[str, list[SpanView]] = {}
        for span in self.spans.values():
            self.below.setdefault(span.parent_id, []).append(span)

    def children(self, span: SpanView) -> list[SpanView]:
        return self.below.get(span.span_id, [])


def report(spans: Iterable[SpanView]) -> Report:
    """The report on these spans, in any order, of any number of traces."""
    groups: dict[str, list[SpanView]] = {}
    for span in spans:
        groups.setdefault(span.trace_id, []).append(span)
    requests: dict[str, list[Request]] = {}
    attempts: dict[str, list[tuple[SpanView, SpanView | None]]] = {}
    for group in groups.values():
        trace = _Trace(group)
        for server in trace.spans.values():
            if server.kind != "SERVER" or not is_proxy(server):
                continue
            name = route(server)
            tried = [(each, _wire(trace, each)) for each in _attempts(trace, server)]
            attempts.setdefault(name, []).extend(tried)
            made = _request(name, trace, server, tried)
            if made is not None:
                requests.setdefault(name, []).append(made)
    every = [pair for tried in attempts.values() for pair in tried]
    routes = [
        _route_report(name, requests.get(name, []), cover(tried, every))
        for name, tried in sorted(attempts.items(), key=lambda item: (-len(item[1]), item[0]))
        if tried
    ]
    return Report(routes, cover(every, every), len(groups))


def route(server: SpanView) -> str:
    """What a route is called here: its Ingress and its path, as far as the span says."""
    said = server.attributes
    ingress = said.get(semconv.INGRESS_NAME.name)
    path = said.get(semconv.HTTP_ROUTE.name, "")
    if ingress is None:
        return str(path or "(no route)")
    return f"{said.get(semconv.INGRESS_NAMESPACE.name, '')}/{ingress} {path or '(default)'}"


def _attempts(trace: _Trace, server: SpanView) -> Iterator[SpanView]:
    for span in trace.children(server):
        if span.kind == "CLIENT" and is_proxy(span):
            yield span


def _wire(trace: _Trace, attempt: SpanView) -> SpanView | None:
    return next((span for span in trace.children(attempt) if is_wire(span) and SPLIT.name in span.attributes), None)


def _request(
    name: str, trace: _Trace, server: SpanView, tried: Sequence[tuple[SpanView, SpanView | None]]
) -> Request | None:
    """The request, None if it had no attempt or one that was not joined."""
    layers: dict[str, int] = {PROXY: 0}
    lost: Counter[str] = Counter()
    retransmitted = longest = 0
    verdict = ""
    for attempt, wire in tried:
        opening = sum(_whole(attempt.attributes, each.name) for each in _OPENING) * 1000
        if opening:
            layers[CONNECT] = layers.get(CONNECT, 0) + opening
        if wire is None:
            if semconv.REQUEST_END.name in attempt.attributes:
                return None
            continue
        places = _places(wire)
        application = _application(trace, attempt, places.get(BACKEND, 0))
        if application:
            places[BACKEND] -= application
            places[APPLICATION] = application
        for place, ns in places.items():
            layers[place] = layers.get(place, 0) + ns
        lost += _lost(trace, wire)
        retransmitted += _whole(wire.attributes, RETRANSMITTED.name)
        if wire.duration_ns >= longest:
            longest, verdict = wire.duration_ns, str(wire.attributes.get(VERDICT.name, ""))
    if not any(wire is not None for _, wire in tried):
        return None
    # Whatever nobody else has is the proxy's: so the layers add up to the request.
    layers[PROXY] += server.duration_ns - sum(layers.values())
    return Request(name, server.trace_id, server.duration_ns, layers, verdict, dict(lost), retransmitted)


def _lost(trace: _Trace, wire: SpanView) -> Counter[str]:
    """Bytes by where they vanished: each place's span says so, its two ways alike; what none does is most's place's."""
    found: Counter[str] = Counter()
    for place in trace.children(wire):
        if LOST.name in place.attributes:
            found[str(place.attributes.get(PLACE.name, "?"))] = _whole(place.attributes, LOST.name)
    found[str(wire.attributes.get(LOST_AT.name, "?"))] += max(0, _whole(wire.attributes, LOST.name) - found.total())
    return +found


def _places(wire: SpanView) -> dict[str, int]:
    """Nanoseconds by place, as the wire's span has them."""
    return {
        key.removeprefix(US).replace("_", " "): value * 1000
        for key, value in wire.attributes.items()
        if key.startswith(US) and isinstance(value, int)
    }


def _application(trace: _Trace, attempt: SpanView, most: int) -> int:
    """How much of the backend's time its own SERVER span covers."""
    spans = (span for span in trace.children(attempt) if span.kind == "SERVER" and not is_proxy(span))
    return min(max((span.duration_ns for span in spans), default=0), most)


def _whole(attributes: Mapping[str, object], name: str) -> int:
    value = attributes.get(name)
    return value if isinstance(value, int) else 0


def band(requests: Sequence[Request], low: float, high: float) -> Sequence[Request]:
    """Of requests sorted by their total those between two quantiles (nearest rank), at least one."""
    count = len(requests)
    return requests[_rank(count, low) : _rank(count, high) + 1]


def _rank(count: int, quantile: float) -> int:
    return max(math.ceil(round(quantile * count, 9)) - 1, 0)


def _route_report(name: str, requests: list[Request], coverage: Coverage) -> RouteReport:
    requests.sort(key=lambda request: request.total_ns)
    names = _order(requests)
    bands = {label: band(requests, low, high) for label, (low, high) in BANDS.items()} if requests else {}
    means = {label: _mean([request.total_ns for request in chosen]) for label, chosen in bands.items()}
    gap = means["p99"] - means["p50"] if means else 0.0
    layers: list[Layer] = []
    for layer in names:
        mean = {label: _mean([each.layers.get(layer, 0) for each in chosen]) for label, chosen in bands.items()}
        more = mean["p99"] - mean["p50"]
        layers.append(Layer(layer, mean, round(more, 3), round(more / gap, 4) if gap > 0 else 0.0))
    owner = max(layers, key=lambda layer: layer.tail_us, default=None) if gap > 0 else None
    losses: dict[str, Loss] = {}
    for request in requests:
        for place, size in request.lost.items():
            before = losses.get(place, Loss(0, 0))
            losses[place] = Loss(before.requests + 1, before.bytes + size)
    return RouteReport(
        route=name,
        requests=len(requests),
        total_us={
            label: requests[_rank(len(requests), int(label[1:]) / 100)].total_ns / 1000 for label in BANDS if requests
        },
        band_us=means,
        layers=layers,
        owner="" if owner is None else owner.name,
        owner_share=0.0 if owner is None else owner.tail_share,
        verdicts=dict(Counter(request.verdict for request in requests if request.verdict).most_common()),
        lost=dict(sorted(losses.items(), key=lambda item: (-item[1].requests, item[0]))),
        retransmitted_bytes=sum(request.retransmitted for request in requests),
        slowest=[request.trace_id for request in requests[:-4:-1]],
        coverage=coverage,
    )


def _order(requests: Iterable[Request]) -> list[str]:
    """The layers from the proxy to the backend: opening connections first, what the backend does last."""
    names = dict.fromkeys(name for request in requests for name in request.layers)
    ends = (BACKEND, APPLICATION)
    between = [name for name in names if name not in (PROXY, CONNECT, *ends)]
    return [name for name in (PROXY, CONNECT, *between, *ends) if name in names]


def _mean(values: Sequence[int]) -> float:
    """In microseconds."""
    return round(sum(values) / len(values) / 1000, 3) if values else 0.0
