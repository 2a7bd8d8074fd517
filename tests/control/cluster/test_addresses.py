from __future__ import annotations

import json
from typing import Any

import pytest

from proxy.control.cluster.addresses import Point, of_ingress, of_service, of_texts, patch


def service(spec: dict[str, Any], *reported: dict[str, str]) -> bytes:
    return json.dumps({"spec": spec, "status": {"loadBalancer": {"ingress": list(reported)}}}).encode()


def test_addresses_from_a_flag_are_addresses_or_names() -> None:
    assert of_texts(["edge.example.org", "192.0.2.1", "2001:db8::1", "192.0.2.1"]) == (
        Point(ip="192.0.2.1"),
        Point(ip="2001:db8::1"),
        Point(hostname="edge.example.org"),
    )


@pytest.mark.parametrize(
    ("raw", "points"),
    [
        (service({"type": "LoadBalancer"}), ()),
        (service({"type": "LoadBalancer"}, {"ip": "192.0.2.1"}), (Point(ip="192.0.2.1"),)),
        (
            service(
                {"type": "LoadBalancer", "externalIPs": ["192.0.2.9", "192.0.2.1"]},
                {"ip": "192.0.2.1", "ipMode": "VIP"},
                {"hostname": "lb.example.org"},
            ),
            (Point(ip="192.0.2.1"), Point(ip="192.0.2.9"), Point(hostname="lb.example.org")),
        ),
        (service({"type": "NodePort", "clusterIP": "10.0.0.1"}), (Point(ip="10.0.0.1"),)),
        (
            service({"type": "NodePort", "clusterIP": "10.0.0.1", "externalIPs": ["192.0.2.9"]}),
            (Point(ip="192.0.2.9"),),
        ),
        (service({"type": "ClusterIP", "clusterIP": "10.0.0.1"}), (Point(ip="10.0.0.1"),)),
        (service({"type": "ClusterIP", "clusterIP": "None"}), ()),
        (service({"type": "ExternalName", "externalName": "edge.example.org"}), (Point(hostname="edge.example.org"),)),
        (b'{"spec":{"type":"LoadBalancer","externalIPs":null},"status":{"loadBalancer":{"ingress":null}}}', ()),
        (b'{"spec":null}', ()),
        (b"nothing", ()),
    ],
)
def test_addresses_of_a_service_are_ingress_nginxs(raw: bytes, points: tuple[Point, ...]) -> None:
    assert of_service(raw) == points


def test_what_a_status_says_now() -> None:
    text = b'{"status":{"loadBalancer":{"ingress":[{"hostname":"b"},{"ip":"192.0.2.1","ports":[{"port":80}]}]}}}'
    assert of_ingress(text) == (Point(ip="192.0.2.1"), Point(hostname="b"))
    assert of_ingress(b'{"status":{"loadBalancer":{}}}') == of_ingress(b"{}") == of_ingress(b"[") == ()


def test_a_patch_says_the_version_that_it_is_for() -> None:
    assert patch((Point(ip="192.0.2.1"), Point(hostname="b")), "7") == {
        "metadata": {"resourceVersion": "7"},
        "status": {"loadBalancer": {"ingress": [{"ip": "192.0.2.1"}, {"hostname": "b"}]}},
    }
    assert patch((), "7")["status"] == {"loadBalancer": {"ingress": None}}
