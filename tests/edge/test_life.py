"""Processes: start, workers that die, drain."""

from __future__ import annotations

import os
import signal
import threading
from collections.abc import Callable
from pathlib import Path

import psutil
import pytest

from proxy import build
from tests.harness import poll
from tests.harness.client import Client
from tests.harness.collector import SERVER
from tests.harness.edge import Edge, request, sized
from tests.harness.manifests import documents, site
from tests.harness.proxy import REQUESTS, Proxy
from tests.harness.traced import Traced
from tests.harness.upstream import Exchange, Held, Recorder

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


@pytest.mark.parametrize("victim", ["parent", "supervisor"])
def test_no_process_outlives_the_proxy(start: Callable[..., Edge], victim: str) -> None:
    edge = start(workers=2)
    family = edge.proxy.family()
    workers = edge.proxy.workers()
    if victim == "parent":
        edge.proxy.process.kill()
    else:
        for child in family:
            if child.pid not in workers:
                child.kill()
    assert edge.proxy.wait(10) != 0
    poll.until(lambda: not [child for child in family if _runs(child)], "every process of it to end")


def _runs(process: psutil.Process) -> bool:
    try:
        return process.status() != psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:
        return False


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
    family = edge.proxy.family()
    edge.proxy.terminate()
    assert edge.proxy.wait(10) == 0
    assert not [child for child in psutil.wait_procs(family, timeout=2)[1] if child.status() != psutil.STATUS_ZOMBIE]


def test_moved_access_log_is_opened_anew(start: Callable[..., Edge]) -> None:
    # logrotate, as with nginx: move, then SIGUSR1.
    edge = start(workers=2)
    edge.probe()
    poll.until(lambda: edge.proxy.log(), "the first record")
    moved = edge.proxy.access_log.with_suffix(".1")
    edge.proxy.access_log.rename(moved)
    edge.proxy.process.send_signal(signal.SIGUSR1)
    poll.until(edge.proxy.access_log.exists, "the new file")
    for _ in range(8):
        edge.probe()
    lines = poll.until(
        lambda: len(edge.proxy.log()) + moved.read_text().count("\n") == 9 and len(edge.proxy.log()), "every record"
    )
    assert lines > 0


def test_sigint_ends_too(start: Callable[..., Edge]) -> None:
    edge = start()
    edge.probe()
    edge.proxy.process.send_signal(signal.SIGINT)
    assert edge.proxy.wait(10) == 0
    assert "Traceback" not in edge.proxy.said()


# Start.


def test_runs_in_the_form_that_is_tested(start: Callable[..., Edge]) -> None:
    edge = start()
    [worker] = edge.proxy.workers()
    mapped = Path(f"/proc/{worker}/maps").read_text()
    assert ("/proxy/exchange." in mapped) == (build() == "compiled")


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
