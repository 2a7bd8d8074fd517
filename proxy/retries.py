"""Whether another attempt may be made: where it is safe, where the route wants it, and where it may help.

The route's wishes are nginx's ``proxy_next_upstream`` with its tries and its timeout. Safety goes before them: an
attempt that may have had an effect is repeated only for idempotent methods (RFC 9110 section 9.2.2), or where the
Ingress says ``non_idempotent``.
"""

from __future__ import annotations

import time
from typing import TYPE_CHECKING, Final

from proxy.errors import Kind, Retry

if TYPE_CHECKING:
    from proxy.attempt import Attempt
    from proxy.exchange import Exchange
    from proxy.route.actions import Actions
    from proxy.route.table import Route

IDEMPOTENT: Final = frozenset((b"GET", b"HEAD", b"OPTIONS", b"PUT", b"DELETE", b"TRACE", b"QUERY"))
_TIMEOUTS: Final = (Kind.UPSTREAM_TIMEOUT, Kind.CONNECT_TIMEOUT)

_RESET: Final = Kind.UPSTREAM_RESET.label


def may_retry(x: Exchange, attempt: Attempt, kind: Kind) -> bool:
    """Whether another attempt may follow ``attempt``, which failed by ``kind``."""
    route = x.route
    retry = kind.retry
    actions = None if route is None else route.actions
    if kind is Kind.BAD_RESPONSE and actions is not None and "invalid_header" in actions.retry_on:
        retry = Retry.IDEMPOTENT
    return (
        retry is not Retry.NEVER
        and not x.answered
        and (not attempt.first_byte_ns or kind is Kind.BAD_RESPONSE)
        and route is not None
        and (actions is None or _word(kind) in actions.retry_on)
        and _may_go_on(x, route, actions, unsent=retry is Retry.UNSENT)
        # A timeout has cost its whole time already: only another endpoint may do better.
        and (kind not in _TIMEOUTS or route.backend.others(attempt.endpoint))
    )


def may_ask_another(x: Exchange, attempt: Attempt) -> bool:
    """Whether another endpoint may be asked for a better response than the one that has begun to come."""
    route = x.route
    return (
        route is not None
        and not x.answered
        and x.request_done
        and _may_go_on(x, route, route.actions, unsent=False)
        and route.backend.others(attempt.endpoint)
    )


def _may_go_on(x: Exchange, route: Route, actions: Actions | None, *, unsent: bool) -> bool:
    """The conditions of every further attempt: tries, time, method, and a body that is still there."""
    # As in nginx a connection that died while it was idle costs no try: nothing was tried.
    tries = sum(not (each.reused and each.error_type == _RESET) for each in x.attempts)
    if tries >= route.tries or len(x.attempts) >= x.worker.settings.retry_tries:
        return False
    if x.upload is not None and not x.upload.replayable:
        return False
    if actions is None:
        return unsent or x.method in IDEMPOTENT
    if actions.retry_timeout and time.time_ns() - x.attempts[0].start_ns > actions.retry_timeout * 1e9:
        return False
    return unsent or x.method in IDEMPOTENT or "non_idempotent" in actions.retry_on


def _word(kind: Kind) -> str:
    """What nginx calls such a failure."""
    if kind in _TIMEOUTS:
        return "timeout"
    return "invalid_header" if kind is Kind.BAD_RESPONSE else "error"
