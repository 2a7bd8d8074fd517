"""The upstream of every measurement: nginx with one small answer behind every path, and files by size."""

from __future__ import annotations

from pathlib import Path
from typing import Final

from benchmarks.peers.base import CONNECTIONS, LOOPBACK, Peer, needed, ready, text
from tests.real.big import sparse_file
from tests.real.nginx import Nginx
from tests.real.process import free_ports

ANSWER: Final = 430  # bytes: a small JSON answer
SENTENCE: Final = b"Spanway measures. "


def start(folder: Path, cpu: int, answer: int = ANSWER, host: str = LOOPBACK) -> Peer:
    """nginx on ``cpu``; every path answers with ``answer`` bytes, /files/N with the file N, if `file` has made it.

    ``host`` is where it listens; it must be reachable at the loopback address too.
    """
    root = folder / "root"
    (root / "files").mkdir(parents=True, exist_ok=True)
    (root / "answer").write_bytes(content(answer))
    (port,) = free_ports(1)
    http = text("upstream.conf", host=host, port=port, root=root, answer="answer")
    nginx = Nginx(needed("nginx"), folder, http, port, connections=CONNECTIONS, cpu=cpu)
    return ready(Peer("direct", nginx.process, port, 0, folder))


def content(size: int) -> bytes:
    """The small answer."""
    return (SENTENCE * (size // len(SENTENCE) + 1))[:size]


def file(upstream: Peer, size: int) -> str:
    """Make a file of ``size`` bytes; the path it is at."""
    path = upstream.folder / "root" / "files" / str(size)
    if not path.exists():
        sparse_file(path, size)
    return f"/files/{size}"
