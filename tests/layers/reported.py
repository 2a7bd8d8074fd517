"""Traces as the proxy, `spanway wire` and applications send them, for reports."""

from __future__ import annotations

from typing import Any

from proxy.trace.semconv_wire import INCOMPLETE, LOST, LOST_AT, RETRANSMITTED, SPLIT, US, VERDICT
from proxy.trace.view import SpanView

BASE_NS = 1_790_000_000_000_000_000
US_NS = 1000


def view(
    number: int, span: int, parent: int, name: str, kind: str, start_us: int, end_us: int, **more: Any
) -> SpanView:
    """A span of trace ``number``; times in microseconds after the trace's start, one second per trace."""
    begin = BASE_NS + number * 1_000_000_000
    return SpanView(
        trace_id=f"{number:032x}",
        span_id=f"{span:016x}",
        parent_id=f"{parent:016x}" if parent else "",
        name=name,
        kind=kind,
        service=more.get("service", "spanway"),
        start_ns=begin + start_us * US_NS,
        end_ns=begin + end_us * US_NS,
        status="UNSET",
        status_message="",
        attributes=more.get("attributes", {}),
        events=[],
        links=[],
        scope=more.get("scope", "spanway"),
        trace_state="",
        resource={},
    )


def request(
    number: int,
    places: dict[str, int] | None,
    *,
    own_us: int = 100,
    application_us: int = 0,
    path: str = "/",
    lost: tuple[str, int] | None = None,
    verdict: str = "application",
    client: dict[str, Any] | None = None,
) -> list[SpanView]:
    """One request whose attempt spent ``places`` microseconds (None: was not joined) beside the proxy's ``own_us``."""
    wait = sum((places or {}).values())
    said = {"http.route": path, "spanway.ingress.namespace": "shop", "spanway.ingress.name": "web"}
    sent = {"spanway.request.end": 100, "spanway.response.end": 200, "http.response.status_code": 200, **(client or {})}
    spans = [
        view(number, 1, 0, f"GET {path}", "SERVER", 0, own_us + wait, attributes=said),
        view(
            number,
            2,
            1,
            "GET",
            "CLIENT",
            own_us // 2,
            own_us // 2 + wait,
            attributes={name: value for name, value in sent.items() if value is not None},
        ),
    ]
    if places is None:
        return spans
    figures: dict[str, Any] = {SPLIT.name: "as it may be", VERDICT.name: verdict}
    figures |= {US + place.replace(" ", "_"): us for place, us in places.items()}
    if lost:
        figures |= {LOST_AT.name: lost[0], LOST.name: lost[1], RETRANSMITTED.name: lost[1], INCOMPLETE.name: True}
    start, end = own_us // 2, own_us // 2 + wait
    spans.append(view(number, 3, 2, "wire", "INTERNAL", start, end, attributes=figures, service="spanway-wire"))
    if application_us:
        end = start + application_us
        spans.append(view(number, 4, 2, "GET /", "SERVER", start, end, scope="otel", service="shop"))
    return spans


def slow_switch(count: int = 200) -> list[SpanView]:
    """A route of which one request in fifty waits 20 ms in the switch, and all others for their application."""
    spans = []
    for number in range(count):
        slow = number % 50 == 0
        places = {"proxy": 10, "ovs br0": 20_000 if slow else 60 + number % 7, "backend": 1000 + number % 11}
        spans += request(number, places, application_us=900, verdict="switch" if slow else "application")
    return spans
