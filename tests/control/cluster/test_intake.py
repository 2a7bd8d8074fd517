from __future__ import annotations

import json
from typing import Any

import msgspec
import pytest

from proxy.control.cluster.counters import Counters
from proxy.control.cluster.intake import Intake, Owner
from proxy.control.cluster.wire import page_of
from proxy.control.objects import Key
from proxy.control.publish import Change
from proxy.control.store import Objects


def service(name: str, version: int, port: int = 80, **metadata: Any) -> dict[str, Any]:
    meta = {"namespace": "shop", "name": name, "uid": f"uid-{name}", "resourceVersion": str(version), **metadata}
    return {"metadata": meta, "spec": {"ports": [{"port": port}]}}


class Followed:
    """An intake, and what it has done."""

    def __init__(self, kind: str = "Service") -> None:
        self.objects = Objects()
        self.changes: list[Change] = []
        self.seen: list[tuple[Key, bool]] = []
        self.refused = 0
        self.pulse = Counters(kind).join()
        self.intake = Intake(kind, self.objects, self.changes.append, self.pulse, self._look, self._refuse)

    def _look(self, key: Key, raw: bytes | msgspec.Raw | None) -> None:
        self.seen.append((key, raw is not None))

    def _refuse(self) -> None:
        self.refused += 1

    def lists(self, *items: Any, version: str = "100", pages: int = 1) -> None:
        self.intake.begin()
        for page in range(pages):
            body = {"metadata": {"resourceVersion": version}, "items": items[page::pages]}
            self.intake.page(page_of("list", json.dumps(body).encode()).items or ())
        self.intake.end(version)

    def take(self, verb: Any, item: Any) -> None:
        self.intake.take(verb, item if isinstance(item, bytes) else json.dumps(item).encode())

    def told(self) -> list[tuple[str, str, str]]:
        found = [(str(change.verb), change.name, change.resource_version) for change in self.changes]
        self.changes.clear()
        return found

    @property
    def names(self) -> set[str]:
        return {name for _, name in self.objects.services}


def test_a_list_fills_the_store_and_tells_each() -> None:
    one = Followed()
    one.lists(service("a", 1), service("b", 2), pages=2)
    assert one.told() == [("listed", "a", "1"), ("listed", "b", "2")]
    assert one.names == {"a", "b"}


def test_events_change_the_store() -> None:
    one = Followed()
    one.take("added", service("a", 1))
    one.take("modified", service("a", 2, port=81))
    assert one.objects.services["shop", "a"].spec.ports[0].port == 81
    one.take("deleted", service("a", 3, port=81))
    assert one.told() == [("added", "a", "1"), ("modified", "a", "2"), ("deleted", "a", "3")]
    assert one.names == set()


def test_a_list_after_a_gap_is_compared_with_what_is_known() -> None:
    one = Followed()
    one.lists(service("same", 1), service("changed", 2), service("gone", 3))
    one.told()
    one.lists(service("same", 1), service("changed", 9, port=81), service("new", 8), version="10")
    assert one.told() == [("listed", "changed", "9"), ("listed", "new", "8"), ("deleted", "gone", "10")]
    assert one.names == {"same", "changed", "new"}


def test_what_is_gone_stays_until_the_whole_list_is_in() -> None:
    one = Followed()
    one.lists(service("a", 1), service("b", 2))
    one.intake.begin()
    one.intake.page(page_of("list", json.dumps({"items": [service("c", 3)]}).encode()).items or ())
    assert one.names == {"a", "b", "c"}
    # That list fails, and the next is whole.
    one.lists(service("b", 2), service("c", 3))
    assert one.names == {"b", "c"}


def test_versions_may_go_backwards() -> None:
    """An etcd that was restored from a backup counts from an older number."""
    one = Followed()
    one.lists(service("a", 500, port=81), service("b", 501), version="501")
    one.lists(service("a", 90, port=80), version="95")
    assert one.objects.services["shop", "a"].spec.ports[0].port == 80
    assert one.names == {"a"}
    one.take("modified", service("a", 12, port=79))
    assert one.objects.services["shop", "a"].spec.ports[0].port == 79


def test_what_has_not_changed_is_not_told() -> None:
    one = Followed()
    one.take("added", service("a", 1))
    one.take("added", service("a", 1))
    one.take("modified", service("a", 2, managedFields=[{"manager": "status", "time": "2026-01-01T00:00:00Z"}]))
    assert one.told() == [("added", "a", "1")]
    one.take("deleted", service("never", 3))
    assert one.told() == []


def test_a_change_says_where_it_comes_from_and_how_old_it_is() -> None:
    one = Followed()
    item = service("a", 1, creationTimestamp="2020-01-01T00:00:00Z")
    item["metadata"]["annotations"] = {"tracing.k8s.io/traceparent": "00-aa-bb-01"}
    one.take("added", item)
    [change] = one.changes
    assert (change.kind, change.namespace, change.traceparent) == ("Service", "shop", "00-aa-bb-01")
    assert change.lag_source == "creationTimestamp"
    assert change.lag_ns > 0
    assert change.received_ns > 1_700_000_000 * 10**9


def test_an_object_of_the_wrong_shape_is_a_problem_and_what_was_known_stays() -> None:
    one = Followed()
    one.lists(service("a", 1))
    bad = service("a", 2)
    bad["spec"]["ports"][0]["port"] = "http"
    one.take("modified", bad)
    [problem] = one.intake.problems
    assert (problem.severity, problem.kind, problem.namespace, problem.name) == ("error", "Service", "shop", "a")
    assert (problem.field, problem.message) == ("spec.ports[0].port", "must be a whole number, not a text")
    assert one.objects.services["shop", "a"].spec.ports[0].port == 80
    assert (one.pulse.unusable, one.refused) == (1, 1)
    assert one.intake.owner(("shop", "a")) == Owner("uid-a", "2")
    one.take("modified", service("a", 3, port=81))
    assert (one.intake.problems, one.pulse.unusable, one.refused) == ([], 0, 2)
    assert one.intake.owner(("shop", "a")) is None


def test_an_object_that_no_api_server_of_ours_would_take_is_a_problem() -> None:
    one = Followed()
    one.take("added", service("a", 1, port=99999))
    assert [str(problem) for problem in one.intake.problems] == [
        "error: Service shop/a: spec.ports[0].port: '99999' must be between 1 and 65535"
    ]
    assert one.names == set()
    one.take("deleted", service("a", 2, port=99999))
    assert one.intake.problems == []


@pytest.mark.parametrize("raw", [b"{}", b"[]", b'{"metadata":{"name":{}}}', b'{"metadata":'])
def test_an_object_without_a_name_is_a_problem_until_the_next_list(raw: bytes) -> None:
    one = Followed()
    one.take("added", raw)
    [problem] = one.intake.problems
    assert "has no readable metadata" in problem.message
    one.lists(service("a", 1))
    assert one.intake.problems == []


def test_a_mistake_of_ours_is_a_problem_of_that_object_alone(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    one = Followed()

    def fail(*_: Any) -> None:
        raise RuntimeError("we thought of everything but this")

    monkeypatch.setattr("proxy.control.cluster.intake.check", fail)
    one.take("added", service("a", 1))
    assert [problem.message for problem in one.intake.problems] == ["could not be taken in (RuntimeError)"]
    assert "we thought of everything" in caplog.text


def test_a_secrets_content_is_in_nothing_that_is_said(caplog: pytest.LogCaptureFixture) -> None:
    one = Followed("Secret")
    metadata = {"namespace": "shop", "name": "tls", "resourceVersion": "1"}
    one.take("added", {"metadata": metadata, "type": "kubernetes.io/tls", "data": {"tls.key": "c2VjcmV0"}})
    one.take("modified", {"metadata": {**metadata, "resourceVersion": "2"}, "data": {"tls.key": ["c2VjcmV0"]}})
    said = [repr(one.intake), repr(one.changes), repr(one.intake.problems), repr(one.objects), caplog.text]
    assert len(one.intake.problems) == 1
    assert "c2VjcmV0" not in "".join(said)


def test_who_looks_sees_every_object_and_its_end() -> None:
    one = Followed()
    one.take("added", service("a", 1))
    one.take("modified", service("a", 2))
    one.take("deleted", service("a", 3))
    assert one.seen == [(("shop", "a"), True), (("shop", "a"), True), (("shop", "a"), False)]


def test_what_is_forgotten_does_not_come_back() -> None:
    one = Followed()
    one.lists(service("a", 1))
    one.intake.forget()
    assert one.names == set()
    one.take("modified", service("a", 2, port=81))
    one.lists(service("a", 3))
    assert one.names == set()


def test_a_storm_of_bad_objects_is_told_within_bounds() -> None:
    one = Followed()
    for number in range(1000):
        one.take("added", service(f"s{number}", number + 1, port=0))
    assert len(one.intake.problems) == 100
    assert one.pulse.unusable == 1000


def test_whose_a_bad_object_is_may_be_known_later() -> None:
    ours: set[str] = set()
    intake = Intake(
        "Ingress", Objects(), print, Counters("Ingress").join(), ours=lambda item: item.metadata.name in ours
    )
    rules = [{"host": "no host", "http": {"paths": [{"path": "/", "pathType": "Prefix", "backend": {}}]}}]
    bad = {"metadata": {"namespace": "shop", "name": "web", "resourceVersion": "1"}, "spec": {"rules": rules}}
    intake.take("listed", json.dumps(bad).encode())
    assert intake.problems == []
    ours.add("web")  # its class has come
    assert intake.problems[0].name == "web"
