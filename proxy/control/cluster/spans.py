"""Spans of the calls to the API server, so that its own traces continue ours: they carry ``traceparent``."""

from __future__ import annotations

import os
from contextlib import AbstractContextManager
from typing import TYPE_CHECKING, Any, Final, cast

if TYPE_CHECKING:
    import aiohttp
    from opentelemetry.trace import TracerProvider

PROPAGATORS: Final = "OTEL_PROPAGATORS"
_NAMESPACES: Final = "namespaces"


def trace_config(provider: TracerProvider) -> aiohttp.TraceConfig:
    """What traces a client session's calls, by OpenTelemetry's instrumentation and the stable HTTP conventions.

    Context is injected as W3C, which is what API servers read, whatever OTEL_PROPAGATORS has for requests: the SDK
    would not even load a list that names a format it has no package for, such as jaeger.
    """
    before = os.environ.get(PROPAGATORS)
    os.environ[PROPAGATORS] = "tracecontext"
    try:
        from opentelemetry.instrumentation._semconv import _StabilityMode
        from opentelemetry.instrumentation.aiohttp_client import create_trace_config
    finally:
        if before is None:
            del os.environ[PROPAGATORS]
        else:
            os.environ[PROPAGATORS] = before

    def named(span: Any, params: aiohttp.TraceRequestStartParams) -> None:
        route = template(params.url.path)
        span.update_name(f"{params.method} {route}")
        span.set_attribute("url.template", route)

    return create_trace_config(
        tracer_provider=provider,
        request_hook=named,
        sem_conv_opt_in_mode=_StabilityMode.HTTP,
    )


def untraced() -> AbstractContextManager[None]:
    """Calls within it are no spans. Only where `trace_config` was called before."""
    from opentelemetry.instrumentation.utils import suppress_http_instrumentation

    return cast("AbstractContextManager[None]", suppress_http_instrumentation())


def template(path: str) -> str:
    """An API path with what tells objects apart left out: ``/api/v1/namespaces/{namespace}/secrets/{name}``."""
    parts = path.strip("/").split("/")
    start = 3 if parts[0] == "apis" else 2
    rest = parts[start:]
    shape = []
    if rest[:1] == [_NAMESPACES] and len(rest) > 2:
        shape = [_NAMESPACES, "{namespace}"]
        rest = rest[2:]
    shape += [part if place != 1 else "{name}" for place, part in enumerate(rest)]
    return "/" + "/".join([*parts[:start], *shape])
