"""The admit phase: who asks, for what, with which body, and in which trace; then what its route does with it.

Nothing here waits or keeps state. The order is that of the checks' cost and of what their answers need: whoever is
refused still has a client address and a scheme for the span and the log.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from proxy.admit import forwarded
from proxy.admit.host import parse_host
from proxy.admit.target import absolute, normal_path, split
from proxy.errors import Fault, Kind
from proxy.http1.fields import UNNOMINATED, tokens, without
from proxy.http1.framing import CHUNKED, request_framing
from proxy.net import tcp_info
from proxy.route.actions import Asked
from proxy.trace.begin import begin

if TYPE_CHECKING:
    from proxy.http1.head import RequestHead
    from proxy.request import Request
    from proxy.route.actions import Actions
    from proxy.route.table import Route

_SETTLED: Final = frozenset((b"close", b"keep-alive", b"upgrade", b"te", b"http2-settings", b"proxy-connection"))
_NOT_UPGRADED_TO: Final = frozenset((b"h2c", b"h2"))  # row 24: a tunnel to HTTP/2 would bypass every rule here


def admit(x: Request, head: RequestHead) -> None:
    """Check and resolve a request's head. Raises `Fault` for what is refused."""
    noted = head.noted
    minor = head.minor
    x.method = head.method
    x.version = minor
    x.user_agent = noted.get(b"user-agent", b"")
    downstream = x.downstream
    if head.claims and downstream.trusted:
        x.claim = claim = forwarded.read(noted, x.worker.trust, downstream.client_address)
        x.client_address = claim.client
        x.client_port = 0
        x.scheme = claim.proto or downstream.scheme

    # Target and Host. Of an absolute-form target the authority must be the Host (RFC 9112 section 3.2.2).
    target = head.target
    authority = noted.get(b"host")
    if head.plain:
        if head.mark < 0:
            x.path = target
        else:
            x.path, x.query = target[: head.mark], target[head.mark + 1 :]
    else:
        if target[0] != 0x2F:  # "/"
            target = _other_form(x, target, authority)
            authority = noted.get(b"host")
        x.path, x.query, same = split(target)
        if not same:
            target = x.path + b"?" + x.query if b"?" in target else x.path
    if authority is None:
        if minor:
            raise Fault(Kind.BAD_HOST, "no Host (RFC 9112 section 3.2)")
        authority = b""
        x.server_port = downstream.local_port
    else:
        x.host, port = parse_host(authority)
        x.server_port = port or downstream.local_port

    # Framing and the options of the connection.
    x.framing = framing = request_framing(head)
    extra = b""
    if framing:
        x.request_done = False
        extra = b"Transfer-Encoding: chunked\r\n" if framing == CHUNKED else b"Content-Length: %d\r\n" % framing
    elif b"content-length" in noted:
        extra = b"Content-Length: 0\r\n"
    connection = noted.get(b"connection")
    if connection is None:
        x.keep = minor == 1
    elif connection == b"keep-alive":
        x.keep = True
    else:
        extra += _options(x, head, tokens(connection))
    expect = noted.get(b"expect")
    if expect is not None:
        if expect.lower() != b"100-continue":
            raise Fault(Kind.EXPECTATION_FAILED, "an expectation other than 100-continue")
        if minor and framing:
            x.expects = True
            extra += b"Expect: 100-continue\r\n"
    if b"te" in noted and b"trailers" in tokens(noted[b"te"]):
        x.wants_trailers = True
        extra += b"TE: trailers\r\n" if x.upgrade else b"TE: trailers\r\nConnection: TE\r\n"
    x.target = target
    x.authority = authority
    x.extra = extra


def _other_form(x: Request, target: bytes, authority: bytes | None) -> bytes:
    """Judge a target that is not a path; returns the path to go on with."""
    method = x.method
    if method == b"CONNECT":
        raise Fault(Kind.METHOD_NOT_ALLOWED, "CONNECT")
    if target == b"*":
        if method != b"OPTIONS":
            raise Fault(Kind.BAD_TARGET, "'*' is for OPTIONS only (RFC 9112 section 3.2.4)")
        return b"/"
    scheme, named, rest = absolute(target)
    host, port = parse_host(named)
    if authority is not None:
        default = 443 if scheme == b"https" else 80
        other, other_port = parse_host(authority)
        if other != host or (other_port or default) != (port or default):
            raise Fault(Kind.BAD_HOST, "the target's authority is not the Host")
    elif x.version == 0:
        x.head.noted[b"host"] = named
    return rest


def _options(x: Request, head: RequestHead, options: list[bytes]) -> bytes:
    """Obey the Connection field (RFC 9110 section 7.6.1); returns the lines that go on."""
    x.keep = b"close" not in options and (head.minor == 1 or b"keep-alive" in options)
    nominated = set(options) - _SETTLED
    if nominated:
        if not nominated.isdisjoint(UNNOMINATED) or any(name.startswith(b"x-forwarded-") for name in nominated):
            raise Fault(Kind.BAD_REQUEST, "Connection names a field that must reach the upstream")
        head.fields = without(head.fields, nominated)
    asked = head.noted.get(b"upgrade")
    if asked and b"upgrade" in options and head.method == b"GET" and head.minor and not x.framing:
        protocols = [name for name in tokens(asked) if name not in _NOT_UPGRADED_TO]
        if len(protocols) == 1:
            x.upgrade = protocols[0]
            return b"Connection: Upgrade\r\nUpgrade: %b\r\n" % protocols[0]
    return b""


def trace(x: Request, route: Route | None) -> None:
    """Decide the request's trace (`trace.begin`); ``route`` may have a say in it."""
    worker = x.worker
    noted = x.head.noted
    wanted = x.path not in worker.untraced
    ratio = actions = None
    if route is not None:
        ratio = route.sample_ratio
        actions = route.actions
        if actions is not None and not actions.recorded:
            wanted = False
    if not x.head.context:
        begin(x, None, False, worker.sampler, ratio, wanted)
        return
    remote = worker.propagation.extract(noted)
    trusted = worker.trust.trusts(x.client_address) and (actions is None or actions.trust_incoming)
    x.remote = trusted and remote is not None
    begin(x, remote, trusted, worker.sampler, ratio, wanted)
    if trusted:
        x.other_context = worker.propagation.others(noted)


def account(x: Request) -> None:
    """Pick a recorded request for `spanway wire`, or not, and have the kernel's account of both connections on its
    spans."""
    worker = x.worker
    x.watched = worker.allowance.take(x.entry_ns)
    if worker.kernel or (x.watched and worker.accounting):
        x.tcp = tcp_info.begin(x.downstream)


def act(x: Request, actions: Actions) -> tuple[int, bytes] | None:
    """Do what a route does with a request: refuse it, answer it, or change what is forwarded.

    Returns status and Location of a redirect. Raises `Fault`: SOURCE_REFUSED, ROUTE_CLOSED, or what a path that was
    rewritten is refused for.
    """
    kind = actions.refusal(x.client_address)
    if kind is not None:
        raise Fault(kind, actions.closed or x.client_address)
    longest = x.worker.limits.head
    if actions.answers:
        answer = actions.answer(_asked(x))
        if answer is not None:
            if len(answer[1]) > longest:
                raise Fault(Kind.TARGET_TOO_LONG, "the URL that this is redirected to")
            return answer
    x.extra += actions.forwarded_prefix(x.path)
    if actions.rewrites:
        made = actions.rewritten(x.path)
        if len(made) > longest or len(x.extra) > longest:
            raise Fault(Kind.TARGET_TOO_LONG, "the path that this is rewritten to")
        path = normal_path(made)  # the upstream gets no path that we would not take ourselves
        if path != x.path:
            x.sent_path = path
            x.target = path + b"?" + x.query if x.query else path
    return None


def _asked(x: Request) -> Asked:
    """The request as its client sees it, before any proxy that we trust."""
    claim = x.claim
    authority, host = x.authority, x.host
    if claim is not None and claim.host:
        try:
            host = parse_host(claim.host)[0]
            authority = claim.host
        except Fault:
            pass  # what stands there is no host: then the one that we were asked for
    return Asked(x.scheme, authority, host, x.path, x.query, x.target)
