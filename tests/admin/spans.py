"""Spans as applications and the proxy send them."""

from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest
from opentelemetry.proto.trace.v1.trace_pb2 import Span, Status

BASE_NS = 1_790_000_000_000_000_000
TRACE = "4bf92f3577b34da6a3ce929d0e0e4736"


def attributes(target, values):
    for key, value in values.items():
        pair = target.add(key=key)
        if isinstance(value, bool):
            pair.value.bool_value = value
        elif isinstance(value, int):
            pair.value.int_value = value
        else:
            pair.value.string_value = value


def span(number, parent, name, start_ms, end_ms, kind="INTERNAL", error="", exception=(), links=(), **values):
    """One span; ``values`` are its attributes, with ``__`` for the dots."""
    made = Span(
        span_id=number.to_bytes(8, "big"),
        parent_span_id=parent.to_bytes(8, "big") if parent else b"",
        name=name,
        kind=Span.SpanKind.Value(f"SPAN_KIND_{kind}"),
        start_time_unix_nano=BASE_NS + round(start_ms * 1e6),
        end_time_unix_nano=BASE_NS + round(end_ms * 1e6),
    )
    attributes(made.attributes, {key.replace("__", "."): value for key, value in values.items()})
    if error or exception:
        made.status.code = Status.STATUS_CODE_ERROR
    if error:
        attributes(made.attributes, {"error.type": error})
    if exception:
        event = made.events.add(name="exception")
        attributes(event.attributes, {"exception.type": exception[0], "exception.message": exception[1]})
    for trace_id in links:
        made.links.add(trace_id=bytes.fromhex(trace_id), span_id=b"\1" * 8)
    return made


def batch(service, *spans, trace=TRACE):
    request = ExportTraceServiceRequest()
    resource = request.resource_spans.add()
    attributes(resource.resource.attributes, {"service.name": service})
    scope = resource.scope_spans.add()
    scope.scope.name = "spanway" if service == "spanway" else "some.instrumentation"
    for each in spans:
        each.trace_id = bytes.fromhex(trace)
        scope.spans.append(each)
    return request.SerializeToString()


def request(method, status, **more):
    return {"http__request__method": method, "http__response__status_code": status, **more}


def checkout(trace=TRACE, *, failed=False):
    """A request through all services, as four processes export it."""
    status = 500 if failed else 201
    exception = ("demo.shop.PaymentFailed", "the bank did not answer in time") if failed else ()
    error = "500" if failed else ""
    own = {"spanway__admit__us": 61, "spanway__route__us": 4, "spanway__self__us": 173, "spanway__loop_lag__us": 41}
    names = {"spanway__ingress__namespace": "demo", "spanway__ingress__name": "shop"}
    where = {"url__path": "/checkout", "server__address": "shop.localhost"}
    upstream = {"server__address": "127.0.0.1", "server__port": 41234}
    waited = {"spanway__connect__us": 212, "spanway__wait__us": 611_300, "spanway__relay__us": 88}
    carts = {"server__address": "127.0.0.1", "server__port": 7702}
    stocks = {"server__address": "127.0.0.1", "server__port": 7703}
    path = "POST /api/stock/{item}/reservations"
    return [
        batch(
            "spanway",
            span(1, 0, "POST /", 0, 612, "SERVER", error, **request("POST", status, **where), **names, **own),
            span(2, 1, "POST", 0.1, 611.9, "CLIENT", error, **request("POST", status, **upstream), **waited),
            trace=trace,
        ),
        batch(
            "shop",
            span(3, 2, "POST /checkout", 1.5, 611, "SERVER", error, **request("POST", status)),
            span(4, 3, "GET", 2.2, 6.8, "CLIENT", **request("GET", 200, **carts)),
            span(6, 3, "POST", 8, 512, "CLIENT", **request("POST", 201, **stocks)),
            span(7, 3, "POST", 8.3, 96, "CLIENT", **request("POST", 201, **stocks)),
            span(10, 3, "charge card", 513, 608, exception=exception),
            trace=trace,
        ),
        batch("cart", span(5, 4, "GET /api/cart/{user}", 4, 6, "SERVER", **request("GET", 200)), trace=trace),
        batch(
            "stock",
            span(8, 6, path, 9.5, 511, "SERVER", **request("POST", 201)),
            span(9, 7, path, 10, 95, "SERVER", **request("POST", 201)),
            span(12, 8, "wait for shelf lock", 10, 500),
            span(13, 8, "UPDATE item", 500.2, 510.5, "CLIENT", db__system__name="sqlite"),
            span(14, 9, "UPDATE item", 11, 94.4, "CLIENT", db__system__name="sqlite"),
            trace=trace,
        ),
    ]


def plain(trace=TRACE, start_ms=0.0, ms=4.2, status=200):
    """A request to an upstream that sends no spans."""
    where = {"url__path": "/", "server__address": "localhost"}
    upstream = {"server__address": "127.0.0.1", "server__port": 3000, "spanway__reused": True}
    return batch(
        "spanway",
        span(
            1, 0, "GET /", start_ms, start_ms + ms, "SERVER", **request("GET", status, **where), spanway__self__us=140
        ),
        span(
            2,
            1,
            "GET",
            start_ms + 0.1,
            start_ms + ms - 0.1,
            "CLIENT",
            **request("GET", status, **upstream),
            spanway__wait__us=3700,
        ),
        trace=trace,
    )
