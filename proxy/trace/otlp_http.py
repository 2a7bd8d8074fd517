"""OTLP over HTTP/1.1 with protobuf bodies, by `http.client`.

Chosen over requests and urllib3: one thread talks to one host on one kept connection, so a pool, redirects, cookies and
proxies would only cost imports (60 to 80 ms) and CPU per call; `http.client` is in the standard library and leaves
connection, TLS context and deadlines in our hands. Proxy variables (HTTPS_PROXY) are not honoured.
"""

from __future__ import annotations

import base64
import contextlib
import gzip
import http.client
import socket
import ssl
import time
from email.utils import parsedate_to_datetime
from typing import TYPE_CHECKING, Final

from proxy.trace import answer
from proxy.trace.batch import size_of, whole
from proxy.trace.transport import (
    CHECK_HEADERS,
    ENDPOINT_SETTING,
    START_COLLECTOR,
    Endpoint,
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

TRACES_PATH: Final = "/v1/traces"
PROTOBUF: Final = "application/x-protobuf"
ANSWER_LIMIT: Final = 64 * 1024  # bytes of an answer that are read; a longer one ends the connection
GZIP_LEVEL: Final = 1  # spans repeat themselves: level 1 already takes most of them, at a quarter of level 6's CPU

_OURS: Final = frozenset({"content-type", "content-encoding", "content-length", "transfer-encoding", "connection"})

RETRYABLE: Final = frozenset({429, 502, 503, 504})  # OTLP specification, "Failures", retryable response codes

_PATH: Final = f"Correct the path in {ENDPOINT_SETTING} (/v1/traces is appended to it)."
_HINTS: Final = {
    401: CHECK_HEADERS,
    403: CHECK_HEADERS,
    404: _PATH,
    405: _PATH,
    415: "This server does not take protobuf: is it an OTLP collector?",
}
_NOT_HTTP: Final = "Is this the gRPC port? Use port 4318, or set OTEL_EXPORTER_OTLP_PROTOCOL=grpc."
_SLOW: Final = "Check that the collector is reachable from here and not overloaded."


class HttpTransport:
    """Export calls on one kept connection. See `proxy.trace.transport.Transport`.

    The endpoint is the base URL, to which ``/v1/traces`` is appended (OTLP exporter specification) unless it already
    ends so. ``user:password@`` becomes basic authorization. Raises `SettingsError`.
    """

    def __init__(self, tracing: Tracing, version: str = "") -> None:
        check_headers(tracing.headers)
        check_files(tracing)
        self._url = _url(tracing.endpoint, exact=tracing.exact_endpoint)
        self._tracing = tracing
        self._gzip = tracing.compression == "gzip"
        self._target = self._url.path + (f"?{self._url.query}" if self._url.query else "")
        basic = base64.b64encode(self._url.credentials.encode()).decode() if self._url.credentials else ""
        self._headers = {"user-agent": f"spanway-otlp-exporter-python/{version or '0'}"}
        if basic:
            self._headers["authorization"] = f"Basic {basic}"
        self._headers.update((name.lower(), value) for name, value in tracing.headers if name.lower() not in _OURS)
        self._headers["content-type"] = PROTOBUF
        if self._gzip:
            self._headers["content-encoding"] = "gzip"
        self._wording = secrets_of(tracing.headers, basic, self._url.credentials.partition(":")[2], self._url.query)
        self._connection: http.client.HTTPConnection | None = None
        self._context: ssl.SSLContext | None = None
        self._aborted = False

    @property
    def endpoint(self) -> str:
        """The endpoint with its full path, without credentials and query."""
        return str(self._url)

    @property
    def protocol(self) -> str:
        """``http/protobuf``."""
        return "http/protobuf"

    def send(self, body: Body, timeout: float) -> Outcome:
        """One POST; ``timeout`` in seconds bounds connecting and each read and write."""
        if self._gzip:
            body = gzip.compress(whole(body), GZIP_LEVEL, mtime=0)
        kept = self._connection is not None
        try:
            try:
                return self._post(body, timeout)
            except (http.client.RemoteDisconnected, ConnectionResetError, BrokenPipeError):
                # A kept connection may be closed by the server at any time (RFC 9112 section 9.3.1): once more on a
                # new one, without calling it a failure.
                self._drop()
                if not kept or self._aborted:
                    raise
                return self._post(body, timeout)
        except TimeoutError:
            self._drop()
            return Outcome("retry", "timeout", text=f"no answer within {timeout:.1f} s", hint=_SLOW)
        except ssl.SSLError as error:
            self._drop()
            self._context = None  # read the certificates anew: they may have been renewed
            text = self._wording(str(error))
            return Outcome("retry", "tls_failed", text=text, hint="Check OTEL_EXPORTER_OTLP_CERTIFICATE.")
        except OSError as error:
            self._drop()
            return Outcome("retry", "unreachable", text=self._wording(str(error)), hint=START_COLLECTOR)
        except http.client.HTTPException as error:
            self._drop()
            text = self._wording(f"not an HTTP answer ({type(error).__name__})")
            hint = _NOT_HTTP if isinstance(error, http.client.BadStatusLine) else ""
            return Outcome("retry", "bad_answer", text=text, hint=hint)

    def _post(self, body: Body, timeout: float) -> Outcome:
        if self._aborted:
            raise ConnectionAbortedError("the exporter is closing")
        connection = self._connection
        if connection is None:
            connection = self._connection = self._open(timeout)
        elif connection.sock is not None:
            connection.sock.settimeout(timeout)
        connection.request("POST", self._target, body, {**self._headers, "content-length": str(size_of(body))})
        response = connection.getresponse()
        content = response.read(ANSWER_LIMIT)
        if not response.isclosed() or response.will_close:
            self._drop()
        return self._outcome(response, content)

    def _open(self, timeout: float) -> http.client.HTTPConnection:
        url = self._url
        if url.scheme == "http":
            return http.client.HTTPConnection(url.host, url.port, timeout=timeout)
        if self._context is None:
            context = ssl.create_default_context(cafile=self._tracing.certificate or None)
            if self._tracing.client_certificate:
                context.load_cert_chain(self._tracing.client_certificate, self._tracing.client_key)
            self._context = context
        return http.client.HTTPSConnection(url.host, url.port, timeout=timeout, context=self._context)

    def _outcome(self, response: http.client.HTTPResponse, content: bytes) -> Outcome:
        status = response.status
        kind = (response.headers.get_content_type() if "content-type" in response.headers else "").lower()
        if 200 <= status < 300:
            if response.length:  # what Content-Length promised and did not come; the status has been given all the same
                return Outcome("accepted", str(status), text="its answer was cut short")
            if not content or kind in {"", PROTOBUF, "application/protobuf"}:
                return accepted(str(status), content, self._wording)
            if kind == "application/json":  # out of specification, but several vendors answer `{}`
                return Outcome("accepted", str(status))
            text = f"it answered with {self._wording(kind)}; is this an OTLP collector?"
            return Outcome("accepted", str(status), text=text)
        text = self._wording(_explanation(kind, content) or response.reason or "")
        hint = _HINTS.get(status, "")
        if 300 <= status < 400:
            hint = f"It redirects, which export calls do not follow: correct {ENDPOINT_SETTING}."
        if status in RETRYABLE:
            return Outcome("retry", str(status), delay=retry_after(response.headers.get("retry-after")), text=text)
        return Outcome("refused", str(status), text=text, hint=hint)

    def _drop(self) -> None:
        connection, self._connection = self._connection, None
        if connection is not None:
            connection.close()

    def abort(self) -> None:
        """End the call under way by shutting its socket down. A connect or a name lookup runs into its own timeout."""
        self._aborted = True
        connection = self._connection
        sock = connection.sock if connection is not None else None
        if sock is not None:
            with contextlib.suppress(OSError):
                sock.shutdown(socket.SHUT_RDWR)

    def close(self) -> None:
        """Close the connection."""
        self._drop()

    def __repr__(self) -> str:
        state = "aborted" if self._aborted else "connected" if self._connection is not None else "not connected"
        return f"HttpTransport({self.endpoint}, {state})"


def retry_after(value: str | None, now: float | None = None) -> float | None:
    """Seconds a Retry-After field asks for (RFC 9110 section 10.2.3: seconds or a date); None if it cannot be read."""
    if value is None:
        return None
    value = value.strip()
    if value.isascii() and value.isdigit():
        return float(value[:9])  # nine digits are thirty years
    try:
        date = parsedate_to_datetime(value).timestamp()
    except (ValueError, OverflowError):
        return None
    return max(date - (time.time() if now is None else now), 0.0)


def _url(text: str, *, exact: bool) -> Endpoint:
    endpoint = parse_endpoint(text)
    if endpoint.scheme not in {"http", "https"}:
        raise bad_endpoint(text, "has no http or https scheme, which OTLP over HTTP needs")
    path = endpoint.path.rstrip("/")
    if exact:
        return endpoint
    if not path.endswith(TRACES_PATH):
        path += TRACES_PATH
    return endpoint._replace(path=path)


def _explanation(kind: str, content: bytes) -> str:
    """The message of a failed call: a ``google.rpc.Status`` (OTLP specification), or the beginning of a text."""
    if kind in {PROTOBUF, "application/protobuf"}:
        try:
            return answer.status(content).message
        except ValueError:
            return ""
    if kind in {"text/plain", "application/json"}:
        return content.decode("utf-8", "replace")
    return ""
