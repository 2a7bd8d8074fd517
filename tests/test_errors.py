from __future__ import annotations

from http import HTTPStatus

import pytest

from proxy.errors import Fault, Kind, Retry, Side


@pytest.mark.parametrize("kind", list(Kind), ids=lambda kind: kind.name)
def test_each_row_is_whole(kind: Kind) -> None:
    assert kind.label == kind.name.lower()  # one word for a fault everywhere
    assert kind.text.endswith(".")
    assert kind.text[0].isupper()
    assert kind.status == 0 or HTTPStatus(kind.status)


@pytest.mark.parametrize("kind", [kind for kind in Kind if kind.status], ids=lambda kind: kind.name)
def test_the_status_says_whose_fault_it_is(kind: Kind) -> None:
    """RFC 9110 section 15: 4xx is the client's, 5xx ours or the upstream's; two 5xx judge what a client sent."""
    client = kind.side is Side.DOWNSTREAM and kind not in (Kind.NOT_IMPLEMENTED, Kind.VERSION_NOT_SUPPORTED)
    assert (kind.status < 500) == client


def test_only_an_upstreams_fault_is_tried_again() -> None:
    for kind in Kind:
        assert kind.retry is Retry.NEVER or kind.side is Side.UPSTREAM, kind


def test_labels_are_unique() -> None:
    assert len({kind.label for kind in Kind}) == len(Kind)


def test_a_fault_says_what_and_where() -> None:
    fault = Fault(Kind.CONNECT_FAILED, "10.0.0.1:80: Connection refused")
    assert str(fault) == "connect_failed: 10.0.0.1:80: Connection refused"
    assert repr(fault) == "Fault(CONNECT_FAILED, '10.0.0.1:80: Connection refused')"
    assert str(Fault(Kind.DRAINING)) == "draining: The proxy is shutting down."
