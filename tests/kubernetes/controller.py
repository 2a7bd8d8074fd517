"""`spanway controller` under test: a process that follows a cluster."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Final

from tests.harness import poll
from tests.harness.proxy import Proxy
from tests.kubernetes.clusters import Cluster
from tests.real.client import Answer, once

NAMESPACE: Final = "spanway"  # where it runs, as it is told
PUBLISHED: Final = "192.0.2.10"  # the address that it writes into status


class Controller(Proxy):
    """One running `spanway controller`, as the pod ``pod``; with a ``token`` as that account, else as administrator."""

    def __init__(
        self,
        folder: Path,
        cluster: Cluster,
        *arguments: str,
        token: str = "",
        pod: str = "spanway-0",
        workers: int = 1,
        environment: Mapping[str, str] | None = None,
        ready: bool = True,
    ) -> None:
        self._kubeconfig = cluster.kubeconfig(token)
        if not any(argument.startswith("--publish") for argument in arguments):
            arguments = (*arguments, "--publish-address", PUBLISHED)
        super().__init__(
            folder,
            {},
            *arguments,
            workers=workers,
            https=True,
            ready=ready,
            environment={"POD_NAME": pod, "POD_NAMESPACE": NAMESPACE, **(environment or {})},
        )

    def command(self) -> list[str]:
        return ["controller", "--kubeconfig", str(self._kubeconfig)]

    def get(self, host: str, path: str = "/") -> Answer:
        """One request on a connection of its own."""
        return once(self.address, "GET", path, {"Host": host})

    def serves(self, host: str, body: object, path: str = "/", within: float = 20.0) -> None:
        """Wait until a host's answer is 200 with this body, or for a number this status."""

        def look() -> bool:
            answer = self.get(host, path)
            return answer.status == body if isinstance(body, int) else (answer.status, answer.body) == (200, body)

        poll.until(look, f"{body!r} for {host}{path}", within)

    def count(self, metric: str, **labels: str) -> float:
        """A metric's sum over whatever labels are not given."""
        return self.metrics().total(metric, **labels)

    def leads(self) -> bool:
        """Whether it is the leader."""
        return self.count("spanway_leader") == 1
