"""The benchmark's peers: every configuration is one that its own program accepts, and all of them do the same."""

from __future__ import annotations

import dataclasses
import os
import socket
import ssl
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from benchmarks.load import websocket
from benchmarks.measure import certificate
from benchmarks.measure.collector import Sink
from benchmarks.measure.machine import ROOT
from benchmarks.peers import change, nginx, others, spanway
from benchmarks.peers.base import HOST, RULE, Peer, Place, Variant, ask
from benchmarks.peers.catalogue import DIRECT, VARIANTS
from tests.harness import poll
from tests.real.conftest import required
from tests.real.process import Process, free_ports

pytestmark = [pytest.mark.real, pytest.mark.timeout(120)]

PROXIES = [name for name, each in VARIANTS.items() if name not in (DIRECT, "nginx-again") and not each.pure]
PEERS = ["nginx", "haproxy", "envoy", "traefik", "caddy", "spanway"]
TRACED = [name for name in PROXIES if VARIANTS[name].sampled == 1.0]


class Upstream:
    """Keeps every head it reads, with the number of the connection it came on."""

    def __init__(self) -> None:
        self._listener = socket.create_server(("127.0.0.1", 0), backlog=64)
        self.port = int(self._listener.getsockname()[1])
        self.heads: list[tuple[int, dict[str, str]]] = []
        self._open: list[socket.socket] = []
        threading.Thread(target=self._accept, daemon=True).start()

    def _accept(self) -> None:
        while True:
            try:
                connection, _ = self._listener.accept()
            except OSError:
                return
            self._open.append(connection)
            threading.Thread(target=self._serve, args=(connection, len(self._open)), daemon=True).start()

    def _serve(self, connection: socket.socket, number: int) -> None:
        received = b""
        try:
            while more := connection.recv(65536):
                received += more
                while b"\r\n\r\n" in received:
                    head, _, received = received.partition(b"\r\n\r\n")
                    lines = (line.partition(":") for line in head.decode("latin-1").split("\r\n")[1:])
                    self.heads.append((number, {name.lower(): value.strip() for name, _, value in lines}))
                    connection.sendall(b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok")
        except OSError:
            pass

    def close(self) -> None:
        self._listener.shutdown(socket.SHUT_RDWR)
        self._listener.close()
        for connection in self._open:
            connection.close()


@pytest.fixture
def upstream() -> Iterator[Upstream]:
    started = Upstream()
    yield started
    started.close()


@pytest.fixture
def sink(tmp_path: Path) -> Iterator[Sink]:
    started = Sink(tmp_path / "sink", min(os.sched_getaffinity(0)))
    yield started
    started.stop()


@pytest.fixture
def place(tmp_path: Path, sink: Sink, upstream: Upstream) -> Place:
    cpus = ",".join(map(str, sorted(os.sched_getaffinity(0))))
    (tmp_path / "peer").mkdir()
    made = certificate.make(tmp_path / "certificate")
    return Place(tmp_path / "peer", cpus, upstream.port, sink.grpc, sink.http, made)


@pytest.fixture
def start() -> Iterator[Callable[[str, Place], Peer]]:
    running: list[Peer] = []

    def begin(name: str, place: Place) -> Peer:
        if VARIANTS[name].part is not None:
            required(str(VARIANTS[name].part))
        running.append(VARIANTS[name].start(VARIANTS[name], place))
        return running[-1]

    yield begin
    for each in running:
        each.stop()


def check(*command: str | Path, environ: dict[str, str] | None = None) -> None:
    done = subprocess.run(list(map(str, command)), capture_output=True, text=True, timeout=60, check=False, env=environ)
    assert done.returncode == 0, done.stdout + done.stderr


def variants(prefix: str) -> list[Variant]:
    return [each for name, each in VARIANTS.items() if name.startswith(prefix)]


def test_nginx_accepts_its_configuration(place: Place) -> None:
    program = required("nginx")
    for rules, ingresses in ((1, 0), (1000, 0), (1, 50)):
        http = nginx.configuration(dataclasses.replace(place, rules=rules, ingresses=ingresses), 1, 2)
        path = place.folder / "nginx.conf"
        path.write_text(f"pid {place.folder}/pid; error_log stderr; events {{}} http {{ {http} }}")
        check(program, "-t", "-q", "-e", "stderr", "-p", place.folder, "-c", path)


def test_haproxy_accepts_its_configuration(place: Place) -> None:
    program = required("haproxy")
    path = place.folder / "haproxy.cfg"
    path.write_text(nginx.haproxy_configuration(place, 1, 2))
    check(program, "-c", "-q", "-f", path)


@pytest.mark.parametrize("variant", variants("envoy"), ids=lambda each: each.name)
def test_envoy_accepts_its_configuration(place: Place, variant: Variant) -> None:
    program = required("envoy")
    check(program, "--mode", "validate", "-c", others.envoy_configuration(variant, place, 1, 2), "--log-level", "error")


@pytest.mark.parametrize("variant", variants("caddy"), ids=lambda each: each.name)
def test_caddy_accepts_its_configuration(place: Place, variant: Variant) -> None:
    program = required("caddy")
    path = others.caddy_configuration(variant, place, 18001, 18002)
    environ = {**os.environ, "HOME": str(place.folder), "XDG_DATA_HOME": str(place.folder)}
    check(program, "validate", "--adapter", "caddyfile", "--config", path, environ=environ)


def test_spanway_accepts_its_manifests(place: Place) -> None:
    folder = spanway.manifests(dataclasses.replace(place, rules=250, ingresses=30))
    check(sys.executable, "-m", "proxy", "check", folder)


@pytest.mark.parametrize("name", PROXIES)
def test_every_peer_does_the_same(
    start: Callable[[str, Place], Peer], place: Place, upstream: Upstream, name: str
) -> None:
    """The Host as it came, the client's address and scheme forwarded, connections to the upstream kept, TLS 1.3."""
    peer = start(name, place)
    upstream.heads.clear()
    assert [ask(peer.address) for _ in range(5)] == [b"ok"] * 5
    connections = {number for number, _ in upstream.heads}
    assert len(connections) == 1
    for _, head in upstream.heads:
        assert head["host"] == HOST
        assert head["x-forwarded-for"]  # Envoy writes its own address for a client on loopback
        assert head["x-forwarded-proto"] == "http"
        assert "traceparent" in head or not VARIANTS[name].traced
    context = ssl.create_default_context(cafile=place.certificate.authority)
    with (
        socket.create_connection(("127.0.0.1", peer.tls_port), timeout=10) as plain,
        context.wrap_socket(plain, server_hostname=HOST) as secure,
    ):
        assert secure.version() == "TLSv1.3"
        secure.sendall(f"GET / HTTP/1.1\r\nHost: {HOST}\r\nConnection: close\r\n\r\n".encode())
        assert secure.recv(65536).startswith(b"HTTP/1.1 200 ")
    assert upstream.heads[-1][1]["x-forwarded-proto"] == "https"


@pytest.mark.parametrize("name", TRACED)
def test_every_traced_peer_makes_the_spans_it_is_said_to(
    start: Callable[[str, Place], Peer], place: Place, upstream: Upstream, sink: Sink, name: str
) -> None:
    peer = start(name, place)
    for _ in range(10):
        ask(peer.address)
    expected = VARIANTS[name].spans * len(upstream.heads)
    poll.until(lambda: sink.received().spans >= expected, f"{expected} spans", timeout=20)
    received = sink.received()
    if name.startswith("spanway"):  # which traces the making of its table too
        assert received.spans <= expected + 12
    elif name != "traefik-traced":  # which also traces what it answers with 404 until it has read its routes
        assert received.spans == expected
    assert received.bytes > 50 * received.spans


@pytest.mark.parametrize("name", PEERS)
def test_every_peer_passes_websockets_on(
    start: Callable[[str, Place], Peer], place: Place, tmp_path: Path, name: str
) -> None:
    (port,) = free_ports(1)
    command = [sys.executable, "-m", "benchmarks.load.websocket", "serve", str(port)]
    with Process("echo", command, tmp_path / "echo.log", cwd=ROOT) as echo:
        echo.until_listening(port)
        peer = start(name, dataclasses.replace(place, upstream=port))
        found = websocket.ask(peer.port, 0.3, 2, 100, HOST)
    assert found.errors == {}
    assert found.connections == 2
    assert found.echoes > 2


@pytest.mark.parametrize("name", ["nginx", "spanway"])
def test_rules_and_changes_are_routed(start: Callable[[str, Place], Peer], place: Place, name: str) -> None:
    peer = start(name, dataclasses.replace(place, rules=250, ingresses=30))
    for team, services in nginx.spread(250):
        assert ask(peer.address, RULE % (team, services[0]) + "items", f"team-{team}.{HOST}") == b"ok"
    assert ask(peer.address, host=f"app-29.{HOST}") == b"ok"

    def served(number: int) -> bool:
        try:
            return ask(peer.address, change.PATH % number, change.HOST) == b"ok"
        except (AssertionError, OSError):
            return False

    assert served(0)
    assert not served(7)
    change.write(peer, 7)
    poll.until(lambda: served(7), "the change", timeout=20)
    poll.until(lambda: not served(0), "nginx's old worker to be gone", timeout=20)
