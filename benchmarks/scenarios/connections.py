"""Connections: how many at once, how many new ones, TLS handshakes, WebSocket messages."""

from __future__ import annotations

import contextlib
import sys
from collections.abc import Mapping, Sequence
from typing import Any, ClassVar, Final

from benchmarks.lab import Lab
from benchmarks.load import h2load, handshakes, held, websocket, wrk
from benchmarks.measure.machine import ROOT
from benchmarks.measure.samples import Reading
from benchmarks.peers import upstream
from benchmarks.peers.base import Peer, Variant
from benchmarks.scenarios.base import LEAD_IN, PROGRAMS, Level, Metric, Point, Scenario, Watch
from benchmarks.scenarios.bodies import MIB
from benchmarks.scenarios.cost import CPU_METRICS, saturate
from tests.real.process import free_ports

BUSY: Final = 1_000  # the most connections that all ask at once: beyond, the rest of them stay idle
ASKING: Final = 32


class Connections(Scenario):
    """Does a request cost more among many?"""

    name: ClassVar = "connections"
    title: ClassVar = "CPU time per request with many connections"
    what: ClassVar = (
        f"Keep-alive connections as fast as they go, all of them up to {BUSY:,}; of 10,000, {ASKING} ask and the "
        "others stay open (two descriptors for each busy one would be more than most systems allow)."
    )
    variants: ClassVar = PROGRAMS
    metrics: ClassVar = (*CPU_METRICS, Metric("spans", "spans that arrived per request", ""))
    axis: ClassVar = "connections: "
    curve: ClassVar = True

    def points(self, level: Level) -> Sequence[Point]:
        """By tens."""
        counts = (1, 10, 100, 1_000, 10_000) if level == Level.FULL else (1, 100, 10_000)
        return [Point(f"{count:,}", count) for count in counts]

    def suits(self, variant: Variant, point: Point) -> bool:
        """HAProxy reserves two descriptors for each of its connections before it starts."""
        return super().suits(variant, point) and not (variant.name == "haproxy" and point.value > 9_000)

    def lasts(self, seconds: float, point: Point) -> float:
        """As the saturated load, and opening what stays idle."""
        return LEAD_IN + seconds + 2.5 + point.value / 2_000

    def measure(self, lab: Lab, peer: Peer, variant: Variant, point: Point) -> Reading:
        """A saturated load, beside the idle ones."""
        count = int(point.value)
        if count <= BUSY:
            return saturate(lab, peer, variant, count)
        with held.idle(peer, count - ASKING):
            return saturate(lab, peer, variant, ASKING)


class Churn(Scenario):
    """A connection for each request."""

    name: ClassVar = "churn"
    title: ClassVar = "New connections"
    what: ClassVar = (
        f"{ASKING} clients that say Connection: close with each request, so that each has its own connection."
    )
    variants: ClassVar = PROGRAMS
    metrics: ClassVar = (
        Metric("cpu", "CPU per connection", "us", main=True),
        Metric("user", "of it in user mode", "us"),
        Metric("system", "of it in the kernel", "us"),
        Metric("rate", "connections served", "/s", less_is_better=False),
        Metric("per_core", "one core can pay for", "/s", less_is_better=False),
    )

    def measure(self, lab: Lab, peer: Peer, _variant: Variant, _point: Point) -> Reading:
        """One load."""
        fields = {"Connection": "close"}
        wrk.run(lab, peer.url, ASKING, LEAD_IN, fields)
        before = Watch.begin(lab, peer)
        loaded = wrk.run(lab, peer.url, ASKING, lab.seconds, fields)
        noise = before.noise(lab, peer, loaded.seconds)
        values = before.spent(peer, loaded.requests)
        return Reading(values | {"rate": loaded.rate, "per_core": 1e6 / values["cpu"]}, loaded.errors, noise)


class Tls(Scenario):
    """Handshakes."""

    name: ClassVar = "tls"
    title: ClassVar = "TLS handshakes"
    what: ClassVar = (
        f"{handshakes.CLIENTS} clients that open a TLS connection, ask once and leave: CPU time of the proxy per "
        "connection, its one request included. ECDSA P-256, TLS 1.3; resumed: with the ticket of the connection "
        "before."
    )
    variants: ClassVar = PROGRAMS
    metrics: ClassVar = (
        Metric("per_core", "one core can pay for", "/s", less_is_better=False, main=True),
        Metric("cpu", "CPU per handshake", "us"),
        Metric("user", "of it in user mode", "us"),
        Metric("system", "of it in the kernel", "us"),
        Metric("rate", "handshakes served", "/s", less_is_better=False),
    )

    def points(self, _level: Level) -> Sequence[Point]:
        """Both kinds."""
        return (Point("full"), Point("resumed", 1.0))

    def measure(self, lab: Lab, peer: Peer, _variant: Variant, point: Point) -> Reading:
        """One load; a handshake that was to be resumed and was not is a fault, but for each client's first."""
        resumed = bool(point.value)
        handshakes.run(lab, peer, LEAD_IN, resumed=resumed)
        before = Watch.begin(lab, peer)
        found = handshakes.run(lab, peer, lab.seconds, resumed=resumed)
        noise = before.noise(lab, peer, found.seconds)
        values = before.spent(peer, found.connections)
        values |= {"rate": found.connections / found.seconds, "per_core": 1e6 / values["cpu"]}
        faults = dict(found.errors)
        if resumed and found.resumed < found.connections - handshakes.CLIENTS:
            faults[handshakes.RESUMPTION_LOST] = found.connections - found.resumed
        return Reading(values, faults, noise)


class TlsBulk(Scenario):
    """Bytes over TLS."""

    name: ClassVar = "tls-bulk"
    title: ClassVar = "TLS bulk"
    what: ClassVar = (
        "8 connections over TLS 1.3 (AES-128-GCM) as fast as they go, answers of 1 MiB from a plain upstream."
    )
    variants: ClassVar = PROGRAMS
    metrics: ClassVar = (
        Metric("per_core", "one core can pay for", "MiB/s", less_is_better=False, main=True),
        Metric("cpu", "CPU per MiB", "us"),
        Metric("user", "of it in user mode", "us"),
        Metric("system", "of it in the kernel", "us"),
        Metric("throughput", "moved", "MiB/s", less_is_better=False),
    )

    def measure(self, lab: Lab, peer: Peer, _variant: Variant, _point: Point) -> Reading:
        """One load."""
        path = upstream.file(lab.upstream, MIB)
        options = ("--tls13-ciphers", "TLS_AES_128_GCM_SHA256")
        h2load.run(lab, peer, path, 8, LEAD_IN, tls=True, options=options)
        before = Watch.begin(lab, peer)
        loaded = h2load.run(lab, peer, path, 8, lab.seconds, tls=True, options=options)
        noise = before.noise(lab, peer, loaded.seconds)
        values = before.spent(peer, loaded.data / MIB)
        values |= {"throughput": loaded.data / MIB / loaded.seconds, "per_core": 1e6 / values["cpu"]}
        return Reading(values, loaded.errors, noise)


class WebSocket(Scenario):
    """Messages through a tunnel."""

    name: ClassVar = "websocket"
    title: ClassVar = "WebSocket messages"
    what: ClassVar = (
        f"{ASKING} WebSockets, on each a message to an upstream that echoes, and the next one once it is back: CPU "
        "time of the proxy per message, either way."
    )
    variants: ClassVar = PROGRAMS
    metrics: ClassVar = (
        Metric("cpu", "CPU per message", "us", main=True),
        Metric("user", "of it in user mode", "us"),
        Metric("system", "of it in the kernel", "us"),
        Metric("rate", "messages passed on", "/s", less_is_better=False),
    )
    axis: ClassVar = "message: "

    def points(self, level: Level) -> Sequence[Point]:
        """Small, and not so small."""
        sizes = (64, 4_096, 65_536) if level == Level.FULL else (64, 4_096)
        return [Point(f"{size:,} bytes", size) for size in sizes]

    def place(self, lab: Lab, _point: Point) -> Mapping[str, Any]:
        """In front of the echo, which is started once."""
        if "echo" not in lab.facts:
            (port,) = free_ports(1)
            command = [sys.executable, "-m", "benchmarks.load.websocket", "serve", str(port)]
            process = lab.background("echo", command, cwd=ROOT, cpu=lab.cpus.others)
            process.until_listening(port)
            lab.facts["echo"] = port
        return {"upstream": int(lab.facts["echo"])}

    def warm(self, lab: Lab, peer: Peer, point: Point) -> None:
        """Messages, not requests."""
        websocket.run(lab, peer, LEAD_IN, ASKING, int(point.value))

    def measure(self, lab: Lab, peer: Peer, _variant: Variant, point: Point) -> Reading:
        """One load; the opening handshakes are part of it, and nothing beside the messages."""
        with contextlib.suppress(ValueError):
            websocket.run(lab, peer, LEAD_IN, ASKING, int(point.value))
        before = Watch.begin(lab, peer)
        found = websocket.run(lab, peer, lab.seconds, ASKING, int(point.value))
        noise = before.noise(lab, peer, found.seconds)
        values = before.spent(peer, 2 * found.echoes or 1)
        return Reading(values | {"rate": 2 * found.echoes / found.seconds}, found.errors, noise)
