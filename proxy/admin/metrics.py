"""`/metrics`: what the workers counted, as Prometheus text or as OpenMetrics with trace ids as exemplars.

Names are those of the OpenTelemetry conventions where one exists (dots as underscores, unit and ``_total`` appended,
as its Prometheus exporters write them), and ``spanway_*`` otherwise. Every label value comes from the configuration or
from a fixed list, never from a client: the host is the Ingress rule's, the route its path.
"""

from __future__ import annotations

import platform
from collections.abc import Callable, Iterator, Sequence
from typing import Final, NamedTuple

from prometheus_client import Metric
from prometheus_client.core import (
    CounterMetricFamily,
    GaugeMetricFamily,
    HistogramMetricFamily,
    InfoMetricFamily,
)
from prometheus_client.exposition import CONTENT_TYPE_PLAIN_0_0_4
from prometheus_client.exposition import generate_latest as prometheus_text
from prometheus_client.openmetrics.exposition import CONTENT_TYPE_LATEST as CONTENT_TYPE_OPENMETRICS
from prometheus_client.openmetrics.exposition import generate_latest as openmetrics_text
from prometheus_client.registry import Collector
from prometheus_client.samples import Exemplar as ExemplarLine

from proxy import __version__
from proxy.admin import cluster, control
from proxy.admin.cluster import ClusterSample
from proxy.admin.control import ControlSample
from proxy.admin.departed import add_exports, merge_endpoints
from proxy.admin.source import Problem, WorkerSample
from proxy.route.samples import DURATION_BOUNDS, SELF_BOUNDS, Exemplar, RouteSample, merge
from proxy.route.spec import TableSpec
from proxy.trace.ledger import ExportCounters

ROUTE: Final = ("ingress_namespace", "ingress", "host", "http_route")
_OPENMETRICS: Final[Callable[[Collector], bytes]] = openmetrics_text  # the one function without types there
ENDPOINT: Final = ("backend", "endpoint")


class Moment(NamedTuple):
    """All that a scrape says; ``samples`` as `Departed.complete` returns them."""

    samples: Sequence[WorkerSample]
    exits: int
    table: TableSpec
    problems: Sequence[Problem]
    ready: bool
    cluster: ClusterSample | None = None  # of a controller
    control: ControlSample = ControlSample()


class _Families(Collector):
    """A moment as prometheus_client wants to read it."""

    def __init__(self, moment: Moment) -> None:
        self._moment = moment

    def collect(self) -> Iterator[Metric]:
        """The metric families, those of requests first."""
        yield from _requests(merge(route for sample in self._moment.samples for route in sample.routes))
        yield from _connections(self._moment.samples)
        yield from _endpoints(self._moment.samples)
        yield from _wire(self._moment.samples)
        yield from _spans([*(sample.export for sample in self._moment.samples), self._moment.control.export])
        yield from _workers(self._moment)
        yield from _configuration(self._moment)
        yield from control.families(self._moment.control)
        if self._moment.cluster is not None:
            yield from cluster.families(self._moment.cluster)


def families(moment: Moment) -> Iterator[Metric]:
    """What a moment says, family by family."""
    return _Families(moment).collect()


def expose(moment: Moment, accept: str) -> tuple[bytes, str]:
    """The page and its Content-Type: OpenMetrics 1.0 if ``accept`` (an Accept field) names it, else Prometheus text."""
    if any(offer.partition(";")[0].strip() == "application/openmetrics-text" for offer in accept.split(",")):
        return _OPENMETRICS(_Families(moment)), CONTENT_TYPE_OPENMETRICS
    return prometheus_text(_Families(moment)), CONTENT_TYPE_PLAIN_0_0_4


def _requests(routes: Sequence[RouteSample]) -> Iterator[Metric]:
    """Only routes that were asked for, so that a table of 100,000 rules does not make a page of millions of lines."""
    duration = HistogramMetricFamily(
        "http_server_request_duration_seconds",
        "Time from the first byte of a request read to the last byte of its response written.",
        labels=ROUTE,
        unit="seconds",
    )
    own = HistogramMetricFamily(
        "spanway_self_duration_seconds",
        "Time of a request spent inside the proxy itself, waiting for nobody, by the wall clock.",
        labels=ROUTE,
        unit="seconds",
    )
    requests = CounterMetricFamily(
        "spanway_requests", "Requests by the status sent; 'none': no response was sent.", labels=(*ROUTE, "code")
    )
    faults = CounterMetricFamily(
        "spanway_faults",
        "Requests that failed in a way of their own, by kind (error.type).",
        labels=(*ROUTE, "error_type"),
    )
    for route in routes:
        if not route.requests:
            continue
        labels = (route.namespace, route.name, route.host, route.path)
        duration.add_metric(labels, _buckets(DURATION_BOUNDS, route.buckets, route.exemplars), route.seconds)
        own.add_metric(labels, _buckets(SELF_BOUNDS, route.self_buckets), route.self_seconds)
        for status, number in sorted(route.statuses.items()):
            requests.add_metric((*labels, str(status or "none")), number)
        for label, number in sorted(route.faults.items()):
            faults.add_metric((*labels, label), number)
    yield from (duration, requests, faults, own)


def _buckets(
    bounds: Sequence[float], counts: Sequence[int], exemplars: Sequence[Exemplar | None] = ()
) -> list[tuple[str, float] | tuple[str, float, ExemplarLine]]:
    """Counts per bucket as the cumulative ones of the formats, the last being ``+Inf``."""
    lines: list[tuple[str, float] | tuple[str, float, ExemplarLine]] = []
    total = 0
    for i, number in enumerate(counts):
        total += number
        bound = repr(bounds[i]) if i < len(bounds) else "+Inf"
        kept = exemplars[i] if exemplars else None
        if kept is None:
            lines.append((bound, total))
        else:
            lines.append((bound, total, ExemplarLine({"trace_id": kept.trace_id.hex()}, kept.seconds, kept.time)))
    return lines


def _connections(samples: Sequence[WorkerSample]) -> Iterator[Metric]:
    yield _gauge(
        "http_server_active_requests", "Requests being served.", sum(sample.requests_active for sample in samples)
    )
    yield _gauge(
        "spanway_connections", "Open downstream connections.", sum(sample.connections_open for sample in samples)
    )
    yield _counter(
        "spanway_connections_accepted",
        "Downstream connections accepted.",
        sum(sample.connections_total for sample in samples),
    )
    yield _counter(
        "spanway_connections_refused",
        "Downstream connections closed at once, since a limit was reached.",
        sum(sample.connections_refused for sample in samples),
    )
    yield _counter(
        "spanway_handshake_failures",
        "Downstream connections that ended in their TLS handshake or PROXY protocol header.",
        sum(sample.handshake_failures for sample in samples),
    )
    yield _gauge(
        "spanway_upstream_connections", "Open upstream connections.", sum(sample.upstream_open for sample in samples)
    )
    yield _counter(
        "spanway_upstream_connections_opened",
        "Upstream connections opened.",
        sum(sample.upstream_total for sample in samples),
    )


def _endpoints(samples: Sequence[WorkerSample]) -> Iterator[Metric]:
    ejected = GaugeMetricFamily("spanway_endpoint_ejected", "1 while any worker avoids the endpoint.", labels=ENDPOINT)
    ejections = CounterMetricFamily("spanway_endpoint_ejections", "Times an endpoint was ejected.", labels=ENDPOINT)
    attempts = CounterMetricFamily("spanway_endpoint_attempts", "Attempts at an endpoint.", labels=ENDPOINT)
    errors = CounterMetricFamily("spanway_endpoint_errors", "Attempts that failed.", labels=ENDPOINT)
    active = GaugeMetricFamily("spanway_endpoint_active_requests", "Attempts under way.", labels=ENDPOINT)
    connections = GaugeMetricFamily(
        "spanway_endpoint_connections", "Open connections to an endpoint.", labels=(*ENDPOINT, "state")
    )
    latency = GaugeMetricFamily(
        "spanway_endpoint_latency_seconds",
        "Moving average of an attempt's time, from its start to the end of the response.",
        labels=ENDPOINT,
        unit="seconds",
    )
    for endpoint in merge_endpoints([endpoint for sample in samples for endpoint in sample.endpoints]):
        host = f"[{endpoint.host}]" if ":" in endpoint.host else endpoint.host
        labels = (endpoint.backend, f"{host}:{endpoint.port}")
        ejected.add_metric(labels, int(endpoint.ejected))
        ejections.add_metric(labels, endpoint.ejections)
        attempts.add_metric(labels, endpoint.requests)
        errors.add_metric(labels, endpoint.errors)
        active.add_metric(labels, endpoint.in_flight)
        connections.add_metric((*labels, "idle"), endpoint.idle)
        connections.add_metric((*labels, "busy"), endpoint.connections - endpoint.idle)
        if endpoint.latency > 0:
            latency.add_metric(labels, endpoint.latency)
    yield from (ejected, ejections, attempts, errors, active, connections, latency)


def _spans(exports: Sequence[ExportCounters]) -> Iterator[Metric]:
    export = add_exports(exports)
    for name, text, number in (
        ("recorded", "Spans of recorded requests, given to the exporter.", export.recorded),
        ("sent", "Spans in at least one export call, however often it was repeated.", export.sent),
        ("acknowledged", "Spans the collector accepted.", export.acknowledged),
        ("rejected", "Spans the collector refused within an accepted call (partial success).", export.rejected),
        ("local", "Spans kept in memory only, export being off.", export.local),
    ):
        yield _counter(f"spanway_spans_{name}", text, number)
    dropped = CounterMetricFamily(
        "spanway_spans_dropped", "Spans lost before a collector had them.", labels=("reason",)
    )
    for reason, number in sorted(export.dropped.items()):
        dropped.add_metric((reason,), number)
    yield dropped
    yield _gauge("spanway_spans_pending", "Spans not yet answered for.", export.pending)
    yield _gauge(
        "spanway_export_queue_bytes", "Bytes of spans waiting for the collector.", export.pending_bytes, "bytes"
    )
    yield _gauge("spanway_export_queue_limit_bytes", "The bound of that queue.", export.limit_bytes, "bytes")
    yield _counter("spanway_export_calls", "Export calls made, repeated ones included.", export.calls)
    yield _counter("spanway_export_retries", "Export calls that repeated a batch.", export.retries)
    yield _counter("spanway_export_failures", "Export calls that were not accepted.", export.failures)
    if export.reachable is not None:  # unknown until the first call
        yield _gauge(
            "spanway_collector_reachable", "Whether every worker's latest call was answered.", int(export.reachable)
        )


def _wire(samples: Sequence[WorkerSample]) -> Iterator[Metric]:
    listening = any(sample.wire_listening for sample in samples if sample.pid)
    yield _gauge("spanway_wire_listening", "1 while `spanway wire` listens to any worker.", int(listening))
    yield _counter(
        "spanway_wire_attempts", "Recorded attempts told to `spanway wire`.", sum(each.wire_sent for each in samples)
    )
    lost = CounterMetricFamily("spanway_wire_attempts_lost", "Recorded attempts it was not told.", labels=("reason",))
    lost.add_metric(("full",), sum(each.wire_full for each in samples))
    lost.add_metric(("gone",), sum(each.wire_gone for each in samples))
    lost.add_metric(("rate",), sum(each.wire_spared for each in samples))
    yield lost
    yield _counter(
        "spanway_wire_attempts_outside",
        "Recorded attempts on connections whose local port is not one that it taps.",
        sum(each.wire_outside for each in samples),
    )
    yield _counter(
        "spanway_wire_ports_exhausted",
        "Upstream connections that found no free local port of their kind (wire.ports) and took any.",
        sum(each.wire_exhausted for each in samples),
    )


def _workers(moment: Moment) -> Iterator[Metric]:
    living = [sample for sample in moment.samples if sample.pid]
    yield _gauge("spanway_workers", "Worker processes.", len(living))
    yield _counter("spanway_worker_exits", "Worker processes that ended and were replaced.", moment.exits)
    yield _counter(
        "spanway_access_log_lost",
        "Lines of the access log that could not be written.",
        sum(sample.access_log_lost for sample in moment.samples),
    )
    yield _gauge("spanway_ready", "Whether traffic may come (/readyz).", int(moment.ready))
    yield _gauge(
        "spanway_loop_lag_seconds",
        "Latest lag of the slowest worker's event loop.",
        max((sample.loop_lag for sample in living), default=0.0),
        "seconds",
    )
    yield _gauge(
        "spanway_workers_resident_memory_bytes",
        "Memory of all workers.",
        sum(sample.memory for sample in living),
        "bytes",
    )
    yield InfoMetricFamily(
        "spanway_build", "What runs.", value={"version": __version__, "python_version": platform.python_version()}
    )


def _configuration(moment: Moment) -> Iterator[Metric]:
    table = moment.table
    served = [sample.generation for sample in moment.samples if sample.pid]
    yield _gauge("spanway_generation", "Generation of the newest table.", table.generation)
    yield _gauge("spanway_generation_served", "Generation that every worker has reached.", min(served, default=0))
    yield _gauge("spanway_routes", "Rules in the table.", len(table.routes))
    yield _gauge("spanway_backends", "Service ports that rules name.", len(table.backends))
    problems = GaugeMetricFamily("spanway_config_problems", "What is wrong in the configuration.", labels=("severity",))
    for severity in ("error", "warning"):
        problems.add_metric((severity,), sum(problem.severity == severity for problem in moment.problems))
    yield problems


def _gauge(name: str, text: str, value: float, unit: str = "") -> Metric:
    return GaugeMetricFamily(name, text, value=value, unit=unit)


def _counter(name: str, text: str, value: float) -> Metric:
    return CounterMetricFamily(name, text, value=value)
