"""Memory: what an idle connection holds, what a million requests leave behind, what a big body moves."""

from __future__ import annotations

import contextlib
import socket
import subprocess
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from benchmarks import peers
from benchmarks.cost import settle
from benchmarks.lab import Lab
from benchmarks.peers import CONFIG, Peer
from tests.real import load, usage
from tests.real.big import Sink, download, read_answer, sparse_file, upload

REQUEST: Final = b"GET / HTTP/1.1\r\nHost: %b\r\n\r\n" % peers.HOST.encode()
FIRST: Final = 500  # connections before the count begins: they pay for what is allocated once
MILLION: Final = 1_000_000
MIB: Final = 1024 * 1024


@dataclass(frozen=True, slots=True)
class Idle:
    """Bytes each idle keep-alive connection holds, after one request on it."""

    connections: int
    bytes: float


@dataclass(frozen=True, slots=True)
class Growth:
    """Resident bytes at the end of the warm-up and after each part of a long run, by requests made since."""

    points: list[tuple[int, int]]

    @property
    def requests(self) -> int:
        """How many requests."""
        return self.points[-1][0]

    @property
    def bytes(self) -> int:
        """What they left behind."""
        return self.points[-1][1] - self.points[0][1]


@dataclass(frozen=True, slots=True)
class BigBody:
    """How far memory rose, at its peak, while a body passed; bytes."""

    size: int
    download: int
    upload: int
    download_seconds: float
    upload_seconds: float


def idle(lab: Lab, name: str, connections: int) -> Idle:
    """Open connections, make one request on each, and see what each adds to a proxy that has done nothing else."""
    peer = lab.start(name)
    with contextlib.ExitStack() as held:
        _open(held, peer, FIRST)
        settle(peer)
        before = peer.resident()
        _open(held, peer, connections)
        settle(peer)
        after = peer.resident()
    peer.stop()
    return Idle(connections, (after - before) / connections)


def _open(held: contextlib.ExitStack, peer: Peer, count: int) -> None:
    for _ in range(count):
        connection = held.enter_context(socket.create_connection(("127.0.0.1", peer.port), timeout=30))
        connection.sendall(REQUEST)
        read_answer(connection)


def growth(lab: Lab, name: str, requests: int, say: Callable[[str], None]) -> Growth:
    """Make ``requests`` after a tenth as many to warm up, every one with a path of its own."""
    peer = lab.start(name)
    _varied(lab, peer, max(1, requests // 10))
    settle(peer)
    done = 0
    points = [(0, peer.resident())]
    while done < requests:
        done += _varied(lab, peer, requests // 10)
        settle(peer)
        points.append((done, peer.resident()))
        say(f"{done:,} requests, {points[-1][1] / MIB:.1f} MiB")
    peer.stop()
    return Growth(points)


def _varied(lab: Lab, peer: Peer, least: int) -> int:
    """At least so many requests; returns how many."""
    done = 0
    while done < least:
        command = ["taskset", "--cpu-list", str(lab.cpus.others), str(lab.wrk), "-t1", "-c32", "-d5s"]
        command += ["-H", f"Host: {peers.HOST}", "-s", str(_script(lab)), peer.url]
        output = subprocess.run(command, capture_output=True, text=True, timeout=60, check=False)
        loaded = load.parse(output.stdout + output.stderr)
        if loaded.errors:
            raise RuntimeError(f"{peer.name} failed requests: {loaded.errors}\n{peer.process.tail()}")
        done += loaded.requests
    return done


def _script(lab: Lab) -> Path:
    """One script of two: the requests, and the report of the figures."""
    path = lab.folder / "varied.lua"
    path.write_text((CONFIG / "varied.lua").read_text() + load.SCRIPT.read_text())
    return path


def big_body(lab: Lab, name: str, size: int) -> BigBody:
    """Pass a body of ``size`` bytes each way, after a small one that pays for what is allocated once."""
    peer = lab.start(name)
    warm_up = size // 32
    for count in (warm_up, size):
        sparse_file(lab.files / str(count), count)
    down, down_seconds = _moved(
        peer, lambda count: download(peer.address, peers.HOST, f"/files/{count}"), warm_up, size
    )
    peer.stop()
    with contextlib.closing(Sink()) as sink:
        second = lab.start(name, sink.port)
        up, up_seconds = _moved(second, lambda count: upload(second.address, peers.HOST, count), warm_up, size)
        second.stop()
    return BigBody(size, down, up, down_seconds, up_seconds)


def _moved(peer: Peer, transfer: Callable[[int], int], warm_up: int, size: int) -> tuple[int, float]:
    assert transfer(warm_up) == warm_up
    settle(peer)
    usage.reset_peak(peer.process.pid)
    before = peer.resident()
    started = time.monotonic()
    assert transfer(size) == size
    seconds = time.monotonic() - started
    return usage.peak_resident(peer.process.pid) - before, seconds
