"""How many attempts were joined with their packets, and why the others were not, as far as spans can tell.

Without this line nothing else in a report is to be believed.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from typing import Final

import msgspec

from proxy.trace import semconv
from proxy.trace.semconv_wire import INCOMPLETE
from proxy.trace.view import SpanView

SLACK_NS: Final = 1_000_000_000
"""So long before the first attempt that was joined, or after the last, `spanway wire` cannot have seen any."""

TUNNEL: Final = "tunnel"
UNANSWERED: Final = "no answer came"
NOT_RUNNING: Final = "spanway wire not running"
BEFORE: Final = "before spanway wire ran"
AFTER: Final = "after spanway wire ran"
NO_SPAN: Final = "no wire span"

REASONS: Final[dict[str, str]] = {
    TUNNEL: "a tunnel (101) has no response to wait for",
    UNANSWERED: "the attempt failed before its response began",
    NOT_RUNNING: "no attempt at all was joined",
    BEFORE: "it was over before the first that was joined began",
    AFTER: "it began after the last that was joined was over",
    NO_SPAN: "spanway wire's metrics say why (spanway_wire_missing_total), or its span was not kept",
}


class Coverage(msgspec.Struct, frozen=True):
    """Attempts with bytes on the wire: ``joined`` exactly, of these ``incomplete`` (a tap dropped packets meanwhile),
    and the others by reason. ``unsent`` attempts never got that far.
    """

    attempts: int
    joined: int
    incomplete: int
    missing: dict[str, int]
    unsent: int


def cover(
    tried: Sequence[tuple[SpanView, SpanView | None]], every: Sequence[tuple[SpanView, SpanView | None]]
) -> Coverage:
    """The coverage of some attempts, each with its wire span if it has one, among ``every`` one that is known."""
    seen = [wire for _, wire in every if wire is not None]
    first = min((wire.start_ns for wire in seen), default=0)
    last = max((wire.end_ns for wire in seen), default=0)
    missing: Counter[str] = Counter()
    joined = incomplete = unsent = 0
    for attempt, wire in tried:
        if wire is not None:
            joined += 1
            incomplete += bool(wire.attributes.get(INCOMPLETE.name))
        elif semconv.REQUEST_END.name not in attempt.attributes:
            unsent += 1
        else:
            missing[_why(attempt, first, last)] += 1
    return Coverage(joined + missing.total(), joined, incomplete, dict(missing.most_common()), unsent)


def _why(attempt: SpanView, first: int, last: int) -> str:
    said = attempt.attributes
    if not last:
        return NOT_RUNNING
    if attempt.end_ns < first - SLACK_NS:
        return BEFORE
    if attempt.start_ns > last + SLACK_NS:
        return AFTER
    if said.get(semconv.HTTP_RESPONSE_STATUS_CODE.name) == 101:
        return TUNNEL
    if semconv.RESPONSE_END.name not in said:
        return UNANSWERED
    return NO_SPAN
