"""k8s/: what a real API server says to it, and what it must keep to."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

import proxy
from proxy.cli import main
from proxy.settings_wire import SOCKET
from tests.harness.kube_store import Object
from tests.kubernetes.clusters import CLASS, CONTROLLER, RealCluster
from tests.kubernetes.image import ROOT, USER, stages
from tests.kubernetes.manifests_of import BASE, K8S, OVERLAYS, of_kind, rendered
from tests.real.conftest import required

pytestmark = [pytest.mark.real, pytest.mark.timeout(120)]

FOLDERS = (BASE, *OVERLAYS)


@pytest.fixture(params=FOLDERS, ids=lambda folder: folder.name)
def folder(request: pytest.FixtureRequest) -> Path:
    found: Path = request.param
    return found


@pytest.fixture
def objects(folder: Path) -> list[Object]:
    return rendered(required("kubectl"), folder)


def pods(objects: list[Object]) -> list[Object]:
    """The pod templates."""
    return [item["spec"]["template"] for item in of_kind(objects, "Deployment", "DaemonSet")]


def test_there_is_what_the_documentation_names() -> None:
    assert [path.name for path in OVERLAYS] == ["daemonset", "demo", "jaeger", "namespaced", "wire"]
    told = (K8S.parent / "docs" / "kubernetes.md").read_text()
    for folder in FOLDERS:
        assert f"k8s/{folder.relative_to(K8S)}" in told


def test_a_real_api_server_takes_it(folder: Path, objects: list[Object], real_cluster: RealCluster) -> None:
    """Also Pod Security: a namespace at the level 'restricted' warns of a pod that is not."""
    for item in of_kind(objects, "Namespace"):
        real_cluster.client.apply(item)  # a dry run makes none, and the others would be nowhere
    said = real_cluster.kubectl("apply", "--dry-run=server", "--server-side", "-k", str(folder))
    assert len(said.splitlines()) == len(objects)
    assert "Warning" not in said


def test_pods_may_do_as_little_as_possible(folder: Path, objects: list[Object]) -> None:
    for pod in pods(objects):
        spec = pod["spec"]
        # What listens to packets: Kubernetes gives an added capability to user 0 alone, who has nothing else here.
        wire = pod["metadata"]["labels"]["app.kubernetes.io/name"] == "spanway-wire"
        user = {"runAsUser": 0} if wire else {"runAsNonRoot": True, "runAsUser": USER}
        assert spec["securityContext"] == {
            **user,
            "runAsGroup": USER,
            "seccompProfile": {"type": "RuntimeDefault"},
        }
        assert spec.get("hostNetwork", False) is wire
        for container in spec["containers"]:
            assert container["securityContext"] == {
                "allowPrivilegeEscalation": False,
                "readOnlyRootFilesystem": True,
                "capabilities": {"drop": ["ALL"], **({"add": ["NET_RAW"]} if wire else {})},
            }
            assert {"cpu", "memory"} <= set(container["resources"]["requests"])
            assert "memory" in container["resources"]["limits"]
            assert {"readinessProbe", "livenessProbe"} <= set(container)
            assert all(port["containerPort"] >= 1024 for port in container.get("ports", ()))
            assert not re.search(r":latest$|^[^:]+$", container["image"])
        needs_api = spec.get("serviceAccountName") == "spanway"
        assert spec["automountServiceAccountToken"] is needs_api


def test_everything_that_selects_finds_something(folder: Path, objects: list[Object]) -> None:
    labels = [
        (item["metadata"]["namespace"], item["spec"]["template"])
        for item in of_kind(objects, "Deployment", "DaemonSet")
    ]
    for service in of_kind(objects, "Service"):
        selector = service["spec"]["selector"].items()
        found = [
            pod
            for ns, pod in labels
            if ns == service["metadata"]["namespace"] and selector <= pod["metadata"]["labels"].items()
        ]
        assert len(found) == 1, service["metadata"]["name"]
        names = {port["name"] for container in found[0]["spec"]["containers"] for port in container["ports"]}
        assert {port["targetPort"] for port in service["spec"]["ports"]} <= names
    for item in of_kind(objects, "PodDisruptionBudget", "NetworkPolicy"):
        spec = item["spec"]
        wanted = (spec.get("selector") or spec["podSelector"])["matchLabels"].items()
        assert [pod for _, pod in labels if wanted <= pod["metadata"]["labels"].items()]
    for item in of_kind(objects, "Deployment", "DaemonSet"):
        assert item["spec"]["selector"]["matchLabels"].items() <= item["spec"]["template"]["metadata"]["labels"].items()
        for constraint in item["spec"]["template"]["spec"].get("topologySpreadConstraints", ()):
            wanted = constraint["labelSelector"]["matchLabels"].items()
            assert wanted <= item["spec"]["template"]["metadata"]["labels"].items()


def controller_of(objects: list[Object]) -> Object:
    """The controller's workload."""
    (found,) = (item for item in of_kind(objects, "Deployment", "DaemonSet") if item["metadata"]["name"] == "spanway")
    return found


def test_the_controller_is_started_as_it_can_be(
    folder: Path, objects: list[Object], capsys: pytest.CaptureFixture[str]
) -> None:
    """Its flags are flags, its image is what the Dockerfile makes, its grace is enough for a drain."""
    spec = controller_of(objects)["spec"]["template"]["spec"]
    (container,) = spec["containers"]
    assert container["image"] == f"spanway:{proxy.__version__}"
    exposed = {int(port) for port in stages((ROOT / "Dockerfile").read_text())["spanway"].all("EXPOSE")[0].split()}
    assert {port["containerPort"] for port in container["ports"]} == exposed
    environment = {item["name"]: item.get("value", "x") for item in container["env"]}
    arguments = [re.sub(r"\$\((\w+)\)", lambda name: environment[name[1]], word) for word in container["args"]]
    assert arguments[0] == "controller"
    assert main([*arguments, "--no-such-flag"]) == 2
    assert "there is no flag '--no-such-flag'" in capsys.readouterr().err  # and of the others none is unknown
    sleep = container["lifecycle"]["preStop"]["sleep"]["seconds"]
    assert spec["terminationGracePeriodSeconds"] >= sleep + 30 + 5  # timeouts.drain, and the last spans


def test_the_wire_meets_the_controller_in_one_folder_of_the_node(
    folder: Path, objects: list[Object], capsys: pytest.CaptureFixture[str]
) -> None:
    found = [item for item in of_kind(objects, "DaemonSet") if item["metadata"]["name"] == "spanway-wire"]
    assert bool(found) is (folder.name == "wire")
    controller = controller_of(objects)["spec"]["template"]["spec"]
    if not found:
        assert "volumes" not in controller
        return
    spec = found[0]["spec"]["template"]["spec"]
    (container,) = spec["containers"]
    assert container["image"] == f"spanway:{proxy.__version__}"
    assert main([*container["args"], "--no-such-flag"]) == 2
    assert "there is no flag '--no-such-flag'" in capsys.readouterr().err
    (place,) = spec["volumes"]
    (same,) = controller["volumes"]
    assert place["hostPath"] == same["hostPath"] == {"path": "/run/spanway", "type": "DirectoryOrCreate"}
    assert f"--socket={SOCKET}" in container["args"]
    assert [mount["mountPath"] for mount in container["volumeMounts"]] == [str(Path(SOCKET).parent)]
    (mount,) = controller["containers"][0]["volumeMounts"]
    assert mount == {"name": same["name"], "mountPath": str(Path(SOCKET).parent), "readOnly": True}
    for probe in ("readinessProbe", "livenessProbe"):  # the pod's address is the node's, where nothing listens
        assert (
            f"--admin={container[probe]['httpGet']['host']}:{container[probe]['httpGet']['port']}" in container["args"]
        )


def test_the_class_is_ours(folder: Path, objects: list[Object]) -> None:
    (found,) = of_kind(objects, "IngressClass")
    assert (found["metadata"]["name"], found["spec"]["controller"]) == (CLASS, CONTROLLER)
    arguments = controller_of(objects)["spec"]["template"]["spec"]["containers"][0]["args"]
    assert f"--ingress-class={CLASS}" in arguments
    leases = [rule for role in of_kind(objects, "Role") for rule in role["rules"] if rule["resources"] == ["leases"]]
    assert [rule.get("resourceNames") for rule in leases] == [None, [f"{CLASS}-ingress-leader"]]


def test_one_namespace_gives_no_right_outside(objects: list[Object], folder: Path) -> None:
    if folder.name != "namespaced":
        assert any(role["metadata"]["name"] == "spanway-certificates" for role in of_kind(objects, "ClusterRole"))
        return
    (role,) = of_kind(objects, "ClusterRole")
    assert role["rules"] == [
        {"apiGroups": ["networking.k8s.io"], "resources": ["ingressclasses"], "verbs": ["list", "watch"]}
    ]
    assert len(of_kind(objects, "ClusterRoleBinding")) == 1
