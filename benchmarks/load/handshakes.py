"""TLS clients that connect, ask once and leave, again and again.

    python -m benchmarks.load.handshakes PORT SECONDS HOST AUTHORITY full|resumed CLIENTS

One process for each client, each waiting for one connection at a time: so many connections are opened at any moment. A
resumed handshake offers the ticket of the connection before it. The answer is one line of JSON, see `Result`.
"""

from __future__ import annotations

import json
import socket
import ssl
import sys
import time
from collections import Counter
from concurrent.futures import ProcessPoolExecutor
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Final, Self

from benchmarks.lab import Lab
from benchmarks.measure.machine import ROOT
from benchmarks.peers.base import HOST, Peer

PATIENCE: Final = 10.0  # seconds
CLIENTS: Final = 4  # processes: one CPU of them keeps a proxy busy, whose half of a handshake is the cheaper one
RESUMPTION_LOST: Final = "not resumed"


@dataclass(frozen=True, slots=True)
class Result:
    """``connections`` that were answered with 200, ``resumed`` of them; ``errors`` by kind; ``protocol`` as agreed."""

    connections: int
    resumed: int
    seconds: float
    protocol: str
    errors: dict[str, int]

    @classmethod
    def parse(cls, output: str) -> Self:
        """What the program printed; raises ValueError when it did not get that far."""
        lines = [line for line in output.splitlines() if line.startswith('{"connections"')]
        if not lines:
            raise ValueError(f"the TLS clients printed no result:\n{output}")
        return cls(**json.loads(lines[-1]))


def run(lab: Lab, peer: Peer, seconds: float, *, resumed: bool) -> Result:
    """Handshakes with a peer for ``seconds``, from the load's CPU."""
    command = ["taskset", "--cpu-list", str(lab.cpus.load), sys.executable, "-m", "benchmarks.load.handshakes"]
    command += [str(peer.tls_port), str(seconds), HOST, str(lab.certificate.authority)]
    command += ["resumed" if resumed else "full", str(CLIENTS)]
    return Result.parse(lab.run(command, seconds, cwd=ROOT))


def client(port: int, seconds: float, host: str, authority: str, *, resumed: bool) -> Result:
    """One client, one connection after the other."""
    context = ssl.create_default_context(cafile=authority)
    context.set_alpn_protocols(["http/1.1"])
    request = f"GET / HTTP/1.1\r\nHost: {host}\r\nConnection: close\r\n\r\n".encode("ascii")
    session: ssl.SSLSession | None = None
    done = reused = 0
    protocol = ""
    errors: Counter[str] = Counter()
    started = time.monotonic()
    while time.monotonic() - started < seconds and errors.total() < 100:
        try:
            with (
                socket.create_connection(("127.0.0.1", port), timeout=PATIENCE) as plain,
                context.wrap_socket(plain, server_hostname=host, session=session) as secure,
            ):
                secure.sendall(request)
                answer = secure.recv(65_536)
                if resumed:
                    reused += bool(secure.session_reused)
                    session = secure.session  # its ticket has come with the answer (RFC 8446 section 4.6.1)
                protocol = secure.version() or ""
        except (OSError, ssl.SSLError) as error:
            errors[type(error).__name__] += 1
            continue
        if answer.startswith(b"HTTP/1.1 200"):
            done += 1
        else:
            errors["status"] += 1
    return Result(done, reused, time.monotonic() - started, protocol, dict(errors))


def _client(port: int, seconds: float, host: str, authority: str, resumed: bool) -> Result:
    return client(port, seconds, host, authority, resumed=resumed)


def together(results: list[Result]) -> Result:
    """What all clients did."""
    errors: Counter[str] = Counter()
    for each in results:
        errors.update(each.errors)
    return Result(
        sum(each.connections for each in results),
        sum(each.resumed for each in results),
        max(each.seconds for each in results),
        results[0].protocol,
        dict(errors),
    )


def main(arguments: list[str]) -> None:
    """Run the clients and print the result."""
    port, seconds, host, authority, mode, count = arguments
    if not Path(authority).is_file():
        sys.exit(f"{authority}: no such file")
    clients = int(count)
    with ProcessPoolExecutor(clients) as pool:
        runs = [
            pool.submit(_client, int(port), float(seconds), host, authority, mode == "resumed") for _ in range(clients)
        ]
        found = together([each.result() for each in runs])
    print(json.dumps(asdict(found)))


if __name__ == "__main__":
    main(sys.argv[1:])
