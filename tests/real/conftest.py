"""Fixtures of the real parts. A part that is missing skips its tests with one line, or fails them with CI=true."""

from __future__ import annotations

import os
from collections.abc import Generator, Iterator, Mapping
from pathlib import Path
from typing import NoReturn, Protocol

import pytest

from tests.harness.proxy import Proxy
from tests.real import parts, process
from tests.real.hotrod import HotRod
from tests.real.jaeger import Jaeger
from tests.real.nginx import Nginx

_PROXIES: list[Proxy] = []


class StartNginx(Protocol):
    """Starts an nginx in a folder of its own; see `Nginx`."""

    def __call__(self, http: str, port: int, *, main: str = ..., connections: int = ...) -> Nginx: ...


class StartSpanway(Protocol):
    """Starts a Spanway in a folder of its own; see `Proxy`."""

    def __call__(
        self,
        manifests: Mapping[str, str] | str,
        *arguments: str,
        workers: int = 1,
        environment: Mapping[str, str] | None = None,
    ) -> Proxy: ...


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(item: pytest.Item) -> Generator[None, pytest.TestReport, pytest.TestReport]:
    """A failure shows what every real process printed last."""
    report = yield
    if report.failed and Path(__file__).parent in item.path.parents:
        report.sections += [(f"end of the output of {each!r}", each.tail()) for each in process.live()]
        report.sections += [("end of the output of spanway", each.said()[-4000:]) for each in _PROXIES]
    return report


def required(name: str) -> Path:
    """Where the part is; else the test is skipped or, with CI=true, fails."""
    try:
        return parts.require(name)
    except parts.PartMissing as missing:
        without(str(missing))


def without(reason: str) -> NoReturn:
    """Skip the test for want of something that this machine has not; with CI=true, fail it."""
    if os.environ.get("CI") == "true":
        pytest.fail(reason, pytrace=False)
    pytest.skip(reason)


@pytest.fixture(scope="session")
def jaeger(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Jaeger]:
    """A Jaeger that stores in memory."""
    with Jaeger(required("jaeger"), tmp_path_factory.mktemp("jaeger")) as running:
        yield running


@pytest.fixture(scope="session")
def hotrod(jaeger: Jaeger, tmp_path_factory: pytest.TempPathFactory) -> Iterator[HotRod]:
    """HotROD, exporting to that Jaeger."""
    folder = tmp_path_factory.mktemp("hotrod")
    with HotRod(required("hotrod"), folder, jaeger.endpoint("http/protobuf")) as running:
        yield running


@pytest.fixture
def start_nginx(tmp_path: Path) -> Iterator[StartNginx]:
    """Starts nginx processes that end with the test."""
    program = required("nginx")
    started: list[Nginx] = []

    def start(http: str, port: int, *, main: str = "worker_processes 1;", connections: int = 4096) -> Nginx:
        folder = tmp_path / f"nginx-{len(started)}"
        started.append(Nginx(program, folder, http, port, main=main, connections=connections))
        return started[-1]

    yield start
    for each in started:
        each.stop()


@pytest.fixture
def start_spanway(tmp_path: Path) -> Iterator[StartSpanway]:
    """Starts proxies that end with the test."""

    def start(
        manifests: Mapping[str, str] | str,
        *arguments: str,
        workers: int = 1,
        environment: Mapping[str, str] | None = None,
    ) -> Proxy:
        folder = tmp_path / f"spanway-{len(_PROXIES)}"
        _PROXIES.append(Proxy(folder, manifests, *arguments, workers=workers, environment=environment))
        return _PROXIES[-1]

    yield start
    for each in _PROXIES:
        each.stop()
    _PROXIES.clear()


@pytest.fixture
def wrk() -> Path:
    """The load generator."""
    return required("wrk")


@pytest.fixture
def strace() -> Path:
    """What writes down another process's system calls."""
    return required("strace")
