"""The bench: an upstream and a collector on one CPU, the proxies under test on the other."""

from __future__ import annotations

import contextlib
import resource
from collections.abc import Callable
from pathlib import Path
from typing import Final, Self

from benchmarks import collector, peers
from benchmarks.machine import Cpus
from benchmarks.peers import Peer, Place

NGINX: Final = "nginx"
TRACED: Final = "spanway"
UNTRACED: Final = "spanway-untraced"
ANSWER: Final = 430  # bytes: a small JSON answer


class Lab:
    """A context manager; what it starts ends with it. ``answer`` is the size of the upstream's answer in bytes."""

    def __init__(self, folder: Path, *, answer: int = ANSWER, prefer_jaeger: bool = True) -> None:
        raise_file_limit()
        self.cpus = Cpus.choose()
        self.folder: Final = folder
        self.files: Final = folder / "upstream" / "root" / "files"
        self._started = 0
        self._ends = contextlib.ExitStack()
        self.wrk = peers.needed("wrk")
        try:
            self.upstream = peers.start_upstream(folder / "upstream", self.cpus.others, answer)
            self._ends.callback(self.upstream.stop)
            self.files.mkdir()
            self.collector = collector.start(folder / "collector", self.cpus.others, prefer_jaeger=prefer_jaeger)
            self._ends.callback(self.collector.stop)
        except BaseException:
            self._ends.close()
            raise

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._ends.close()

    def start(self, name: str, upstream: int = 0) -> Peer:
        """A fresh proxy by the name of one of `VARIANTS`, in front of the bench's upstream or of another port."""
        self._started += 1
        place = Place(self.folder / f"peer-{self._started}", self.cpus.proxy, upstream or self.upstream.port)
        peer = VARIANTS[name](name, place, self.collector.endpoint)
        self._ends.callback(peer.stop)
        return peer


VARIANTS: Final[dict[str, Callable[[str, Place, str], Peer]]] = {
    NGINX: lambda name, place, _: peers.start_nginx(name, place),
    "nginx-again": lambda name, place, _: peers.start_nginx(name, place),  # how far from 1 the ratio of two equals is
    "haproxy": lambda name, place, _: peers.start_haproxy(name, place),
    TRACED: peers.start_spanway,
    UNTRACED: lambda name, place, endpoint: peers.start_spanway(name, place, endpoint, traced=False),
}


def raise_file_limit() -> None:
    """Allow as many open files as this user may: what is started inherits it."""
    _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
