"""Closed loops by h2load over HTTP/1.1: what wrk cannot do (uploads from a file, SNI), and what it printed."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final, Self

from benchmarks.lab import Lab
from benchmarks.peers.base import HOST, Peer, needed

_UNITS: Final = {"us": 1e-6, "ms": 1e-3, "s": 1.0, "m": 60.0, "h": 3600.0}
_REQUESTS: Final = re.compile(
    r"^requests: \d+ total, \d+ started, \d+ done, (\d+) succeeded, (\d+) failed, (\d+) errored, (\d+) timeout",
    re.MULTILINE,
)
_CODES: Final = re.compile(r"^status codes: (\d+) 2xx, (\d+) 3xx, (\d+) 4xx, (\d+) 5xx", re.MULTILINE)
_FINISHED: Final = re.compile(r"^finished in ([\d.]+)(us|ms|s|m|h), ", re.MULTILINE)
_TRAFFIC: Final = re.compile(r"^traffic: \S+ \((\d+)\) total, \S+ \(\d+\) headers .*, \S+ \((\d+)\) data", re.MULTILINE)


@dataclass(frozen=True, slots=True)
class H2Load:
    """One run. ``requests`` had a status of 2xx; ``bytes`` were received in all, ``data`` as bodies."""

    requests: int
    seconds: float
    bytes: int
    data: int
    failed: int
    errored: int
    timeout: int
    status: int

    @property
    def rate(self) -> float:
        """Requests a second."""
        return self.requests / self.seconds

    @property
    def errors(self) -> dict[str, int]:
        """What went wrong, by kind; empty when nothing did. ``status`` counts answers other than 2xx."""
        counts = {"failed": self.failed - self.status, "errored": self.errored, "timeout": self.timeout}
        return {name: count for name, count in (counts | {"status": self.status}).items() if count > 0}

    @classmethod
    def parse(cls, output: str) -> Self:
        """The summary at the end; raises ValueError when there is none."""
        found = [pattern.search(output) for pattern in (_REQUESTS, _CODES, _FINISHED, _TRAFFIC)]
        if any(match is None for match in found):
            raise ValueError(f"h2load printed no summary:\n{output[-2000:]}")
        requests, codes, finished, traffic = (match.groups() for match in found if match is not None)
        ok, *others = map(int, codes)
        _, failed, errored, timeout = map(int, requests)
        # Requests that the end of the time cut are neither failed nor done; h2load counts them nowhere.
        seconds = float(finished[0]) * _UNITS[finished[1]]
        return cls(ok, seconds, int(traffic[0]), int(traffic[1]), failed, errored, timeout, sum(others))


def run(
    lab: Lab, peer: Peer, path: str, connections: int, seconds: float, *, tls: bool = False, options: Sequence[str] = ()
) -> H2Load:
    """Load one path over HTTP/1.1 for ``seconds``; over TLS with the right server name."""
    port = peer.tls_port if tls else peer.port
    command: list[str | Path] = [needed("h2load"), "--h1", "-c", str(connections), "-D", f"{max(1, round(seconds))}"]
    command += ["--connect-to", f"127.0.0.1:{port}", *options]
    return H2Load.parse(lab.load([*command, f"{'https' if tls else 'http'}://{HOST}{path}"], seconds))
