"""`spanway controller`: the API server's objects into the table, and word of it back into the cluster.

    reflectors > intakes > store of objects > publisher > every worker
    leader > status of Ingresses, Events

It lives in the supervisor's loop. The API server may be gone for as long as it likes: the last table goes on.
"""

from __future__ import annotations

import asyncio
import logging
import os
import socket
import uuid
from collections.abc import Awaitable, Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Final, Protocol

from proxy.admin.cluster import ClusterSample
from proxy.control.cluster import access, addresses
from proxy.control.cluster.client import Client
from proxy.control.cluster.election import DEADLINE, DURATION, RETRY, Timing
from proxy.control.cluster.events import Events
from proxy.control.cluster.following import Following
from proxy.control.cluster.leader import Leader
from proxy.control.cluster.status import Status
from proxy.control.feed import choices_of
from proxy.control.problem import Problem
from proxy.control.publish import Change, Publisher
from proxy.control.store import Objects
from proxy.saying import say

if TYPE_CHECKING:
    import aiohttp
    import msgspec

    from proxy.control.chronicle import Chronicle
    from proxy.control.cluster.intake import Owner
    from proxy.control.objects import Key
    from proxy.control.rolling import Sink
    from proxy.settings import Settings

CONTROLLER: Final = "spanway.io/ingress-controller"  # spec.controller of an IngressClass that is ours
_log = logging.getLogger(__name__)

_MOST_TOLD: Final = 20  # problems said on standard error at a time
_AGAIN: Final = 5.0  # seconds before a writer that failed starts again
_LEAVE: Final = 8.0  # seconds for the last writes, when the proxy ends; the supervisor gives 10


class Ending(Protocol):
    """What a proxy that is about to end says."""

    async def ending(self) -> None:
        """Wait until it begins to drain."""
        ...


class Controller:
    """`open` it, then `run` it (an `admin.source.Companion`)."""

    def __init__(
        self,
        settings: Settings,
        sink: Sink,
        ending: Ending,
        *,
        trace: aiohttp.TraceConfig | None = None,
        chronicle: Chronicle | None = None,
        environ: Mapping[str, str] | None = None,
        say: Callable[[str], None] = say,
    ) -> None:
        """``sink`` serves tables. ``trace`` makes spans of the calls to the API server, ``chronicle`` of generations.

        Raises `SettingsError`.
        """
        self._settings = settings
        self._environ = os.environ if environ is None else environ
        self._sink = sink
        self._ending = ending
        self._say = say
        self._told: set[Problem] = set()
        self._objects = Objects()
        self._client = Client(access.find(settings.cluster.kubeconfig, self._environ), trace)
        choices = choices_of(settings)._replace(controller=CONTROLLER, https=True)
        self.publisher = Publisher(
            self._objects, sink, settings.upstream, choices, self._problems_changed, chronicle=chronicle
        )
        looks = {"Ingress": self._look_ingress, "Service": self._look_service}
        self._following = Following(
            self._client, self._objects, settings, self._changed, self._refused, choices, looks, self._say
        )
        self._pod = self._environ.get("POD_NAME", "") or socket.gethostname()
        self._status: Status | None = None
        self._events: Events | None = None
        self._leader: Leader | None = None

    def __repr__(self) -> str:
        return f"Controller({self._client!r}, {self._following!r}, {self._leader!r})"

    async def open(self) -> None:
        """Read the access to the cluster. Raises `SettingsError`; an API server that is away is no error."""
        await self._client.open()
        cluster = self._settings.cluster
        identity = f"{self._pod}_{uuid.uuid4()}"  # client-go's form: two containers of one name are two
        timing = Timing(cluster.lease_duration, *_scaled(cluster.lease_duration))
        name = f"{self._settings.ingress_class or 'spanway'}-ingress-leader"
        leader = Leader(self._client, self._election(), name, identity, self._led, self._say, timing)
        self._leader = leader
        ours, refused = self._following.ours, self._refused
        self._status = Status(self._client, lambda: leader.leads, ours, self._say, changed=refused)
        self._events = Events(self._client, lambda: leader.leads, self._owner, self._say, self._pod)
        if cluster.publish_address:
            self._status.publish(addresses.of_texts(cluster.publish_address))
        self._say(f"following {self._client.access.server} ({self._client.access.origin})")

    async def run(self, _running: object = None) -> None:
        """Follow the cluster until cancelled; the Lease is given up as soon as the proxy drains."""
        leader, status, events = self._leader, self._status, self._events
        if leader is None or status is None or events is None:
            raise RuntimeError("open it first")
        resigning: asyncio.Task[None] | None = None
        loop = asyncio.get_running_loop()
        try:
            async with asyncio.TaskGroup() as group:
                group.create_task(self._following.run())
                await self._following.sync()
                await self.publisher.synced()
                self._refused()
                group.create_task(_steadily(leader.run))
                writers = [group.create_task(_steadily(each.run)) for each in (status, events)]
                await self._ending.ending()
                for task in writers:
                    task.cancel()
                resigning = loop.create_task(self._resign())
        finally:
            # Also where there was no time for it before: the workers may be gone sooner than the Lease.
            await asyncio.wait([loop.create_task(self._resign()) if resigning is None else resigning], timeout=_LEAVE)
            await self.publisher.close()
            await self._client.close()

    def waits(self) -> tuple[str, ...]:
        """Why there is no table yet, one sentence each."""
        return self._following.waits()

    def problems(self) -> list[Problem]:
        """What is wrong beside what a table's build finds."""
        contested = [] if self._status is None else self._status.problems
        return self._following.problems() + self._publishing() + contested

    def sample(self) -> ClusterSample:
        """The counters."""
        leader, status, events = self._leader, self._status, self._events
        return ClusterSample(
            watches=self._following.samples(),
            leader=leader is not None and leader.leads,
            holder="" if leader is None else leader.holder,
            transitions=0 if leader is None else leader.transitions,
            status_writes=0 if status is None else status.writes,
            status_faults=0 if status is None else status.faults,
            event_writes=0 if events is None else events.writes,
            event_faults=0 if events is None else events.faults,
            events_lost=0 if events is None else events.lost,
        )

    # What others call.

    def _changed(self, change: Change) -> None:
        if change.kind == "IngressClass" and self._status is not None:
            self._status.all()  # other Ingresses may be ours
        self.publisher.changed(change)

    def _look_ingress(self, key: Key, raw: bytes | msgspec.Raw | None) -> None:
        if self._status is not None and self._settings.cluster.update_status:
            self._status.look(key, raw)

    def _look_service(self, key: Key, raw: bytes | msgspec.Raw | None) -> None:
        name = self._settings.cluster.publish_service
        if name is None or key != (name.namespace, name.name):
            return
        if raw is not None and self._status is not None:
            self._status.publish(addresses.of_service(raw))  # without the Service the last addresses stay
        self._refused()

    def _publishing(self) -> list[Problem]:
        name = self._settings.cluster.publish_service
        if name is None or (name.namespace, name.name) in self._objects.services:
            return []
        hint = "the status of Ingresses stays as it is"
        return [Problem("warning", f"--publish-service: Service {name} does not exist", hint)]

    def _owner(self, kind: str, namespace: str, name: str) -> Owner | None:
        return self._following.owner(kind, (namespace, name))

    def _refused(self) -> None:
        """`problems` may be others."""
        self._problems_changed(self.publisher.problems)

    def _problems_changed(self, built: Sequence[Problem]) -> None:
        found = [*built, *self.problems()]
        if self._events is not None:
            self._events.problems(found)
        new = [problem for problem in dict.fromkeys(found) if problem not in self._told]
        self._told = set(found)
        for problem in new[:_MOST_TOLD]:
            self._say(str(problem))
        if len(new) > _MOST_TOLD:
            self._say(f"and {len(new) - _MOST_TOLD} more; /routes lists them all")

    def _led(self, leads: bool) -> None:
        if leads and self._status is not None and self._events is not None:
            self._status.all()
            self._events.wake()

    # The end.

    async def _resign(self) -> None:
        leader, status = self._leader, self._status
        if leader is None or status is None:
            return
        cluster = self._settings.cluster
        if leader.leads and cluster.update_status and cluster.update_status_on_shutdown and self._alone():
            self._say("the last replica ends: the status of its Ingresses is emptied")
            await status.empty()
        await leader.resign()

    def _alone(self) -> bool:
        """Whether no other replica runs, by the endpoints of --publish-service; False where nothing tells."""
        name, pod = self._settings.cluster.publish_service, self._environ.get("POD_NAME", "")
        if name is None or not pod:
            return False
        up = {
            endpoint.target_ref.name if endpoint.target_ref is not None else ""
            for piece in self._objects.slices_of((name.namespace, name.name))
            for endpoint in piece.endpoints
            if not endpoint.conditions.terminating
        }
        return not up - {pod}

    def _election(self) -> str:
        """The namespace of the Lease."""
        cluster = self._settings.cluster
        found = cluster.election_namespace or self._environ.get("POD_NAMESPACE", "") or self._client.access.namespace
        return found or cluster.watch_namespace or "default"


async def _steadily(run: Callable[[], Awaitable[None]]) -> None:
    """Run it, and again where a mistake of ours ended it: nothing that writes may end what serves."""
    while True:
        try:
            await run()
            return
        except Exception:
            _log.exception("a writer failed, and starts again in %g s", _AGAIN)
            await asyncio.sleep(_AGAIN)


def _scaled(duration: float) -> tuple[float, float]:
    """client-go's deadline and retry for a lease of another length."""
    return duration * DEADLINE / DURATION, duration * RETRY / DURATION
