"""From the apply to the first request: API server, etcd, controller and proxy in one Jaeger, joined by links."""

from __future__ import annotations

import secrets
from collections.abc import Callable, Iterator
from datetime import UTC, datetime, timedelta
from urllib.parse import urlencode

import pytest

from tests.harness import poll
from tests.harness.kube_client import APPLY, path_of
from tests.kubernetes.clusters import FakeCluster, RealCluster, ingress_class, site
from tests.kubernetes.conftest import Backends, StartController
from tests.kubernetes.controller import NAMESPACE, Controller
from tests.real.conftest import required
from tests.real.jaeger import Jaeger
from tests.real.tree import Span, Trace

pytestmark = [pytest.mark.real, pytest.mark.timeout(180)]

ANNOTATION = "tracing.k8s.io/traceparent"
WITHIN = 30.0  # seconds for spans to reach Jaeger; the API server's exporter waits 5


@pytest.fixture(scope="module")
def traced(jaeger: Jaeger, tmp_path_factory: pytest.TempPathFactory) -> Iterator[RealCluster]:
    """A cluster whose API server exports every request to Jaeger."""
    etcd, kube_apiserver, kubectl = (required(name) for name in ("etcd", "kube-apiserver", "kubectl"))
    folder = tmp_path_factory.mktemp("traced")
    with RealCluster(etcd, kube_apiserver, kubectl, folder, otlp=jaeger.endpoint("grpc")) as cluster:
        cluster.namespace(NAMESPACE)
        cluster.apply(ingress_class())
        yield cluster


@pytest.fixture
def controller(traced: RealCluster, jaeger: Jaeger, start_controller: StartController) -> Controller:
    arguments = ("--otlp", jaeger.endpoint("grpc"), "--otlp-protocol", "grpc")
    return start_controller(traced, *arguments, workers=2)


def generation(jaeger: Jaeger, since: datetime, matches: Callable[[Span], bool]) -> tuple[Trace, Span]:
    """The trace of a generation that is whole, and its root."""

    def look() -> tuple[Trace, Span] | None:
        for trace in jaeger.traces("spanway", since).values():
            for root in trace.select("spanway", name="table generation"):
                if matches(root) and trace.select("spanway", name="first request"):
                    return trace, root
        return None

    found = poll.until(look, "the generation's trace", WITHIN)
    assert found is not None
    return found


def test_from_the_apply_to_the_first_request(
    traced: RealCluster, controller: Controller, backends: Backends, jaeger: Jaeger
) -> None:
    since = datetime.now(UTC) - timedelta(seconds=1)
    trace_id, span_id = secrets.token_hex(16), secrets.token_hex(8)
    traceparent = f"00-{trace_id}-{span_id}-01"
    *rest, ingress = site("shop", backends.address, [backends.ports[0]])
    traced.client.apply(*rest)
    ingress["metadata"]["annotations"] = {ANNOTATION: traceparent}
    query = urlencode({"fieldManager": "test", "force": "true"})
    stored = traced.client.ask(
        "PATCH", f"{path_of(ingress)}?{query}", ingress, kind=APPLY, headers={"traceparent": traceparent}
    )
    version = stored["metadata"]["resourceVersion"]
    controller.serves("shop.test", backends.body(0))

    # The apply, at the API server: it continues the trace of those who may do everything.
    apply = jaeger.wait_for_trace(
        trace_id, lambda trace: any(span.parent_id == span_id for span in trace.spans), WITHIN
    )
    (server,) = [span for span in apply.select("apiserver") if span.parent_id == span_id]
    assert server.name.startswith("PATCH") or "ingresses" in server.name, apply.drawing()
    assert any("etcd" in span.name.lower() for span in apply.spans), apply.drawing()

    # The generation that it made: linked to the apply, and in order.
    story, root = generation(jaeger, since, lambda span: (trace_id, span_id) in span.links)
    assert story.faults() == [], story.drawing()
    (received,) = story.select("spanway", "CONSUMER", "receive Ingress")
    assert received.links == ((trace_id, span_id),)
    assert received.attributes["spanway.object.resource_version"] == version
    assert received.attributes["spanway.event.lag.source"]
    (build,), (swap,), (first,) = (story.select("spanway", name=name) for name in ("build", "swap", "first request"))
    assert [each.attributes["spanway.worker"] for each in story.select("spanway", name="swap worker")] == [0, 1]
    assert server.start <= received.start <= build.start <= build.end <= swap.end <= first.end

    # The request: linked both ways.
    ((request_trace, request_span),) = first.links
    request = jaeger.wait_for_trace(request_trace, lambda trace: bool(trace.select("spanway", "SERVER")), WITHIN)
    (served,) = [span for span in request.spans if span.span_id == request_span]
    assert served.attributes["spanway.generation"] == root.attributes["spanway.generation"]
    assert served.attributes["spanway.ingress.resource_version"] == version
    assert (root.trace_id, root.span_id) in served.links


def test_calls_to_the_api_server_carry_context(
    traced: RealCluster, controller: Controller, backends: Backends, jaeger: Jaeger
) -> None:
    """Writing a status is one trace: our CLIENT span, and below it the API server's."""
    since = datetime.now(UTC) - timedelta(seconds=1)
    traced.apply(*site("status", backends.address, [backends.ports[0]]))
    poll.until(lambda: controller.count("spanway_status_writes_total") > 0, "a status", 30)
    name = "PATCH /apis/networking.k8s.io/v1/namespaces/{namespace}/ingresses/{name}/status"

    def look() -> Trace | None:
        for trace in jaeger.traces("spanway", since).values():
            if trace.select("spanway", "CLIENT", name) and "apiserver" in trace.services:
                return trace
        return None

    trace = poll.until(look, "a call in Jaeger", WITHIN)
    assert trace is not None
    call = trace.select("spanway", "CLIENT", name)[0]
    below = [span for span in trace.children(call) if span.service == "apiserver"]
    assert len(below) == 1, trace.drawing()


def test_every_api_server_takes_the_context(
    fake_cluster: FakeCluster, backends: Backends, start_controller: StartController
) -> None:
    """Flags 01: those built with OpenTelemetry for Go at 1.41 take 03 (sampled, random id) for invalid."""
    fake_cluster.apply(ingress_class(), *site("shop", backends.address, [backends.ports[0]]))
    controller = start_controller(fake_cluster, "--otlp", "http://127.0.0.1:1")  # nobody: spans are made all the same
    poll.until(lambda: fake_cluster.server.requests("patch", "ingresses/status"), "a status", 30)
    assert controller.get("shop.test").status == 200
    carried = [asked.headers.get("traceparent", "") for asked in fake_cluster.server.requests(resource="ingresses")]
    theirs = [value for value in carried if value]
    assert len(theirs) >= 2  # the list and the watch
    assert {value.rpartition("-")[2] for value in theirs} == {"01"}
