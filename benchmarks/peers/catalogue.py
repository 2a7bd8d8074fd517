"""Every variant of every peer by its name, and which of them can run here."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

from benchmarks.peers import nginx, others, spanway
from benchmarks.peers.base import Variant
from tests.real import parts

NGINX: Final = "nginx"
SPANWAY: Final = "spanway"  # every request traced
UNTRACED: Final = "spanway-0"
PURE: Final = "spanway-pure"
DIRECT: Final = "direct"  # no proxy: the upstream itself, for what a proxy adds

_ALL: Final = (
    Variant(DIRECT, "no proxy", nginx.start, "nginx"),
    Variant(NGINX, "nginx", nginx.start, "nginx"),
    Variant("nginx-again", "nginx again", nginx.start, "nginx"),  # how far from 1 the ratio of two equals is
    Variant("haproxy", "HAProxy", nginx.start_haproxy, "haproxy"),
    Variant(SPANWAY, "Spanway, 100 % traced", spanway.start, None, 1.0, 2, strict=True),
    Variant("spanway-10", "Spanway, 10 % traced", spanway.start, None, 0.1, 2),
    Variant("spanway-1", "Spanway, 1 % traced", spanway.start, None, 0.01, 2),
    Variant(UNTRACED, "Spanway, 0 % traced", spanway.start, None, 0.0, 2),
    Variant(PURE, "Spanway in pure Python, 100 %", spanway.start, None, 1.0, 2, strict=True, pure=True),
    Variant("spanway-pure-0", "Spanway in pure Python, 0 %", spanway.start, None, 0.0, 2, pure=True),
    Variant("envoy", "Envoy", others.start_envoy, "envoy"),
    Variant("envoy-traced", "Envoy, OpenTelemetry tracer", others.start_envoy, "envoy", 1.0, 2),
    Variant("traefik", "Traefik", others.start_traefik, "traefik"),
    Variant("traefik-traced", "Traefik, OTLP tracing", others.start_traefik, "traefik", 1.0, 2),
    Variant("caddy", "Caddy", others.start_caddy, "caddy"),
    Variant("caddy-traced", "Caddy, tracing", others.start_caddy, "caddy", 1.0, 1),
)
VARIANTS: Final[dict[str, Variant]] = {variant.name: variant for variant in _ALL}


def unavailable(name: str) -> str:
    """Why a variant cannot run here, as one line; "" when it can."""
    variant = VARIANTS[name]
    if variant.pure and not spanway.compiled():
        return f"{name}: this Spanway has no compiled code, so '{SPANWAY}' is the pure one already"
    if variant.part is not None and parts.find(variant.part) is None:
        return f"{name}: {variant.part} is missing; run 'python -m tests.real.parts install {variant.part}'"
    return ""


def available(names: Sequence[str]) -> list[str]:
    """Those that can run here."""
    return [name for name in names if not unavailable(name)]
