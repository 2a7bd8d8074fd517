"""In a real Jaeger: one tree per request, of the proxy's, the wire's and the application's spans."""

from __future__ import annotations

import secrets
import urllib.request
from pathlib import Path

import pytest

from proxy.trace.semconv_wire import VERDICTS
from tests.harness.namespaces import laboratory
from tests.real.client import Answer, once
from tests.real.jaeger import Jaeger
from tests.real.tree import Span, Trace
from tests.real.wired import Wired
from tests.trace.spans import batch, span

pytestmark = [pytest.mark.real, pytest.mark.alone, pytest.mark.timeout(180)]


def tell(jaeger: Jaeger, answer: Answer) -> None:
    """The application's span, as it would export it: below the CLIENT span that it was called with."""
    _, trace, parent, _ = answer.fields["x-context"].split("-")
    begun, ended = map(int, answer.fields["x-work"].split())
    made = span(int(trace, 16), 0, int(parent, 16), name="GET /work", start=begun, end=ended)
    made.span_id = secrets.token_bytes(8)
    request = urllib.request.Request(
        jaeger.endpoint("http/protobuf") + "/v1/traces",
        batch(made, service="application"),
        {"Content-Type": "application/x-protobuf"},
    )
    with urllib.request.urlopen(request, timeout=10) as response:
        assert response.status == 200


def inside(span: Span, other: Span, slack: int) -> bool:
    return other.start - slack <= span.start <= span.end <= other.end + slack


def test_one_tree_per_request(tmp_path: Path, jaeger: Jaeger) -> None:
    otlp = jaeger.endpoint("http/protobuf")
    with (
        laboratory("wjgr", "ovs", proxy_here=True) as lab,
        Wired(lab, tmp_path, otlp=otlp, proxy_flags=("--otlp", otlp, "--otlp-protocol", "http/protobuf")) as wired,
    ):
        traces = []
        for number in range(20):
            trace = secrets.token_hex(16)
            fields = {"Host": "wire.test", "traceparent": f"00-{trace}-{secrets.token_hex(8)}-01"}
            answer = once(("127.0.0.1", wired.port), "GET", f"/{number}?size=250000&think=5", fields)
            assert answer.status == 200
            tell(jaeger, answer)
            traces.append(trace)
        counts = wired.settled(20)
        assert counts["joined"] == 20, str(counts)

        def arrived() -> dict[str, Trace]:
            return {trace: jaeger.trace(trace) for trace in traces}

        def services(found: Trace) -> set[str]:
            return {each.service for each in found.spans}

        everything = {"spanway", "spanway-wire", "application"}
        wired.wire.until(lambda: all(services(each) == everything for each in arrived().values()), "to be in Jaeger")
        for found in arrived().values():
            by_id = {each.span_id: each for each in found.spans}
            (client,) = (each for each in found.spans if each.kind == "CLIENT")
            (wire,) = (each for each in found.spans if each.name == "wire")
            (work,) = (each for each in found.spans if each.service == "application")
            (backend,) = (each for each in found.spans if each.name == "backend")
            assert wire.parent_id == work.parent_id == client.span_id
            assert backend.parent_id == wire.span_id
            assert wire.kind == backend.kind == "INTERNAL"
            for each in found.spans:
                parent = by_id.get(each.parent_id)
                if parent is not None:
                    assert inside(each, parent, found.resolution), (each, parent)
            assert inside(work, backend, found.resolution)
            assert wire.attributes["spanway.wait.verdict"] in VERDICTS
