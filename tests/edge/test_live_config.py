"""Configuration that changes while traffic flows."""

from __future__ import annotations

import threading
from collections.abc import Callable

import pytest

from tests.harness import poll
from tests.harness.edge import Edge, request
from tests.harness.manifests import documents, site
from tests.harness.upstream import Held

# Configuration.


@pytest.mark.parametrize("workers", [1, 2])
def test_change_applies_without_dropping_a_connection(start: Callable[..., Edge], workers: int) -> None:
    edge = start(workers=workers)
    held = Held()
    edge.a.script = held
    with edge.client() as busy, edge.client() as idle:
        assert idle.ask(request(host="b.test")).status == 200
        busy.send(request(target="/inflight"))
        edge.a.wait(1)
        generation = edge.proxy.generation()
        # a.test moves to b, and a loses every route: its request in flight goes on all the same.
        edge.proxy.write("site.yaml", documents(*site("a", [edge.b.port]), *site("new", [edge.b.port])))
        edge.proxy.applied(generation)
        poll.until(lambda: alive_at(edge, "new.test"), "the new route")
        held.release.set()
        assert busy.response().status == 200
        assert busy.ask(request(target="/after")).status == 200
        assert idle.ask(request(host="new.test", target="/idle")).status == 200
        assert idle.ask(request(host="b.test")).status == 404
    assert [seen.target for seen in edge.a.requests] == ["/inflight"]
    assert {"/after", "/idle"} <= {seen.target for seen in edge.b.requests}


def alive_at(edge: Edge, host: str) -> bool:
    with edge.client() as client:
        return client.ask(request(host=host)).status == 200


def test_no_request_fails_while_the_table_changes(start: Callable[..., Edge]) -> None:
    edge = start()
    stop, statuses = threading.Event(), []

    def traffic() -> None:
        with edge.client() as client:
            while not stop.is_set():
                statuses.append(client.ask(request()).status)

    sender = threading.Thread(target=traffic)
    sender.start()
    try:
        for turn in range(5):
            generation = edge.proxy.generation()
            ports = [edge.a.port, edge.b.port][: 1 + turn % 2]
            edge.proxy.write("site.yaml", documents(*site("a", ports), *site(f"turn{turn}", [edge.b.port])))
            edge.proxy.applied(generation)
    finally:
        stop.set()
        sender.join()
    assert set(statuses) == {200}
    assert len(statuses) > 10


def test_a_file_more_and_a_file_less(start: Callable[..., Edge]) -> None:
    edge = start()
    generation = edge.proxy.generation()
    edge.proxy.write("more.yaml", documents(*site("more", [edge.b.port])))
    edge.proxy.applied(generation)
    assert alive_at(edge, "more.test")
    generation = edge.proxy.generation()
    (edge.proxy.manifests / "more.yaml").unlink()
    edge.proxy.applied(generation)
    assert not alive_at(edge, "more.test")
    edge.probe()


BROKEN = {
    "not-yaml": "apiVersion: v1\nkind: Service\n  bad: [indent\n",
    "half-a-file": documents(*site("a", [1]))[:300],
    "tabs": "a:\n\t- b\n",
    "binary": "\x00\x01\x02",
}


@pytest.mark.parametrize("text", BROKEN.values(), ids=BROKEN)
def test_broken_manifest_keeps_the_last_good_table(start: Callable[..., Edge], text: str) -> None:
    edge = start()
    edge.proxy.write("site.yaml", text)
    # It says so, with the file, on standard error and on /routes.
    poll.until(lambda: "site.yaml" in edge.proxy.said(), "a word about site.yaml on standard error")
    problems = poll.until(lambda: edge.proxy.admin_json("/routes")["problems"], "a problem on /routes")
    assert any("site.yaml" in str(problem) for problem in problems)
    edge.probe()
    assert edge.proxy.admin("/readyz")[0] == 200
    # And heals.
    generation = edge.proxy.generation()
    edge.proxy.write("site.yaml", documents(*edge.site, *site("healed", [edge.b.port])))
    edge.proxy.applied(generation)
    assert alive_at(edge, "healed.test")
    assert not [
        item
        for item in edge.proxy.admin_json("/routes")["problems"]
        if "yaml" in str(item).lower() and item.get("severity") == "error"
    ]


def test_broken_file_beside_a_good_one(start: Callable[..., Edge]) -> None:
    # While a file is broken the last good table stays, or only that file's part of it; both are fair. Nothing is lost,
    # and once it is mended, everything is there.
    edge = start()
    edge.proxy.write("other.yaml", "kind: [\n")
    poll.until(lambda: "other.yaml" in edge.proxy.said(), "a word about other.yaml")
    edge.proxy.write("site.yaml", documents(*edge.site, *site("more", [edge.b.port])))
    for _ in range(20):
        edge.probe()
    edge.proxy.write("other.yaml", documents(*site("other", [edge.b.port])))
    poll.until(lambda: alive_at(edge, "other.test"), "the mended file's route")
    assert alive_at(edge, "more.test")
    edge.probe()


def test_invalid_object_is_named(start: Callable[..., Edge]) -> None:
    edge = start()
    bad = site("wrong", [edge.b.port])
    bad[-1]["spec"]["rules"][0]["http"]["paths"][0]["pathType"] = "Sideways"
    generation = edge.proxy.generation()
    edge.proxy.write("wrong.yaml", documents(*bad))
    poll.until(lambda: "wrong" in edge.proxy.said(), "a word about the object")
    problems = poll.until(lambda: edge.proxy.admin_json("/routes")["problems"], "a problem on /routes")
    assert any("wrong" in str(item) and "pathType" in str(item) for item in problems)
    edge.probe()
    assert not alive_at(edge, "wrong.test")
    assert edge.proxy.generation() >= generation


def test_a_number_that_no_table_holds_is_told_and_stops_nothing(start: Callable[..., Edge]) -> None:
    edge = start()
    for turn, size in enumerate(("8589934592g", "999999999999999g")):
        huge = site("huge", [edge.a.port], annotations={"proxy-body-size": size})
        edge.proxy.write("site.yaml", documents(*huge))
        poll.until(lambda: edge.proxy.said().count("a size is at most") > turn, "the error")  # noqa: B023 - asked at once
        generation = edge.proxy.generation()
        edge.proxy.write("site.yaml", documents(*site(f"new{turn}", [edge.b.port])))
        edge.proxy.applied(generation)
        assert alive_at(edge, f"new{turn}.test")
    assert "Traceback" not in edge.proxy.said()
