from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import pytest

from proxy.control.cluster.client import Client
from proxy.control.cluster.election import Timing
from proxy.control.cluster.leader import Leader
from tests.control.cluster.answers import opened, settled
from tests.harness.kube_api import FakeApiServer, Trouble
from tests.harness.kube_store import RESOURCES, Rule

STORED = next(each for each in RESOURCES if each.kind == "Lease")
KEY = "default", "edge-ingress-leader"
QUICK = Timing(1.0, 0.7, 0.1)


class Candidate:
    """A replica, as far as the Lease knows it."""

    def __init__(self, client: Client, name: str, timing: Timing = QUICK) -> None:
        self.changes: list[bool] = []
        self.said: list[str] = []
        self.leader = Leader(client, *KEY, name, self.changes.append, self.said.append, timing)
        self.task: asyncio.Task[None] | None = None

    def start(self) -> None:
        self.task = asyncio.get_running_loop().create_task(self.leader.run())

    async def kill(self) -> None:
        """As SIGKILL would: nothing is given up."""
        if self.task is not None:
            self.task.cancel()
            await asyncio.wait([self.task])


@asynccontextmanager
async def candidates(client: Client, *names: str, timing: Timing = QUICK) -> AsyncIterator[list[Candidate]]:
    made = [Candidate(client, name, timing) for name in names]
    try:
        yield made
    finally:
        for one in made:
            await one.kill()


def lease(fake: FakeApiServer) -> dict[str, Any]:
    found: dict[str, Any] = fake.store.get(STORED, KEY)["spec"]
    return found


async def test_one_of_two_leads_and_renews(fake: FakeApiServer, client: Client) -> None:
    async with candidates(client, "one", "two") as (one, two):
        one.start()
        await settled(lambda: one.leader.leads)
        two.start()
        await settled(lambda: two.leader.holder == "one")
        renewed = lease(fake)["renewTime"]
        await settled(lambda: lease(fake)["renewTime"] > renewed)
        await asyncio.sleep(1.5)
        assert (one.leader.leads, two.leader.leads) == (True, False)
        assert (one.changes, two.changes, one.leader.transitions) == ([True], [], 1)
        assert lease(fake) | {"renewTime": 0, "acquireTime": 0} == {
            "holderIdentity": "one",
            "leaseDurationSeconds": 1,
            "acquireTime": 0,
            "renewTime": 0,
            "leaseTransitions": 0,
        }


async def test_a_leader_that_is_killed_is_followed(fake: FakeApiServer, client: Client) -> None:
    async with candidates(client, "one", "two") as (one, two):
        one.start()
        await settled(lambda: one.leader.leads)
        two.start()
        await settled(lambda: two.leader.holder == "one")
        await one.kill()
        await settled(lambda: two.leader.leads)
        assert lease(fake)["leaseTransitions"] == 1
        assert two.said == ["this replica leads: it writes status and Events (Lease default/edge-ingress-leader)"]


async def test_a_leader_that_resigns_is_followed_at_once(fake: FakeApiServer, client: Client) -> None:
    slow = Timing(60.0, 40.0, 0.05)
    async with candidates(client, "one", "two", timing=slow) as (one, two):
        one.start()
        await settled(lambda: one.leader.leads)
        two.start()
        await settled(lambda: two.leader.holder == "one")
        await one.leader.resign()
        assert not one.leader.leads
        assert one.changes == [True, False]
        await settled(lambda: two.leader.leads)
        assert lease(fake)["holderIdentity"] == "two"
        await settled(lambda: one.task is not None and one.task.done(), "the one that resigned to try no more")


async def test_resigning_survives_a_renewal_whose_answer_was_lost(fake: FakeApiServer, client: Client) -> None:
    async with candidates(client, "one") as (one,):
        one.start()
        await settled(lambda: one.leader.leads)
        await one.kill()
        held = fake.store.get(STORED, KEY)
        fake.store.put({**held, "spec": {**held["spec"], "renewTime": "2999-01-01T00:00:00.000000Z"}})
        await one.leader.resign()
        assert lease(fake)["holderIdentity"] == ""


async def test_resigning_takes_nothing_from_another(fake: FakeApiServer, client: Client) -> None:
    async with candidates(client, "one") as (one,):
        await one.leader.resign()  # before anything
        one = Candidate(client, "one")
        one.start()
        await settled(lambda: one.leader.leads)
        await one.kill()
        held = fake.store.get(STORED, KEY)
        fake.store.put({**held, "spec": {**held["spec"], "holderIdentity": "two"}})
        await one.leader.resign()
        assert lease(fake)["holderIdentity"] == "two"


async def test_a_leader_cut_off_stops_before_another_may_begin(fake: FakeApiServer, client: Client) -> None:
    async with candidates(client, "one") as (one,):
        one.start()
        await settled(lambda: one.leader.leads)
        fake.troubles.append(Trouble(500, 10_000, "", "leases"))
        await settled(lambda: not one.leader.leads)
        await settled(lambda: one.changes == [True, False])
        assert any("leader election: get /apis/coordination.k8s.io" in said for said in one.said)
        fake.troubles.clear()
        await settled(lambda: one.leader.leads)
        assert sum("leader election" in said for said in one.said) == 1


async def test_a_lead_that_lapsed_during_one_slow_call_is_told(client: Client, monkeypatch: pytest.MonkeyPatch) -> None:
    async with candidates(client, "one") as (one,):
        one.start()
        await settled(lambda: one.leader.leads)
        read = one.leader._read

        async def slowly() -> Any:
            found = await read()
            await settled(lambda: not one.leader.leads)
            monkeypatch.undo()
            return found

        monkeypatch.setattr(one.leader, "_read", slowly)
        # The lapse may be over before anybody looks: what counts is that it is told, and whoever writes looks again.
        await settled(lambda: one.changes == [True, False, True])


async def test_of_five_who_come_at_once_one_leads(fake: FakeApiServer, client: Client) -> None:
    names = [f"number {number}" for number in range(5)]
    async with candidates(client, *names) as made:
        for one in made:
            one.start()
        await settled(lambda: sum(one.leader.leads for one in made) == 1)
        for _ in range(100):
            assert sum(one.leader.leads for one in made) <= 1
            await asyncio.sleep(0.01)


async def test_the_verbs_are_get_create_and_update(fake: FakeApiServer) -> None:
    token = fake.token("spanway", "controller")
    rules = fake.rules.setdefault(fake.tokens[token], [])
    async with opened(fake, token) as client, candidates(client, "one") as (one,):
        one.start()
        await settled(lambda: one.said != [])
        assert "grant get, create and update on leases there" in one.said[0]
        group = ("coordination.k8s.io",)
        rules.append(Rule("default", group, ("leases",), ("create",)))
        rules.append(Rule("default", group, ("leases",), ("get", "update"), (KEY[1],)))
        await settled(lambda: one.leader.leads)
        renewed = lease(fake)["renewTime"]
        await settled(lambda: lease(fake)["renewTime"] > renewed)
        await one.leader.resign()
        assert lease(fake)["holderIdentity"] == ""
