"""The proxy's own collector settings as the environment of an OpenTelemetry SDK, so that the services export alike."""

from __future__ import annotations

from typing import Final
from urllib.parse import quote

from proxy.settings import Tracing
from proxy.trace.receive import PATH
from proxy.trace.transport import exports, parse_endpoint

# The variables for traces go before those for every signal, so whatever the user's shell has does not interfere.
_PREFIX: Final = "OTEL_EXPORTER_OTLP_TRACES_"


def environment(tracing: Tracing) -> dict[str, str]:
    """What a service's SDK must find in its environment; an empty endpoint when nothing is to be exported."""
    if not exports(tracing):
        return {f"{_PREFIX}ENDPOINT": "", "OTEL_EXPORTER_OTLP_ENDPOINT": ""}
    values = {
        "ENDPOINT": _endpoint(tracing),
        "PROTOCOL": tracing.protocol,
        "HEADERS": ",".join(f"{quote(name)}={quote(value)}" for name, value in tracing.headers),
        "COMPRESSION": tracing.compression,
        "TIMEOUT": f"{tracing.timeout:g}",  # seconds, for Python's SDK
        "CERTIFICATE": tracing.certificate,
        "CLIENT_CERTIFICATE": tracing.client_certificate,
        "CLIENT_KEY": tracing.client_key,
        "INSECURE": "true" if tracing.insecure else "",
    }
    return {f"{_PREFIX}{name}": value for name, value in values.items() if value}


def _endpoint(tracing: Tracing) -> str:
    endpoint = tracing.endpoint.strip()
    if tracing.protocol == "grpc" or tracing.exact_endpoint or endpoint.rstrip("/").endswith(PATH):
        return endpoint
    return endpoint.rstrip("/") + PATH


def printable(tracing: Tracing) -> str:
    """The collector's address without credentials, "" when nothing is exported."""
    return str(parse_endpoint(tracing.endpoint)) if exports(tracing) else ""
