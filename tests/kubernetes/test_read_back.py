"""What the controller writes, read back by kubectl."""

from __future__ import annotations

import json

import pytest

from tests.harness import poll
from tests.kubernetes.clusters import RealCluster, ingress_class, site
from tests.kubernetes.conftest import Backends, StartController
from tests.kubernetes.controller import PUBLISHED

pytestmark = [pytest.mark.real, pytest.mark.timeout(120)]


def test_status_and_events(real_cluster: RealCluster, backends: Backends, start_controller: StartController) -> None:
    kubectl = real_cluster.kubectl
    broken = site("broken", backends.address, [backends.ports[0]], annotations={"configuration-snippet": "return 1;"})
    broken[-1]["spec"]["rules"][0]["http"]["paths"][0]["backend"]["service"]["name"] = "nowhere"
    real_cluster.apply(ingress_class(), *site("shop", backends.address, [backends.ports[0]]), *broken)
    controller = start_controller(real_cluster)
    controller.serves("shop.test", backends.body(0))
    poll.until(lambda: PUBLISHED in kubectl("get", "ingress", "shop", "--no-headers"), "an address", 30)
    row = kubectl("get", "ingress", "shop", "--no-headers").split()
    assert row[:5] == ["shop", "spanway", "shop.test", PUBLISHED, "80"]
    # It owns the status and nothing else.
    managed = json.loads(kubectl("get", "ingress", "shop", "--output=json", "--show-managed-fields"))["metadata"]
    theirs = [each for each in managed["managedFields"] if each["manager"] != "test"]
    assert [each.get("subresource") for each in theirs] == ["status"]
    assert list(theirs[0]["fieldsV1"]) == ["f:status"]

    def events() -> list[str]:
        told = kubectl("events", "--for=ingress/broken", "--no-headers")
        return [line for line in told.splitlines() if "Warning" in line]

    poll.until(lambda: any("default/nowhere does not exist" in line for line in events()), "an Event", 30)
    poll.until(lambda: any("configuration-snippet" in line for line in events()), "an Event of the annotation", 30)
    before = events()
    described = kubectl("describe", "ingress", "broken")
    assert "default/nowhere does not exist" in described
    assert "spanway" in described.partition("Events:")[2]
    # Once per change: neither another object's change nor a restart tells it again.
    real_cluster.apply(*site("another", backends.address, [backends.ports[1]]))
    controller.serves("another.test", backends.body(1))
    assert len(events()) == len(before)


def test_an_event_is_gone_with_its_cause(
    real_cluster: RealCluster, backends: Backends, start_controller: StartController
) -> None:
    """An Ingress that is mended gets no more warnings."""
    shop = site("shop", backends.address, [backends.ports[0]])
    service, *rest = shop
    real_cluster.apply(ingress_class(), *rest)
    controller = start_controller(real_cluster)
    poll.until(lambda: real_cluster.events("shop"), "an Event", 30)
    count = len(real_cluster.events("shop"))
    real_cluster.apply(service)
    controller.serves("shop.test", backends.body(0))
    assert len(real_cluster.events("shop")) == count
    problems = controller.admin_json("/routes")["problems"]
    assert not [problem for problem in problems if "shop" in json.dumps(problem)]
