import pytest
from prometheus_client.openmetrics.parser import text_string_to_metric_families as parse_openmetrics
from prometheus_client.parser import text_string_to_metric_families as parse_prometheus

from proxy import __version__
from proxy.admin.metrics import Moment, expose
from proxy.route.samples import DURATION_BOUNDS
from proxy.route.spec import BackendSpec, RouteSpec, TableSpec
from proxy.trace.ledger import ExportCounters
from tests.admin.samples import NOW_NS, TRACE, endpoint, observe, route_stats, worker

OPENMETRICS = (
    "application/openmetrics-text;version=1.0.0,application/openmetrics-text;version=0.0.1;q=0.75,text/plain;q=0.5"
)
ROUTE = {"ingress_namespace": "demo", "ingress": "shop", "host": "shop.localhost", "http_route": "/"}


class Problem:
    kind = namespace = name = file = field = message = hint = ""
    line = 0

    def __init__(self, severity):
        self.severity = severity


def moment(*samples, problems=(), exits=0, ready=True):
    route = RouteSpec("demo", "shop", "", "", "shop.localhost", "/", "Prefix", "demo/shop:80")
    backend = BackendSpec("demo/shop:80", "demo", "shop", "80", ())
    return Moment(samples, exits, TableSpec(4, (route,), (backend,)), problems, ready)


def page(accept, *samples, **more):
    body, content_type = expose(moment(*samples, **more), accept)
    parse = parse_openmetrics if content_type.startswith("application/openmetrics-text") else parse_prometheus
    return {family.name: family for family in parse(body.decode())}


def values(family, name, **labels):
    return [s.value for s in family.samples if s.name == name and labels.items() <= s.labels.items()]


BUSY = observe(
    observe(observe(route_stats(), ms=12), status=502, ms=800, error="connect_failed"),
    status=0,
    ms=3,
    error="client_gone",
)


@pytest.mark.parametrize(
    ("accept", "content_type"),
    [
        ("", "text/plain; version=0.0.4; charset=utf-8"),
        ("*/*", "text/plain; version=0.0.4; charset=utf-8"),
        ("text/plain;version=0.0.4", "text/plain; version=0.0.4; charset=utf-8"),
        (OPENMETRICS, "application/openmetrics-text; version=1.0.0; charset=utf-8"),
        (
            "application/openmetrics-text; version=nonsense",
            "application/openmetrics-text; version=1.0.0; charset=utf-8",
        ),
    ],
)
def test_the_format_is_chosen_by_accept(accept, content_type):
    assert expose(moment(), accept)[1] == content_type


@pytest.mark.parametrize("accept", ["", OPENMETRICS])
def test_what_never_became_a_request_shows(accept):
    samples = [
        worker(
            1,
            connections_refused=2,
            handshake_failures=3,
            access_log_lost=4,
            wire_sent=5,
            wire_outside=6,
            wire_exhausted=7,
        ),
        worker(
            2,
            connections_refused=20,
            handshake_failures=30,
            access_log_lost=40,
            wire_sent=50,
            wire_outside=60,
            wire_exhausted=70,
        ),
    ]
    found = page(accept, *samples)
    for name, value in (
        ("wire_attempts", 55),
        ("wire_attempts_outside", 66),
        ("wire_ports_exhausted", 77),
        ("connections_refused", 22),
        ("handshake_failures", 33),
        ("access_log_lost", 44),
    ):
        assert values(found[f"spanway_{name}"], f"spanway_{name}_total") == [value]


@pytest.mark.parametrize("accept", ["", OPENMETRICS])
def test_both_formats_parse_and_say_the_same(accept):
    sample = worker(
        stats=[BUSY],
        endpoints=[
            endpoint(requests=7, errors=2, connections=5, idle=3, latency=0.02),
            endpoint(host="fd00::1", ejected=True),
        ],
        export=ExportCounters(
            recorded=6, acknowledged=4, dropped={"queue_full": 2, "refused": 0}, limit_bytes=8, reachable=False
        ),
        connections_open=5,
        connections_total=50,
        requests_active=2,
        upstream_open=4,
        upstream_total=40,
        loop_lag=0.25,
        memory=1000,
    )
    families = page(
        accept, sample, worker(202, generation=2), problems=[Problem("error"), Problem("warning")], ready=False
    )
    duration = families["http_server_request_duration_seconds"]
    assert duration.type == "histogram"
    assert values(duration, "http_server_request_duration_seconds_count", **ROUTE) == [3]
    assert values(duration, "http_server_request_duration_seconds_sum", **ROUTE) == [pytest.approx(0.815)]
    assert values(duration, "http_server_request_duration_seconds_bucket", le="0.005") == [1]
    assert values(duration, "http_server_request_duration_seconds_bucket", le="0.025") == [2]
    assert values(duration, "http_server_request_duration_seconds_bucket", le="1.0") == [3]
    assert values(duration, "http_server_request_duration_seconds_bucket", le="+Inf") == [3]
    assert len(values(duration, "http_server_request_duration_seconds_bucket")) == len(DURATION_BOUNDS) + 1
    requests = families["spanway_requests"]
    assert {s.labels["code"]: s.value for s in requests.samples} == {"200": 1, "502": 1, "none": 1}
    assert {s.labels["error_type"]: s.value for s in families["spanway_faults"].samples} == {
        "connect_failed": 1,
        "client_gone": 1,
    }
    assert values(families["spanway_self_duration_seconds"], "spanway_self_duration_seconds_sum") == [
        pytest.approx(12e-5)
    ]
    place = {"backend": "demo/shop:80", "endpoint": "10.0.0.7:8080"}
    assert values(families["spanway_endpoint_attempts"], "spanway_endpoint_attempts_total", **place) == [7]
    assert values(families["spanway_endpoint_connections"], "spanway_endpoint_connections", **place, state="busy") == [
        2
    ]
    assert values(families["spanway_endpoint_ejected"], "spanway_endpoint_ejected", endpoint="[fd00::1]:8080") == [1]
    assert values(families["spanway_endpoint_latency_seconds"], "spanway_endpoint_latency_seconds") == [0.02]
    assert {s.labels["reason"]: s.value for s in families["spanway_spans_dropped"].samples} == {
        "queue_full": 2,
        "refused": 0,
    }
    for name, value in {
        "http_server_active_requests": 2,
        "spanway_connections": 5,
        "spanway_connections_accepted_total": 50,
        "spanway_upstream_connections": 4,
        "spanway_upstream_connections_opened_total": 40,
        "spanway_spans_recorded_total": 6,
        "spanway_spans_acknowledged_total": 4,
        "spanway_collector_reachable": 0,
        "spanway_workers": 2,
        "spanway_ready": 0,
        "spanway_generation": 4,
        "spanway_generation_served": 2,
        "spanway_routes": 1,
        "spanway_backends": 1,
        "spanway_loop_lag_seconds": 0.25,
        "spanway_workers_resident_memory_bytes": 1000,
    }.items():
        assert values(families[name.removesuffix("_total")], name) == [value], name
    assert {s.labels["severity"]: s.value for s in families["spanway_config_problems"].samples} == {
        "error": 1,
        "warning": 1,
    }
    build = next(s for family in families.values() for s in family.samples if s.name == "spanway_build_info")
    assert build.labels["version"] == __version__


def test_openmetrics_carries_the_trace_of_each_bucket():
    later = observe(route_stats(), ms=13, trace=b"\xaa" * 16, at=NOW_NS + 5_000_000_000)
    unrecorded = observe(route_stats(), ms=300, recorded=False)
    duration = page(OPENMETRICS, worker(1, stats=[BUSY]), worker(2, stats=[later]), worker(3, stats=[unrecorded]))[
        "http_server_request_duration_seconds"
    ]
    exemplars = {s.labels["le"]: s.exemplar for s in duration.samples if s.exemplar}
    assert exemplars.keys() == {"0.005", "0.025", "1.0"}
    assert exemplars["1.0"].labels == {"trace_id": TRACE.hex()}
    assert exemplars["1.0"].value == pytest.approx(0.8)
    assert exemplars["0.025"].labels == {"trace_id": "aa" * 16}  # of two workers' the later one
    assert float(exemplars["0.025"].timestamp) == pytest.approx(1_790_000_005)
    assert b" # {" not in expose(moment(worker(1, stats=[BUSY])), "")[0]


def test_workers_add_up_and_a_dead_one_is_no_worker():
    dead = worker(0, stats=[observe(route_stats(), times=4)], generation=0)
    families = page("", worker(1, stats=[observe(route_stats())]), dead, exits=1)
    assert values(families["spanway_requests"], "spanway_requests_total") == [5]
    assert values(families["spanway_workers"], "spanway_workers") == [1]
    assert values(families["spanway_generation_served"], "spanway_generation_served") == [3]
    assert values(families["spanway_worker_exits"], "spanway_worker_exits_total") == [1]


def test_routes_nobody_asked_for_make_no_lines():
    stats = [route_stats(f"/{n}") for n in range(100)] + [observe(route_stats("/asked"))]
    requests = page(OPENMETRICS, worker(stats=stats))["http_server_request_duration_seconds"]
    assert {s.labels["http_route"] for s in requests.samples} == {"/asked"}


@pytest.mark.parametrize("accept", ["", OPENMETRICS])
def test_odd_paths_of_an_ingress_are_escaped(accept):
    odd = '/a"b\\c\nd{}#é'
    families = page(accept, worker(stats=[observe(route_stats(odd))]))
    assert families["spanway_requests"].samples[0].labels["http_route"] == odd


@pytest.mark.parametrize("accept", ["", OPENMETRICS])
def test_an_idle_proxy_without_workers_has_a_page_too(accept):
    families = page(accept)
    assert values(families["spanway_workers"], "spanway_workers") == [0]
    assert "spanway_collector_reachable" not in families
