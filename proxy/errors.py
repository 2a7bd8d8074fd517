"""Every way an exchange can fail, in one table.

A fault says what happened (its kind), on whose side, whether another attempt may be made, and with which status the
downstream is answered. The kind's name is at once the span's ``error.type``, the access log's reason and the label
of the fault counter, so that one word finds a failure everywhere.
"""

from __future__ import annotations

import enum
from typing import Final, NamedTuple


class Side(enum.Enum):
    """Who caused the fault (Pingora's ``ErrorSource``)."""

    DOWNSTREAM = "downstream"
    UPSTREAM = "upstream"
    INTERNAL = "internal"


class Retry(enum.Enum):
    """When another attempt may be made (RFC 9110 section 9.2.2, RFC 9112 section 9.3.1)."""

    NEVER = "never"
    UNSENT = "unsent"  # no byte of the request left the proxy: any method
    IDEMPOTENT = "idempotent"  # bytes may have arrived, no response byte came back: idempotent methods


class FaultRow(NamedTuple):
    """One row of the fault table.

    ``status`` is 0 where nothing can be answered: the downstream has left, or the response has begun.
    """

    name: str
    status: int
    side: Side
    retry: Retry
    text: str


_D, _U, _I = Side.DOWNSTREAM, Side.UPSTREAM, Side.INTERNAL
_NO, _UNSENT, _IDEM = Retry.NEVER, Retry.UNSENT, Retry.IDEMPOTENT


class Kind(enum.Enum):
    """The table of faults; ``text`` is what the downstream reads."""

    # What the downstream sent.
    BAD_REQUEST = FaultRow("bad_request", 400, _D, _NO, "The request is malformed.")
    BAD_HOST = FaultRow("bad_host", 400, _D, _NO, "The Host of the request is missing, doubled or malformed.")
    BAD_TARGET = FaultRow("bad_target", 400, _D, _NO, "The request target is malformed.")
    BAD_FRAMING = FaultRow("bad_framing", 400, _D, _NO, "The request's body framing is ambiguous or malformed.")
    BAD_PROXY_HEADER = FaultRow("bad_proxy_header", 0, _D, _NO, "The PROXY protocol header is malformed.")
    SOURCE_REFUSED = FaultRow("source_refused", 403, _D, _NO, "Requests from this address are not served here.")
    NO_ROUTE = FaultRow("no_route", 404, _D, _NO, "No Ingress rule matches this host and path.")
    METHOD_NOT_ALLOWED = FaultRow("method_not_allowed", 405, _D, _NO, "This method is not forwarded.")
    REQUEST_TIMEOUT = FaultRow("request_timeout", 408, _D, _NO, "The request did not arrive in time.")
    BODY_TOO_LARGE = FaultRow("body_too_large", 413, _D, _NO, "The request body is larger than this route allows.")
    TARGET_TOO_LONG = FaultRow("target_too_long", 414, _D, _NO, "The request target is too long.")
    EXPECTATION_FAILED = FaultRow("expectation_failed", 417, _D, _NO, "Only 'Expect: 100-continue' is supported.")
    HEAD_TOO_LARGE = FaultRow("head_too_large", 431, _D, _NO, "The request's header fields are too large or too many.")
    NOT_IMPLEMENTED = FaultRow("not_implemented", 501, _D, _NO, "This transfer coding is not implemented.")
    VERSION_NOT_SUPPORTED = FaultRow("version_not_supported", 505, _D, _NO, "Only HTTP/1.0 and HTTP/1.1 are served.")
    CLIENT_GONE = FaultRow("client_gone", 0, _D, _NO, "The client left before the response was complete.")
    CLIENT_STALLED = FaultRow("client_stalled", 0, _D, _NO, "The client stopped reading the response.")

    # What the upstream did.
    NO_ENDPOINT = FaultRow("no_endpoint", 503, _U, _NO, "The service has no endpoint that can serve.")
    DNS_FAILED = FaultRow("dns_failed", 502, _U, _UNSENT, "The upstream's name could not be resolved.")
    CONNECT_FAILED = FaultRow("connect_failed", 502, _U, _UNSENT, "The upstream refused the connection.")
    CONNECT_TIMEOUT = FaultRow("connect_timeout", 504, _U, _UNSENT, "The upstream did not accept in time.")
    TLS_FAILED = FaultRow("tls_failed", 502, _U, _UNSENT, "The TLS handshake with the upstream failed.")
    UPSTREAM_RESET = FaultRow("upstream_reset", 502, _U, _IDEM, "The upstream closed the connection without an answer.")
    UPSTREAM_TIMEOUT = FaultRow("upstream_timeout", 504, _U, _IDEM, "The upstream did not answer in time.")
    SEND_TIMEOUT = FaultRow("send_timeout", 504, _U, _NO, "The upstream stopped reading the request.")
    BAD_RESPONSE = FaultRow("bad_response", 502, _U, _NO, "The upstream's response is malformed.")
    RESPONSE_CUT = FaultRow("response_cut", 0, _U, _NO, "The upstream's response ended early.")
    RESPONSE_STALLED = FaultRow("response_stalled", 0, _U, _NO, "The upstream stopped in the middle of its response.")

    # What the proxy did.
    DRAINING = FaultRow("draining", 503, _I, _NO, "The proxy is shutting down.")
    OVERLOADED = FaultRow("overloaded", 503, _I, _NO, "The proxy has reached a limit of its own.")
    ROUTE_CLOSED = FaultRow("route_closed", 503, _I, _NO, "The Ingress asks for a protection that cannot be given.")
    INTERNAL = FaultRow("internal", 500, _I, _NO, "The proxy failed; its log says how.")

    @property
    def label(self) -> str:
        """The word for this fault in spans, logs and metrics."""
        return self.value.name

    @property
    def status(self) -> int:
        """The status to answer with, 0 where none can be sent."""
        return self.value.status

    @property
    def side(self) -> Side:
        """Who caused it."""
        return self.value.side

    @property
    def retry(self) -> Retry:
        """Whether another attempt may be made."""
        return self.value.retry

    @property
    def text(self) -> str:
        """One sentence for the downstream."""
        return self.value.text


class Fault(Exception):
    """A failure of one exchange: its kind, and the particulars for the log (never sent to the downstream)."""

    def __init__(self, kind: Kind, detail: str = "") -> None:
        super().__init__(kind, detail)
        self.kind: Final = kind
        self.detail: Final = detail

    def __str__(self) -> str:
        return f"{self.kind.label}: {self.detail or self.kind.text}"

    def __repr__(self) -> str:
        return f"Fault({self.kind.name}, {self.detail!r})"


class SettingsError(Exception):
    """A flag, variable, file or manifest that cannot be used; the message names what, where and the next step."""
