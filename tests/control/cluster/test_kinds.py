from __future__ import annotations

import pytest

from proxy.control.cluster.kinds import EVENT, INGRESS, INGRESS_CLASS, SECRET, SERVICE, VERSIONS, Scope
from proxy.control.objects import KINDS


def test_paths_are_the_apis() -> None:
    assert SERVICE.path() == "/api/v1/services"
    assert EVENT.path("shop") == "/api/v1/namespaces/shop/events"
    assert INGRESS.path("shop", "web", "status") == ("/apis/networking.k8s.io/v1/namespaces/shop/ingresses/web/status")
    assert INGRESS_CLASS.path("shop") == "/apis/networking.k8s.io/v1/ingressclasses"


def test_names_cannot_leave_their_place_in_a_path() -> None:
    assert SECRET.path("a/../b", "x?y") == "/api/v1/namespaces/a%2F..%2Fb/secrets/x%3Fy"


def test_a_scope_is_a_collection_and_maybe_one_object_of_it() -> None:
    assert (Scope(SERVICE).path, Scope(SERVICE).selector) == ("/api/v1/services", {})
    one = Scope(SECRET, "shop", "tls")
    assert one.path == "/api/v1/namespaces/shop/secrets"
    assert one.selector == {"fieldSelector": "metadata.name=tls"}
    assert str(one) == "secrets tls in namespace shop"
    assert str(Scope(INGRESS)) == "ingresses.networking.k8s.io"


@pytest.mark.parametrize("kind", KINDS)
def test_every_kind_of_the_table_has_its_version(kind: str) -> None:
    assert VERSIONS[kind] == KINDS[kind][0]
