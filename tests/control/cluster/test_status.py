from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator
from typing import Any

import pytest
import pytest_asyncio

from proxy.control.cluster import status
from proxy.control.cluster.addresses import Point
from proxy.control.cluster.faults import ApiFault, Conflict, Forbidden, NotFound, ServerFault
from proxy.control.cluster.pace import Bucket
from proxy.control.cluster.status import Status
from proxy.control.objects import Key
from tests.control.cluster.answers import Answers, settled

HERE = (Point(ip="192.0.2.1"),)
ELSEWHERE = (Point(hostname="old.example.org"),)


def ingress(name: str, version: str, *points: dict[str, str]) -> bytes:
    metadata = {"namespace": "shop", "name": name, "resourceVersion": version}
    return json.dumps({"metadata": metadata, "status": {"loadBalancer": {"ingress": list(points)}}}).encode()


class Written:
    """A status writer, what it wrote, and who leads."""

    def __init__(self) -> None:
        self.answers = Answers()
        self.said: list[str] = []
        self.leads = True
        self.foreign: set[Key] = set()
        self.status = Status(
            self.answers.client,
            lambda: self.leads,
            lambda key: key not in self.foreign,
            self.said.append,
            Bucket(1e6, 10**6),
        )

    def look(self, name: str, version: str, *points: dict[str, str]) -> None:
        self.status.look(("shop", name), ingress(name, version, *points))

    @property
    def sent(self) -> list[tuple[str, str, Any]]:
        """Name, resourceVersion, addresses."""
        return [
            (
                path.split("/")[-2],
                document.get("metadata", {}).get("resourceVersion", ""),
                document["status"]["loadBalancer"]["ingress"],
            )
            for _, path, document in self.answers.sent
        ]

    async def quiet(self) -> None:
        number = -1
        while number != len(self.answers.sent):
            number = len(self.answers.sent)
            await asyncio.sleep(0.03)


@pytest_asyncio.fixture
async def written(monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[Written]:
    monkeypatch.setattr("proxy.control.cluster.pace.Backoff.after", lambda self, fault=None: 0.01)
    made = Written()
    task = asyncio.get_running_loop().create_task(made.status.run())
    yield made
    task.cancel()
    await asyncio.wait([task])


async def test_what_differs_is_patched_at_the_version_that_was_seen(written: Written) -> None:
    written.status.publish(HERE)
    written.look("a", "1")
    written.look("b", "2", {"hostname": "old.example.org"})
    written.look("c", "3", {"ip": "192.0.2.1"})
    await settled(lambda: len(written.sent) == 2)
    await written.quiet()
    assert written.sent == [("a", "1", [{"ip": "192.0.2.1"}]), ("b", "2", [{"ip": "192.0.2.1"}])]
    method, path, _ = written.answers.sent[0]
    assert (method, path) == ("PATCH", "/apis/networking.k8s.io/v1/namespaces/shop/ingresses/a/status")


async def test_what_was_written_is_not_written_again(written: Written) -> None:
    written.status.publish(HERE)
    written.look("a", "1")
    await settled(lambda: len(written.sent) == 1)
    written.status.all()
    written.status.publish(HERE)
    written.look("a", "2", {"ip": "192.0.2.1"})
    await written.quiet()
    assert len(written.sent) == 1
    written.look("a", "3", {"ip": "192.0.2.66"})
    await settled(lambda: len(written.sent) == 2)


async def test_other_addresses_go_everywhere(written: Written) -> None:
    written.status.publish(HERE)
    written.look("a", "1")
    await settled(lambda: len(written.sent) == 1)
    written.look("a", "2", {"ip": "192.0.2.1"})
    written.status.publish(ELSEWHERE)
    await settled(lambda: len(written.sent) == 2)
    assert written.sent[-1] == ("a", "2", [{"hostname": "old.example.org"}])


async def test_nothing_is_written_before_somebody_says_what(written: Written) -> None:
    written.look("a", "1", {"ip": "192.0.2.9"})
    await written.quiet()
    assert written.sent == []


async def test_other_classes_are_not_touched(written: Written) -> None:
    written.foreign.add(("shop", "a"))
    written.status.publish(HERE)
    written.look("a", "1")
    written.look("b", "1")
    await settled(lambda: len(written.sent) == 1)
    await written.quiet()
    assert [name for name, _, _ in written.sent] == ["b"]


async def test_only_the_leader_writes_and_a_new_one_looks_at_all(written: Written) -> None:
    written.leads = False
    written.status.publish(HERE)
    written.look("a", "1")
    written.look("b", "1")
    await written.quiet()
    assert written.sent == []
    written.leads = True
    written.status.all()
    await settled(lambda: len(written.sent) == 2)


async def test_who_overwrites_is_given_way_to(written: Written, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("proxy.control.cluster.pace.Backoff.after", lambda self, fault=None: 0.3)
    written.status.publish(HERE)
    written.look("a", "0")
    await settled(lambda: len(written.sent) == 1)
    for number in range(1, 4):
        written.look("a", f"{number}-ours", {"ip": "192.0.2.1"})
        written.look("a", f"{number}-theirs", {"ip": "192.0.2.66"})
        written.status.all()  # a new leader, another class: no reason to hurry
        await asyncio.sleep(0.05)
        assert len(written.sent) == 1 + number - (number > 1), "at once, but only once"
        await settled(lambda number=number: len(written.sent) == 1 + number)  # type: ignore[misc]
    [problem] = written.status.problems
    assert "192.0.2.1 by us, 192.0.2.66 by another" in problem.message
    written.look("a", "4-ours", {"ip": "192.0.2.1"})
    written.look("a", "4-theirs", {"ip": "192.0.2.66"})
    written.status.publish(ELSEWHERE)  # other addresses are another matter
    assert written.status.problems == []
    await settled(lambda: len(written.sent) == 5)
    written.look("a", "5-ours", {"hostname": "old.example.org"})
    for number in range(3):
        written.look("a", f"6-{number}", {"ip": "192.0.2.66"})
    written.status.look(("shop", "a"), None)
    await written.quiet()
    assert len(written.sent) == 5


async def test_a_conflict_is_left_to_the_watch(written: Written) -> None:
    written.answers.answer = lambda *_: Conflict("PATCH", "modified", 409)
    written.status.publish(HERE)
    written.look("a", "1")
    await settled(lambda: len(written.sent) == 1)
    await written.quiet()
    written.answers.answer = lambda *_: None
    written.look("a", "2")
    await settled(lambda: len(written.sent) == 2)
    assert (written.status.writes, written.status.faults, written.said) == (1, 0, [])


async def test_an_ingress_that_is_gone_is_no_fault(written: Written) -> None:
    written.answers.answer = lambda *_: NotFound("PATCH", "gone", 404)
    written.status.publish(HERE)
    written.look("a", "1")
    written.status.look(("shop", "b"), ingress("b", "1"))
    written.status.look(("shop", "b"), None)
    await settled(lambda: len(written.sent) == 1)
    await written.quiet()
    assert (len(written.sent), written.status.faults) == (1, 0)


async def test_an_ingress_that_goes_while_its_turn_is_waited_for_ends_nothing() -> None:
    made = Written()
    made.status = Status(made.answers.client, lambda: made.leads, lambda key: True, made.said.append, Bucket(20.0, 1))
    task = asyncio.get_running_loop().create_task(made.status.run())
    made.status.publish(HERE)
    made.look("a", "1")
    made.look("b", "1")
    await settled(lambda: len(made.sent) == 1)
    await asyncio.sleep(0)
    made.status.look(("shop", "b"), None)
    made.look("c", "1")
    await settled(lambda: len(made.sent) == 2 or task.done())
    assert not task.done()
    assert [name for name, _, _ in made.sent] == ["a", "c"]
    task.cancel()
    await asyncio.wait([task])


async def test_what_fails_is_said_once_and_tried_again(written: Written) -> None:
    faults: list[ApiFault] = [ServerFault("PATCH", "down", 503), Forbidden("PATCH /x", "no", 403)]
    written.answers.answer = lambda *_: faults.pop() if faults else None
    written.status.publish(HERE)
    written.look("a", "1")
    await settled(lambda: written.status.writes == 1)
    assert written.status.faults == 2
    [said] = written.said
    assert "Ingress shop/a" in said
    assert "grant patch on ingresses/status" in said


async def test_what_the_server_will_not_have_is_not_sent_again(written: Written) -> None:
    written.answers.answer = lambda *_: ApiFault("PATCH", "invalid", 422)
    written.status.publish(HERE)
    written.look("a", "1")
    await settled(lambda: len(written.sent) == 1)
    await written.quiet()
    assert len(written.sent) == 1


async def test_emptying_takes_ours_out_and_leaves_the_rest(written: Written) -> None:
    written.foreign.add(("shop", "c"))
    written.leads = False  # so that the loop does nothing
    written.status.publish(HERE)
    written.look("a", "1", {"ip": "192.0.2.1"})
    written.look("b", "2")
    written.look("c", "3", {"ip": "192.0.2.1"})
    await written.status.empty()
    assert written.sent == [("a", "", None)]


async def test_emptying_knows_of_a_write_whose_answer_never_came(
    written: Written, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def hang(*_: Any, **__: Any) -> bytes:
        await asyncio.sleep(3600)
        return b""

    with monkeypatch.context() as hanging:
        hanging.setattr(written.answers, "send", hang)
        written.status.publish(HERE)
        written.look("a", "1")
        await asyncio.sleep(0.05)
    written.leads = False
    await written.status.empty()
    assert written.sent == [("a", "", None)]


async def test_emptying_ends_in_time(written: Written, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(status, "EMPTYING", 0.05)

    async def never(*_: Any, **__: Any) -> bytes:
        await asyncio.sleep(3600)
        return b""

    monkeypatch.setattr(written.answers, "send", never)
    written.leads = False
    written.status.publish(HERE)
    written.look("a", "1", {"ip": "192.0.2.1"})
    await written.status.empty()
    assert "not every status could be emptied" in written.said[0]
