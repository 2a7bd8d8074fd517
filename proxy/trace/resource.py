"""Who the spans come from: the OpenTelemetry resource and scope, built by the SDK and encoded once per process."""

from __future__ import annotations

import os
import socket
import uuid
from pathlib import Path
from typing import TYPE_CHECKING, Final

from opentelemetry.proto.common.v1.common_pb2 import AnyValue, ArrayValue, InstrumentationScope, KeyValue
from opentelemetry.proto.resource.v1.resource_pb2 import Resource as ResourceMessage
from opentelemetry.sdk.resources import ProcessResourceDetector, Resource

from proxy.settings import Tracing

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from opentelemetry.util.types import AttributeValue

SCOPE_NAME: Final = "spanway"

# The downward API's usual variable names (k8s/ manifests set them) and the attributes they become.
DOWNWARD: Final = (
    ("POD_NAMESPACE", "k8s.namespace.name"),
    ("POD_NAME", "k8s.pod.name"),
    ("POD_UID", "k8s.pod.uid"),
    ("NODE_NAME", "k8s.node.name"),
    ("CONTAINER_NAME", "k8s.container.name"),
)

_MACHINE_IDS: Final = (Path("/etc/machine-id"), Path("/var/lib/dbus/machine-id"))  # semconv, host.id on Linux
_BOOT_ID: Final = Path("/proc/sys/kernel/random/boot_id")
_DEFAULT_SERVICE: Final = Tracing().service_name


def build(
    tracing: Tracing, *, version: str = "", instance: str = "", environ: Mapping[str, str] | None = None
) -> Resource:
    """The resource of this process, for the SDK's own spans; `encode` it for ours. Call it after forking.

    ``instance`` is ``service.instance.id``; without it, ``namespace.pod.container`` as far as they are known
    (semantic conventions, "Specify resource attributes using Kubernetes annotations"), else a random UUID. Precedence:
    what is found out here, then `Tracing.resource`, then a `Tracing.service_name` that was set.
    """
    env = os.environ if environ is None else environ
    found: dict[str, AttributeValue] = {
        "service.name": tracing.service_name,
        "service.instance.id": instance or _instance(env),
        # Not the OpenTelemetry SDK's name: request spans are not made by it (resource conventions, "Telemetry SDK").
        "telemetry.sdk.name": SCOPE_NAME,
        "telemetry.sdk.language": "python",
        "host.name": socket.gethostname(),
        # Always there: Jaeger moves the spans of a process whose host it does not know (its clock-skew adjuster).
        "host.id": host_id(env),
        "os.type": "linux",
    }
    if version:
        found["service.version"] = found["telemetry.sdk.version"] = version
    found.update((attribute, env[variable]) for variable, attribute in DOWNWARD if env.get(variable))
    stated: dict[str, AttributeValue] = dict(tracing.resource)
    if tracing.service_name != _DEFAULT_SERVICE:
        stated["service.name"] = tracing.service_name
    # Without command line and arguments: they may hold secrets.
    return ProcessResourceDetector().detect().merge(Resource(found)).merge(Resource(stated))


def encode(resource: Resource) -> bytes:
    """The encoded ``Resource`` message."""
    attributes = [KeyValue(key=key, value=_any_value(value)) for key, value in resource.attributes.items()]
    message: bytes = ResourceMessage(attributes=attributes).SerializeToString(deterministic=True)
    return message


def encode_scope(version: str = "") -> bytes:
    """The encoded ``InstrumentationScope`` message of the proxy's spans."""
    message: bytes = InstrumentationScope(name=SCOPE_NAME, version=version).SerializeToString(deterministic=True)
    return message


def host_id(environ: Mapping[str, str]) -> str:
    """An id of this host that is never empty: the machine id, or in a pod the kernel's boot id.

    An image may carry one machine id to every node it runs on; the boot id is the node's own and the same in all of its
    containers.
    """
    in_pod = "KUBERNETES_SERVICE_HOST" in environ or "POD_NAME" in environ
    for path in (_BOOT_ID, *_MACHINE_IDS) if in_pod else (*_MACHINE_IDS, _BOOT_ID):
        try:
            text = path.read_text(encoding="ascii").strip()
        except (OSError, UnicodeDecodeError):
            continue
        if text and text != "uninitialized":  # machine-id(5): the state before the first boot
            return text
    return environ.get("NODE_NAME") or socket.gethostname() or f"{uuid.getnode():012x}"


def _instance(environ: Mapping[str, str]) -> str:
    if environ.get("POD_NAME"):
        parts = (environ.get(name, "") for name in ("POD_NAMESPACE", "POD_NAME", "CONTAINER_NAME"))
        return ".".join(part for part in parts if part)
    return str(uuid.uuid4())


def _any_value(value: AttributeValue) -> AnyValue:
    match value:
        case bool():
            return AnyValue(bool_value=value)
        case int():
            return AnyValue(int_value=value)
        case float():
            return AnyValue(double_value=value)
        case str():
            return AnyValue(string_value=value)
    items: Sequence[str | bool | int | float] = value
    return AnyValue(array_value=ArrayValue(values=[_any_value(item) for item in items]))
