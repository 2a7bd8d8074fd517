"""Two replicas: one writes, either serves, and whichever ends, no request fails."""

from __future__ import annotations

import signal
from concurrent.futures import ThreadPoolExecutor

import pytest

from tests.harness import poll
from tests.harness.gate import Gate
from tests.kubernetes.clusters import Cluster, ingress_class, site
from tests.kubernetes.conftest import Backends, StartController, StartLoad
from tests.kubernetes.controller import NAMESPACE, PUBLISHED, Controller

pytestmark = [pytest.mark.real, pytest.mark.timeout(180)]

LEASE = {"SPANWAY_CLUSTER_LEASE_DURATION": "3"}  # seconds; 15 in production


def shop(cluster: Cluster, backends: Backends) -> None:
    cluster.apply(ingress_class(), *site("shop", backends.address, [backends.ports[0]]))


def published(cluster: Cluster, name: str) -> list[str]:
    status = cluster.client.get("Ingress", name).get("status") or {}
    return [point["ip"] for point in (status.get("loadBalancer") or {}).get("ingress") or ()]


def wait_published(cluster: Cluster, name: str) -> None:
    poll.until(lambda: published(cluster, name) == [PUBLISHED], f"the status of {name}", 30)


def test_the_leader_is_killed(
    cluster: Cluster, backends: Backends, start_controller: StartController, load: StartLoad
) -> None:
    shop(cluster, backends)
    first = start_controller(cluster, pod="spanway-0", environment=LEASE)
    poll.until(first.leads, "a leader")
    second = start_controller(cluster, pod="spanway-1", environment=LEASE)
    wait_published(cluster, "shop")
    assert not second.leads()
    with load(second.address, "shop.test") as running:
        first.process.send_signal(signal.SIGKILL)
        poll.until(second.leads, "another leader", 30)
        cluster.apply(*site("late", backends.address, [backends.ports[1]]))
        wait_published(cluster, "late")
        second.serves("late.test", backends.body(1))
    assert running.result.errors == {}
    lease = cluster.client.get("Lease", "spanway-ingress-leader", NAMESPACE)["spec"]
    assert lease["holderIdentity"].startswith("spanway-1_")
    assert lease["leaseTransitions"] == 1
    assert published(cluster, "shop") == [PUBLISHED]


def test_a_leader_that_leaves_hands_over(
    cluster: Cluster, backends: Backends, start_controller: StartController
) -> None:
    """It gives the Lease up: nobody waits for its end, here 30 s."""
    shop(cluster, backends)
    long = {"SPANWAY_CLUSTER_LEASE_DURATION": "30"}
    first = start_controller(cluster, pod="spanway-0", environment=long)
    poll.until(first.leads, "a leader")
    second = start_controller(cluster, pod="spanway-1", environment=long)
    first.terminate()
    assert first.wait() == 0
    poll.until(second.leads, "another leader", 20)


def test_a_follower_writes_nothing(cluster: Cluster, backends: Backends, start_controller: StartController) -> None:
    shop(cluster, backends)
    first = start_controller(cluster, pod="spanway-0")
    poll.until(first.leads, "a leader")
    second = start_controller(cluster, "--publish-address", "192.0.2.99", pod="spanway-1")
    cluster.apply(*site("other", backends.address, [backends.ports[0]]))
    cluster.apply(*site("others", backends.address, [backends.ports[0]], ingress_class="somebodys"))
    wait_published(cluster, "other")
    second.serves("other.test", backends.body(0))
    assert second.count("spanway_status_writes_total") == 0
    assert published(cluster, "others") == []  # another class


def test_a_rolling_restart_fails_no_request(
    cluster: Cluster, backends: Backends, start_controller: StartController, load: StartLoad
) -> None:
    """The gate is a cluster's Service: it sends new connections to what is ready, old ones stay where they are."""
    shop(cluster, backends)
    with ThreadPoolExecutor(2) as pool:
        olds = list(pool.map(lambda number: start_controller(cluster, pod=f"old-{number}", workers=2), range(2)))
    with Gate(*(old.address for old in olds)) as service, load(("127.0.0.1", service.port), "shop.test") as running:
        for number, old in enumerate(olds):
            new = start_controller(cluster, pod=f"new-{number}", workers=2)  # maxSurge: 1
            service.targets.append(new.address)
            service.targets.remove(old.address)  # the pod is being deleted: no endpoint any more
            retire(old)
    assert running.result.errors == {}
    assert running.result.requests > 1000


def retire(controller: Controller) -> None:
    """SIGTERM while connections are open on it; it lets them finish, and ends."""
    assert controller.count("spanway_connections") > 0
    controller.terminate()
    assert controller.wait() == 0
