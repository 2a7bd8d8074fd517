"""OTLP over gRPC: a generic unary call with bytes in and bytes out.

gRPC is imported by the first call, in the sender's thread: it costs some 60 ms of CPU, and a process that has used it
must not fork.
"""

from __future__ import annotations

import os
import threading
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from proxy.errors import SettingsError
from proxy.trace.answer import status
from proxy.trace.batch import whole
from proxy.trace.transport import (
    CHECK_HEADERS,
    ENDPOINT_SETTING,
    START_COLLECTOR,
    Outcome,
    accepted,
    bad_endpoint,
    check_files,
    check_headers,
    parse_endpoint,
    secrets_of,
)

if TYPE_CHECKING:
    from proxy.settings import Tracing
    from proxy.trace.batch import Body

METHOD: Final = "/opentelemetry.proto.collector.trace.v1.TraceService/Export"
DEFAULT_PORT: Final = 4317  # the OTLP/gRPC port registered with IANA

# OTLP specification, "Failures": these may be retried; RESOURCE_EXHAUSTED only when RetryInfo comes with it.
RETRYABLE: Final = frozenset({"CANCELLED", "DEADLINE_EXCEEDED", "ABORTED", "OUT_OF_RANGE", "UNAVAILABLE", "DATA_LOSS"})

_HINTS: Final = {
    "UNAVAILABLE": START_COLLECTOR,
    "DEADLINE_EXCEEDED": "Check that the collector is reachable from here and not overloaded.",
    "UNAUTHENTICATED": CHECK_HEADERS,
    "PERMISSION_DENIED": CHECK_HEADERS,
    "UNIMPLEMENTED": f"This server speaks gRPC but takes no OTLP traces: correct {ENDPOINT_SETTING}.",
}

_NOT_GRPC: Final = "Is this the OTLP/HTTP port? Use port 4317, or set OTEL_EXPORTER_OTLP_PROTOCOL=http/protobuf."

_KEY: Final = frozenset("0123456789abcdefghijklmnopqrstuvwxyz_-.")  # gRPC over HTTP/2, "Header-Name"
_STATUS_DETAILS: Final = "grpc-status-details-bin"  # a google.rpc.Status: gRPC's richer error model


class GrpcTransport:
    """Export calls on one channel. See `proxy.trace.transport.Transport`.

    The endpoint may be ``http://`` (plain), ``https://`` (TLS), ``HOST:PORT`` (TLS unless `Tracing.insecure`), or
    ``unix:PATH`` (plain). Raises `SettingsError` for anything else, and for a path: that belongs to OTLP/HTTP.
    """

    def __init__(self, tracing: Tracing, version: str = "") -> None:
        _check_metadata(tracing.headers)
        check_files(tracing)
        self._target, self._secure, self._endpoint = _target(tracing)
        self._tracing = tracing
        self._version = version or "0"
        self._wording = secrets_of(tracing.headers)
        # gRPC metadata keys are lower-case (gRPC over HTTP/2, "Custom-Metadata"); "-bin" values are bytes.
        self._metadata = tuple(
            (name, value.encode() if name.endswith("-bin") else value)
            for name, value in ((name.lower(), value) for name, value in tracing.headers)
        )
        self._channel: Any = None
        self._export: Any = None
        self._aborted = threading.Event()

    @property
    def endpoint(self) -> str:
        """The endpoint without credentials."""
        return self._endpoint

    @property
    def protocol(self) -> str:
        """``grpc``."""
        return "grpc"

    def send(self, body: Body, timeout: float) -> Outcome:
        """One Export call; ``timeout`` in seconds is its deadline."""
        # gRPC's own lines (GOAWAY of a restarting collector) would repeat without bound what the sender logs rarely.
        os.environ.setdefault("GRPC_VERBOSITY", "NONE")
        import grpc

        if self._aborted.is_set():
            return Outcome("retry", "CANCELLED", text="the exporter is closing")
        try:
            if self._export is None:
                self._open(grpc)
            answer = self._export(whole(body), timeout=timeout, metadata=self._metadata or None)
        except grpc.RpcError as error:
            return self._failure(error)
        except OSError as error:  # a certificate file that cannot be read (any more)
            return Outcome("retry", "UNAVAILABLE", text=self._wording(f"{error.strerror}: {error.filename}"))
        except ValueError:
            if self._aborted.is_set():  # `abort` closed the channel between the check above and the call
                return Outcome("retry", "CANCELLED", text="the exporter is closing")
            raise
        return accepted("OK", answer, self._wording)

    def _open(self, grpc: Any) -> None:
        tracing = self._tracing
        options = (
            ("grpc.primary_user_agent", f"spanway-otlp-exporter-python/{self._version}"),
            # Retrying is the sender's: gRPC neither repeats a call nor, after an outage, keeps refusing to connect for
            # up to its default of two minutes.
            ("grpc.enable_retries", 0),
            ("grpc.initial_reconnect_backoff_ms", 500),
            ("grpc.max_reconnect_backoff_ms", 5000),
        )
        compression = grpc.Compression.Gzip if tracing.compression == "gzip" else grpc.Compression.NoCompression
        if self._secure:
            credentials = grpc.ssl_channel_credentials(
                root_certificates=_content(tracing.certificate),
                private_key=_content(tracing.client_key),
                certificate_chain=_content(tracing.client_certificate),
            )
            self._channel = grpc.secure_channel(self._target, credentials, options=options, compression=compression)
        else:
            self._channel = grpc.insecure_channel(self._target, options=options, compression=compression)
        # No serializer, no deserializer: bytes as they are.
        self._export = self._channel.unary_unary(METHOD)

    def _failure(self, error: Any) -> Outcome:
        code = error.code().name
        text = self._wording(error.details() or "")
        hint = _NOT_GRPC if "HTTP/2" in text else _HINTS.get(code, "")
        if code == "UNAVAILABLE" and self._secure and "://" not in self._tracing.endpoint:
            hint = f"Without http:// it is TLS; write http://{self._target} for plain text. {hint}"
        delay = None
        if code in {"UNAVAILABLE", "RESOURCE_EXHAUSTED"}:
            delay = _retry_info(error.trailing_metadata())
        if code in RETRYABLE or (code == "RESOURCE_EXHAUSTED" and delay is not None):
            return Outcome("retry", code, delay=delay, text=text, hint=hint)
        return Outcome("refused", code, text=text, hint=hint)

    def abort(self) -> None:
        """Cancel the call under way: closing a channel ends its calls with CANCELLED."""
        self._aborted.set()
        self.close()

    def close(self) -> None:
        """Close the channel."""
        if self._channel is not None:
            self._channel.close()

    def __repr__(self) -> str:
        state = "not opened" if self._channel is None else "aborted" if self._aborted.is_set() else "open"
        return f"GrpcTransport({self._endpoint}, {'TLS' if self._secure else 'plain'}, {state})"


def _target(tracing: Tracing) -> tuple[str, bool, str]:
    """The gRPC target, whether TLS is used, and the printable endpoint."""
    text = tracing.endpoint.strip()
    if text.startswith("unix:"):
        return text, False, text
    endpoint = parse_endpoint(text)
    if endpoint.scheme not in {"", "http", "https"}:
        raise bad_endpoint(text, f"has the scheme {endpoint.scheme!r}, which gRPC export does not know")
    if endpoint.path not in {"", "/"} or endpoint.query:
        raise bad_endpoint(
            text,
            "has a path or query, which gRPC does not use",
            "Remove it, or set OTEL_EXPORTER_OTLP_PROTOCOL=http/protobuf.",
        )
    if endpoint.credentials:
        step = "Put them into OTEL_EXPORTER_OTLP_HEADERS."
        raise bad_endpoint(text, "carries credentials, which gRPC does not use", step)
    # The scheme decides before the `insecure` setting (OTLP exporter specification). Without a port: 443 for https, as
    # everywhere, else the OTLP port, since gRPC's own default of 443 cannot be meant for plain text.
    secure = endpoint.scheme == "https" or (endpoint.scheme == "" and not tracing.insecure)
    port = endpoint.port or (443 if endpoint.scheme == "https" else DEFAULT_PORT)
    host = f"[{endpoint.host}]" if ":" in endpoint.host else endpoint.host
    return f"{host}:{port}", secure, f"{'https' if secure else 'http'}://{host}:{port}"


def _check_metadata(headers: tuple[tuple[str, str], ...]) -> None:
    check_headers(headers)
    for name, _ in headers:
        low = name.lower()
        if low.startswith("grpc-") or not _KEY.issuperset(low):
            raise SettingsError(
                f"OTLP header {name!r} cannot be gRPC metadata: letters, digits, '_', '-', '.', no 'grpc-' in front. "
                "Rename it in OTEL_EXPORTER_OTLP_HEADERS, or set OTEL_EXPORTER_OTLP_PROTOCOL=http/protobuf."
            )


def _content(path: str) -> bytes | None:
    return Path(path).read_bytes() if path else None


def _retry_info(trailers: Any) -> float | None:
    """The delay of a RetryInfo in the status details, in seconds; 0.0 if it names none, None without one."""
    for key, value in trailers or ():
        if key == _STATUS_DETAILS:
            try:
                return status(value).retry_delay
            except ValueError:
                return None
    return None
