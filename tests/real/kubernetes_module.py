"""A Go module that can build Kubernetes' programs from the module proxy.

`k8s.io/kubernetes` cannot be built as a dependency as it is: its go.mod replaces the `k8s.io/*` modules by directories
of its own repository, and requires them as v0.0.0. The module written here requires what Kubernetes requires, with
those replaced by the versions that are published with each release: v1.X.Y has them as v0.X.Y.
"""

from __future__ import annotations

import re
from pathlib import Path
from typing import Final

from tests.real.parts import GoPart

REPLACED: Final = re.compile(r"=> \./staging/src/(\S+)")
# What Kubernetes' own build sets, so that the programs say which version they are and take their version's defaults.
VERSION_PACKAGES: Final = ("k8s.io/component-base/version", "k8s.io/client-go/pkg/version")


def write(part: GoPart, source: Path, folder: Path) -> Path:
    """Write go.mod and go.sum below ``folder`` from Kubernetes' own in ``source``; returns that directory.

    go.sum verifies what Kubernetes' own go.sum does; the published `k8s.io/*` modules are left to Go's checksum
    database.
    """
    published = "v0." + part.version.removeprefix("v1.")
    text = (source / "go.mod").read_text(encoding="utf-8")
    text = text.replace(f"module {part.module}\n", "module parts.invalid/kubernetes\n")
    text, count = REPLACED.subn(rf"=> \g<1> {published}", text)
    if not count:
        raise ValueError(f"{part.module}@{part.version} replaces no module by its own directories")
    directory = folder / part.directory.name
    directory.mkdir(parents=True, exist_ok=True)
    (directory / "go.mod").write_text(f"{text}\nrequire {part.module} {part.version}\n", encoding="utf-8")
    (directory / "go.sum").write_bytes((source / "go.sum").read_bytes())
    return directory


def package(part: GoPart) -> str:
    """The main package by its import path."""
    return part.module + part.package.removeprefix(".")


def version_flags(part: GoPart) -> str:
    """Linker flags that set the version, each after a space."""
    major, minor, _ = part.version.removeprefix("v").split(".")
    values = {"gitVersion": part.version, "gitMajor": major, "gitMinor": minor, "gitTreeState": "clean"}
    return "".join(f" -X {name}.{key}={value}" for name in VERSION_PACKAGES for key, value in values.items())
