"""A tiny OTLP collector (HTTP/protobuf or gRPC) that keeps every span it is given."""

from __future__ import annotations

import gzip
import threading
from collections.abc import Callable, Sequence
from concurrent import futures
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any, Literal

import grpc
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import (
    ExportTraceServiceRequest,
    ExportTraceServiceResponse,
)
from opentelemetry.proto.common.v1.common_pb2 import AnyValue

from tests.harness import poll

SERVER, CLIENT = 2, 3  # opentelemetry.proto.trace.v1.Span.SpanKind
UNSET, ERROR = 0, 2  # Status.StatusCode
_EXPORT = "/opentelemetry.proto.collector.trace.v1.TraceService/Export"


@dataclass
class Span:
    """One exported span; ids are lower-case hex, times Unix nanoseconds."""

    trace_id: str
    span_id: str
    parent_id: str
    name: str
    kind: int
    start: int
    end: int
    status: int
    message: str
    attributes: dict[str, Any]
    links: list[tuple[str, str]]
    trace_state: str
    flags: int
    resource: dict[str, Any] = field(repr=False, default_factory=dict)

    @property
    def error_type(self) -> str | None:
        """`error.type`."""
        value = self.attributes.get("error.type")
        return None if value is None else str(value)


def _value(value: AnyValue) -> Any:
    which = value.WhichOneof("value")
    if which == "array_value":
        return [_value(item) for item in value.array_value.values]
    return getattr(value, which) if which else None


def decode(message: bytes) -> list[Span]:
    """The spans of an ExportTraceServiceRequest."""
    request = ExportTraceServiceRequest.FromString(message)
    spans: list[Span] = []
    for group in request.resource_spans:
        resource = {item.key: _value(item.value) for item in group.resource.attributes}
        for scope in group.scope_spans:
            for span in scope.spans:
                attributes = {item.key: _value(item.value) for item in span.attributes}
                assert len(attributes) == len(span.attributes), f"a doubled attribute in {span}"
                spans.append(
                    Span(
                        span.trace_id.hex(),
                        span.span_id.hex(),
                        span.parent_span_id.hex(),
                        span.name,
                        span.kind,
                        span.start_time_unix_nano,
                        span.end_time_unix_nano,
                        span.status.code,
                        span.status.message,
                        attributes,
                        [(link.trace_id.hex(), link.span_id.hex()) for link in span.links],
                        span.trace_state,
                        span.flags,
                        resource,
                    )
                )
    return spans


class Collector:
    """Listens on a port the kernel chose; ``url`` is what the proxy is told."""

    def __init__(self, protocol: Literal["http/protobuf", "grpc"] = "http/protobuf") -> None:
        self.protocol = protocol
        self.spans: list[Span] = []
        self._lock = threading.Lock()
        self._http: ThreadingHTTPServer | None = None
        self._grpc: grpc.Server | None = None
        if protocol == "grpc":
            self._grpc = grpc.server(futures.ThreadPoolExecutor(2))
            handler = grpc.unary_unary_rpc_method_handler(self._on_grpc)
            service, method = _EXPORT[1:].split("/")
            self._grpc.add_generic_rpc_handlers((grpc.method_handlers_generic_handler(service, {method: handler}),))
            self.url = f"http://127.0.0.1:{self._grpc.add_insecure_port('127.0.0.1:0')}"
            self._grpc.start()
        else:
            self._http = _Server(self)
            self.url = f"http://127.0.0.1:{self._http.server_address[1]}"
            threading.Thread(target=self._http.serve_forever, args=(0.05,), name="collector", daemon=True).start()

    def take(self, message: bytes) -> None:
        """Keep the spans of one export call."""
        spans = decode(message)
        with self._lock:
            self.spans += spans

    def _on_grpc(self, message: bytes, _context: grpc.ServicerContext) -> bytes:
        self.take(message)
        return ExportTraceServiceResponse().SerializeToString()

    def find(self, match: Callable[[Span], bool]) -> list[Span]:
        """The spans that match so far."""
        with self._lock:
            return [span for span in self.spans if match(span)]

    def wait(self, match: Callable[[Span], bool], count: int = 1, what: str = "a span") -> list[Span]:
        """The matching spans, once there are ``count``."""
        poll.until(lambda: len(self.find(match)) >= count, f"{count} x {what} at the collector")
        return self.find(match)

    def trace(self, trace_id: str, count: int) -> list[Span]:
        """The spans of one trace, once there are ``count``."""
        return self.wait(lambda span: span.trace_id == trace_id, count, f"trace {trace_id}")

    def stop(self) -> None:
        """Close the port."""
        if self._http is not None:
            self._http.shutdown()
            self._http.server_close()
        if self._grpc is not None:
            self._grpc.stop(None).wait()


def server_spans(spans: Sequence[Span]) -> list[Span]:
    """Only the SERVER spans."""
    return [span for span in spans if span.kind == SERVER]


def client_spans(spans: Sequence[Span]) -> list[Span]:
    """Only the CLIENT spans, in order of their start."""
    return sorted((span for span in spans if span.kind == CLIENT), key=lambda span: span.start)


class _Server(ThreadingHTTPServer):
    daemon_threads = True

    def __init__(self, collector: Collector) -> None:
        self.collector = collector
        super().__init__(("127.0.0.1", 0), _Handler)


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"

    def do_POST(self) -> None:
        body = self.rfile.read(int(self.headers["Content-Length"]))
        if self.headers.get("Content-Encoding") == "gzip":
            body = gzip.decompress(body)
        assert isinstance(self.server, _Server)
        status = 200 if self.path == "/v1/traces" else 404
        if status == 200:
            self.server.collector.take(body)
        self.send_response(status)
        self.send_header("Content-Type", "application/x-protobuf")
        self.send_header("Content-Length", "0")
        self.end_headers()

    def log_message(self, format: str, *args: object) -> None:  # noqa: A002 - http.server's own parameter name
        """Say nothing."""
