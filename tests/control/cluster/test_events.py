from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from datetime import UTC, datetime
from typing import Any

import pytest
import pytest_asyncio
from msgspec.structs import replace

from proxy.control.cluster import events
from proxy.control.cluster.events import Events, document, name_of, reason_of
from proxy.control.cluster.faults import AlreadyExists, ApiFault, Forbidden, NotFound
from proxy.control.cluster.intake import Owner
from proxy.control.cluster.pace import Bucket
from proxy.control.problem import Problem
from tests.control.cluster.answers import Answers, settled

OWNER = Owner("uid-web", "7")
MISSING = Problem(
    "warning",
    "Service shop/api does not exist; requests get 503",
    "add it",
    kind="Ingress",
    namespace="shop",
    name="web",
    field="spec.rules[0].http.paths[0].backend.service.name",
)
OTHER = replace(MISSING, message="is something else", field="spec.rules[1].http.paths[0].path")


class Written:
    """Events as they would be written, and who leads."""

    def __init__(self) -> None:
        self.answers = Answers()
        self.said: list[str] = []
        self.leads = True
        self.owners: dict[str, Owner] = {"web": OWNER}
        self.events = Events(
            self.answers.client, lambda: self.leads, self._owner, self.said.append, "pod-1", Bucket(1e6, 10**6), 0.0
        )

    def _owner(self, kind: str, namespace: str, name: str) -> Owner | None:
        return self.owners.get(name)

    @property
    def sent(self) -> list[tuple[str, str]]:
        return [(method, document.get("message", "")) for method, _, document in self.answers.sent]

    async def quiet(self) -> None:
        """Nothing more comes."""
        number = -1
        while number != len(self.answers.sent):
            number = len(self.answers.sent)
            await asyncio.sleep(0.03)


@pytest_asyncio.fixture
async def written() -> AsyncIterator[Written]:
    made = Written()
    task = asyncio.get_running_loop().create_task(made.events.run())
    yield made
    task.cancel()
    await asyncio.wait([task])


def test_an_event_is_what_kubectl_describe_shows() -> None:
    made = document(MISSING, OWNER, datetime(2026, 6, 1, 12, tzinfo=UTC), "pod-1")
    assert made == {
        "apiVersion": "v1",
        "kind": "Event",
        "metadata": {"name": name_of(MISSING, "uid-web"), "namespace": "shop"},
        "involvedObject": {
            "kind": "Ingress",
            "apiVersion": "networking.k8s.io/v1",
            "namespace": "shop",
            "name": "web",
            "uid": "uid-web",
            "resourceVersion": "7",
        },
        "reason": "Backend",
        "message": (
            "spec.rules[0].http.paths[0].backend.service.name: "
            "Service shop/api does not exist; requests get 503 (add it)"
        ),
        "type": "Warning",
        "source": {"component": "spanway", "host": "pod-1"},
        "reportingComponent": "spanway",
        "reportingInstance": "pod-1",
        "firstTimestamp": "2026-06-01T12:00:00Z",
        "lastTimestamp": "2026-06-01T12:00:00Z",
        "count": 1,
    }


def test_an_event_of_what_has_no_namespace_goes_to_default() -> None:
    made = document(replace(MISSING, kind="IngressClass", namespace=""), OWNER, datetime.now(UTC), "")
    assert made["metadata"]["namespace"] == "default"
    assert "namespace" not in made["involvedObject"]


def test_names_tell_problems_and_objects_apart_and_stay_the_same() -> None:
    names = {name_of(problem, uid) for problem in (MISSING, OTHER) for uid in ("a", "b")}
    assert len(names) == 4
    assert name_of(MISSING, "a") == name_of(replace(MISSING, hint="another", line=3), "a")
    long = name_of(replace(MISSING, name=f"{'x' * 235}.{'y' * 17}"), "a")
    assert len(long) <= 253
    assert ".." not in long


def test_a_message_is_cut_to_what_the_api_takes() -> None:
    made = document(replace(MISSING, message="x" * 5000), OWNER, datetime.now(UTC), "")
    assert len(made["message"]) == 1024


@pytest.mark.parametrize(
    ("problem", "reason"),
    [
        (MISSING, "Backend"),
        (replace(MISSING, field="spec.defaultBackend.service.port"), "Backend"),
        (replace(MISSING, field="spec.rules[0].http.paths[0].path"), "Conflict"),
        (replace(MISSING, field="spec.defaultBackend"), "Conflict"),
        (replace(MISSING, field="spec.rules[0].http.paths[0].path", severity="error"), "Invalid"),
        (replace(MISSING, field="metadata.annotations[spanway.io/x]"), "IgnoredAnnotation"),
        (replace(MISSING, field="metadata.annotations[spanway.io/x]", severity="error"), "InvalidAnnotation"),
        (replace(MISSING, field="spec.tls[0].secretName"), "Certificate"),
        (replace(MISSING, kind="Secret", field="data[tls.key]", severity="error"), "InvalidCertificate"),
        (replace(MISSING, kind="Secret", field="data[tls.crt]"), "Certificate"),
        (replace(MISSING, field="spec.rules[0]"), "Ignored"),
        (replace(MISSING, field="status.loadBalancer"), "StatusConflict"),
    ],
)
def test_reasons(problem: Problem, reason: str) -> None:
    assert reason_of(problem) == reason


async def test_each_problem_is_told_once_however_often_it_is_found(written: Written) -> None:
    for _ in range(5):
        written.events.problems([MISSING, OTHER, MISSING])
        await written.quiet()
    assert [method for method, _ in written.sent] == ["POST", "POST"]
    assert {path for _, path, _ in written.answers.sent} == {"/api/v1/namespaces/shop/events"}
    assert written.events.writes == 2


async def test_a_problem_that_comes_back_counts_on(written: Written) -> None:
    written.events.problems([MISSING])
    await settled(lambda: len(written.sent) == 1)
    written.events.problems([])
    written.answers.answer = lambda method, *_: AlreadyExists("x", "there", 409) if method == "POST" else None
    written.events.problems([MISSING])
    await settled(lambda: len(written.sent) == 3)
    method, path, patch = written.answers.sent[-1]
    assert (method, path) == ("PATCH", f"/api/v1/namespaces/shop/events/{name_of(MISSING, OWNER.uid)}")
    assert patch["count"] == 2
    assert set(patch) == {"count", "lastTimestamp"}


async def test_what_another_replica_has_told_is_left_alone(written: Written) -> None:
    written.answers.answer = lambda *_: AlreadyExists("x", "there", 409)
    written.events.problems([MISSING])
    await settled(lambda: len(written.sent) == 1)
    await written.quiet()
    assert [method for method, _ in written.sent] == ["POST"]
    assert (written.events.writes, written.events.faults) == (0, 0)


async def test_only_the_leader_tells_and_a_new_one_tells_what_stands(written: Written) -> None:
    written.leads = False
    written.events.problems([MISSING, OTHER])
    written.events.problems([MISSING])
    await written.quiet()
    assert written.sent == []
    written.leads = True
    written.events.wake()
    await settled(lambda: len(written.sent) == 1)
    await written.quiet()
    assert [document["message"].partition(":")[0] for _, _, document in written.answers.sent] == [MISSING.field]


async def test_a_problem_that_does_not_last_is_not_told() -> None:
    """A Service and its Ingress come one after the other."""
    made = Written()
    made.events = Events(made.answers.client, lambda: True, made._owner, made.said.append, "", settle=0.1)
    task = asyncio.get_running_loop().create_task(made.events.run())
    made.events.problems([MISSING, OTHER])
    await asyncio.sleep(0)
    made.events.problems([OTHER])
    await settled(lambda: len(made.sent) == 1)
    await asyncio.sleep(0.15)
    assert [text.partition(":")[0] for _, text in made.sent] == [OTHER.field]
    task.cancel()
    await asyncio.wait([task])


async def test_what_belongs_to_no_object_is_no_event(written: Written) -> None:
    flag = Problem("warning", "--upstream shop/x: no Ingress names this Service")
    unknown = replace(MISSING, name="never-seen")
    written.events.problems([flag, unknown, replace(MISSING, kind="Service")])
    await written.quiet()
    assert written.sent == []


async def test_a_refusal_is_said_once_and_tried_again(written: Written, monkeypatch: pytest.MonkeyPatch) -> None:
    refusals = [Forbidden("POST /api/v1/namespaces/shop/events", "no", 403)] * 3
    written.answers.answer = lambda *_: refusals.pop() if refusals else None
    monkeypatch.setattr("proxy.control.cluster.pace.Backoff.after", lambda self, fault=None: 0.01)
    written.events.problems([MISSING])
    await settled(lambda: written.events.writes == 1)
    assert written.events.faults == 3
    [said] = written.said
    assert "grant create and patch on events" in said


async def test_a_namespace_that_is_being_removed_is_no_fault(written: Written) -> None:
    written.answers.answer = lambda *_: NotFound("x", "namespaces not found", 404)
    written.events.problems([MISSING])
    await settled(lambda: len(written.sent) == 1)
    await written.quiet()
    assert (len(written.sent), written.events.faults, written.said) == (1, 0, [])


async def test_a_storm_is_written_within_bounds_and_the_rest_is_counted(
    written: Written, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(events, "WAITING", 50)
    written.events.problems([replace(MISSING, message=f"number {number}") for number in range(200)])
    await settled(lambda: len(written.sent) == 50)
    await written.quiet()
    assert (written.events.writes, written.events.lost) == (50, 150)


def test_what_is_remembered_is_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(events, "REMEMBERED", 100)
    made = Written()
    for number in range(1000):
        made.events.problems([replace(MISSING, message=f"number {number}")])
    assert len(made.events._told) <= 100


def fault(*_: Any) -> ApiFault:
    return ApiFault("POST", "is invalid", 422)


async def test_an_event_that_the_server_will_not_have_does_not_stop_the_others(
    written: Written, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("proxy.control.cluster.pace.Backoff.after", lambda self, fault=None: 0.01)
    written.answers.answer = lambda method, path, made: fault() if "is something else" in made["message"] else None
    written.events.problems([OTHER, MISSING])
    await settled(lambda: written.events.writes == 1 and written.events.faults == 1)
    await written.quiet()
    assert len(written.sent) == 2
