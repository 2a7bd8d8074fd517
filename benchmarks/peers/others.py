"""Envoy, Traefik and Caddy, with and without their own tracing."""

from __future__ import annotations

import os
from pathlib import Path

from benchmarks.peers.base import Peer, Place, Variant, needed, running, text, write
from tests.real.process import free_ports


def start_envoy(variant: Variant, place: Place) -> Peer:
    """Envoy with ``place.workers`` worker threads."""
    port, tls_port = free_ports(2)
    path = envoy_configuration(variant, place, port, tls_port)
    command: list[str | Path] = [needed("envoy"), "-c", path, "--concurrency", str(place.workers)]
    command += ["--use-dynamic-base-id", "--log-level", "error"]
    return running(variant.name, place, command, port, tls_port)


def envoy_configuration(variant: Variant, place: Place, port: int, tls_port: int) -> Path:
    """Its whole configuration, written."""
    tracing = text("envoy-tracing.yaml") if variant.traced else ""
    return write(place, "envoy.yaml", text("envoy.yaml", tracing=tracing, **_values(place, port, tls_port)))


def start_traefik(variant: Variant, place: Place) -> Peer:
    """Traefik on ``place.workers`` threads of Go's scheduler."""
    port, tls_port = free_ports(2)
    path = traefik_configuration(variant, place, port, tls_port)
    command: list[str | Path] = [needed("traefik"), f"--configFile={path}"]
    return running(variant.name, place, command, port, tls_port, environ=_go(place))


def traefik_configuration(variant: Variant, place: Place, port: int, tls_port: int) -> Path:
    """Its static and its dynamic configuration, written; the path of the former."""
    values = _values(place, port, tls_port)
    routes = write(place, "routes.yaml", text("traefik-routes.yaml", **values))
    tracing = text("traefik-tracing.yaml", **values) if variant.traced else ""
    return write(place, "traefik.yaml", text("traefik.yaml", routes=routes, tracing=tracing, **values))


def start_caddy(variant: Variant, place: Place) -> Peer:
    """Caddy on ``place.workers`` threads of Go's scheduler."""
    port, tls_port = free_ports(2)
    path = caddy_configuration(variant, place, port, tls_port)
    environ = _go(place) | {"OTEL_EXPORTER_OTLP_ENDPOINT": place.grpc, "OTEL_EXPORTER_OTLP_PROTOCOL": "grpc"}
    command: list[str | Path] = [needed("caddy"), "run", "--adapter", "caddyfile", "--config", path]
    return running(variant.name, place, command, port, tls_port, environ=environ)


def caddy_configuration(variant: Variant, place: Place, port: int, tls_port: int) -> Path:
    """Its whole configuration, written."""
    tracing = "tracing" if variant.traced else ""
    return write(place, "Caddyfile", text("Caddyfile", tracing=tracing, **_values(place, port, tls_port)))


def _values(place: Place, port: int, tls_port: int) -> dict[str, object]:
    return {
        "port": port,
        "tls_port": tls_port,
        "upstream": place.upstream,
        "chain": place.certificate.chain,
        "key": place.certificate.key,
        "collector": place.grpc.rpartition(":")[2],
    }


def _go(place: Place) -> dict[str, str]:
    """The environment of a Go program: as many threads as the others have workers, its files inside the bench."""
    inherited = {key: value for key, value in os.environ.items() if not key.startswith("OTEL_")}
    home = str(place.folder)
    return inherited | {"GOMAXPROCS": str(place.workers), "HOME": home, "XDG_DATA_HOME": home, "XDG_CONFIG_HOME": home}
