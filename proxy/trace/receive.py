"""The embedded receiver: OTLP over HTTP from applications on this machine, into a store in memory.

It exists so that `dev` and `demo` show the application's own spans without a collector. It is no collector: only
loopback peers, nothing on disk, the newest spans within a bound of bytes.
"""

from __future__ import annotations

import asyncio
import ipaddress
import json
import zlib
from typing import Final

from aiohttp import web
from aiohttp.http_exceptions import ContentEncodingError, TransferEncodingError
from google.protobuf.message import DecodeError
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import (
    ExportTracePartialSuccess,
    ExportTraceServiceRequest,
    ExportTraceServiceResponse,
)

from proxy.settings import KIB, MIB
from proxy.trace import otlp_json, wire
from proxy.trace.ring import Ring

PATH: Final = "/v1/traces"
PROTOBUF: Final = "application/x-protobuf"
JSON: Final = "application/json"

LIMIT: Final = 4 * MIB  # bytes of one body as sent; a gRPC server's default
UNPACKED_LIMIT: Final = 20 * MIB  # bytes of one body unpacked; the Collector's default max_request_body_size
BODY_TIME: Final = 30.0  # seconds for a body to arrive
AT_ONCE: Final = 4  # bodies held in memory at a time; further requests wait unread
_INLINE: Final = 64 * KIB  # a larger body is unpacked and parsed in a thread, so that the admin pages stay quick
_GZIP_MAGIC: Final = b"\x1f\x8b"

# google.rpc.Code of an answer, by HTTP status.
_CODES: Final = {400: 3, 403: 7, 408: 4, 413: 8, 415: 3}


class Refusal(Exception):
    """A request that is not taken: HTTP status and reason."""

    def __init__(self, status: int, reason: str) -> None:
        super().__init__(status, reason)
        self.status: Final = status
        self.reason: Final = reason


class Receiver:
    """Handles ``POST /v1/traces``; what arrives goes to ``store`` as encoded ExportTraceServiceRequests.

    Works whether or not the aiohttp server unpacks gzip itself (its ``auto_decompress``, on by default). ``limit``
    bounds a body as sent (by its Content-Length, and by count where the server does not unpack), ``unpacked`` always
    bounds what is kept in memory.
    """

    __slots__ = ("_limit", "_places", "_store", "_unpacked", "received", "refused", "rejected")

    def __init__(self, store: Ring, *, limit: int = LIMIT, unpacked: int = UNPACKED_LIMIT) -> None:
        self._store = store
        self._limit = limit
        self._unpacked = unpacked
        self._places = asyncio.Semaphore(AT_ONCE)
        self.received = 0  # spans kept
        self.rejected = 0  # spans not kept: malformed, or too many at once
        self.refused = 0  # requests not taken

    @property
    def store(self) -> Ring:
        """Where the spans are."""
        return self._store

    async def receive(self, request: web.Request) -> web.Response:
        """Answer one request as the OTLP specification asks."""
        kind = JSON if request.content_type == JSON else PROTOBUF
        try:
            check_origin(request)
            self._check_head(request)
            async with self._places:
                body = await self._read(request)
                if len(body) > _INLINE:
                    batch, good, bad = await asyncio.to_thread(self._decode, kind, body)
                else:
                    batch, good, bad = self._decode(kind, body)
        except Refusal as refusal:
            self.refused += 1
            return _failure(kind, refusal)
        problem = f"{bad} spans have no valid trace or span id" if bad else ""
        if good and not self._store.add(batch):
            bad, good = good + bad, 0
            problem = f"the request is larger than the memory for spans ({self._store.limit} bytes)"
        self.received += good
        self.rejected += bad
        return _success(kind, bad, problem)

    def _check_head(self, request: web.Request) -> None:
        if request.content_type not in {PROTOBUF, JSON}:
            raise Refusal(415, f"Content-Type must be {PROTOBUF} or {JSON}")
        encoding = request.headers.get("Content-Encoding", "identity").strip().lower()
        if encoding not in {"identity", "gzip"}:
            raise Refusal(415, "Content-Encoding must be gzip or identity")
        if (request.content_length or 0) > self._limit:
            raise Refusal(413, f"the body is larger than {self._limit} bytes")

    async def _read(self, request: web.Request) -> bytes:
        body = bytearray()
        try:
            async with asyncio.timeout(BODY_TIME):
                # Piece by piece: the server unpacks as it reads, and stops when nobody takes the pieces.
                async for piece in request.content.iter_any():
                    body += piece
                    if len(body) > self._unpacked:
                        raise Refusal(413, f"the body unpacks to more than {self._unpacked} bytes")
        except TimeoutError:
            raise Refusal(408, f"the body did not arrive within {BODY_TIME:.0f} seconds") from None
        except (ContentEncodingError, TransferEncodingError, web.RequestPayloadError):
            raise Refusal(400, "the body is not what Content-Encoding or Transfer-Encoding say") from None
        return bytes(body)

    def _decode(self, kind: str, body: bytes) -> tuple[bytes, int, int]:
        """The encoded request with the good spans only, how many they are, and how many were left out."""
        # Neither protobuf nor JSON can begin like this, so these bytes are still packed: the server does not unpack.
        if body.startswith(_GZIP_MAGIC):
            if len(body) > self._limit:
                raise Refusal(413, f"the body is larger than {self._limit} bytes")
            body = unpack(body, self._unpacked)
        try:
            request = otlp_json.parse(body) if kind == JSON else ExportTraceServiceRequest.FromString(body)
        except DecodeError:
            raise Refusal(400, "the body is not a protobuf ExportTraceServiceRequest") from None
        except ValueError as error:
            raise Refusal(400, f"the body is {str(error)[:200]}") from None
        good, bad = _weed(request)
        if bad or kind == JSON:
            body = request.SerializeToString()
        return body, good, bad

    def __repr__(self) -> str:
        return f"Receiver({self.received} spans received, {self.rejected} rejected, {self._store!r})"


def check_origin(request: web.Request) -> None:
    """Raise `Refusal` unless the request comes from a program on this machine that meant this machine.

    A web page that the developer has open must not be able to write here: browsers send Origin or Sec-Fetch-Site with
    every cross-origin POST, and after DNS rebinding the Host is the page's own name.
    """
    peer = request.transport.get_extra_info("peername") if request.transport is not None else None
    if not isinstance(peer, tuple) or not is_loopback(str(peer[0])):
        raise Refusal(403, "only programs on this machine may send spans here")
    if "Origin" in request.headers or request.headers.get("Sec-Fetch-Site", "none") != "none":
        raise Refusal(403, "web pages may not send spans here")
    if not is_loopback(_host(request.headers.get("Host", ""))):
        raise Refusal(403, "the Host must be localhost or a loopback address")


def is_loopback(host: str) -> bool:
    """Whether ``host``, a name or an address without port, is this machine (RFC 6761 section 6.3 for localhost)."""
    host = host.lower().rstrip(".")
    if host == "localhost" or host.endswith(".localhost"):
        return True
    try:
        address = ipaddress.ip_address(host.partition("%")[0])
    except ValueError:
        return False
    mapped = getattr(address, "ipv4_mapped", None)
    return bool(mapped.is_loopback if mapped is not None else address.is_loopback)


def unpack(body: bytes, limit: int) -> bytes:
    """Unpack gzip, all of its members (RFC 1952 section 2.2), never producing more than ``limit`` bytes.

    Raises `Refusal`.
    """
    out = bytearray()
    while body:
        member = zlib.decompressobj(wbits=31)  # 31: gzip with its header and checksum
        try:
            out += member.decompress(body, limit + 1 - len(out))
        except zlib.error:
            raise Refusal(400, "the body is not gzip") from None
        if len(out) > limit:
            raise Refusal(413, f"the body unpacks to more than {limit} bytes")
        if not member.eof:
            raise Refusal(400, "the gzip body is cut short")
        body = member.unused_data
    return bytes(out)


def _host(field: str) -> str:
    if field.startswith("["):
        return field[1:].partition("]")[0]
    return field.partition(":")[0]


def _weed(request: ExportTraceServiceRequest) -> tuple[int, int]:
    """Remove spans without valid ids (all-zero ids are invalid, W3C Trace Context); how many stay and how many go."""
    good = bad = 0
    for resource_spans in request.resource_spans:
        for scope_spans in resource_spans.scope_spans:
            spans = scope_spans.spans
            wrong = [
                at
                for at, span in enumerate(spans)
                if len(span.trace_id) != 16 or len(span.span_id) != 8 or not any(span.trace_id) or not any(span.span_id)
            ]
            for at in reversed(wrong):
                del spans[at]
            good += len(spans)
            bad += len(wrong)
    return good, bad


def _success(kind: str, rejected: int, problem: str) -> web.Response:
    if kind == JSON:
        # 64-bit integers are strings in protobuf's JSON.
        partial = {"partialSuccess": {"rejectedSpans": str(rejected), "errorMessage": problem}} if problem else {}
        return web.Response(body=json.dumps(partial).encode(), content_type=JSON)
    message = ExportTraceServiceResponse()
    if problem:
        message.partial_success.CopyFrom(ExportTracePartialSuccess(rejected_spans=rejected, error_message=problem))
    return web.Response(body=message.SerializeToString(), content_type=PROTOBUF)


def _failure(kind: str, refusal: Refusal) -> web.Response:
    """A ``google.rpc.Status`` in the encoding of the request (OTLP specification, "Failures")."""
    code = _CODES[refusal.status]
    if kind == JSON:
        body = json.dumps({"code": code, "message": refusal.reason}).encode()
    else:
        body = wire.number(1, code) + wire.delimited(2, refusal.reason.encode())
    response = web.Response(status=refusal.status, body=body, content_type=kind)
    if refusal.status in {403, 408, 413}:
        response.force_close()  # the rest of the body is not worth reading
    return response
