from __future__ import annotations

from proxy.control.cluster.faults import ApiFault, Forbidden, ServerFault, Unreachable
from proxy.control.cluster.faulty import SINGLY, faulty
from proxy.control.cluster.kinds import INGRESS, INGRESS_CLASS, SECRET, SERVICE, Scope

GONE = Unreachable("list /api/v1/services", "Cannot connect to host 10.0.0.1:443")
REFUSED = Forbidden("list /x", 'cannot list resource "x"', 403)


def said(faults: dict[Scope, ApiFault]) -> list[str]:
    return [str(problem) for problem in faulty(faults)]


def secrets(number: int) -> dict[Scope, ApiFault]:
    return {Scope(SECRET, "shop", f"s{place}"): REFUSED for place in range(number)}


def test_a_server_that_is_away_is_one_problem_however_many_watches_it_had() -> None:
    every = {Scope(SECRET, "shop", f"s{number}"): GONE for number in range(300)}
    [one] = said({Scope(SERVICE): GONE, **every})
    assert one.startswith("warning: the API server is not followed: Cannot connect to host 10.0.0.1:443; what is known")
    assert said({Scope(SERVICE): GONE}) == said({Scope(SERVICE): GONE, **every}), "so that it is told once"


def test_other_faults_are_others() -> None:
    assert len(said({Scope(SERVICE): GONE, Scope(INGRESS): ServerFault("list", "overloaded", 503)})) == 2


def test_a_refusal_says_what_to_grant() -> None:
    [one] = said({Scope(SERVICE, "shop"): REFUSED})
    assert 'cannot list resource "x" (403); what is known stays in use' in one
    assert "(grant list and watch on services in namespace shop)" in one
    [one] = said({Scope(INGRESS_CLASS): REFUSED})
    assert "the class counts by its name" in one


def test_many_refusals_of_a_kind_are_one() -> None:
    assert len(said(secrets(SINGLY))) == SINGLY
    [one] = said(secrets(SINGLY + 1))
    assert "such as secrets s0 in namespace shop" in one
    assert said(secrets(300)) == [one], "so that it is told once"
