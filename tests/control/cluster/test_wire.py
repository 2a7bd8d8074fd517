from __future__ import annotations

import json
from typing import Any

import msgspec
import pytest

from proxy.control.cluster.faults import Forbidden, Garbled, Gone
from proxy.control.cluster.wire import Unreadable, event_of, head_of, object_of, page_of
from proxy.control.objects import EndpointSlice, Ingress, Secret, Service


def line(kind: str, item: Any) -> bytes:
    return json.dumps({"type": kind, "object": item}).encode()


def test_a_page_is_its_items_as_they_stand_and_where_to_go_on() -> None:
    text = b'{"metadata":{"resourceVersion":"7","continue":"abc"},"items":[{"metadata":{"name":"a"}},{"x":1}]}'
    page = page_of("list", text)
    assert (page.metadata.resource_version, page.metadata.continue_) == ("7", "abc")
    assert [bytes(item) for item in page.items or ()] == [b'{"metadata":{"name":"a"}}', b'{"x":1}']
    assert page_of("list", b'{"metadata":{"resourceVersion":"7"},"items":null}').items is None


@pytest.mark.parametrize("text", [b"", b"null", b"[]", b'{"items":[', b"\xff", b'{"items":{}}', b"[" * 100_000])
def test_what_is_no_page_is_garbled(text: bytes) -> None:
    with pytest.raises(Garbled, match="list things: no list came back"):
        page_of("list things", text)


def test_an_event_is_a_verb_and_an_object() -> None:
    event = event_of("watch", line("ADDED", {"metadata": {"name": "a"}}))
    assert event.type == "ADDED"
    assert head_of(event.object).name == "a"


@pytest.mark.parametrize("text", [b"{", b'{"type":"ADDED"}', b'{"type":3,"object":{}}', b"hello", b"\xff\xff", b"null"])
def test_what_is_no_event_is_garbled(text: bytes) -> None:
    with pytest.raises(Garbled, match="watch things: a line is no watch event"):
        event_of("watch things", text)


def test_an_error_event_is_the_fault_that_it_holds() -> None:
    with pytest.raises(Gone, match="too old resource version"):
        event_of("watch", line("ERROR", {"kind": "Status", "code": 410, "message": "too old resource version: 1 (9)"}))
    with pytest.raises(Forbidden):
        event_of("watch", line("ERROR", {"kind": "Status", "code": 403}))


def test_the_head_of_an_object() -> None:
    head = head_of(
        json.dumps(
            {
                "metadata": {
                    "name": "web",
                    "namespace": "shop",
                    "resourceVersion": "12",
                    "creationTimestamp": None,
                    "annotations": {"tracing.k8s.io/traceparent": "00-1-2-01"},
                    "managedFields": [{"manager": "kubectl", "time": "2026-01-01T00:00:00Z", "fieldsV1": {"f:x": {}}}],
                }
            }
        ).encode()
    )
    assert (head.key, head.resource_version, head.traceparent) == (("shop", "web"), "12", "00-1-2-01")
    assert head_of(b'{"metadata":{"name":"spanway"}}').key == ("", "spanway")


@pytest.mark.parametrize("text", [b"{}", b'{"metadata":[]}', b'{"metadata":{"name":3}}', b"nothing", b'{"metadata":{'])
def test_an_object_without_a_readable_head(text: bytes) -> None:
    with pytest.raises(Unreadable, match="has no readable metadata"):
        head_of(text)


def test_objects_become_the_structs_of_the_table() -> None:
    raw = b'{"kind":"Ingress","metadata":{"name":"web"},"spec":{"ingressClassName":"spanway"},"status":{"x":1}}'
    item = object_of("Ingress", raw)
    assert isinstance(item, Ingress)
    assert item.spec.ingress_class_name == "spanway"


def test_nulls_are_absent_as_the_api_server_means_them() -> None:
    piece = object_of("EndpointSlice", b'{"metadata":{"name":"a"},"addressType":"IPv4","endpoints":null,"ports":null}')
    assert isinstance(piece, EndpointSlice)
    assert (piece.endpoints, piece.ports) == ((), ())
    text = (
        b'{"metadata":{"labels":null,"annotations":{"a":null,"b":"c"}},"spec":{"selector":null,"ports":[{"port":80}]}}'
    )
    service = object_of("Service", text)
    assert isinstance(service, Service)
    assert service.metadata.annotations == {"b": "c"}


@pytest.mark.parametrize(
    ("kind", "text", "field", "message"),
    [
        ("Service", {"spec": {"ports": [{"port": "80"}]}}, "spec.ports[0].port", "must be a whole number, not a text"),
        ("Service", {"spec": {"ports": [{}]}}, "spec.ports[0]", "port is missing"),
        ("Ingress", {"spec": {"rules": {}}}, "spec.rules", "must be a list, not a mapping"),
        ("Secret", {"data": {"tls.key": 3}}, "data[tls.key]", "must be a text, not a whole number"),
    ],
)
def test_an_object_of_the_wrong_shape_says_where(kind: str, text: Any, field: str, message: str) -> None:
    with pytest.raises(Unreadable) as caught:
        object_of(kind, json.dumps(text).encode())
    assert (caught.value.field, caught.value.message) == (field, message)


@pytest.mark.parametrize("text", [b"", b"[", b"\xff", b"[" * 100_000, b'{"a":' * 100_000])
def test_text_that_is_no_json_is_unreadable(text: bytes) -> None:
    with pytest.raises(Unreadable):
        object_of("Service", text)


def test_a_secret_that_cannot_be_read_is_not_quoted() -> None:
    text = json.dumps({"metadata": {"name": "tls"}, "data": {"tls.key": ["c2VjcmV0"]}}).encode()
    with pytest.raises(Unreadable) as caught:
        object_of("Secret", text)
    assert "c2VjcmV0" not in f"{caught.value!r} {caught.value.__cause__!r} {caught.value.__context__!r}"
    item = object_of("Secret", json.dumps({"metadata": {"name": "tls"}, "data": {"tls.key": "c2VjcmV0"}}).encode())
    assert isinstance(item, Secret)
    assert "c2VjcmV0" not in repr(item)


def test_a_huge_object_is_read() -> None:
    endpoints = [{"addresses": [f"10.0.{number // 256}.{number % 256}"]} for number in range(20_000)]
    text = msgspec.json.encode({"metadata": {"name": "a"}, "addressType": "IPv4", "endpoints": endpoints})
    piece = object_of("EndpointSlice", text)
    assert isinstance(piece, EndpointSlice)
    assert len(piece.endpoints) == 20_000
