"""Spanway as anyone starts it, with its exporter's defaults; the variants differ in their sampler only."""

from __future__ import annotations

import base64
import functools
import json
import os
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Final

from benchmarks.measure.machine import ROOT, Unfit
from benchmarks.peers import change
from benchmarks.peers.base import CONNECTIONS, HOST, RULE, Peer, Place, Variant, ready, text, write
from benchmarks.peers.nginx import spread
from tests.real.process import Process, ProcessFailed, free_ports

START: Final = 120.0  # seconds until ready: with 100,000 rules it has much to read


def start(variant: Variant, place: Place) -> Peer:
    """Spanway with ``place.workers`` workers, exporting over OTLP/HTTP what its sampler takes."""
    port, tls_port, admin = free_ports(3)
    command = [sys.executable, "-m", "proxy", "serve", "--ingress", str(manifests(place))]
    command += ["--upstream", f"bench={place.host}:{place.upstream}", "--workers", str(place.workers)]
    command += ["--http", f"127.0.0.1:{port}", "--https", f"127.0.0.1:{tls_port}", "--admin", f"127.0.0.1:{admin}"]
    command += ["--access-log", "off", "--otlp", place.http, "--otlp-protocol", "http/protobuf"]
    command += ["--wire", place.wire or "off"]
    settings = environ(variant) | ({"SPANWAY_WIRE_RATE": str(place.rate)} if place.rate else {})
    process = Process(variant.name, command, place.folder / "output.log", environ=settings, cwd=ROOT, cpu=place.cpus)
    try:
        process.expect(r"^spanway: ready", within=START)
        return ready(Peer(variant.name, process, port, tls_port, place.folder), checked=place.checked)
    except ProcessFailed as error:
        process.stop()
        raise Unfit(f"{variant.name} does not serve: {error}") from error
    except BaseException:
        process.stop()
        raise


def environ(variant: Variant) -> dict[str, str]:
    """The variables it is started with: the sampler, and whether compiled code is to be left out."""
    inherited = {key: value for key, value in os.environ.items() if not key.startswith(("OTEL_", "SPANWAY_"))}
    sampler, argument = {
        None: ("always_off", "0"),
        0.0: ("always_off", "0"),
        1.0: ("parentbased_always_on", "1"),
    }.get(variant.sampled, ("parentbased_traceidratio", str(variant.sampled)))
    most = str(CONNECTIONS)  # as nginx's worker_connections here: both sides
    inherited |= {"SPANWAY_UPSTREAM_CONNECTIONS": most, "SPANWAY_LIMITS_CONNECTIONS": most}
    inherited |= {"PYTHONUNBUFFERED": "1", "OTEL_TRACES_SAMPLER": sampler, "OTEL_TRACES_SAMPLER_ARG": argument}
    return inherited | ({"SPANWAY_PURE": "1"} if variant.pure else {})


def manifests(place: Place) -> Path:
    """The directory of its manifests: the one Ingress of all measurements, its certificate, and the many rules."""
    folder = place.folder / "manifests"
    folder.mkdir(parents=True, exist_ok=True)
    write(place, "manifests/bench.yaml", text("ingress.yaml"))
    pair = {"tls.crt": place.certificate.chain, "tls.key": place.certificate.key}
    data = {name: base64.b64encode(path.read_bytes()).decode() for name, path in pair.items()}
    secret = {"apiVersion": "v1", "kind": "Secret", "type": "kubernetes.io/tls", "data": data}
    (folder / "secret.json").write_text(json.dumps(secret | {"metadata": {"name": "bench", "namespace": "default"}}))
    if place.rules > 1:
        for team, services in spread(place.rules):
            paths = [RULE % (team, service) for service in services]
            made = change.ingress(f"team-{team}", f"team-{team}.{HOST}", paths)
            write(place, f"manifests/team-{team}.json", json.dumps(made))
    for number, content in enumerate(change.many(place.ingresses)):
        write(place, f"manifests/many-{number}.json", content)
    if place.ingresses:
        changing = change.ingress(change.FILE, change.HOST, [change.PATH % 0])
        write(place, f"manifests/{change.FILE}.json", json.dumps(changing))
    return folder


def compiled() -> bool:
    """Whether this checkout has compiled code beside the pure twin."""
    return version().endswith("(compiled)")


@functools.cache
def version() -> str:
    """What it says of itself when nothing forces the twin."""
    return _version({})


def _version(more: Mapping[str, str]) -> str:
    plain = {key: value for key, value in os.environ.items() if not key.startswith("SPANWAY_")}
    command = [sys.executable, "-m", "proxy", "--version"]
    done = subprocess.run(command, cwd=ROOT, env=plain | dict(more), capture_output=True, text=True, check=False)
    return " ".join(done.stdout.split())
