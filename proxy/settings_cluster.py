"""The settings of `spanway controller` alone: which cluster, how much of it, and what is written back."""

from __future__ import annotations

from dataclasses import dataclass

from proxy.meaning import setting


@dataclass(frozen=True, slots=True)
class ObjectName:
    """`NS/NAME`: an object of a namespace."""

    namespace: str
    name: str

    def __str__(self) -> str:
        return f"{self.namespace}/{self.name}"


@dataclass(frozen=True, slots=True)
class Cluster:
    """What `spanway controller` does in a cluster."""

    kubeconfig: str = setting(
        "",
        "kubeconfig of the cluster; empty: the pod's service account, else KUBECONFIG, else ~/.kube/config",
        flag="kubeconfig",
        value="FILE",
    )
    watch_namespace: str = setting(
        "",
        "only this namespace, with no cluster-wide reads; empty: all",
        source="ingress-nginx --watch-namespace",
        flag="watch-namespace",
        value="NS",
    )
    publish_service: ObjectName | None = setting(
        None,
        "Service whose addresses go to the status of Ingresses, or 'off'",
        source="ingress-nginx --publish-service",
        flag="publish-service",
        value="NS/NAME",
    )
    publish_address: tuple[str, ...] = setting(
        (),
        "addresses and host names that go to the status of Ingresses",
        source="ingress-nginx --publish-status-address",
        flag="publish-address",
        value="ADDR,..",
    )
    election_namespace: str = setting(
        "",
        "namespace of the Lease by which replicas choose a leader; empty: the pod's own",
        flag="election-namespace",
        value="NS",
    )
    update_status: bool = setting(True, "write the status of Ingresses", source="ingress-nginx --update-status")
    update_status_on_shutdown: bool = setting(
        True,
        "empty it again when the last replica ends (only with publish-service can it know)",
        source="ingress-nginx --update-status-on-shutdown",
    )
    zone: str = setting(
        "", "zone that this replica runs in, for topology hints; empty: endpoints of every zone alike", value="ZONE"
    )
    silence: float = setting(
        90.0,
        "a watch that says nothing is opened anew",
        unit="s",
        source="API servers send a bookmark a minute",
        least=1,
    )
    lease_duration: float = setting(
        15.0, "others wait for so long after a leader's last sign of life", unit="s", source="client-go", least=1
    )
