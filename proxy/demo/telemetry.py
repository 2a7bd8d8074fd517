"""The OpenTelemetry set-up of a demo service, as any application would have it."""

from __future__ import annotations

import os
import uuid
import warnings
from typing import TYPE_CHECKING, Final

from opentelemetry import propagate, trace
from opentelemetry.baggage.propagation import W3CBaggagePropagator
from opentelemetry.instrumentation.aiohttp_client import AioHttpClientInstrumentor
from opentelemetry.instrumentation.aiohttp_server import AioHttpServerInstrumentor
from opentelemetry.propagators.composite import CompositePropagator
from opentelemetry.sdk.resources import Resource
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export import BatchSpanProcessor
from opentelemetry.trace.propagation.tracecontext import TraceContextTextMapPropagator

if TYPE_CHECKING:
    from opentelemetry.sdk.trace.export import SpanExporter

# The SDK's own defaults are 5 s between batches and 10 s for a call: too long for someone who watches.
SCHEDULE_MS: Final = 250
TIMEOUT_S: Final = 3.0
HEALTH: Final = "/healthz"  # not traced: traefik#9170


def set_up(name: str, receiver: str) -> TracerProvider:
    """Trace this process as service ``name``; call before any aiohttp application or session is made.

    Spans go to ``receiver`` (an OTLP/HTTP URL, "" for none), and where ``OTEL_EXPORTER_OTLP_ENDPOINT`` says.
    The caller ends it with ``shutdown()``, which sends what is waiting.
    """
    # The stable HTTP conventions; the instrumentation still defaults to the old ones.
    os.environ.setdefault("OTEL_SEMCONV_STABILITY_OPT_IN", "http")
    os.environ.setdefault("OTEL_PYTHON_AIOHTTP_SERVER_EXCLUDED_URLS", f"{HEALTH}$")
    resource = Resource.create(
        {
            "service.name": name,
            "service.namespace": "spanway-demo",
            "service.instance.id": str(uuid.uuid4()),
        }
    )
    provider = TracerProvider(resource=resource)
    for exporter in _exporters(receiver):
        provider.add_span_processor(BatchSpanProcessor(exporter, schedule_delay_millis=SCHEDULE_MS))
    trace.set_tracer_provider(provider)
    # W3C only, whatever OTEL_PROPAGATORS says: that one is read by the proxy, and need not be installed here.
    propagate.set_global_textmap(CompositePropagator([TraceContextTextMapPropagator(), W3CBaggagePropagator()]))
    with warnings.catch_warnings():
        # The instrumentation subclasses aiohttp.web.Application, which aiohttp discourages.
        warnings.filterwarnings("ignore", "Inheritance class", DeprecationWarning)
        AioHttpServerInstrumentor().instrument()
    AioHttpClientInstrumentor().instrument()
    return provider


def _exporters(receiver: str) -> list[SpanExporter]:
    """One exporter per place; the modules are imported on demand, as gRPC alone costs a service 10 MiB."""
    exporters: list[SpanExporter] = []
    if receiver:
        import requests
        from opentelemetry.exporter.otlp.proto.http import Compression
        from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter

        session = requests.Session()
        session.trust_env = False  # a loopback address must not go through HTTP_PROXY
        exporters.append(
            OTLPSpanExporter(
                endpoint=receiver, timeout=TIMEOUT_S, session=session, compression=Compression.NoCompression
            )
        )
    if _variable("ENDPOINT") not in {"", "none"}:
        if (_variable("PROTOCOL") or "grpc") == "grpc":
            exporters.append(_grpc_exporter())
        else:
            from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter

            exporters.append(OTLPSpanExporter())
    return exporters


def _variable(name: str) -> str:
    """An exporter variable, that for traces before that for every signal (OTLP exporter specification)."""
    own = os.environ.get(f"OTEL_EXPORTER_OTLP_TRACES_{name}")
    return os.environ.get(f"OTEL_EXPORTER_OTLP_{name}", "") if own is None else own


def _grpc_exporter() -> SpanExporter:
    import grpc

    try:
        from opentelemetry.exporter.otlp.proto.grpc.trace_exporter import OTLPSpanExporter
    except ImportError as error:
        raise SystemExit(
            f"sending spans over gRPC needs the package opentelemetry-exporter-otlp-proto-grpc ({error}); "
            "install it, or set OTEL_EXPORTER_OTLP_PROTOCOL=http/protobuf"
        ) from error
    # Given, not left to the SDK: it refuses the specification's own "none" in the variable.
    gzip = _variable("COMPRESSION") == "gzip"
    return OTLPSpanExporter(compression=grpc.Compression.Gzip if gzip else grpc.Compression.NoCompression)
