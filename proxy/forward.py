"""Heads on their way: the request's to the upstream, the response's to the downstream."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from proxy.admit import forwarded
from proxy.http1.compose import length_line, request_prefix, response
from proxy.http1.fields import without
from proxy.http1.framing import content_length
from proxy.trace.ids import trace_id
from proxy.trace.lines import hexed

if TYPE_CHECKING:
    from proxy.http1.head import ResponseHead
    from proxy.request import Request

_ANY: Final = b"\0"  # stands for a host, and is in none
_DRAINED: Final = 64 * 1024  # bytes of an unread request body that are read and dropped to keep the connection


def request_head(x: Request) -> bytes:
    """The head for the upstream up to where the attempt's own trace context follows."""
    head = x.head
    downstream = x.downstream
    claim = x.claim
    authority = x.authority
    if claim is None:
        forwarding = downstream.forwarding
        if downstream.forwarded_for is None:
            forwarding = _forwarding(x, authority)
        elif downstream.forwarded_for != authority:
            # Who asks for many hosts in turn is another proxy, mostly.
            if downstream.forwarding_port != x.server_port:
                downstream.forwarding_port = x.server_port
                downstream.forwarding_of = _forwarding(x, _ANY)
            forwarding = downstream.forwarding_of.replace(_ANY, authority)
        downstream.forwarded_for = authority
        downstream.forwarding = forwarding
    else:
        peer = downstream.client_address.encode("ascii")
        scheme, client = x.scheme.encode("ascii"), claim.client.encode("ascii")
        host = claim.host or authority
        forwarding = forwarded.lines(claim.chain, peer, scheme, host, claim.port or x.server_port, client)
        if x.worker.bounds.forwarded:
            forwarding += forwarded.forwarded_line(claim.chain, peer, scheme, host)
    if x.worker.bounds.via:
        extra_via = b"Via: 1.1 spanway\r\n"  # a further line is a further list member (RFC 9110 section 5.3)
        forwarding += extra_via
    route = x.route
    if route is not None and route.actions is not None:
        authority = route.actions.upstream_host or authority
    return request_prefix(head.method, x.target, authority, head.fields, x.extra, forwarding, _request_id(x))


def _forwarding(x: Request, host: bytes) -> bytes:
    """What goes on of the client where nothing that came says it."""
    peer = x.downstream.client_address.encode("ascii")
    scheme = x.scheme.encode("ascii")
    lines = forwarded.lines(b"", peer, scheme, host, x.server_port, peer)
    if x.worker.bounds.forwarded:
        lines += forwarded.forwarded_line(b"", peer, scheme, host)
    return lines


def _request_id(x: Request) -> bytes:
    """A trusted peer's X-Request-ID, else one of our own: the trace id where this request began its trace."""
    given = x.head.noted.get(b"x-request-id")
    if given is not None and x.downstream.trusted and forwarded.valid_request_id(given):
        x.request_id = given
    elif x.remote:
        x.request_id = hexed(trace_id())
    else:
        x.request_id = hexed(x.trace_id)
    return x.request_id


def may_keep(x: Request) -> bool:
    """Whether the downstream's connection outlives this exchange.

    An unread rest of the request body must be small and sure to come: it is dropped before the next request is read
    (row 38 of the edge cases: no desync, no waste).
    """
    if not x.keep or x.worker.draining:
        return False
    upload = x.upload
    return x.request_done or (upload is not None and 0 < upload.left <= _DRAINED and not x.expects)


def interim_head(x: Request, head: ResponseHead) -> bytes:
    """A 1xx response, which goes to HTTP/1.1 only (RFC 9110 section 15.2); b"" for an older client."""
    if not x.version:
        return b""
    return b"HTTP/1.1 %b\r\n%b\r\n" % (head.reason, head.fields)


def own_lines(x: Request) -> bytes:
    """Header lines of an answer that the proxy writes itself, each with its CRLF."""
    extra = x.worker.response_extra
    out = b"" if extra is None else extra(x)
    route = x.route
    if route is not None and route.actions is not None:
        out += route.actions.own_lines
    return out


def response_head(x: Request, head: ResponseHead, framing: int, data: bytes, start: int, stop: int) -> bytes:
    """The response's head for the downstream, and ``data`` from ``start`` to ``stop`` behind it; settles whether the
    connection is kept.
    """
    x.status = status = head.status
    x.keep = keep = may_keep(x)
    fields, extra = head.fields, b""
    route = x.route
    if route is not None and route.actions is not None and route.actions.response_names:
        fields = without(fields, route.actions.response_names) + route.actions.response_lines
    noted = head.noted
    length = noted.get(b"content-length")
    if framing >= 0:
        if length is not None and status != 204:
            extra = length_line(content_length(length))
        elif framing == 0 and x.method == b"HEAD" and b"transfer-encoding" in noted and x.version:
            extra = b"Transfer-Encoding: chunked\r\n"
    elif x.version:
        x.chunked_out = True
        extra = b"Transfer-Encoding: chunked\r\n"
    else:
        x.keep = keep = False
    if not keep:
        extra += b"Connection: close\r\n"
    elif not x.version:
        extra += b"Connection: keep-alive\r\n"
    if x.worker.response_extra is not None:
        extra += x.worker.response_extra(x)
    return response(head.reason, fields, extra, data, start, stop)
