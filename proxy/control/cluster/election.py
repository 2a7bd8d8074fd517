"""Who may write: the rules of client-go's leader election on a Lease, without a clock and without a server.

A lease is judged by when *we* saw it change, by our own monotonic clock, never by the times that its holder wrote:
clocks differ and jump. So whoever has just started waits a whole lease before taking one over. What is written is
checked by the server against the resourceVersion that was read, so that of two who try only one succeeds.
"""

from __future__ import annotations

from datetime import datetime
from enum import Enum
from typing import Any, Final, NamedTuple

import msgspec

from proxy.control.cluster.faults import Garbled

# leaderelection of client-go as kube-scheduler and kube-controller-manager use it (component-base defaults).
DURATION: Final = 15.0  # seconds; LeaseDuration: how long others wait after the last renewal they saw
DEADLINE: Final = 10.0  # seconds; RenewDeadline: a leader that cannot renew for so long stops being one
# Seconds; RetryPeriod, between two renewals, and the most between two looks of a follower (client-go: up to 2.2 times
# as long), so that a dead leader is followed within the lease and this.
RETRY: Final = 2.0
_LONGEST: Final = 3600.0  # seconds; the longest lease of others that is believed


class Timing(NamedTuple):
    """The three times, in seconds."""

    duration: float = DURATION
    deadline: float = DEADLINE
    retry: float = RETRY


class LeaseSpec(msgspec.Struct, frozen=True, rename="camel"):
    """coordination.k8s.io/v1 LeaseSpec."""

    holder_identity: str | None = None
    lease_duration_seconds: int | None = None
    acquire_time: str | None = None
    renew_time: str | None = None
    lease_transitions: int | None = None


class _LeaseMeta(msgspec.Struct, frozen=True, rename="camel"):
    resource_version: str = ""


class Lease(msgspec.Struct, frozen=True):
    """coordination.k8s.io/v1 Lease."""

    metadata: _LeaseMeta = _LeaseMeta()
    spec: LeaseSpec | None = None


_decoder: Final = msgspec.json.Decoder(Lease)


def lease_of(body: bytes) -> Lease:
    """A Lease. Raises `Garbled`."""
    try:
        return _decoder.decode(body)
    except (msgspec.DecodeError, UnicodeDecodeError):
        raise Garbled("get lease", "no Lease came back") from None


class Step(Enum):
    """What to do with the lease as it was read."""

    CREATE = "create"  # there is none
    TAKE = "take"  # it is free: nobody's, or not renewed for its whole duration
    RENEW = "renew"  # it is ours
    WAIT = "wait"  # it is somebody else's


class Election:
    """One candidate. Times are seconds of a monotonic clock, which the caller reads."""

    def __init__(self, identity: str, timing: Timing = Timing()) -> None:  # noqa: B008 - it is immutable
        self.identity: Final = identity
        self.timing: Final = timing
        self._seen: Lease | None = None
        self._seen_at = 0.0
        self._renewed_at = 0.0
        self._leads = False

    def __repr__(self) -> str:
        return f"Election({self.identity}, {'leads' if self._leads else f'holder {self.holder!r}'})"

    @property
    def holder(self) -> str:
        """Who holds the lease, as last seen; "" for nobody."""
        spec = self._seen.spec if self._seen is not None else None
        return (spec.holder_identity or "") if spec is not None else ""

    def leads(self, now: float) -> bool:
        """Whether we may write: we hold the lease, and have renewed it within the deadline."""
        return self._leads and now - self._renewed_at < self.timing.deadline

    def read(self, lease: Lease | None, now: float) -> Step:
        """The lease was read (None: there is none)."""
        if lease is None:
            self._seen, self._leads = None, False
            return Step.CREATE
        if self._seen is None or lease.metadata.resource_version != self._seen.metadata.resource_version:
            self._seen, self._seen_at = lease, now
        if self.holder == self.identity:
            # Ours from before, by this name: a restarted container goes on, as in client-go.
            return Step.RENEW
        self._leads = False
        return Step.TAKE if not self.holder or now >= self.expires else Step.WAIT

    @property
    def expires(self) -> float:
        """When the lease that was last seen ends, unless it is seen renewed before."""
        spec = self._seen.spec if self._seen is not None else None
        said = spec.lease_duration_seconds if spec is not None else None
        return self._seen_at + (min(float(said), _LONGEST) if said and said > 0 else self.timing.duration)

    def wrote(self, lease: Lease, now: float) -> bool:
        """Our write, sent at ``now``, has succeeded, and this is the lease. True if that made us lead."""
        began = not self._leads
        self._seen, self._seen_at = lease, now
        self._renewed_at = now
        self._leads = self.holder == self.identity
        return began and self._leads

    def failed(self, now: float) -> bool:
        """A read or write has failed. True if that cost us the lead."""
        if self._leads and now - self._renewed_at >= self.timing.deadline:
            self._leads = False
            return True
        return False

    def document(self, name: str, namespace: str, at: datetime) -> dict[str, Any]:
        """The Lease to create, or to put in place of the one that was read; ours from ``at`` (UTC) on."""
        spec = self._seen.spec if self._seen is not None else None
        ours = spec is not None and self.holder == self.identity
        transitions = (spec.lease_transitions or 0) if spec is not None else 0
        now = micro_time(at)
        return self._document(
            name,
            namespace,
            holderIdentity=self.identity,
            leaseDurationSeconds=round(self.timing.duration),
            acquireTime=spec.acquire_time if ours and spec is not None and spec.acquire_time else now,
            renewTime=now,
            leaseTransitions=transitions if ours or spec is None else transitions + 1,
        )

    def released(self, name: str, namespace: str, at: datetime) -> dict[str, Any] | None:
        """The Lease without a holder, so that the next need not wait; None if it is not ours."""
        if self._seen is None or self._seen.spec is None or self.holder != self.identity:
            return None
        return self._document(
            name,
            namespace,
            holderIdentity="",
            leaseDurationSeconds=1,
            acquireTime=micro_time(at),
            renewTime=micro_time(at),
            leaseTransitions=self._seen.spec.lease_transitions or 0,
        )

    def resign(self) -> None:
        """Lead no more, whatever becomes of the Lease."""
        self._leads = False

    def _document(self, name: str, namespace: str, **spec: Any) -> dict[str, Any]:
        metadata = {"name": name, "namespace": namespace}
        if self._seen is not None:
            metadata["resourceVersion"] = self._seen.metadata.resource_version
        return {"apiVersion": "coordination.k8s.io/v1", "kind": "Lease", "metadata": metadata, "spec": spec}


def micro_time(at: datetime) -> str:
    """metav1.MicroTime, which must have six digits."""
    return at.strftime("%Y-%m-%dT%H:%M:%S.%fZ")
