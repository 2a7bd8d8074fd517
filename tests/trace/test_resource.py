from __future__ import annotations

import os
import socket
from pathlib import Path

import pytest
from opentelemetry.proto.common.v1.common_pb2 import InstrumentationScope
from opentelemetry.proto.resource.v1.resource_pb2 import Resource as ResourceMessage
from opentelemetry.sdk.resources import Resource
from opentelemetry.util.types import AttributeValue

from proxy.settings import Tracing
from proxy.trace import resource
from proxy.trace.view import attributes

POD = {
    "KUBERNETES_SERVICE_HOST": "10.96.0.1",
    "POD_NAME": "spanway-7d9f-abcde",
    "POD_NAMESPACE": "ingress",
    "POD_UID": "0f1e",
    "NODE_NAME": "node-3",
    "CONTAINER_NAME": "proxy",
}


def read(tracing: Tracing, **arguments: object) -> dict[str, object]:
    built = resource.build(tracing, **arguments)  # type: ignore[arg-type] # passed on as they are
    return attributes(ResourceMessage.FromString(resource.encode(built)).attributes)


def test_outside_kubernetes() -> None:
    found = read(Tracing(), version="1.2", environ={})
    assert found["service.name"] == "spanway"
    assert found["service.version"] == "1.2"
    assert found["telemetry.sdk.name"] == "spanway"
    assert found["telemetry.sdk.language"] == "python"
    assert found["host.name"] == socket.gethostname()
    assert found["process.pid"] == os.getpid()
    assert found["process.runtime.name"] == "cpython"
    assert not [key for key in found if key.startswith("k8s.")]


def test_in_a_pod() -> None:
    found = read(Tracing(), environ=POD)
    assert {key: value for key, value in found.items() if key.startswith("k8s.")} == {
        "k8s.namespace.name": "ingress",
        "k8s.pod.name": "spanway-7d9f-abcde",
        "k8s.pod.uid": "0f1e",
        "k8s.node.name": "node-3",
        "k8s.container.name": "proxy",
    }
    assert found["service.instance.id"] == "ingress.spanway-7d9f-abcde.proxy"
    del (partly := dict(POD))["CONTAINER_NAME"]
    assert read(Tracing(), environ=partly)["service.instance.id"] == "ingress.spanway-7d9f-abcde"


def test_an_instance_is_always_one_of_a_kind() -> None:
    first, second = (read(Tracing(), environ={})["service.instance.id"] for _ in range(2))
    assert first != second
    assert read(Tracing(), environ=POD, instance="me")["service.instance.id"] == "me"


def test_what_is_stated_wins_over_what_is_found() -> None:
    stated = (("host.id", "h-1"), ("deployment.environment.name", "prod"), ("service.instance.id", "mine"))
    found = read(Tracing(resource=stated), environ=POD)
    assert (found["host.id"], found["deployment.environment.name"], found["service.instance.id"]) == (
        "h-1",
        "prod",
        "mine",
    )


def test_the_service_name() -> None:
    attribute = (("service.name", "from-attributes"),)
    assert read(Tracing(resource=attribute), environ={})["service.name"] == "from-attributes"
    # OTEL_SERVICE_NAME takes precedence over OTEL_RESOURCE_ATTRIBUTES (SDK configuration specification).
    assert read(Tracing(resource=attribute, service_name="edge"), environ={})["service.name"] == "edge"


def test_nothing_of_the_command_line_is_told() -> None:
    found = read(Tracing(), environ={})
    assert "process.command_args" not in found
    assert "process.command_line" not in found


@pytest.mark.parametrize(
    ("machine", "boot", "environ", "expected"),
    [
        ("m1", "b1", {}, "m1"),
        ("", "b1", {}, "b1"),
        ("uninitialized", "b1", {}, "b1"),
        ("\udcff", "b1", {}, "b1"),
        (None, "b1", {}, "b1"),
        ("m1", "b1", POD, "b1"),
        ("m1", None, POD, "m1"),
        (None, None, POD, "node-3"),
        (None, None, {}, socket.gethostname()),
    ],
)
def test_the_host_has_an_id_whatever_happens(
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    machine: str | None,
    boot: str | None,
    environ: dict[str, str],
    expected: str,
) -> None:
    for name, content in (("machine", machine), ("boot", boot)):
        if content is not None:
            (tmp_path / name).write_bytes(content.encode(errors="surrogateescape") + b"\n")
    monkeypatch.setattr(resource, "_MACHINE_IDS", (tmp_path / "machine", tmp_path / "none"))
    monkeypatch.setattr(resource, "_BOOT_ID", tmp_path / "boot")
    assert resource.host_id(environ) == expected


def test_every_type_of_attribute_survives_encoding() -> None:
    values: dict[str, AttributeValue] = {"s": "x", "b": True, "i": -5, "f": 1.5, "l": ["a", "b"], "n": [1, 2]}
    encoded = resource.encode(Resource(values))
    assert attributes(ResourceMessage.FromString(encoded).attributes) == values


def test_the_scope() -> None:
    scope = InstrumentationScope.FromString(resource.encode_scope("1.2"))
    assert (scope.name, scope.version) == ("spanway", "1.2")
