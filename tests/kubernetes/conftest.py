"""Fixtures of the cluster tests: the same tests against a real API server and against the stand-in."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.kubernetes.clusters import Cluster, FakeCluster, RealCluster
from tests.real import parts
from tests.real.address import own_address
from tests.real.conftest import required

REAL = pytest.param("real", marks=pytest.mark.real)


@pytest.fixture(scope="session")
def _real_cluster(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RealCluster]:
    etcd, kube_apiserver, kubectl = (required(name) for name in ("etcd", "kube-apiserver", "kubectl"))
    with RealCluster(etcd, kube_apiserver, kubectl, tmp_path_factory.mktemp("cluster")) as cluster:
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
        yield cluster


@pytest.fixture(params=["fake", REAL])
def cluster(request: pytest.FixtureRequest) -> Cluster:
    """Either."""
    found: Cluster = request.getfixturevalue(f"{request.param}_cluster")
    return found


@pytest.fixture(scope="session")
def address() -> Iterator[str]:
    """An address for backends that an API server takes."""
    with own_address(parts.find("ip")) as found:
        yield found
