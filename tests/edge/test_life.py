"""Workers, drain, and configuration that changes while traffic flows."""

from __future__ import annotations

import os
import signal
import socket
import ssl
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import psutil
import pytest

from tests.harness import poll
from tests.harness.certificates import Certificate, any_server, served
from tests.harness.client import Client
from tests.harness.collector import SERVER, Collector
from tests.harness.edge import Edge, request, sized
from tests.harness.manifests import documents, secret, site
from tests.harness.proxy import REQUESTS, Proxy
from tests.harness.traced import Traced
from tests.harness.upstream import Exchange, Recorder

OK = b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok"


@pytest.fixture
def collector() -> Iterator[Collector]:
    collector = Collector()
    yield collector
    collector.stop()


@pytest.fixture
def start(tmp_path: Path, collector: Collector) -> Iterator[Callable[..., Edge]]:
    """Start a proxy for one test."""
    started: list[Edge] = []

    def launch(*arguments: str, **options: Any) -> Edge:
        started.append(Edge(tmp_path / f"proxy{len(started)}", *arguments, collector=collector, **options))
        return started[-1]

    yield launch
    for edge in started:
        edge.stop()


class Held:
    """A script that answers only once it is released."""

    def __init__(self) -> None:
        self.release = threading.Event()

    def __call__(self, exchange: Exchange) -> None:
        exchange.read_body()
        exchange.hold(self.release)
        exchange.send(OK)


# Workers.


def alive(client: Client) -> bool:
    """Whether a keep-alive connection still answers."""
    try:
        return client.ask(request()).status == 200
    except (AssertionError, OSError):
        return False


def test_killed_worker_is_replaced_and_the_others_never_notice(start: Callable[..., Edge]) -> None:
    edge = start(workers=2)
    before = edge.proxy.workers()
    assert len(before) == 2
    clients = [edge.client() for _ in range(32)]
    try:
        assert all(alive(client) for client in clients)
        os.kill(before[0], signal.SIGKILL)
        poll.until(lambda: before[0] not in edge.proxy.workers(), "the worker's death")
        for _ in range(20):
            edge.probe()  # whichever worker the kernel chooses
        survivors = [client for client in clients if alive(client)]
        assert survivors, "the other worker's connections broke too"
        assert len(survivors) < len(clients), "the kernel gave one worker everything; 2^-31"
        poll.until(lambda: len(edge.proxy.workers()) == 2, "the new worker")
        assert before[1] in edge.proxy.workers()
        poll.until(lambda: edge.proxy.admin("/readyz")[0] == 200, "/readyz")
        for _ in range(20):
            edge.probe()
        assert all(alive(client) for client in survivors)
        assert edge.proxy.metrics().total("spanway_worker_exits_total") == 1
    finally:
        for client in clients:
            client.close()


def test_every_worker_serves_and_counts(start: Callable[..., Edge]) -> None:
    edge = start(workers=2)
    for _ in range(40):
        edge.probe()
    assert edge.proxy.metrics().total(REQUESTS) == 40
    poll.until(lambda: len(edge.proxy.log()) == 40, "40 log records")
    assert edge.collector is not None
    spans = edge.collector.wait(lambda span: span.kind == SERVER, 40)
    assert len({span.resource["service.instance.id"] for span in spans if "service.instance.id" in span.resource}) != 1


def test_a_worker_killed_in_the_middle_loses_only_its_own(start: Callable[..., Edge]) -> None:
    edge = start(workers=2)
    held = Held()
    edge.a.script = held
    clients = [edge.client() for _ in range(16)]
    try:
        for client in clients:
            client.send(request())
        edge.a.wait(16)
        os.kill(edge.proxy.workers()[0], signal.SIGKILL)
        held.release.set()
        answered = 0
        for client in clients:
            try:
                answered += client.response().status == 200
            except AssertionError:
                assert client.stream.eof
        assert 0 < answered < 16
    finally:
        for client in clients:
            client.close()


# Drain.


def refused_or_closed(proxy: Proxy) -> bool:
    """Whether a new connection is no longer served."""
    try:
        with proxy.client(timeout=2) as client:
            client.send(request())
            return client.closed()
    except (OSError, AssertionError):
        return True


@pytest.mark.parametrize("workers", [1, 2])
def test_sigterm_drains(start: Callable[..., Edge], workers: int) -> None:
    edge = start(workers=workers)
    held = Held()
    edge.a.script = held
    traced = Traced(edge.collector)
    idle = edge.client()
    assert idle.ask(request(host="b.test")).status == 200
    with edge.client() as client:
        client.send(sized(b"hello", traced.line))
        edge.a.wait(1)
        edge.proxy.terminate()
        poll.until(lambda: edge.proxy.admin("/readyz")[0] == 503, "/readyz to say not ready")
        poll.until(lambda: refused_or_closed(edge.proxy), "new connections to be turned away")
        assert edge.proxy.process.poll() is None, "it ended with a request in flight"
        held.release.set()
        response = client.response("POST")
        assert (response.status, response.body) == (200, b"ok")
        assert client.closed()
    assert idle.closed()
    idle.close()
    assert edge.proxy.wait() == 0
    server = traced.server()  # flushed
    assert server.attributes["http.response.status_code"] == 200
    assert traced.trace_id in {record["trace_id"] for record in edge.proxy.log()}


def test_drain_finishes_an_upload_and_a_download(start: Callable[..., Edge]) -> None:
    edge = start()
    begun, go_on = threading.Event(), threading.Event()

    def script(exchange: Exchange) -> None:
        exchange.send(b"HTTP/1.1 200 OK\r\nContent-Length: 10\r\n\r\nhello")
        begun.set()
        exchange.hold(go_on)
        exchange.send(b"world")

    edge.b.script = script
    with edge.client() as up, edge.client() as down:
        up.send(request("Content-Length: 10", method="POST", body=b"hello"))
        down.send(request(host="b.test"))
        edge.a.wait(1)
        assert begun.wait(5)
        edge.proxy.terminate()
        poll.until(lambda: edge.proxy.admin("/readyz")[0] == 503, "/readyz to say not ready")
        up.send(b"world")
        assert up.response().status == 200
        go_on.set()
        assert down.response().body == b"helloworld"
    assert edge.a.one().body == b"helloworld"
    assert edge.proxy.wait() == 0


def test_drain_is_bounded(start: Callable[..., Edge]) -> None:
    edge = start(settings={"timeouts.drain": 1})
    edge.a.script = Held()
    with edge.client() as client:
        client.send(request())
        edge.a.wait(1)
        edge.proxy.terminate()
        edge.proxy.wait(15)
        assert client.stream.rest()[:12] in (b"", b"HTTP/1.1 503")


def test_drain_of_an_idle_proxy_is_quick_and_leaves_no_process(start: Callable[..., Edge]) -> None:
    edge = start(workers=2)
    edge.probe()
    family = psutil.Process(edge.proxy.process.pid).children(recursive=True)
    edge.proxy.terminate()
    assert edge.proxy.wait(10) == 0
    assert not [child for child in psutil.wait_procs(family, timeout=2)[1] if child.status() != psutil.STATUS_ZOMBIE]


def test_sigint_ends_too(start: Callable[..., Edge]) -> None:
    edge = start()
    edge.probe()
    edge.proxy.process.send_signal(signal.SIGINT)
    assert edge.proxy.wait(10) == 0
    assert "Traceback" not in edge.proxy.said()


# Configuration.


def applied(edge: Edge, before: int) -> None:
    poll.until(lambda: edge.proxy.generation() > before, "the next generation")
    poll.until(lambda: edge.proxy.admin("/readyz")[0] == 200, "/readyz")


@pytest.mark.parametrize("workers", [1, 2])
def test_change_applies_without_dropping_a_connection(start: Callable[..., Edge], workers: int) -> None:
    edge = start(workers=workers)
    held = Held()
    edge.a.script = held
    with edge.client() as busy, edge.client() as idle:
        assert idle.ask(request(host="b.test")).status == 200
        busy.send(request(target="/inflight"))
        edge.a.wait(1)
        generation = edge.proxy.generation()
        # a.test moves to b, and a loses every route: its request in flight goes on all the same.
        edge.proxy.write("site.yaml", documents(*site("a", [edge.b.port]), *site("new", [edge.b.port])))
        applied(edge, generation)
        poll.until(lambda: alive_at(edge, "new.test"), "the new route")
        held.release.set()
        assert busy.response().status == 200
        assert busy.ask(request(target="/after")).status == 200
        assert idle.ask(request(host="new.test", target="/idle")).status == 200
        assert idle.ask(request(host="b.test")).status == 404
    assert [seen.target for seen in edge.a.requests] == ["/inflight"]
    assert {"/after", "/idle"} <= {seen.target for seen in edge.b.requests}


def alive_at(edge: Edge, host: str) -> bool:
    with edge.client() as client:
        return client.ask(request(host=host)).status == 200


def test_no_request_fails_while_the_table_changes(start: Callable[..., Edge]) -> None:
    edge = start()
    stop, statuses = threading.Event(), []

    def traffic() -> None:
        with edge.client() as client:
            while not stop.is_set():
                statuses.append(client.ask(request()).status)

    sender = threading.Thread(target=traffic)
    sender.start()
    try:
        for turn in range(5):
            generation = edge.proxy.generation()
            ports = [edge.a.port, edge.b.port][: 1 + turn % 2]
            edge.proxy.write("site.yaml", documents(*site("a", ports), *site(f"turn{turn}", [edge.b.port])))
            applied(edge, generation)
    finally:
        stop.set()
        sender.join()
    assert set(statuses) == {200}
    assert len(statuses) > 10


def test_a_file_more_and_a_file_less(start: Callable[..., Edge]) -> None:
    edge = start()
    generation = edge.proxy.generation()
    edge.proxy.write("more.yaml", documents(*site("more", [edge.b.port])))
    applied(edge, generation)
    assert alive_at(edge, "more.test")
    generation = edge.proxy.generation()
    (edge.proxy.manifests / "more.yaml").unlink()
    applied(edge, generation)
    assert not alive_at(edge, "more.test")
    edge.probe()


BROKEN = {
    "not-yaml": "apiVersion: v1\nkind: Service\n  bad: [indent\n",
    "half-a-file": documents(*site("a", [1]))[:300],
    "tabs": "a:\n\t- b\n",
    "binary": "\x00\x01\x02",
}


@pytest.mark.parametrize("text", BROKEN.values(), ids=BROKEN)
def test_broken_manifest_keeps_the_last_good_table(start: Callable[..., Edge], text: str) -> None:
    edge = start()
    edge.proxy.write("site.yaml", text)
    # It says so, with the file, on standard error and on /routes.
    poll.until(lambda: "site.yaml" in edge.proxy.said(), "a word about site.yaml on standard error")
    problems = poll.until(lambda: edge.proxy.admin_json("/routes")["problems"], "a problem on /routes")
    assert any("site.yaml" in str(problem) for problem in problems)
    edge.probe()
    assert edge.proxy.admin("/readyz")[0] == 200
    # And heals.
    generation = edge.proxy.generation()
    edge.proxy.write("site.yaml", documents(*edge.site, *site("healed", [edge.b.port])))
    applied(edge, generation)
    assert alive_at(edge, "healed.test")
    assert not [
        item
        for item in edge.proxy.admin_json("/routes")["problems"]
        if "yaml" in str(item).lower() and item.get("severity") == "error"
    ]


def test_broken_file_beside_a_good_one(start: Callable[..., Edge]) -> None:
    edge = start()
    edge.proxy.write("other.yaml", "kind: [\n")
    poll.until(lambda: "other.yaml" in edge.proxy.said(), "a word about other.yaml")
    generation = edge.proxy.generation()
    edge.proxy.write("site.yaml", documents(*edge.site, *site("more", [edge.b.port])))
    poll.until(lambda: edge.proxy.generation() > generation or alive_at(edge, "more.test"), "the good file's change")
    edge.probe()


def test_invalid_object_is_named(start: Callable[..., Edge]) -> None:
    edge = start()
    bad = site("wrong", [edge.b.port])
    bad[-1]["spec"]["rules"][0]["http"]["paths"][0]["pathType"] = "Sideways"
    generation = edge.proxy.generation()
    edge.proxy.write("wrong.yaml", documents(*bad))
    poll.until(lambda: "wrong" in edge.proxy.said(), "a word about the object")
    problems = poll.until(lambda: edge.proxy.admin_json("/routes")["problems"], "a problem on /routes")
    assert any("wrong" in str(item) and "pathType" in str(item) for item in problems)
    edge.probe()
    assert not alive_at(edge, "wrong.test")
    assert edge.proxy.generation() >= generation


# TLS.


@pytest.fixture(scope="module")
def certificates() -> dict[str, Certificate]:
    names = {
        "exact": "tls.test",
        "wild": "*.tls.test",
        "other": "other.test",
        "new": "tls.test",
        "deep": "deep.tls.test",
    }
    return {key: Certificate(name) for key, name in names.items()}


def tls_site(edge: Edge, certificates: dict[str, Certificate], exact: str = "exact") -> str:
    def keep(name: str, certificate: Certificate) -> dict[str, object]:
        return secret(name, certificate.pem, certificate.key)

    port = [edge.a.port]
    return documents(
        *edge.site,
        *site("tls", port, secret="exact"),
        *site("wildtls", port, host="*.tls.test", secret="wild"),
        *site("deeptls", port, host="deep.tls.test", secret="deep"),
        keep("exact", certificates[exact]),
        keep("wild", certificates["wild"]),
        keep("deep", certificates["deep"]),
    )


@pytest.fixture
def secure(start: Callable[..., Edge], certificates: dict[str, Certificate]) -> Edge:
    edge = start(https=True)
    generation = edge.proxy.generation()
    edge.proxy.write("site.yaml", tls_site(edge, certificates))
    applied(edge, generation)
    return edge


def shown(edge: Edge, name: str | None) -> bytes:
    """The certificate a client asking for ``name`` gets."""
    with Client(edge.proxy.tls_address, tls=any_server(), server_name=name) as client:
        return served(client.socket)


def test_certificate_by_name(secure: Edge, certificates: dict[str, Certificate]) -> None:
    assert shown(secure, "tls.test") == certificates["exact"].der
    assert shown(secure, "TLS.test") == certificates["exact"].der
    assert shown(secure, "x.tls.test") == certificates["wild"].der
    assert shown(secure, "deep.tls.test") == certificates["deep"].der, "exact before wildcard"
    known = {certificate.der for certificate in certificates.values()}
    assert shown(secure, "x.y.tls.test") not in known, "a wildcard is one label"
    assert shown(secure, "unknown.test") not in known
    shown(secure, None)  # a client without SNI gets some certificate


def test_certificate_change_is_live(secure: Edge, certificates: dict[str, Certificate]) -> None:
    with Client(secure.proxy.tls_address, tls=any_server(), server_name="tls.test") as client:
        assert client.ask(request(host="tls.test")).status == 200
        secure.proxy.write("site.yaml", tls_site(secure, certificates, "new"))
        poll.until(lambda: shown(secure, "tls.test") == certificates["new"].der, "the new certificate")
        assert client.ask(request(host="tls.test")).status == 200, "the old connection was dropped"
        assert served(client.socket) == certificates["exact"].der


def test_broken_certificate_keeps_the_old(secure: Edge, certificates: dict[str, Certificate]) -> None:
    text = tls_site(secure, certificates)
    bad = certificates["new"]
    wrong = documents(secret("exact", bad.pem, certificates["other"].key))  # a key that does not fit
    parts = [part for part in text.split("---\n") if part and '"name": "exact"' not in part]
    secure.proxy.write("site.yaml", "".join(f"---\n{part}" for part in parts) + wrong)
    poll.until(lambda: "exact" in secure.proxy.said(), "a word about the Secret")
    assert shown(secure, "tls.test") != bad.der
    assert "PRIVATE" not in secure.proxy.said()
    with Client(secure.proxy.tls_address, tls=any_server(), server_name="x.tls.test") as client:
        assert client.ask(request(host="x.tls.test")).status == 200


@pytest.mark.parametrize("version", [ssl.TLSVersion.TLSv1_2, ssl.TLSVersion.TLSv1_3])
def test_tls_versions(secure: Edge, version: ssl.TLSVersion) -> None:
    context = any_server()
    context.minimum_version = context.maximum_version = version
    context.set_alpn_protocols(["h2", "http/1.1"])
    with Client(secure.proxy.tls_address, tls=context, server_name="tls.test") as client:
        assert isinstance(client.socket, ssl.SSLSocket)
        assert client.socket.selected_alpn_protocol() == "http/1.1"
        assert client.ask(sized(b"hello", host="tls.test")).status == 200
        assert client.ask(request(host="tls.test")).status == 200


def test_plain_http_to_the_tls_listener(secure: Edge) -> None:
    with Client(secure.proxy.tls_address) as client:
        client.send(request(host="tls.test"))
        client.stream.rest()  # whatever it says, it ends
    with Client(secure.proxy.tls_address, tls=any_server(), server_name="tls.test") as client:
        assert client.ask(request(host="tls.test")).status == 200


def test_client_that_breaks_off_the_handshake(secure: Edge) -> None:
    for said in (b"", b"\x16\x03\x01\x02\x00\x01", b"\x16\x03\x01\xff\xff" + b"x" * 100, b"\x80" * 50):
        with socket.create_connection(secure.proxy.tls_address) as raw:
            raw.sendall(said)
    with Client(secure.proxy.tls_address, tls=any_server(), server_name="tls.test") as client:
        assert client.ask(request(host="tls.test")).status == 200
    assert "Traceback" not in secure.proxy.said()


# Start.


def test_starts_with_nothing_to_serve(start: Callable[..., Edge], tmp_path: Path) -> None:
    with Proxy(tmp_path / "empty", {}) as proxy, proxy.client() as client:
        assert client.ask(request()).status == 404


def test_upstream_override(tmp_path: Path) -> None:
    recorder = Recorder()
    try:
        text = documents(*site("over", [1]))
        with (
            Proxy(tmp_path / "over", text, "--upstream", f"default/over:80=127.0.0.1:{recorder.port}") as proxy,
            proxy.client() as client,
        ):
            assert client.ask(request(host="over.test")).status == 200
        assert recorder.one().host == "over.test"
    finally:
        recorder.stop()
