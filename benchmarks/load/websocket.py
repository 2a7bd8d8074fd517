"""WebSocket messages there and back: an upstream that echoes, and clients that wait for each echo.

    python -m benchmarks.load.websocket serve PORT
    python -m benchmarks.load.websocket ask PORT SECONDS CONNECTIONS SIZE HOST

The opening handshake is RFC 6455's; after it a proxy passes bytes on and reads no frame, so the echo sends a client's
masked frame back as it came. The answer of ``ask`` is one line of JSON, see `Result`.
"""

from __future__ import annotations

import asyncio
import base64
import hashlib
import json
import select
import socket
import sys
import time
from collections import Counter
from dataclasses import asdict, dataclass
from typing import Final, Self, cast

import uvloop

from benchmarks.lab import Lab
from benchmarks.measure.machine import ROOT
from benchmarks.peers.base import HOST, Peer

PATH: Final = "/websocket"
PATIENCE: Final = 10.0  # seconds
_MAGIC: Final = b"258EAFA5-E914-47DA-95CA-C5AB0DC85B11"  # RFC 6455 section 1.3
_KEY: Final = base64.b64encode(bytes(16))


@dataclass(frozen=True, slots=True)
class Result:
    """``echoes`` that came back whole, ``connections`` that were upgraded, ``errors`` by kind."""

    echoes: int
    seconds: float
    connections: int
    errors: dict[str, int]

    @classmethod
    def parse(cls, output: str) -> Self:
        """What the program printed; raises ValueError when it did not get that far."""
        lines = [line for line in output.splitlines() if line.startswith('{"echoes"')]
        if not lines:
            raise ValueError(f"the WebSocket clients printed no result:\n{output}")
        return cls(**json.loads(lines[-1]))


def run(lab: Lab, peer: Peer, seconds: float, connections: int, size: int) -> Result:
    """Messages of ``size`` bytes through a peer for ``seconds``, from the load's CPU."""
    command = ["taskset", "--cpu-list", str(lab.cpus.load), sys.executable, "-m", "benchmarks.load.websocket", "ask"]
    command += map(str, (peer.port, seconds, connections, size, HOST))
    return Result.parse(lab.run(command, seconds, cwd=ROOT))


def accept_key(key: bytes) -> bytes:
    """What a server answers to a client's key (RFC 6455 section 4.2.2)."""
    return base64.b64encode(hashlib.sha1(key + _MAGIC, usedforsecurity=False).digest())


def frame(size: int) -> bytes:
    """One masked binary frame of ``size`` bytes, with a mask of zeros."""
    if size < 126:
        return bytes((0x82, 0x80 | size)) + bytes(4) + b"x" * size
    length = bytes((126,)) + size.to_bytes(2) if size < 65_536 else bytes((127,)) + size.to_bytes(8)
    return bytes((0x82, 0x80 | length[0])) + length[1:] + bytes(4) + b"x" * size


class Echo(asyncio.Protocol):
    """The upstream: upgrades, then sends back what comes. A request that does not upgrade is answered with 200."""

    def __init__(self) -> None:
        self._head: bytes | None = b""
        self._transport: asyncio.WriteTransport

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """A new connection."""
        self._transport = cast("asyncio.WriteTransport", transport)  # uvloop's is none by inheritance

    def data_received(self, data: bytes) -> None:
        """A head, or frames."""
        if self._head is None:
            self._transport.write(data)
            return
        self._head += data
        head, end, rest = self._head.partition(b"\r\n\r\n")
        if not end:
            return
        fields = {name.strip().lower(): value.strip() for name, _, value in _lines(head)}
        key = fields.get(b"sec-websocket-key")
        if key is None:
            self._head = rest
            self._transport.write(b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok")
            return
        self._head = None
        answer = b"HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
        self._transport.write(answer + b"Sec-WebSocket-Accept: " + accept_key(key) + b"\r\n\r\n" + rest)


def _lines(head: bytes) -> list[tuple[bytes, bytes, bytes]]:
    return [line.partition(b":") for line in head.split(b"\r\n")[1:]]


async def serve(port: int) -> None:
    """Echo until the process is ended."""
    server = await asyncio.get_running_loop().create_server(Echo, "127.0.0.1", port)
    await server.serve_forever()


def ask(port: int, seconds: float, connections: int, size: int, host: str) -> Result:
    """Keep one message under way on each of ``connections``."""
    message = frame(size)
    poll = select.epoll()
    errors: Counter[str] = Counter()
    missing: dict[int, int] = {}
    opened: dict[int, socket.socket] = {}
    for _ in range(connections):
        connection = upgraded(port, host)
        if connection is None:
            errors["not upgraded"] += 1
            continue
        connection.setblocking(False)
        opened[connection.fileno()] = connection
        poll.register(connection.fileno(), select.EPOLLIN)
    echoes = 0
    started = time.monotonic()
    for descriptor, connection in opened.items():
        connection.send(message)
        missing[descriptor] = len(message)
    while missing and time.monotonic() - started < seconds:
        for descriptor, _ in poll.poll(1.0):
            try:
                received = len(opened[descriptor].recv(1 << 20))
            except OSError:
                received = 0
            if not received:
                errors["read"] += 1
                poll.unregister(descriptor)
                del missing[descriptor]
                continue
            missing[descriptor] -= received
            if not missing[descriptor]:
                echoes += 1
                missing[descriptor] = len(message)
                opened[descriptor].send(message)
    lasted = time.monotonic() - started
    poll.close()
    for connection in opened.values():
        connection.close()
    return Result(echoes, lasted, len(opened), dict(errors))


def upgraded(port: int, host: str) -> socket.socket | None:
    """A connection after a right answer to the opening handshake; None after another."""
    connection = socket.create_connection(("127.0.0.1", port), timeout=PATIENCE)
    fields = f"Host: {host}\r\nUpgrade: websocket\r\nConnection: Upgrade\r\nSec-WebSocket-Version: 13\r\n"
    connection.sendall(f"GET {PATH} HTTP/1.1\r\n{fields}".encode() + b"Sec-WebSocket-Key: " + _KEY + b"\r\n\r\n")
    head = b""
    while not head.endswith(b"\r\n\r\n"):
        received = connection.recv(1)
        if not received:
            break
        head += received
    if head.startswith(b"HTTP/1.1 101 ") and accept_key(_KEY) in head:
        return connection
    connection.close()
    return None


def main(arguments: list[str]) -> None:
    """Serve, or ask and print the result."""
    what, port, *rest = arguments
    if what == "serve":
        uvloop.run(serve(int(port)))
    else:
        seconds, connections, size, host = rest
        print(json.dumps(asdict(ask(int(port), float(seconds), int(connections), int(size), host))))


if __name__ == "__main__":
    main(sys.argv[1:])
