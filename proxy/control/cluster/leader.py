"""Holds the Lease, or waits for it: `election` decides, this asks the API server."""

from __future__ import annotations

import asyncio
import logging
import random
import time
from collections.abc import Callable
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any

from proxy.control.cluster.election import Election, Step, Timing, lease_of
from proxy.control.cluster.faults import ApiFault, Conflict, Forbidden, NotFound
from proxy.control.cluster.kinds import LEASE

if TYPE_CHECKING:
    from proxy.control.cluster.client import Client

_log = logging.getLogger(__name__)


class Leader:
    """`run` it beside the rest; `resign` when the process is about to end.

    ``changed`` is called with True when we begin to lead, with False when we stop.
    """

    def __init__(
        self,
        client: Client,
        namespace: str,
        name: str,
        identity: str,
        changed: Callable[[bool], None],
        say: Callable[[str], None],
        timing: Timing = Timing(),  # noqa: B008 - it is immutable
    ) -> None:
        self.transitions = 0
        self._client = client
        self._namespace = namespace
        self._name = name
        self._election = Election(identity, timing)
        self._changed = changed
        self._say = say
        self._told: type[ApiFault] | None = None
        self._leading = False  # as it was told
        self._resigned = False
        self._turn = asyncio.Lock()

    def __repr__(self) -> str:
        return f"Leader({self._namespace}/{self._name}, {self._election!r})"

    @property
    def leads(self) -> bool:
        """Whether we may write, now."""
        return self._election.leads(time.monotonic())

    @property
    def holder(self) -> str:
        """Who holds the Lease, as last seen."""
        return self._election.holder

    async def run(self) -> None:
        """Try for ever."""
        retry = self._election.timing.retry
        while not self._resigned:
            async with self._turn:
                await self._try()
            now = time.monotonic()
            if self._election.leads(now):
                await asyncio.sleep(retry)
            else:
                spread = retry * (0.5 + 0.5 * random.random())  # noqa: S311 - no secret
                # Not later than the lease that was seen ends: who follows a dead leader does so in time.
                ends = self._election.expires - now if self._election.holder else 0.0
                await asyncio.sleep(min(spread, ends) if ends > 0 else spread)

    async def resign(self) -> None:
        """Give the Lease up, so that another need not wait for its end. No more than one call; failing is no harm."""
        self._resigned = True
        async with self._turn:
            self._election.resign()
            self._tell()
            try:
                await self._release()
            except Conflict:
                # Our own last renewal, whose answer was not waited for; or somebody else's, and then it is not ours.
                try:
                    self._election.read(await self._read(), time.monotonic())
                    await self._release()
                except ApiFault as problem:
                    _log.warning("the Lease could not be released, and ends by itself: %s", problem)
            except ApiFault as problem:
                _log.warning("the Lease could not be released, and ends by itself: %s", problem)

    async def _release(self) -> None:
        document = self._election.released(self._name, self._namespace, datetime.now(UTC))
        if document is not None:
            await self._write("PUT", document)

    async def _try(self) -> None:
        if self._resigned:
            return
        election = self._election
        try:
            step = election.read(await self._read(), time.monotonic())
            if step is not Step.WAIT:
                began = time.monotonic()
                document = election.document(self._name, self._namespace, datetime.now(UTC))
                made = await self._write("POST" if step is Step.CREATE else "PUT", document)
                self._tell()  # a lead that lapsed on the way is told: what came meanwhile was not written
                election.wrote(lease_of(made), began)
            self._told = None
        except Conflict:
            election.failed(time.monotonic())  # somebody was quicker: read it again
        except ApiFault as problem:
            election.failed(time.monotonic())
            if type(problem) is not self._told:
                self._told = type(problem)
                hint = "; grant get, create and update on leases there" if isinstance(problem, Forbidden) else ""
                self._say(f"leader election: {problem}{hint}")
        self._tell()

    def _tell(self) -> None:
        leads = self.leads
        if leads == self._leading:
            return
        self._leading = leads
        self.transitions += leads
        does = "leads: it writes status and Events" if leads else "leads no more"
        self._say(f"this replica {does} (Lease {self._namespace}/{self._name})")
        self._changed(leads)

    async def _read(self) -> Any:
        try:
            return lease_of(await self._client.get(LEASE.path(self._namespace, self._name), quiet=True))
        except NotFound:
            return None

    async def _write(self, method: str, document: dict[str, Any]) -> bytes:
        name = "" if method == "POST" else self._name
        deadline = self._election.timing.deadline
        try:
            async with asyncio.timeout(deadline):
                return await self._client.send(method, LEASE.path(self._namespace, name), document, quiet=True)
        except TimeoutError:
            raise ApiFault("lease", f"no answer within {deadline:g} s") from None
