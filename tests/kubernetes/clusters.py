"""A cluster to follow, real or a stand-in, in one shape: tests change objects and take things away."""

from __future__ import annotations

import contextlib
import json
from abc import ABC, abstractmethod
from collections.abc import Iterator
from pathlib import Path
from typing import Final, Self

from tests.harness import manifests
from tests.harness.gate import Gate
from tests.harness.kube_api import FakeApiServer
from tests.harness.kube_client import KubeClient
from tests.harness.kube_store import Object
from tests.real.etcd import Etcd
from tests.real.kube_apiserver import KubeApiServer

# What tests make, and what the controller makes.
KINDS: Final = ("Ingress", "Service", "EndpointSlice", "Secret", "IngressClass", "Lease", "Event")
RIGHTS: Final = ("ClusterRole", "ClusterRoleBinding", "Role", "RoleBinding")
CLASS: Final = "spanway"
CONTROLLER: Final = "spanway.io/ingress-controller"


class Cluster(ABC):
    """An API server behind a ``gate``, and a ``client`` that is its administrator and needs no gate."""

    client: KubeClient
    gate: Gate

    def apply(self, *objects: Object) -> None:
        """Create or change (server-side apply)."""
        self.client.apply(*objects)

    def delete(self, kind: str, name: str, namespace: str = "default") -> None:
        """Remove one object."""
        self.client.delete(kind, name, namespace)

    def get(self, kind: str, name: str, namespace: str = "default") -> Object:
        """One object."""
        return self.client.get(kind, name, namespace)

    def events(self, name: str, namespace: str = "default") -> list[Object]:
        """The Events on an object."""
        found = self.client.list("Event", namespace)
        return [event for event in found if event["involvedObject"]["name"] == name]

    def namespace(self, name: str) -> None:
        """Make a namespace, unless it is there."""
        self.client.apply({"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": name}})

    def clear(self) -> None:
        """Remove what tests made; everything is open and running again."""
        self.gate.open()
        found = [item["metadata"]["name"] for item in self.client.list("Namespace")]
        namespaces = [name for name in found if not name.startswith("kube-")]  # the API server has Leases of its own
        for kind in KINDS:
            for namespace in namespaces if kind != "IngressClass" else [""]:
                self.client.delete_all(kind, namespace)
        for kind in RIGHTS:
            for item in self.client.list(kind):
                if item["metadata"]["name"].startswith("spanway"):
                    self.client.delete(kind, item["metadata"]["name"], item["metadata"].get("namespace", ""))

    @abstractmethod
    def kubeconfig(self, token: str = "", *, gate: bool = True) -> Path:
        """For a holder of a token, or the administrator; through the gate, unless it says otherwise."""

    @abstractmethod
    def token(self, namespace: str, account: str) -> str:
        """A token of a service account that exists."""

    @abstractmethod
    def kill(self) -> None:
        """The API server is gone at once: connections are cut, its port is closed."""

    @abstractmethod
    def start(self) -> None:
        """It is back, with what it had."""

    @abstractmethod
    def forget(self) -> None:
        """Make a watch from any version before now too old (410); whoever watches is cut."""

    @abstractmethod
    def close(self) -> None:
        """The end."""

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


class FakeCluster(Cluster):
    """The stand-in."""

    def __init__(self, folder: Path) -> None:
        self.server: Final = FakeApiServer(folder)
        self.gate = Gate(("127.0.0.1", self.server.port))
        self.client = KubeClient(self.kubeconfig(gate=False))

    def kubeconfig(self, token: str = "", *, gate: bool = True) -> Path:
        server = f"https://127.0.0.1:{self.gate.port}" if gate else ""
        return self.server.kubeconfig(token, server=server) if token else self.server.kubeconfig(server=server)

    def token(self, namespace: str, account: str) -> str:
        return self.server.token(namespace, account)

    def kill(self) -> None:
        self.server.stop()

    def start(self) -> None:
        self.server.start()

    def forget(self) -> None:
        self.kill()
        self.server.compact()
        self.start()

    def close(self) -> None:
        self.client.close()
        self.gate.close()
        self.server.close()


class RealCluster(Cluster):
    """kube-apiserver and etcd; what tests change goes through kubectl."""

    def __init__(self, etcd: Path, kube_apiserver: Path, kubectl: Path, folder: Path, *, otlp: str = "") -> None:
        self.etcd: Final = Etcd(etcd, folder / "etcd")
        try:
            self.server: Final = KubeApiServer(
                kube_apiserver, kubectl, folder / "kube-apiserver", self.etcd.url, otlp=otlp
            )
        except BaseException:
            self.etcd.stop()
            raise
        self.kubectl: Final = self.server.kubectl
        self.client = self.server.client
        self.gate = Gate(("127.0.0.1", self.server.port))

    def apply(self, *objects: Object) -> None:
        arguments = ("apply", "--server-side", "--force-conflicts", "--field-manager=test", "-f", "-")
        self.kubectl(*arguments, given=manifests.documents(*objects))

    def delete(self, kind: str, name: str, namespace: str = "default") -> None:
        self.kubectl("delete", kind.lower(), name, f"--namespace={namespace}", "--wait=false")

    def get(self, kind: str, name: str, namespace: str = "default") -> Object:
        found: Object = json.loads(self.kubectl("get", kind.lower(), name, f"--namespace={namespace}", "--output=json"))
        return found

    def kubeconfig(self, token: str = "", *, gate: bool = True) -> Path:
        return self.server.kubeconfig_of(token, port=self.gate.port if gate else 0)

    def token(self, namespace: str, account: str) -> str:
        return self.server.token(namespace, account)

    def kill(self) -> None:
        self.server.kill()
        self.client.close()

    def start(self) -> None:
        self.server.start()

    def forget(self) -> None:
        self.kill()
        self.etcd.compact()
        self.start()  # with an empty watch cache: what it does not have, etcd has no more

    def close(self) -> None:
        self.client.close()
        self.gate.close()
        self.server.stop()
        self.etcd.stop()


def ingress_class(name: str = CLASS, *, default: bool = False) -> Object:
    """An IngressClass of Spanway's."""
    annotations = {"ingressclass.kubernetes.io/is-default-class": "true"} if default else {}
    return {
        "apiVersion": "networking.k8s.io/v1",
        "kind": "IngressClass",
        "metadata": {"name": name, "annotations": annotations},
        "spec": {"controller": CONTROLLER},
    }


def site(
    name: str,
    address: str,
    ports: list[int],
    *,
    namespace: str = "default",
    path: str = "/",
    annotations: dict[str, str] | None = None,
    secret: str = "",
    ingress_class: str = CLASS,
) -> list[Object]:
    """Service, one EndpointSlice per port, and Ingress of ``<name>.test``, as a user would write them."""
    objects = manifests.site(name, ports, path=path, annotations=annotations, secret=secret)
    for item in objects:
        metadata = item["metadata"]
        metadata["namespace"] = namespace
        for servers in ("uid", "resourceVersion"):
            metadata.pop(servers, None)
        if item["kind"] == "EndpointSlice":
            item["endpoints"] = [{"addresses": [address], "conditions": {"ready": True}}]
        elif item["kind"] == "Ingress":
            item["spec"]["ingressClassName"] = ingress_class
    return objects


@contextlib.contextmanager
def away(cluster: Cluster) -> Iterator[None]:
    """Those behind the gate cannot reach the API server."""
    cluster.gate.cut()
    try:
        yield
    finally:
        cluster.gate.open()
