"""Shared proxies: one standard one for the session, and a way for a module to start its own once."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.harness.collector import Collector
from tests.harness.edge import Edge
from tests.harness.feed import Feed
from tests.harness.upstream import Recorder


@pytest.fixture(scope="session")
def collector() -> Iterator[Collector]:
    """The collector of the standard proxy."""
    collector = Collector()
    yield collector
    collector.stop()


@pytest.fixture(scope="session")
def standard(tmp_path_factory: pytest.TempPathFactory, collector: Collector) -> Iterator[Edge]:
    """The standard proxy: default settings, loopback trusted, everything traced."""
    with Edge(tmp_path_factory.mktemp("edge") / "proxy", collector=collector, https=True) as edge:
        yield edge


@pytest.fixture
def edge(standard: Edge) -> Iterator[Edge]:
    """The standard proxy, its upstreams empty before and judged after the test."""
    yield from clean(standard)


@pytest.fixture(scope="module")
def launch(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Callable[..., Edge]]:
    """Start a proxy of the module's own; it ends with the module."""
    started: list[Edge] = []

    def start(*arguments: str, **options: Any) -> Edge:
        folder: Path = tmp_path_factory.mktemp("own") / "proxy"
        started.append(Edge(folder, *arguments, **options))
        return started[-1]

    yield start
    for edge in started:
        edge.stop()


def clean(edge: Edge) -> Iterator[Edge]:
    """``edge`` for one test: what the proxy sent upstream must be strict HTTP/1.1, whatever the client sent."""
    edge.reset()
    yield edge
    malformed = edge.a.malformed + edge.b.malformed
    edge.reset()
    assert not malformed, malformed
    assert edge.proxy.process.poll() is None, edge.proxy.said()


@pytest.fixture
def recorders() -> Iterator[Callable[..., Recorder]]:
    """More upstreams, for one test."""
    made: list[Recorder] = []

    def make(**options: Any) -> Recorder:
        made.append(Recorder(**options))
        return made[-1]

    yield make
    for recorder in made:
        recorder.stop()


@pytest.fixture(params=list(Feed), ids=lambda how: how.value)
def how(request: pytest.FixtureRequest) -> Feed:
    """Each of the three ways of sending."""
    assert isinstance(request.param, Feed)
    return request.param


@pytest.fixture
def start(tmp_path: Path) -> Iterator[Callable[..., Edge]]:
    """Start a proxy for one test alone, with a collector of its own."""
    started: list[Edge] = []
    collector = Collector()

    def begin(*arguments: str, **options: Any) -> Edge:
        started.append(Edge(tmp_path / f"proxy{len(started)}", *arguments, collector=collector, **options))
        return started[-1]

    yield begin
    for edge in started:
        edge.stop()
    collector.stop()


@pytest.fixture(scope="session")
def distrustful(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Edge]:
    """A proxy that trusts nobody."""
    with Edge(tmp_path_factory.mktemp("wary") / "proxy", "--trust", "none") as edge:
        yield edge


@pytest.fixture
def wary(distrustful: Edge) -> Iterator[Edge]:
    """A proxy that trusts nobody."""
    yield from clean(distrustful)
