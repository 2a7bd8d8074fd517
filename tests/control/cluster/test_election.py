"""The lease's rules, by a clock that the tests turn, against a server that keeps one Lease as an API server does."""

from __future__ import annotations

import json
from datetime import UTC, datetime
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from proxy.control.cluster.election import Election, Lease, Step, Timing, lease_of
from proxy.control.cluster.faults import Garbled

AT = datetime(2026, 6, 1, 12, 0, 0, 123456, tzinfo=UTC)


class Server:
    """Keeps a Lease: a write needs the version that was read."""

    def __init__(self) -> None:
        self.version = 0
        self.document: dict[str, Any] | None = None

    def read(self) -> Lease | None:
        return None if self.document is None else lease_of(json.dumps(self.document).encode())

    def write(self, document: dict[str, Any]) -> Lease | None:
        """None is a conflict."""
        wanted = document["metadata"].get("resourceVersion")
        if (wanted is None) is not (self.document is None) or (wanted is not None and wanted != str(self.version)):
            return None
        self.version += 1
        metadata = {**document["metadata"], "resourceVersion": str(self.version)}
        self.document = {**document, "metadata": metadata}
        return self.read()

    def edit(self, **spec: Any) -> None:
        """As kubectl edit would."""
        assert self.document is not None
        self.version += 1
        self.document["spec"].update(spec)
        self.document["metadata"]["resourceVersion"] = str(self.version)


def turn(election: Election, server: Server, now: float) -> Step:
    step = election.read(server.read(), now)
    if step is not Step.WAIT:
        made = server.write(election.document("lease", "ns", AT))
        if made is not None:
            election.wrote(made, now)
    return step


def release(election: Election, server: Server) -> None:
    document = election.released("lease", "ns", AT)
    election.resign()
    if document is not None:
        server.write(document)


def test_the_first_creates_the_lease_and_leads() -> None:
    server, one = Server(), Election("one")
    assert turn(one, server, 0) is Step.CREATE
    assert one.leads(0)
    assert server.document == {
        "apiVersion": "coordination.k8s.io/v1",
        "kind": "Lease",
        "metadata": {"name": "lease", "namespace": "ns", "resourceVersion": "1"},
        "spec": {
            "holderIdentity": "one",
            "leaseDurationSeconds": 15,
            "acquireTime": "2026-06-01T12:00:00.123456Z",
            "renewTime": "2026-06-01T12:00:00.123456Z",
            "leaseTransitions": 0,
        },
    }


def test_the_second_waits_while_the_first_renews() -> None:
    server, one, two = Server(), Election("one"), Election("two")
    for now in range(0, 120, 2):
        turn(one, server, now)
        assert turn(two, server, now + 1) is Step.WAIT
        assert one.leads(now + 1)
        assert not two.leads(now + 1)
    assert two.holder == "one"


def test_a_leader_that_dies_is_followed_when_its_lease_ends_and_not_before() -> None:
    server, one, two = Server(), Election("one"), Election("two")
    turn(one, server, 0)
    turn(two, server, 1)
    assert two.expires == 16
    assert turn(two, server, 15.9) is Step.WAIT
    assert turn(two, server, 16) is Step.TAKE
    assert two.leads(16)
    assert server.document is not None
    assert server.document["spec"]["leaseTransitions"] == 1
    assert turn(one, server, 17) is Step.WAIT
    assert not one.leads(17)


def test_times_of_other_clocks_count_for_nothing() -> None:
    server, one, two = Server(), Election("one"), Election("two")
    turn(one, server, 0)
    for renewed in ("1999-01-01T00:00:00.000000Z", "2999-01-01T00:00:00.000000Z", "soon", None):
        server.edit(renewTime=renewed, acquireTime=renewed)
        assert turn(two, server, 5) is Step.WAIT
    assert turn(two, server, 19) is Step.WAIT
    assert turn(two, server, 20) is Step.TAKE


def test_whoever_comes_late_waits_a_whole_lease_though_its_holder_is_long_dead() -> None:
    server, one = Server(), Election("one")
    turn(one, server, 0)
    two = Election("two")
    assert turn(two, server, 10_000) is Step.WAIT
    assert turn(two, server, 10_014) is Step.WAIT
    assert turn(two, server, 10_015) is Step.TAKE


def test_a_lease_that_is_given_up_is_taken_at_once() -> None:
    server, one, two = Server(), Election("one"), Election("two")
    turn(one, server, 0)
    turn(two, server, 0)
    release(one, server)
    assert not one.leads(0)
    assert server.document is not None
    assert server.document["spec"]["holderIdentity"] == ""
    assert turn(two, server, 0.5) is Step.TAKE
    assert two.leads(0.5)


def test_only_the_holder_gives_it_up() -> None:
    server, one, two = Server(), Election("one"), Election("two")
    turn(one, server, 0)
    turn(two, server, 0)
    assert two.released("lease", "ns", AT) is None
    assert Election("three").released("lease", "ns", AT) is None


def test_of_two_who_take_it_at_once_one_succeeds() -> None:
    server, one, two = Server(), Election("one"), Election("two")
    assert one.read(server.read(), 0) is two.read(server.read(), 0) is Step.CREATE
    made = server.write(one.document("lease", "ns", AT))
    assert made is not None
    one.wrote(made, 0)
    assert server.write(two.document("lease", "ns", AT)) is None
    assert two.failed(0) is False
    assert turn(two, server, 1) is Step.WAIT


def test_a_leader_that_cannot_renew_stops_before_another_may_begin() -> None:
    server, one = Server(), Election("one")
    turn(one, server, 0)
    assert one.failed(9.9) is False
    assert one.leads(9.9)
    assert not one.leads(10), "by the clock alone, though nothing has been tried"
    assert one.failed(10) is True
    assert one.failed(11) is False


def test_a_renewal_counts_from_when_it_was_sent() -> None:
    server, one = Server(), Election("one")
    assert one.read(server.read(), 0) is Step.CREATE
    made = server.write(one.document("lease", "ns", AT))
    assert made is not None
    one.wrote(made, 0.0)  # the answer came at 8
    assert one.leads(9.9)
    assert not one.leads(10)


def test_a_lease_that_somebody_removes_is_made_again() -> None:
    server, one = Server(), Election("one")
    turn(one, server, 0)
    server.document = None
    assert turn(one, server, 2) is Step.CREATE
    assert one.leads(2)


def test_a_lease_that_an_administrator_hands_over_is_obeyed() -> None:
    server, one = Server(), Election("one")
    turn(one, server, 0)
    server.edit(holderIdentity="two")
    assert turn(one, server, 2) is Step.WAIT
    assert not one.leads(2)


@pytest.mark.parametrize(("said", "lasts"), [(None, 15), (0, 15), (-5, 15), (60, 60), (10**9, 3600)])
def test_the_length_of_a_lease_is_its_holders_within_reason(said: int | None, lasts: float) -> None:
    server, one, two = Server(), Election("one"), Election("two")
    turn(one, server, 0)
    server.edit(leaseDurationSeconds=said)
    two.read(server.read(), 100)
    assert two.expires == 100 + lasts


def test_other_timings() -> None:
    server, one = Server(), Election("one", Timing(3.0, 2.0, 0.4))
    turn(one, server, 0)
    assert server.document is not None
    assert server.document["spec"]["leaseDurationSeconds"] == 3
    assert not one.leads(2)


@pytest.mark.parametrize("text", [b"", b"{", b"[]", b'{"spec":{"holderIdentity":3}}', b"\xff"])
def test_what_is_no_lease_is_garbled(text: bytes) -> None:
    with pytest.raises(Garbled):
        lease_of(text)


def test_a_lease_without_a_spec_is_free() -> None:
    assert Election("one").read(lease_of(b'{"metadata":{"resourceVersion":"1"}}'), 0) is Step.TAKE


@given(st.lists(st.tuples(st.sampled_from(["one", "two", "three", "kill", "release"]), st.floats(0.1, 4))))
def test_there_is_never_more_than_one_leader(events: list[tuple[str, float]]) -> None:
    server = Server()
    candidates = {name: Election(name) for name in ("one", "two", "three")}
    now, number = 0.0, 3
    for what, pause in events:
        now += pause
        leading = [one for one in candidates.values() if one.leads(now)]
        assert len(leading) <= 1
        if what == "release" and leading:
            release(leading[0], server)
        elif what == "kill" and leading:
            name = next(name for name, one in candidates.items() if one is leading[0])
            number += 1
            candidates[name] = Election(f"number {number}")
        elif what in candidates:
            turn(candidates[what], server, now)
