"""The whole demo with a stand-in for the proxy; tests/real has it with the real one."""

import asyncio
import functools
import io
import os
import re
import signal
import socket
from types import SimpleNamespace
from typing import cast

import pytest
from rich.console import Console

from proxy.admin.live import Live
from proxy.admin.source import Running
from proxy.demo import run as module
from proxy.demo.fleet import Fleet
from proxy.demo.run import MANIFESTS, Story, demo, reachable
from proxy.demo.traffic import Traffic
from proxy.settings import Address, Settings, Tracing
from proxy.trace.ledger import ExportCounters
from tests.admin.samples import worker
from tests.demo import standin

SETTINGS = Settings(http=(Address("127.0.0.1", 0),), admin=Address("127.0.0.1", 0), tracing=Tracing(delay=0.1))


@pytest.fixture
def console():
    return Console(file=io.StringIO(), width=100, no_color=True, highlight=False)


def test_it_shows_whole_traces_and_ends_by_itself(console):
    assert demo(SETTINGS, 6.0, standin.run, console) == 0
    text = console.file.getvalue()
    assert re.search(r"shop.localhost/api/cart +→ 127\.0\.0\.1:\d+", text)
    assert re.search(r"http://shop\.localhost:\d+/products/teapot", text)
    assert re.search(r"http://127\.0\.0\.1:\d+  \(/traces", text)
    assert "or by itself after 6 s" in text
    assert "OTEL_EXPORTER_OTLP_ENDPOINT=" in text
    # Drawn: the proxy's spans and the services' in one tree, with the line that explains it.
    assert re.search(r"^spanway +└ (GET|POST) → (shop|cart|stock) ", text, re.MULTILINE)
    assert re.search(r"^(shop|cart|stock) +└ (GET|POST) /", text, re.MULTILINE)
    assert "▸ where the time went: " in text
    happened = text[text.index("What happened") :]
    numbers = r"(?s)requests +(\d+) answered.*traces +(\d+), (\d+) of them with the services' own spans"
    (found,) = re.findall(numbers, happened)
    answered, traces, joined = map(int, found)
    assert answered > 0
    assert 0 < joined <= traces
    assert re.search(r"slowest +\S.* on average", happened)
    assert re.search(r"time went +.*(stock|shop) \d+ %", happened)
    assert "150 µs of a request (median)" in happened


async def test_the_end_waits_for_the_last_traces(monkeypatch):
    monkeypatch.setattr(module, "POLL_S", 0.0)

    class Late:
        """Brings a trace with every third look."""

        def __init__(self):
            self.looks = self.growing = 0

        async def step(self, now):
            self.looks += 1
            self.growing = self.looks // 3

    class Source:
        def __init__(self):
            self.pending = 2

        async def samples(self):
            self.pending -= 1
            return [worker(export=ExportCounters(pending=max(self.pending, 0), reachable=True))]

    story = Story(cast("Fleet", None), None, Console(file=io.StringIO()))
    running = SimpleNamespace(settings=SETTINGS, source=Source())
    live, traffic = Late(), SimpleNamespace(answered=2)
    account = await story._last(cast("Running", running), cast("Traffic", traffic), cast("Live", live))
    assert (live.looks, account.pending) == (6, 0)
    # A trace that never comes is not waited for without end.
    monkeypatch.setattr(module, "LAST_S", 0.0)
    traffic.answered = 10**9
    await story._last(cast("Running", running), cast("Traffic", traffic), cast("Live", live))
    assert live.looks > 6


async def after_requests(proxy):
    while proxy.forwarded < 3:
        await asyncio.sleep(0.05)


def test_a_service_that_dies_ends_it_with_its_name(console, monkeypatch):
    pids = {}
    start = Fleet.start

    async def remember(self, *arguments):
        await start(self, *arguments)
        pids.update(self.pids)

    async def kill(proxy):
        await after_requests(proxy)
        os.kill(pids["stock"], signal.SIGKILL)

    monkeypatch.setattr(Fleet, "start", remember)
    assert demo(SETTINGS, 50.0, functools.partial(standin.run, meanwhile=kill), console) == 1
    assert "demo: the service 'stock' ended with exit code -9" in console.file.getvalue()


def test_traces_without_the_proxy_are_a_failure(console):
    silent = functools.partial(standin.run, traced=False)
    assert demo(SETTINGS, 2.0, silent, console) == 1
    assert "demo: of 0 traces none has spans of both the proxy and a service" in console.file.getvalue()


def test_silence_is_a_failure_also_without_an_end(console, monkeypatch):
    monkeypatch.setattr(module, "SILENCE_S", 1.0)
    silent = functools.partial(standin.run, traced=False)
    assert demo(SETTINGS, None, silent, console) == 1
    assert "no trace was seen" in console.file.getvalue()


def test_ctrl_c_still_says_what_happened(console):
    async def interrupt(proxy):
        await after_requests(proxy)
        proxy.stop(0)

    assert demo(SETTINGS, None, functools.partial(standin.run, meanwhile=interrupt), console) == 0
    text = console.file.getvalue()
    assert re.search(r"stop +Ctrl-C *$", text, re.MULTILINE)
    assert "What happened" in text


def test_it_serves_its_own_manifests_whatever_the_user_has_and_finds_other_ports(console):
    seen = []

    def remember(settings, *, table=None, companions=()):
        seen.append(settings)
        return 7

    with socket.create_server(("127.0.0.1", 0)) as taken:
        address = Address("127.0.0.1", taken.getsockname()[1])
        settings = Settings(
            http=(address, address), https=(address,), admin=None, ingress_class="other", proxy_protocol=True
        )
        assert demo(settings, 1.0, remember, console) == 7
    (chosen,) = seen
    assert chosen.ingress == (MANIFESTS,)
    assert chosen.ingress_class == ""
    assert chosen.https == ()
    assert not chosen.proxy_protocol
    assert chosen.http == (Address("127.0.0.1", 0),)
    assert chosen.admin == Address("127.0.0.1", 0)
    assert {override.service for override in chosen.upstream} == {"shop", "cart", "stock"}
    assert f"port {address.port} is taken" in console.file.getvalue()


def test_a_wildcard_is_reached_by_loopback():
    assert reachable(Address("0.0.0.0", 80)) == Address("127.0.0.1", 80)
    assert reachable(Address("::", 80)) == Address("::1", 80)
    assert reachable(Address("10.0.0.1", 80)) == Address("10.0.0.1", 80)
