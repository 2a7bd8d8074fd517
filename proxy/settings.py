"""Every setting, frozen and typed. Where each value comes from is `configure`'s business; what it means is said here.

Precedence: flag, then environment (`SPANWAY_*`, `OTEL_*`), then the `--config` file, then the default below. Each
field's `Meaning` is the one source of the flag's help and of docs/settings.md.
"""

from __future__ import annotations

import dataclasses
import ipaddress
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final, Literal

from proxy.meaning import otlp, setting
from proxy.settings_cluster import Cluster, ObjectName
from proxy.settings_wire import Wire

Network = ipaddress.IPv4Network | ipaddress.IPv6Network

KIB: Final = 1024
MIB: Final = 1024 * KIB


@dataclass(frozen=True, slots=True)
class Address:
    """A host and a TCP port; port 0 lets the kernel choose."""

    host: str
    port: int

    def __str__(self) -> str:
        host = f"[{self.host}]" if ":" in self.host else self.host
        return f"{host}:{self.port}"


@dataclass(frozen=True, slots=True)
class Override:
    """`--upstream [NS/]SERVICE[:PORT]=HOST:PORT[,..]`: endpoints for a service, whatever the manifests say.

    ``namespace`` "" is any namespace and ``port`` "" any port. A target may be ``https://HOST:PORT``.
    """

    namespace: str
    service: str
    port: str
    scheme: Literal["http", "https"]
    endpoints: tuple[Address, ...]

    def __str__(self) -> str:
        namespace = f"{self.namespace}/" if self.namespace else ""
        port = f":{self.port}" if self.port else ""
        scheme = "https://" if self.scheme == "https" else ""
        return f"{namespace}{self.service}{port}={','.join(f'{scheme}{endpoint}' for endpoint in self.endpoints)}"


@dataclass(frozen=True, slots=True)
class ServicePort:
    """`NS/SVC:PORT`: a port, by name or number, of a Service."""

    namespace: str
    service: str
    port: str

    def __str__(self) -> str:
        return f"{self.namespace}/{self.service}:{self.port}"


@dataclass(frozen=True, slots=True)
class Limits:
    """What one downstream may send, and how many may come."""

    request_line: int = setting(
        8 * KIB, "longest request line", unit="bytes", source="nginx large_client_header_buffers", least=64
    )
    head: int = setting(32 * KIB, "largest request or response head", unit="bytes", source="nginx: 4 x 8k", least=256)
    fields: int = setting(100, "most header fields in a head", source="Envoy max_headers_count", least=1)
    chunk_extensions: int = setting(4 * KIB, "chunk extensions in one message", unit="bytes", least=0)
    connections: int = setting(
        10_000, "downstream connections per worker", source="nginx worker_connections, rounded up", least=1
    )
    pipelined: int = setting(64 * KIB, "bytes read ahead of the request being served", unit="bytes", least=KIB)


@dataclass(frozen=True, slots=True)
class Timeouts:
    """Seconds; between two reads or two writes, unless it says otherwise. A coarse sweep enforces them (+0.5 s)."""

    head: float = setting(
        60.0, "whole request head, from its first byte", unit="s", source="nginx client_header_timeout", least=0.1
    )
    body: float = setting(
        60.0, "between two reads of a request body", unit="s", source="nginx client_body_timeout", least=0.1
    )
    idle: float = setting(
        75.0, "idle keep-alive connection downstream", unit="s", source="nginx keepalive_timeout", least=0.1
    )
    send: float = setting(
        60.0, "between two writes to the downstream", unit="s", source="nginx send_timeout", least=0.1
    )
    tunnel: float = setting(
        60.0,
        "silent tunnel after 101 (the route's read timeout if longer)",
        unit="s",
        source="nginx proxy_read_timeout",
        least=0.1,
    )
    upstream_idle: float = setting(
        60.0, "idle upstream connection", unit="s", source="nginx upstream keepalive_timeout", least=0.1
    )
    drain: float = setting(
        30.0,
        "finishing requests after SIGTERM",
        unit="s",
        source="Kubernetes terminationGracePeriodSeconds",
        least=0,
    )
    handshake: float = setting(10.0, "TLS handshake, and PROXY protocol header", unit="s", least=0.1)


@dataclass(frozen=True, slots=True)
class Tracing:
    """How requests are traced; the OpenTelemetry variables by their own names."""

    endpoint: str = setting(
        "",
        "OTLP endpoint; without one: only the memory ring; 'none': export off",
        flag="otlp",
        value="URL|none",
        otel=otlp("ENDPOINT"),
    )
    exact_endpoint: bool = setting(
        False,
        "use an http/protobuf endpoint as it is, without adding /v1/traces",
        source="true where OTEL_EXPORTER_OTLP_TRACES_ENDPOINT is used",
    )
    protocol: Literal["grpc", "http/protobuf"] = setting(
        "grpc",
        "OTLP protocol (where none is set: http/protobuf for an endpoint with port 4318 or a path)",
        flag="otlp-protocol",
        otel=otlp("PROTOCOL"),
    )
    headers: tuple[tuple[str, str], ...] = setting(
        (), "headers of export calls (secret: never printed)", value="NAME=VALUE,..", otel=otlp("HEADERS"), secret=True
    )
    compression: Literal["none", "gzip"] = setting("none", "compression of export calls", otel=otlp("COMPRESSION"))
    timeout: float = setting(10.0, "one export call", unit="s", otel=otlp("TIMEOUT"), least=0.001)
    certificate: str = setting("", "file with the collector's CA certificates", otel=otlp("CERTIFICATE"))
    client_certificate: str = setting("", "client certificate for the collector", otel=otlp("CLIENT_CERTIFICATE"))
    client_key: str = setting("", "key of the client certificate", otel=otlp("CLIENT_KEY"))
    insecure: bool = setting(False, "gRPC without TLS for an endpoint without a scheme", otel=otlp("INSECURE"))
    propagators: tuple[str, ...] = setting(
        ("tracecontext", "baggage", "jaeger"),
        "context formats, in order of precedence",
        flag="propagators",
        otel=("OTEL_PROPAGATORS",),
        choices=("tracecontext", "baggage", "jaeger", "b3", "b3multi", "none"),
    )
    sampler: str = setting(
        "parentbased_always_on",
        "sampler of new traces",
        flag="sampler",
        otel=("OTEL_TRACES_SAMPLER",),
        choices=(
            "always_on",
            "always_off",
            "traceidratio",
            "parentbased_always_on",
            "parentbased_always_off",
            "parentbased_traceidratio",
        ),
    )
    sampler_argument: float = setting(
        1.0,
        "ratio of the ratio samplers, 0 to 1",
        flag="sampler-argument",
        otel=("OTEL_TRACES_SAMPLER_ARG",),
        least=0,
        most=1,
    )
    service_name: str = setting("spanway", "service.name of the proxy's spans", otel=("OTEL_SERVICE_NAME",))
    resource: tuple[tuple[str, str], ...] = setting(
        (), "further resource attributes", value="KEY=VALUE,..", otel=("OTEL_RESOURCE_ATTRIBUTES",)
    )
    known_methods: tuple[str, ...] = setting(
        ("CONNECT", "DELETE", "GET", "HEAD", "OPTIONS", "PATCH", "POST", "PUT", "QUERY", "TRACE"),
        "methods named as they are; others become _OTHER",
        source="RFC 9110, PATCH, QUERY",
        otel=("OTEL_INSTRUMENTATION_HTTP_KNOWN_METHODS",),
    )
    redact: tuple[str, ...] = setting(
        (
            "AWSAccessKeyId",
            "Signature",
            "X-Amz-Signature",
            "X-Amz-Credential",
            "X-Amz-Security-Token",
            "sig",
            "X-Goog-Signature",
        ),
        "query parameters whose values become REDACTED",
        source="OpenTelemetry semantic conventions",
    )
    response_header: bool = setting(
        False,
        "send traceresponse to the downstream (on in dev)",
        flag="response-header",
        source="W3C Trace Context level 2 draft",
    )
    queue: int = setting(8 * MIB, "spans waiting for the collector, per worker", unit="bytes", least=64 * KIB)
    batch: int = setting(
        2048,
        "most spans in one export call",
        otel=("OTEL_BSP_MAX_EXPORT_BATCH_SIZE",),
        source="the SDK has 512; a call costs as much as 200 requests",
        least=1,
    )
    delay: float = setting(
        1.0,
        "longest wait before a batch leaves",
        unit="s",
        otel=("OTEL_BSP_SCHEDULE_DELAY",),
        source="the SDK's is 5 s",
        least=0.001,
    )
    ring: int = setting(2 * MIB, "recent spans kept for /traces, per worker; 0 for none", unit="bytes", least=0)
    skip_paths: tuple[str, ...] = setting((), "exact paths that are never traced", source="health checks: traefik#9170")


PRIVATE: Final[tuple[Network, ...]] = tuple(
    ipaddress.ip_network(text)
    for text in ("127.0.0.0/8", "::1/128", "10.0.0.0/8", "172.16.0.0/12", "192.168.0.0/16", "fc00::/7", "fe80::/10")
)
EVERYONE: Final[tuple[Network, ...]] = (ipaddress.ip_network("0.0.0.0/0"), ipaddress.ip_network("::/0"))


@dataclass(frozen=True, slots=True)
class Settings:
    """Everything `serve` needs."""

    ingress: tuple[Path, ...] = setting(
        (), "file or directory of Kubernetes manifests; repeatable", flag="ingress", value="PATH"
    )
    upstream: tuple[Override, ...] = setting(
        (),
        "endpoints of a service, whatever the manifests say; repeatable",
        flag="upstream",
        value="[NS/]SERVICE[:PORT]=HOST:PORT[,..]",
    )
    http: tuple[Address, ...] = setting(
        (Address("0.0.0.0", 8080),),  # noqa: S104 - an ingress listens to the world
        "listen for HTTP, or 'off'; repeatable",
        flag="http",
        value="[HOST:]PORT",
    )
    https: tuple[Address, ...] = setting(
        (), "listen for HTTPS, or 'off'; repeatable", flag="https", value="[HOST:]PORT"
    )
    admin: Address | None = setting(
        Address("127.0.0.1", 9901),
        "admin listener, or 'off'",
        source="Envoy's admin port",
        flag="admin",
        value="[HOST:]PORT",
    )
    workers: int = setting(
        1, "worker processes, or 'auto' for one per CPU", flag="workers", value="N|auto", least=1, most=1024
    )
    trust: tuple[Network, ...] = setting(
        PRIVATE,
        "peers that may supply forwarded headers and trace context; 'private': loopback and private ranges",
        flag="trust",
        value="CIDR,..|private|all|none",
    )
    proxy_protocol: bool = setting(False, "listeners expect a PROXY protocol header, v1 or v2", flag="proxy-protocol")
    access_log: str = setting(
        "-", "access log: a file, '-' for standard output, or 'off'", flag="access-log", value="FILE|-|off"
    )
    ingress_class: str = setting("", "only Ingresses of this class; empty: all", flag="ingress-class", value="NAME")
    default_backend: ServicePort | None = setting(
        None,
        "Service for requests that no rule takes, where no Ingress has a defaultBackend for every host, or 'off'",
        source="ingress-nginx --default-backend-service",
        flag="default-backend",
        value="NS/SVC:PORT",
    )
    default_certificate: ObjectName | None = setting(
        None,
        "TLS Secret for hosts without a certificate, or 'off' for a self-signed one",
        source="ingress-nginx --default-ssl-certificate",
        flag="default-certificate",
        value="NS/SECRET",
    )
    forwarded: bool = setting(False, "also send the Forwarded field", source="RFC 7239", flag="forwarded")
    via: bool = setting(False, "send Via", source="RFC 9110 section 7.6.3; nginx does not", flag="via")
    underscores: bool = setting(False, "keep field names with underscores", source="nginx underscores_in_headers off")
    retry_tries: int = setting(
        3, "most attempts for one request", source="ingress-nginx proxy-next-upstream-tries", least=1, most=100
    )
    upstream_connections: int = setting(
        1024, "connections per endpoint and worker", source="Envoy max_connections", least=1
    )
    upstream_idle_connections: int = setting(
        320,
        "idle connections kept per endpoint and worker",
        source="ingress-nginx upstream-keepalive-connections",
        least=0,
    )
    eject_after: int = setting(
        5, "consecutive failures that eject an endpoint", source="Envoy consecutive_5xx", least=1
    )
    eject_time: float = setting(
        10.0,
        "first ejection; doubles up to 30 times this",
        unit="s",
        source="Envoy base_ejection_time 30 s",
        least=0.1,
    )
    upstream_ca: str = setting(
        "",
        "CA file that verifies TLS upstreams; empty: not verified",
        source="ingress-nginx proxy-ssl-verify off",
        flag="upstream-ca",
        value="FILE",
    )
    limits: Limits = setting(Limits, "limits")
    timeouts: Timeouts = setting(Timeouts, "timeouts")
    tracing: Tracing = setting(Tracing, "tracing")
    wire: Wire = setting(Wire, "wire")
    cluster: Cluster = setting(Cluster, "cluster")

    def replace(self, **changes: Any) -> Settings:
        """The same settings with some changed."""
        return dataclasses.replace(self, **changes)
