"""A Kubernetes Event on the object for each problem: once when it comes up, and again only if it went and came back.

Events are core/v1, as ingress-nginx and client-go's recorder write them: `kubectl describe` and everything that
collects events read them, a repeated one counts (``count``, ``lastTimestamp``) by a patch, and the RBAC of those who
migrate covers them already. events.k8s.io/v1 keeps the same objects in another dress, and its series say no more.

**Once, by name.** An Event's name is made of its object and its problem, so that the second replica, the next leader
and the same controller after a restart meet a 409 where it stands already, and leave it. API servers forget Events
after an hour; a problem that stands for longer is in `/routes` and in the metrics.
"""

from __future__ import annotations

import asyncio
import hashlib
import time
from collections.abc import Callable, Iterable
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any, Final

from proxy.control.cluster.client import MERGE_PATCH
from proxy.control.cluster.faults import AlreadyExists, ApiFault, Forbidden, NotFound, refused
from proxy.control.cluster.kinds import EVENT, VERSIONS
from proxy.control.cluster.pace import Backoff, Bucket

if TYPE_CHECKING:
    from proxy.control.cluster.client import Client
    from proxy.control.cluster.intake import Owner
    from proxy.control.problem import Problem

ABOUT: Final = ("Ingress", "Secret")  # whoever wrote another kind did not write it for us
COMPONENT: Final = "spanway"
RATE: Final = 5.0  # Events a second; client-go's recorder allows less per object, but its bursts are per object too
BURST: Final = 100
SETTLE: Final = 1.0  # seconds that a problem must stand: a Service and its Ingress come one after the other
WAITING: Final = 2_000  # Events that wait to be written; more are lost, and counted
REMEMBERED: Final = 20_000  # problems whose going and coming is remembered
_LONGEST: Final = 1024  # characters; core/v1 Event.message
_LONGEST_NAME: Final = 253 - 17  # characters of an object's name in an Event's


def reason_of(problem: Problem) -> str:
    """An Event's reason: one word for machines. ``Invalid...`` where nothing was taken over."""
    field, invalid = problem.field, problem.severity == "error"
    if field.startswith("metadata.annotations"):
        return "InvalidAnnotation" if invalid else "IgnoredAnnotation"
    if problem.kind == "Secret":
        return "InvalidCertificate" if invalid else "Certificate"
    if field.startswith("spec.tls"):
        return "Certificate"
    if field.startswith("status."):
        return "StatusConflict"
    if invalid:
        return "Invalid"
    if ".backend" in field or field.startswith("spec.defaultBackend."):
        return "Backend"
    if field.endswith(".path") or field == "spec.defaultBackend":
        return "Conflict"
    return "Ignored"


def name_of(problem: Problem, uid: str) -> str:
    """An Event's name: that of its object, and a digest of what is wrong with it."""
    said = (uid, problem.kind, problem.severity, problem.field, problem.message)
    digest = hashlib.sha256(repr(said).encode()).hexdigest()[:16]
    return f"{problem.name[:_LONGEST_NAME].rstrip('.-')}.{digest}"


def namespace_of(problem: Problem) -> str:
    """Where its Event goes; that of what has no namespace to ``default`` (client-go's recorder)."""
    return problem.namespace or "default"


def document(problem: Problem, owner: Owner, at: datetime, instance: str) -> dict[str, Any]:
    """The Event to create; ``instance`` is who says it."""
    said = ": ".join(part for part in (problem.field, problem.message) if part)
    message = f"{said} ({problem.hint})" if problem.hint else said
    namespace, when = namespace_of(problem), at.strftime("%Y-%m-%dT%H:%M:%SZ")
    reference = {"kind": problem.kind, "apiVersion": VERSIONS[problem.kind], "name": problem.name, "uid": owner.uid}
    if problem.namespace:
        reference["namespace"] = problem.namespace
    return {
        "apiVersion": "v1",
        "kind": "Event",
        "metadata": {"name": name_of(problem, owner.uid), "namespace": namespace},
        "involvedObject": {**reference, "resourceVersion": owner.resource_version},
        "reason": reason_of(problem),
        "message": message if len(message) <= _LONGEST else f"{message[: _LONGEST - 3]}...",
        "type": "Warning",
        "source": {"component": COMPONENT, "host": instance},
        "reportingComponent": COMPONENT,
        "reportingInstance": instance,
        "firstTimestamp": when,
        "lastTimestamp": when,
        "count": 1,
    }


class _Told:
    """A problem that stands, or stood."""

    __slots__ = ("count", "since", "stands", "written")

    def __init__(self, since: float) -> None:
        self.since = since  # monotonic seconds
        self.stands = True
        self.written = False  # by us, or by another
        self.count = 1  # times it has come up


class Events:
    """`problems` says what is wrong now; `run` writes while ``leads`` says so."""

    def __init__(
        self,
        client: Client,
        leads: Callable[[], bool],
        owner: Callable[[str, str, str], Owner | None],
        say: Callable[[str], None],
        instance: str,
        bucket: Bucket | None = None,
        settle: float | None = None,
    ) -> None:
        """``owner`` finds an object by kind, namespace and name."""
        self.writes = 0
        self.faults = 0
        self.lost = 0
        self._client = client
        self._leads = leads
        self._owner = owner
        self._say = say
        self._instance = instance
        self._bucket = bucket or Bucket(RATE, BURST)
        self._settle = SETTLE if settle is None else settle
        self._told: dict[Problem, _Told] = {}
        self._wake = asyncio.Event()
        self._complained = False

    def __repr__(self) -> str:
        return f"Events({sum(told.stands for told in self._told.values())} problems, {self.writes} written)"

    def problems(self, found: Iterable[Problem]) -> None:
        """Everything that is wrong now (a listener of `control.publish.Publisher`)."""
        now = time.monotonic()
        current = {problem for problem in found if problem.kind in ABOUT and problem.name}
        for problem, told in self._told.items():
            if told.stands and problem not in current:
                told.stands = False
        for problem in current:
            before = self._told.get(problem)
            if before is None:
                self._told[problem] = _Told(now)
            elif not before.stands:
                before.stands, before.since = True, now
                before.count += 1
                before.written = False
        self._forget()
        self._wake.set()

    def wake(self) -> None:
        """We may lead now."""
        self._wake.set()

    async def run(self) -> None:
        """Write, until cancelled."""
        backoff = Backoff()
        while True:
            await self._wake.wait()
            self._wake.clear()
            if not self._leads():
                continue
            await asyncio.sleep(self._settle)
            due = self._due()
            if any(told.stands and not told.written for told in self._told.values()):
                self._wake.set()  # some have not stood long enough, or there were too many
            for problem in due:
                if not self._leads():
                    break
                await self._bucket.take()
                fault = await self._write(problem)
                if fault is None:
                    backoff.reset()
                else:
                    await asyncio.sleep(backoff.after(fault))

    def _due(self) -> list[Problem]:
        """Problems to write; what is beyond the bound counts as written, and is lost."""
        until = time.monotonic() - self._settle
        due = [one for one, told in self._told.items() if told.stands and not told.written and told.since <= until]
        for problem in due[WAITING:]:
            self._told[problem].written = True
            self.lost += 1
        return due[:WAITING]

    async def _write(self, problem: Problem) -> ApiFault | None:
        told = self._told.get(problem)
        if told is None or not told.stands or told.written:
            return None  # it is mended
        owner = self._owner(problem.kind, problem.namespace, problem.name)
        if owner is None:
            told.written = True  # there is nothing to hang it on
            return None
        at = datetime.now(UTC)
        made = document(problem, owner, at, self._instance)
        path = EVENT.path(namespace_of(problem))
        try:
            try:
                await self._client.send("POST", path, made)
                self.writes += 1
            except AlreadyExists:
                if told.count > 1:  # it came back, which is news; else somebody else has said it
                    await self._repeat(problem, owner, made, told)
        except NotFound:
            pass  # the namespace is being removed, and its objects with it
        except ApiFault as fault:
            self.faults += 1
            if not self._complained:
                self._complained = True
                hint = "; grant create and patch on events" if isinstance(fault, Forbidden) else ""
                self._say(f"Events cannot be written: {fault}{hint}")
            told.written = refused(fault)
            return fault
        told.written = True
        self._complained = False
        return None

    async def _repeat(self, problem: Problem, owner: Owner, made: dict[str, Any], told: _Told) -> None:
        path = EVENT.path(namespace_of(problem), name_of(problem, owner.uid))
        again = {"count": told.count, "lastTimestamp": made["lastTimestamp"]}
        await self._client.send("PATCH", path, again, MERGE_PATCH)
        self.writes += 1

    def _forget(self) -> None:
        """Keep no more problems in mind than the bound, those that are mended going first."""
        over = len(self._told) - REMEMBERED
        if over > 0:
            for problem in [one for one, told in self._told.items() if not told.stands][:over]:
                del self._told[problem]
