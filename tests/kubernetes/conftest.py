"""Fixtures of the cluster tests: the same tests against a real API server and against the stand-in."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Generator, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

import pytest

from tests.kubernetes.clusters import Cluster, FakeCluster, RealCluster
from tests.kubernetes.controller import NAMESPACE, Controller
from tests.kubernetes.loading import Loading
from tests.real import parts, process
from tests.real.address import own_address
from tests.real.conftest import jaeger, required
from tests.real.nginx import Nginx
from tests.real.process import free_ports

__all__ = ["jaeger"]  # a fixture of another folder

_CONTROLLERS: list[Controller] = []
StartLoad = Callable[..., Loading]
REAL = pytest.param("real", marks=pytest.mark.real)


@pytest.fixture(scope="session")
def _real_cluster(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RealCluster]:
    etcd, kube_apiserver, kubectl = (required(name) for name in ("etcd", "kube-apiserver", "kubectl"))
    with RealCluster(etcd, kube_apiserver, kubectl, tmp_path_factory.mktemp("cluster")) as cluster:
        cluster.namespace(NAMESPACE)
        yield cluster


@pytest.fixture
def real_cluster(_real_cluster: RealCluster) -> Iterator[RealCluster]:
    """The real one, cleared afterwards."""
    yield _real_cluster
    _real_cluster.clear()


@pytest.fixture
def fake_cluster(tmp_path: Path) -> Iterator[FakeCluster]:
    """A stand-in of the test's own."""
    with FakeCluster(tmp_path / "cluster") as cluster:
        cluster.namespace(NAMESPACE)
        yield cluster


@pytest.fixture(params=["fake", REAL])
def cluster(request: pytest.FixtureRequest) -> Cluster:
    """Either."""
    found: Cluster = request.getfixturevalue(f"{request.param}_cluster")
    return found


@dataclass(frozen=True, slots=True)
class Backends:
    """Servers on an address that an API server takes; each answers with its own port."""

    address: str
    ports: tuple[int, ...]

    def body(self, number: int) -> bytes:
        """What one of them answers."""
        return str(self.ports[number]).encode()


@pytest.fixture(scope="session")
def backends(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Backends]:
    """Three of them, in one nginx."""
    ports = free_ports(3)
    servers = "".join(f"server {{ listen {port} backlog=1024; return 200 {port}; }}\n" for port in ports)
    settings = "keepalive_requests 1000000; default_type text/plain;\n"
    folder = tmp_path_factory.mktemp("backends")
    with own_address(parts.find("ip")) as address, Nginx(required("nginx"), folder, settings + servers, ports[0]):
        yield Backends(address, tuple(ports))


class StartController(Protocol):
    """Starts a controller in a folder of its own; see `Controller`."""

    def __call__(
        self,
        cluster: Cluster,
        *arguments: str,
        token: str = ...,
        pod: str = ...,
        workers: int = ...,
        environment: Mapping[str, str] | None = ...,
        ready: bool = ...,
    ) -> Controller: ...


@pytest.fixture
def start_controller(tmp_path: Path) -> Iterator[StartController]:
    """Starts controllers that end with the test."""

    numbers = itertools.count()

    def start(cluster: Cluster, *arguments: str, **options: Any) -> Controller:
        made = Controller(tmp_path / f"controller-{next(numbers)}", cluster, *arguments, **options)
        _CONTROLLERS.append(made)
        return made

    yield start
    for each in _CONTROLLERS:
        each.stop()
    _CONTROLLERS.clear()


@pytest.fixture
def load() -> StartLoad:
    """Starts wrk on a host of a proxy; it runs while the context lasts."""
    program = required("wrk")

    def start(address: tuple[str, int], host: str, connections: int = 16) -> Loading:
        return Loading(program, address, host, connections)

    return start


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(item: pytest.Item) -> Generator[None, pytest.TestReport, pytest.TestReport]:
    """A failure shows what every process printed last."""
    report = yield
    if report.failed and Path(__file__).parent in item.path.parents:
        report.sections += [(f"end of the output of {each!r}", each.tail()) for each in process.live()]
        report.sections += [("end of the output of spanway", each.said()[-4000:]) for each in _CONTROLLERS]
    return report
