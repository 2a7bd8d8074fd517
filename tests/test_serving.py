"""A worker process's life, played in this process: orders come over a real channel, requests over real sockets."""

from __future__ import annotations

import asyncio
import contextlib
import os
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Coroutine
from pathlib import Path
from typing import Any

import pytest
import uvloop

from proxy.channel import (
    Applied,
    AskBatches,
    AskSample,
    Batches,
    Channel,
    Commit,
    Drain,
    Prepare,
    Prepared,
    Sampled,
    encoded,
)
from proxy.errors import SettingsError
from proxy.route.change import TableChange, whole
from proxy.route.spec import TableSpec
from proxy.serving import RESTART, Serving
from proxy.settings import Settings, Timeouts, Tracing
from proxy.workers import Slot
from tests.harness.proxy import ROOT
from tests.rig import free_port, table

SETTINGS = Settings(access_log="off", timeouts=Timeouts(drain=5.0), tracing=Tracing(endpoint="none"))
ASK = b"GET /x HTTP/1.1\r\nHost: a.test\r\n\r\n"


class Stage:
    """A worker on the loop of the test, and the supervisor's end of its channel."""

    def __init__(self, channel: Channel, task: asyncio.Task[int], port: int) -> None:
        self.channel = channel
        self.task = task
        self.port = port
        self._number = 0

    async def order(self, kind: Callable[..., Any], *values: Any) -> Any:
        self._number += 1
        self.channel.send(kind(self._number, *values))
        report = await asyncio.wait_for(self.channel.report(), 20)
        assert report.id == self._number
        return report

    async def prepare(self, spec: TableSpec | TableChange) -> Prepared:
        change = whole(spec) if isinstance(spec, TableSpec) else spec
        report = await self.order(Prepare, *encoded(change))
        assert isinstance(report, Prepared)
        return report

    async def apply(self, spec: TableSpec | TableChange) -> Applied:
        assert (await self.prepare(spec)).error == ""
        report = await self.order(Commit)
        assert isinstance(report, Applied)
        return report

    async def ask(self, data: bytes = ASK) -> bytes:
        reader, writer = await asyncio.open_connection("127.0.0.1", self.port)
        writer.write(data)
        try:
            head = await asyncio.wait_for(reader.readuntil(b"\r\n\r\n"), 20)
        finally:
            writer.close()
        return head


def play(test: Callable[[Stage], Coroutine[Any, Any, None]], settings: Settings = SETTINGS) -> int:
    """Run a worker and ``test`` beside it; returns the worker's exit status."""

    async def main() -> int:
        sock = socket.create_server(("127.0.0.1", 0))
        near, far = socket.socketpair()
        sock.setblocking(False)
        slot = Slot(0, [sock], [])
        channel = await Channel.open(near)
        task = asyncio.ensure_future(Serving(settings, slot, None).run(far))
        with sock, far:
            made = Stage(channel, task, sock.getsockname()[1])
            await test(made)
            channel.close()  # the supervisor is gone: so goes the worker
            return await asyncio.wait_for(task, 30)

    return uvloop.run(main())


def one_port() -> Any:
    return table(1, address="127.0.0.1", ports=(free_port(),))


def test_no_request_is_taken_before_there_is_a_table() -> None:
    async def story(s: Stage) -> None:
        asking = asyncio.ensure_future(s.ask())
        await asyncio.sleep(0.1)
        assert not asking.done()
        assert (await s.prepare(one_port())).generation == 1
        await asyncio.sleep(0.05)
        assert not asking.done(), "prepared is not served"
        applied = await s.order(Commit)
        assert (applied.generation, abs(time.time_ns() - applied.at_ns) < 10**10) == (1, True)
        assert (await asking).startswith(b"HTTP/1.1 502 ")

    assert play(story) == 0


def test_a_refused_table_is_reported_and_the_old_one_served() -> None:
    async def story(s: Stage) -> None:
        await s.apply(one_port())
        report = await s.prepare(TableSpec(2, table(2).routes))
        assert report.generation == 1
        assert "default/web:80" in report.error
        assert (await s.ask()).startswith(b"HTTP/1.1 502 ")
        assert (await s.order(Commit)).generation == 1, "there is nothing to commit"
        report = await s.prepare(TableChange(9, 8))
        assert "a change of generation 8, but 1 is served" in report.error
        assert (await s.apply(TableChange(2, 1))).generation == 2
        assert (await s.ask()).startswith(b"HTTP/1.1 502 ")

    assert play(story) == 0


def test_counters_and_spans_are_told() -> None:
    async def story(s: Stage) -> None:
        await s.apply(one_port())
        await s.ask()
        report = await s.order(AskSample)
        assert isinstance(report, Sampled)
        sample = report.sample
        assert (sample.pid, sample.generation, sample.connections_total) == (os.getpid(), 1, 1)
        assert sample.memory > 1_000_000
        (route,) = [route for route in sample.routes if route.namespace]
        assert route.statuses == {502: 1}
        assert [(each.backend, each.errors) for each in sample.endpoints] == [("default/web:80", 3)]
        assert sample.endpoints[0].in_flight == sample.endpoints[0].connections == 0
        batches = await s.order(AskBatches, 0)
        assert isinstance(batches, Batches)
        assert len(batches.batches) == 1
        assert b"connect_failed" in batches.batches[0]
        assert (await s.order(AskBatches, batches.cursor)).batches == []

    assert play(story) == 0


def test_drain_lets_the_busy_finish_and_closes_the_door() -> None:
    async def story(s: Stage) -> None:
        with socket.create_server(("127.0.0.1", 0)) as upstream:
            upstream.setblocking(False)
            await s.apply(table(1, address="127.0.0.1", ports=(upstream.getsockname()[1],)))
            idle_reader, idle_writer = await asyncio.open_connection("127.0.0.1", s.port)
            asking = asyncio.ensure_future(s.ask())
            far, _ = await asyncio.get_running_loop().sock_accept(upstream)
            s.channel.send(Drain())
            assert await asyncio.wait_for(idle_reader.read(), 20) == b""
            idle_writer.close()
            with pytest.raises(ConnectionRefusedError):
                await asyncio.open_connection("127.0.0.1", s.port)
            assert not s.task.done()
            with far:
                await asyncio.get_running_loop().sock_sendall(far, b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n")
                assert b"Connection: close" in await asking

    assert play(story) == 0


def test_drain_is_bounded() -> None:
    async def story(s: Stage) -> None:
        with socket.create_server(("127.0.0.1", 0)) as upstream:
            await s.apply(table(1, address="127.0.0.1", ports=(upstream.getsockname()[1],)))
            asking = asyncio.ensure_future(s.ask())
            await asyncio.sleep(0.1)
            s.channel.send(Drain())
            with contextlib.suppress(asyncio.IncompleteReadError, ConnectionError):
                await asking

    assert play(story, SETTINGS.replace(timeouts=Timeouts(drain=0.2))) == 0


def test_told_alone_it_goes_and_another_may_come() -> None:
    async def story(s: Stage) -> None:
        await s.apply(one_port())
        os.kill(os.getpid(), 15)
        assert await asyncio.wait_for(asyncio.shield(s.task), 20) == RESTART

    assert play(story) == RESTART


def test_an_access_log_that_cannot_be_opened(tmp_path: Path) -> None:
    async def story(s: Stage) -> None:
        await asyncio.sleep(0.05)

    with pytest.raises(SettingsError, match="No such file or directory"):
        play(story, SETTINGS.replace(access_log=str(tmp_path / "missing" / "log")))


@pytest.mark.parametrize("workers", [1, 3])
def test_settings_that_cannot_work_end_with_one_clear_line(tmp_path: Path, workers: int) -> None:
    manifest = tmp_path / "site.yaml"
    manifest.write_text("{}\n")
    path = tmp_path / "missing" / "log"
    command = [
        sys.executable,
        "-m",
        "proxy",
        "serve",
        "--http",
        "127.0.0.1:0",
        "--admin",
        "off",
        "--ingress",
        str(manifest),
    ]
    done = subprocess.run(
        [*command, "--access-log", str(path), "--workers", str(workers)],
        cwd=ROOT,
        capture_output=True,
        text=True,
        timeout=40,
    )
    assert done.returncode == 2
    errors = {line for line in done.stderr.splitlines() if "error" in line}
    why = "No such file or directory; name another file with --access-log"
    assert errors == {f"spanway: error: the access log {path} cannot be opened: {why}"}
    assert "Traceback" not in done.stderr


def test_a_port_in_use_ends_with_one_clear_line(tmp_path: Path) -> None:
    manifest = tmp_path / "site.yaml"
    manifest.write_text("{}\n")
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        command = [sys.executable, "-m", "proxy", "serve", "--http", f"127.0.0.1:{port}", "--admin", "off"]
        done = subprocess.run(
            [*command, "--ingress", str(manifest)], cwd=ROOT, capture_output=True, text=True, timeout=40
        )
    assert done.returncode == 2
    assert f"cannot listen on 127.0.0.1:{port}: Address already in use" in done.stderr
    assert "Traceback" not in done.stderr
