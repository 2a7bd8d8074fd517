"""The parts of a span that repeat from request to request: encoded once, kept by `trace.encode`.

A chunk is a run of whole `Span` fields. Chunks are made here when a cache misses, so these functions may take their
time; what they say of a span follows the HTTP conventions, section by section.
"""

from __future__ import annotations

from typing import Final

from proxy.trace import redact, semconv, wire
from proxy.trace.record import AttemptRecord, RequestRecord, RouteIdentity, UpstreamIdentity

# opentelemetry-proto, message Span.
NAME: Final = 5
_KIND: Final = 6
_STATUS: Final = 15
_KIND_SERVER: Final = 2
_KIND_CLIENT: Final = 3
_STATUS_MESSAGE: Final = 2
_STATUS_CODE: Final = 3
_STATUS_CODE_ERROR: Final = 2

# Bytes. A host name has at most 253 (RFC 1035 section 2.3.4), methods in use at most 17 (UPDATEREDIRECTREF).
HOST_LIMIT: Final = 256
METHOD_LIMIT: Final = 64
USER_AGENT_LIMIT: Final = 1024
URL_LIMIT: Final = 8 * 1024  # nginx: large_client_header_buffers

_REQUEST_METHOD: Final = b"$request_method"  # in a route's own span name

# In a span name that is kept for all methods. Neither byte is in any UTF-8 (RFC 3629 section 1).
VERB: Final = b"\xff"
"""Stands for what the name says for the method."""
NAME_END: Final = b"\xfe"
"""Ends the name."""

_UNSET: Final = wire.delimited(_STATUS, b"")


def _error(label: str, status: int) -> bytes:
    """An Error status. No description where the status code says it (HTTP conventions, Status)."""
    message = b"" if status else semconv.FAULT_TEXTS.get(label, "").encode()
    described = wire.delimited(_STATUS_MESSAGE, message) if message else b""
    return wire.delimited(_STATUS, described + wire.number(_STATUS_CODE, _STATUS_CODE_ERROR))


def _text(attribute: semconv.Attribute, value: str) -> bytes:
    return wire.text(attribute.name, value.encode("utf-8", "replace")) if value else b""


def _integer(attribute: semconv.Attribute, value: int) -> bytes:
    return wire.integer(attribute.name, value)


def host(value: bytes) -> bytes:
    """A host as spans show it: without credentials, valid UTF-8, bounded."""
    return wire.utf8(redact.without_credentials(value), HOST_LIMIT)


def client_gone(record: RequestRecord) -> bool:
    """Whether the client left before the response was complete: no error, whatever else is known."""
    return semconv.CLIENT_GONE in (record.outcome, record.error_type)


def server_error(record: RequestRecord) -> str:
    """``error.type`` of the SERVER span, "" for none. A fault is named also where its status is no error (4xx)."""
    if client_gone(record):
        return ""
    return record.error_type or (str(record.status) if record.status >= 500 else "")


def client_error(attempt: AttemptRecord, gone: bool) -> str:
    """``error.type`` of a CLIENT span, "" for none. ``gone``: the client left during this attempt.

    An attempt that the proxy gave up because of the client is cancelled, not failed (HTTP conventions, Status).
    """
    label = attempt.error_type
    if label:
        return "" if label in semconv.DOWNSTREAM_FAULTS else label
    return str(attempt.status) if attempt.status >= 400 and not gone else ""


class Chunks:
    """Makes chunks. ``known_methods`` are the methods that spans name as they are."""

    __slots__ = ("_methods",)

    def __init__(self, known_methods: tuple[str, ...]) -> None:
        self._methods = frozenset(method.encode() for method in known_methods)

    def __repr__(self) -> str:
        return f"Chunks({len(self._methods)} known methods)"

    def _method(self, method: bytes) -> tuple[bytes, bytes]:
        """What the span's name says for ``method``, and its attributes."""
        name = semconv.HTTP_REQUEST_METHOD.name
        if method in self._methods:
            return method, wire.text(name, method)
        attributes = wire.text(name, semconv.METHOD_OTHER.encode())
        if method:
            original = wire.utf8(method, METHOD_LIMIT)
            attributes += wire.text(semconv.HTTP_REQUEST_METHOD_ORIGINAL.name, original)
        return semconv.METHOD_OTHER_NAME.encode(), attributes

    def server(self, record: RequestRecord) -> tuple[bytes, bytes]:
        """Of a SERVER span: what its name says for the method; its kind, status, and all that follows neither from the
        route nor from host, path and client."""
        verb, method = self._method(record.method)
        status = record.status
        error = server_error(record)
        # 4xx is never an error of the server; 5xx is; so is a response that could not be sent whole.
        failed = bool(error) and not 400 <= status < 500
        outcome = semconv.CLIENT_GONE if client_gone(record) else record.outcome
        parts = [wire.number(_KIND, _KIND_SERVER), _error(error, status) if failed else _UNSET, method]
        if status:
            parts.append(_integer(semconv.HTTP_RESPONSE_STATUS_CODE, status))
        parts.append(_text(semconv.URL_SCHEME, record.scheme))
        if record.host and record.server_port:
            parts.append(_integer(semconv.SERVER_PORT, record.server_port))
        if record.version in (0, 1):
            parts.append(_text(semconv.NETWORK_PROTOCOL_VERSION, f"1.{record.version}"))
        if record.generation:
            parts.append(_integer(semconv.GENERATION, record.generation))
        parts.append(_text(semconv.OUTCOME, outcome))
        parts.append(_text(semconv.ERROR_TYPE, error))
        return verb, b"".join(parts)

    def client(self, method: bytes, attempt: AttemptRecord, gone: bool) -> bytes:
        """Of a CLIENT span: its name, kind, status, and what follows from endpoint, status and ordinal."""
        name, method = self._method(method)
        status = attempt.status
        error = client_error(attempt, gone)
        parts = [
            wire.delimited(NAME, name),
            wire.number(_KIND, _KIND_CLIENT),
            _error(error, status) if error else _UNSET,
            method,
            wire.text(semconv.SERVER_ADDRESS.name, host(attempt.host.encode("utf-8", "replace"))),
            _integer(semconv.SERVER_PORT, attempt.port),
            _text(semconv.NETWORK_PROTOCOL_VERSION, "1.1"),
            wire.boolean(semconv.REUSED.name, attempt.reused),
        ]
        if status:
            parts.append(_integer(semconv.HTTP_RESPONSE_STATUS_CODE, status))
        elif not error:
            parts.append(_text(semconv.OUTCOME, semconv.CANCELLED))
        if attempt.resend > 0:
            parts.append(_integer(semconv.HTTP_REQUEST_RESEND_COUNT, attempt.resend))
        parts.append(_text(semconv.ERROR_TYPE, error))
        return b"".join(parts)


def route(identity: RouteIdentity) -> bytes:
    """Of a SERVER span: its name, with `VERB` in place of the method, `NAME_END`, and the attributes of its route."""
    path = wire.utf8(identity.path.encode("utf-8", "replace"), URL_LIMIT)
    name = VERB + b" " + path if path else VERB
    if identity.span_name:
        name = identity.span_name.encode("utf-8", "replace").replace(_REQUEST_METHOD, VERB)
    return b"".join(
        (
            name,
            NAME_END,
            wire.text(semconv.HTTP_ROUTE.name, path) if path else b"",
            _text(semconv.INGRESS_NAMESPACE, identity.namespace),
            _text(semconv.INGRESS_NAME, identity.name),
            _text(semconv.INGRESS_UID, identity.uid),
            _text(semconv.INGRESS_RESOURCE_VERSION, identity.resource_version),
        )
    )


def origin(attempt: AttemptRecord) -> bytes:
    """``scheme://host:port`` of an attempt's endpoint, the beginning of ``url.full``."""
    name = attempt.host if ":" not in attempt.host else f"[{attempt.host}]"
    url = f"{attempt.scheme}://{name}:{attempt.port}".encode("utf-8", "replace")
    return wire.utf8(redact.credentials(url), 2 * HOST_LIMIT)


def peer(record: RequestRecord) -> bytes:
    """Of a SERVER span: who asked, but for the peer's port."""
    agent = record.user_agent
    return b"".join(
        (
            _text(semconv.CLIENT_ADDRESS, record.client_address),
            _text(semconv.NETWORK_PEER_ADDRESS, record.peer_address),
            wire.text(semconv.USER_AGENT_ORIGINAL.name, wire.utf8(agent, USER_AGENT_LIMIT)) if agent else b"",
        )
    )


def connection(upstream: UpstreamIdentity) -> bytes:
    """Of a CLIENT span: the two ends of its connection."""
    return b"".join(
        (
            _text(semconv.NETWORK_LOCAL_ADDRESS, upstream.local_address),
            _integer(semconv.NETWORK_LOCAL_PORT, upstream.local_port),
            _text(semconv.NETWORK_PEER_ADDRESS, upstream.peer_address),
            _integer(semconv.NETWORK_PEER_PORT, upstream.peer_port),
        )
    )
