"""What a record's spans are, written a second time with the SDK's objects, and without a thought for speed.

Nothing here is shared with the encoder: attribute names are spelled out, rules are the conventions' own words.
"""

from __future__ import annotations

from typing import Any

from opentelemetry.exporter.otlp.proto.common.trace_encoder import encode_spans
from opentelemetry.proto.trace.v1.trace_pb2 import ScopeSpans, Span
from opentelemetry.sdk.trace import ReadableSpan
from opentelemetry.trace import Link, SpanContext, SpanKind, Status, StatusCode, TraceFlags, TraceState

from proxy.errors import Kind, Side
from proxy.trace.record import AttemptRecord, RequestRecord

KNOWN = {b"CONNECT", b"DELETE", b"GET", b"HEAD", b"OPTIONS", b"PATCH", b"POST", b"PUT", b"QUERY", b"TRACE"}
SECRETS = (
    "AWSAccessKeyId",
    "Signature",
    "X-Amz-Signature",
    "X-Amz-Credential",
    "X-Amz-Security-Token",
    "sig",
    "X-Goog-Signature",
)
LEFT = {kind.label for kind in Kind if kind.side is Side.DOWNSTREAM}
TEXTS = {kind.label: kind.text for kind in Kind}


def clean(value: bytes, limit: int) -> str:
    """Valid text of at most ``limit`` bytes."""
    text = value[: limit - 4].decode("utf-8", "replace") if len(value) > limit else value.decode("utf-8", "replace")
    if len(value) > limit:
        for end in range(limit - 4, limit + 1):
            try:
                text = value[:end].decode("utf-8")
            except UnicodeDecodeError:
                continue
    while len(text.encode()) > limit:
        text = text[:-1]
    return text


def redacted(query: bytes) -> bytes:
    parts = []
    for part in query.split(b"&"):
        name, equals, _ = part.partition(b"=")
        parts.append(name + b"=REDACTED" if equals and name.decode("latin-1") in SECRETS else part)
    return b"&".join(parts)


def method_of(method: bytes) -> tuple[str, dict[str, Any]]:
    if method in KNOWN:
        return method.decode(), {"http.request.method": method.decode()}
    attributes = {"http.request.method": "_OTHER"}
    if method:
        attributes["http.request.method_original"] = clean(method, 64)
    return "HTTP", attributes


def context_of(trace_id: bytes, span_id: bytes, flags: int, remote: bool, state: bytes) -> SpanContext:
    return SpanContext(
        int.from_bytes(trace_id, "big"),
        int.from_bytes(span_id, "big"),
        remote,
        TraceFlags(flags & 0xFF),
        TraceState.from_header([state.decode()]),
    )


def tcp(attributes: dict[str, Any], made: RequestRecord | AttemptRecord) -> None:
    names = {
        "rtt.us": "rtt_us",
        "min_rtt.us": "min_rtt_us",
        "segments": "segments",
        "retransmitted": "retransmitted",
        "rwnd_limited.us": "rwnd_limited_us",
        "sndbuf_limited.us": "sndbuf_limited_us",
        "delivery_rate": "delivery_rate",
    }
    if made.tcp is not None:
        for name, field in names.items():
            if getattr(made.tcp, field) > 0:
                attributes[f"spanway.tcp.{name}"] = getattr(made.tcp, field)


def took(attributes: dict[str, Any], name: str, duration_ns: int) -> None:
    attributes[name] = max(0, duration_ns // 1000)


def gone(record: RequestRecord) -> bool:
    return "client_gone" in (record.outcome, record.error_type)


def server_span(record: RequestRecord) -> ReadableSpan:
    name, attributes = method_of(record.method)
    route = record.route
    if route is not None:
        if route.path:
            name += f" {route.path}"
            attributes["http.route"] = route.path
        if route.span_name:
            name = route.span_name.replace("$request_method", method_of(record.method)[0])
        attributes["spanway.ingress.namespace"] = route.namespace
        attributes["spanway.ingress.name"] = route.name
        if route.uid:
            attributes["spanway.ingress.uid"] = route.uid
        if route.resource_version:
            attributes["spanway.ingress.resource_version"] = route.resource_version
    if record.generation:
        attributes["spanway.generation"] = record.generation
    attributes["url.scheme"] = record.scheme
    if record.path:
        attributes["url.path"] = clean(record.path, 8192)
    if record.query:
        attributes["url.query"] = clean(redacted(record.query), 8192)
    if record.host:
        attributes["server.address"] = clean(record.host.rpartition(b"@")[2], 256)
        if record.server_port:
            attributes["server.port"] = record.server_port
    attributes["network.protocol.version"] = f"1.{record.version}"
    if record.client_address:
        attributes["client.address"] = record.client_address
    if record.peer_address:
        attributes["network.peer.address"] = record.peer_address
    if record.peer_port:
        attributes["network.peer.port"] = record.peer_port
    if record.user_agent:
        attributes["user_agent.original"] = clean(record.user_agent, 1024)
    if record.status:
        attributes["http.response.status_code"] = record.status
    tcp(attributes, record)
    if record.request_body_size:
        attributes["http.request.body.size"] = record.request_body_size
    if record.response_body_size:
        attributes["http.response.body.size"] = record.response_body_size
    if record.admit_ns:
        took(attributes, "spanway.admit.us", record.admit_ns - record.start_ns)
    if record.route_ns:
        took(attributes, "spanway.route.us", record.route_ns - record.admit_ns)
    took(attributes, "spanway.self.us", record.self_ns)
    attributes["spanway.loop_lag.us"] = record.loop_lag_us

    status = Status(StatusCode.UNSET)
    if gone(record):
        attributes["spanway.outcome"] = "client_gone"
    else:
        if record.outcome:
            attributes["spanway.outcome"] = record.outcome
        if record.error_type:
            attributes["error.type"] = record.error_type
            if not 400 <= record.status <= 499:
                described = TEXTS[record.error_type] if not record.status else None
                status = Status(StatusCode.ERROR, described)
        elif record.status >= 500:
            attributes["error.type"] = str(record.status)
            status = Status(StatusCode.ERROR)
    link = record.link
    return ReadableSpan(
        name,
        context_of(record.trace_id, record.span_id, record.flags, False, record.tracestate),
        context_of(record.trace_id, record.parent_id, record.flags, True, b"") if record.parent_id else None,
        attributes=attributes,
        links=[]
        if link is None
        else [Link(context_of(link.trace_id, link.span_id, link.flags, True, link.tracestate))],
        kind=SpanKind.SERVER,
        status=status,
        start_time=record.start_ns,
        end_time=max(record.start_ns, record.end_ns),
    )


def client_span(record: RequestRecord, attempt: AttemptRecord) -> ReadableSpan:
    start, end = record.start_ns, max(record.start_ns, record.end_ns)
    begin = min(max(attempt.start_ns, start), end)
    finish = min(max(attempt.end_ns, begin), end)
    name, attributes = method_of(record.method)
    host = f"[{attempt.host}]" if ":" in attempt.host else attempt.host
    target = clean(record.sent_path or record.path, 8192)
    if record.query:
        target += "?" + clean(redacted(record.query), 8192)
    attributes |= {
        "url.full": f"{attempt.scheme}://{host}:{attempt.port}{target}",
        "server.address": attempt.host,
        "server.port": attempt.port,
        "network.protocol.version": "1.1",
        "spanway.reused": attempt.reused,
    }
    if attempt.status:
        attributes["http.response.status_code"] = attempt.status
    if attempt.resend:
        attributes["http.request.resend_count"] = attempt.resend
    if (connection := attempt.connection) is not None:
        if connection.local_address:
            attributes["network.local.address"] = connection.local_address
        if connection.peer_address:
            attributes["network.peer.address"] = connection.peer_address
        attributes["network.local.port"] = connection.local_port
        attributes["network.peer.port"] = connection.peer_port
    for phase in ("queue", "dns", "connect", "tls"):
        if duration := getattr(attempt, f"{phase}_ns"):
            took(attributes, f"spanway.{phase}.us", duration)
    if attempt.write_ns:
        attributes["spanway.request.start"] = attempt.request_start
        attributes["spanway.request.end"] = attempt.request_end
    tcp(attributes, attempt)
    if attempt.first_byte_ns:
        attributes["spanway.response.start"] = attempt.response_start
        attributes["spanway.response.end"] = attempt.response_end
        took(attributes, "spanway.relay.us", finish - attempt.first_byte_ns)
        if attempt.sent_ns and attempt.sent_ns <= attempt.first_byte_ns:
            took(attributes, "spanway.wait.us", attempt.first_byte_ns - attempt.sent_ns)

    status = Status(StatusCode.UNSET)
    ours = gone(record) and attempt is record.attempts[-1]
    if attempt.error_type:
        if attempt.error_type not in LEFT:
            attributes["error.type"] = attempt.error_type
            status = Status(StatusCode.ERROR, TEXTS[attempt.error_type] if not attempt.status else None)
    elif attempt.status >= 400 and not ours:
        attributes["error.type"] = str(attempt.status)
        status = Status(StatusCode.ERROR)
    if status.status_code is StatusCode.UNSET and not attempt.status:
        attributes["spanway.outcome"] = "cancelled"
    return ReadableSpan(
        name,
        context_of(record.trace_id, attempt.span_id, record.flags, False, record.tracestate),
        context_of(record.trace_id, record.span_id, record.flags, False, b""),
        attributes=attributes,
        kind=SpanKind.CLIENT,
        status=status,
        start_time=begin,
        end_time=finish,
    )


def expected(record: RequestRecord) -> list[Span]:
    """What the SDK's own exporter writes for the record's spans, with what it leaves out of the protocol added.

    It writes neither the W3C flags of a span and a link (SpanFlags, bits 0 to 7) nor a link's trace state.
    """
    sdk = [server_span(record), *(client_span(record, attempt) for attempt in record.attempts)]
    spans = [span for part in encode_spans(sdk).resource_spans for scope in part.scope_spans for span in scope.spans]
    for span in spans:
        span.flags |= record.flags & 0xFF
        for link in span.links:
            assert record.link is not None
            link.flags |= record.link.flags & 0xFF
            link.trace_state = record.link.tracestate.decode()
    return [in_order(span) for span in spans]


def in_order(span: Span) -> Span:
    """The span with its attributes in order of their keys, which must differ: the protocol has them unordered."""
    keys = [attribute.key for attribute in span.attributes]
    assert len(set(keys)) == len(keys), f"doubled attribute in {keys}"
    attributes = sorted(span.attributes, key=lambda attribute: attribute.key)
    del span.attributes[:]
    span.attributes.extend(attributes)
    return span


def parsed(encoded: bytes) -> list[Span]:
    """The spans in what the encoder wrote."""
    message = ScopeSpans.FromString(encoded)
    assert not message.HasField("scope")
    return [in_order(span) for span in message.spans]
