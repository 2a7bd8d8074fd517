"""What a route does with a request beyond forwarding it, in words: the part of `explain` that annotations make."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Final

from proxy.route.actions import DEFAULT_RETRY, Actions, Asked
from proxy.route.regex import Pattern
from proxy.route.spec import ActionSpec, RouteSpec

_MOST_NAMED: Final = 5  # networks of a list


def does(route: RouteSpec, scheme: str, host: str, path: str) -> Iterator[str]:
    """One sentence for each thing that is done; ``host`` may have a port, ``path`` is in normal form."""
    spec = route.actions
    if spec is None:
        return
    actions = Actions(spec, Pattern(route.path) if route.path_type == "Regex" else None)
    if spec.closed:
        yield f"closed: every request gets 503, since {spec.closed}"
        return
    if spec.deny:
        yield f"not for clients in {_networks(spec.deny)}: they get 403"
    if spec.allow:
        yield f"only for clients in {_networks(spec.allow)}: others get 403"
    raw = path.encode("utf-8", "surrogatepass")
    name = host.encode("idna" if not host.isascii() else "ascii", "replace")
    answer = actions.answer(Asked(scheme, name, name.partition(b":")[0], raw, b"", raw))
    if answer is not None:
        yield f"answered with {answer[0]}: redirected to {answer[1].decode('utf-8', 'replace')}"
        return
    if actions.rewrites:
        yield f"the upstream is asked for {actions.rewritten(raw).decode('utf-8', 'replace')}, by {spec.rewrite}"
    if spec.upstream_host:
        yield f"the upstream is sent Host: {spec.upstream_host}"
    line = actions.forwarded_prefix(raw).decode("utf-8", "replace").strip()
    if line:
        yield f"the upstream is sent {line}"
    for name_, value in spec.response_headers:
        yield f"the response has {name_}: {value}" if value else f"the response has no {name_}"
    yield from _retries(spec)
    yield from _telling(spec)


def _networks(networks: tuple[str, ...]) -> str:
    more = len(networks) - _MOST_NAMED
    return ", ".join(networks[:_MOST_NAMED]) + (f" and {more} more" if more > 0 else "")


def _retries(spec: ActionSpec) -> Iterator[str]:
    if not spec.retry_on:
        yield "there is no further attempt, whatever happens"
    elif spec.retry_on != DEFAULT_RETRY:
        yield f"another attempt is made after {', '.join(spec.retry_on)}"
    if spec.retry_timeout:
        yield f"no attempt begins later than {spec.retry_timeout:g} s after the first"


def _telling(spec: ActionSpec) -> Iterator[str]:
    if not spec.recorded:
        yield "no spans are made"
    elif spec.span_name:
        yield f"its span is called {spec.span_name}"
    if not spec.trust_incoming:
        yield "a trace that comes along is linked to, not continued"
    if not spec.logged:
        yield "no access-log record is written"
