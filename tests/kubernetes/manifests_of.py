"""The manifests of k8s/, as kustomize renders them."""

from __future__ import annotations

import functools
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Final

import yaml

from tests.harness.kube_store import Object, Rule

K8S: Final = Path(__file__).resolve().parents[2] / "k8s"
BASE: Final = K8S / "base"
OVERLAYS: Final = tuple(sorted(path.parent for path in K8S.glob("overlays/*/kustomization.yaml")))


@functools.cache
def _rendered(kubectl: Path, folder: Path) -> str:
    command = (str(kubectl), "kustomize", str(folder))
    done = subprocess.run(command, capture_output=True, text=True, timeout=60, check=False)
    assert done.returncode == 0, done.stderr
    return done.stdout


def rendered(kubectl: Path, folder: Path) -> list[Object]:
    """Every object of a kustomization."""
    return list(yaml.safe_load_all(_rendered(kubectl, folder)))


def of_kind(objects: list[Object], *kinds: str) -> list[Object]:
    """Those of some kinds."""
    return [item for item in objects if item["kind"] in kinds]


def rights(objects: list[Object]) -> Iterator[Rule]:
    """What the roles in ``objects`` give to those they are bound to."""
    roles = {(item["kind"], item["metadata"]["name"]): item for item in of_kind(objects, "Role", "ClusterRole")}
    for binding in of_kind(objects, "RoleBinding", "ClusterRoleBinding"):
        reference = binding["roleRef"]
        for rule in roles[reference["kind"], reference["name"]]["rules"]:
            yield Rule(
                binding["metadata"].get("namespace", ""),
                tuple(rule["apiGroups"]),
                tuple(rule["resources"]),
                tuple(rule["verbs"]),
                tuple(rule.get("resourceNames", ())),
            )
