"""How long ago an object changed, by what the object itself says of it.

An API server sends no time with a watch event. What there is has a grain of whole seconds (RFC 3339, written by
apimachinery's `metav1.Time`), cut off: the true lag is up to one second shorter than the figure. The one exception is
the annotation that the EndpointSlice controller leaves. So a figure always comes with its source, and none is worth
comparing with a time in milliseconds. It also holds what the two machines' clocks differ by; a negative one is 0.
"""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import Final, NamedTuple

from proxy.control.cluster.wire import Head

# core/v1 EndpointsLastChangeTriggerTime: when the Service or Pod changed that made the controller write; RFC 3339 with
# nanoseconds. kube-proxy's network_programming_duration_seconds is counted from it.
TRIGGER: Final = "endpoints.kubernetes.io/last-change-trigger-time"
GRAIN_NS: Final = 1_000_000_000  # of every source but `TRIGGER`
_EPOCH: Final = datetime.fromtimestamp(0, UTC)


class Lag(NamedTuple):
    """Nanoseconds since the object changed, -1 if nothing says; and what says it."""

    ns: int = -1
    source: str = ""


def lag_of(verb: str, head: Head, received_ns: int, trigger_before: str = "") -> Lag:
    """The lag of an event that was received at ``received_ns`` (Unix).

    ``verb`` is a Change's. ``trigger_before`` is `TRIGGER` of the object before: it says something only when it is new.

    The sources, the first that there is: ``last-change-trigger-time``; ``deletionTimestamp`` of what is deleted; the
    newest of ``managedFields``; ``creationTimestamp`` of what is added.
    """
    trigger = (head.annotations or {}).get(TRIGGER, "")
    if verb != "deleted" and trigger and trigger != trigger_before and (found := _ns(trigger)) is not None:
        return _since(found, received_ns, "last-change-trigger-time")
    if verb == "deleted":
        # Without finalizers and grace there is none, and managedFields tell of another write.
        found = _ns(head.deletion_timestamp or "")
        return Lag() if found is None else _since(found, received_ns, "deletionTimestamp")
    writes = [found for entry in head.managed_fields or () if (found := _ns(entry.time)) is not None]
    if writes:
        return _since(max(writes), received_ns, "managedFields")
    if verb == "added" and (found := _ns(head.creation_timestamp or "")) is not None:
        return _since(found, received_ns, "creationTimestamp")
    return Lag()


def _since(changed_ns: int, received_ns: int, source: str) -> Lag:
    return Lag(max(received_ns - changed_ns, 0), source)


def _ns(text: str) -> int | None:
    """RFC 3339 as Unix nanoseconds; what is cut below microseconds does not matter here."""
    if not text:
        return None
    try:
        at = datetime.fromisoformat(text)
    except ValueError:
        return None
    return None if at.tzinfo is None else (at - _EPOCH) // timedelta(microseconds=1) * 1000
