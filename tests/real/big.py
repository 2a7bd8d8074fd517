"""Bodies too big to keep: sources and sinks that count and forget."""

from __future__ import annotations

import contextlib
import socket
import threading
import time
from pathlib import Path
from typing import Final

MIB: Final = 1024 * 1024
PATIENCE: Final = 60.0  # seconds without a byte
Address = tuple[str, int]


def sparse_file(path: Path, size: int) -> None:
    """A file of ``size`` zero bytes that takes no room."""
    with path.open("wb") as stream:
        stream.truncate(size)


class Sink:
    """An upstream that counts a body and forgets it; between two reads it may be slow."""

    def __init__(self, pause_after: int = 0, pause: float = 0.0) -> None:
        self._listener = socket.create_server(("127.0.0.1", 0), backlog=16)
        self.port: Final = int(self._listener.getsockname()[1])
        self._pause_after = pause_after
        self._pause = pause
        self._thread = threading.Thread(target=self._accept, daemon=True)
        self._thread.start()

    def close(self) -> None:
        """Stop accepting."""
        with contextlib.suppress(OSError):
            self._listener.shutdown(socket.SHUT_RDWR)
        self._listener.close()
        self._thread.join(10)

    def _accept(self) -> None:
        with contextlib.suppress(OSError):
            while True:
                connection, _ = self._listener.accept()
                threading.Thread(target=self._serve, args=(connection,), daemon=True).start()

    def _serve(self, connection: socket.socket) -> None:
        with connection, contextlib.suppress(OSError):
            connection.settimeout(PATIENCE)
            head = b""
            while b"\r\n\r\n" not in head:
                received = connection.recv(65536)
                if not received:
                    return
                head += received
            fields, _, begun = head.partition(b"\r\n\r\n")
            (length,) = (
                int(line[15:]) for line in fields.split(b"\r\n") if line.lower().startswith(b"content-length:")
            )
            count = len(begun) + drain(connection, length - len(begun), self._pause_after, self._pause)
            body = b"%d" % count
            connection.sendall(
                b"HTTP/1.1 200 OK\r\nConnection: close\r\nContent-Length: %d\r\n\r\n%b" % (len(body), body)
            )


def drain(connection: socket.socket, count: int, pause_after: int = 0, pause: float = 0.0) -> int:
    """Read ``count`` bytes and forget them, with one pause after ``pause_after``; returns how many there were."""
    buffer = bytearray(MIB)
    done = 0
    while done < count:
        received = connection.recv_into(buffer, min(len(buffer), count - done))
        if not received:
            break
        if pause and done <= pause_after < done + received:
            time.sleep(pause)
        done += received
    return done


def connect(address: Address) -> socket.socket:
    """A connection whose waits are bounded."""
    return socket.create_connection(address, timeout=PATIENCE)


def ask(connection: socket.socket, host: str, path: str) -> None:
    """Send a GET that is the connection's last."""
    request = f"GET {path} HTTP/1.1\r\nHost: {host}\r\nConnection: close\r\n\r\n"
    connection.sendall(request.encode("ascii"))


def read_head(connection: socket.socket) -> tuple[bytes, bytes]:
    """A head, and what of the body came with it; ConnectionError when the peer leaves before."""
    received = b""
    while b"\r\n\r\n" not in received:
        more = connection.recv(65536)
        if not more:
            raise ConnectionError(f"the connection ended within a head: {received!r}")
        received += more
    head, _, begun = received.partition(b"\r\n\r\n")
    return head, begun


def read_ok(connection: socket.socket) -> tuple[bytes, bytes]:
    """The head of an answer that must be 200, and what of its body came with it."""
    head, begun = read_head(connection)
    assert head.startswith(b"HTTP/1.1 200 "), head
    return head, begun


def content_length(head: bytes) -> int:
    """The value of the field; ValueError without one."""
    (value,) = (line[15:] for line in head.split(b"\r\n") if line.lower().startswith(b"content-length:"))
    return int(value)


def read_answer(connection: socket.socket) -> bytes:
    """The body of an answer with Content-Length."""
    head, body = read_ok(connection)
    while len(body) < content_length(head):
        body += connection.recv(65536)
    return body


def download(address: Address, host: str, path: str, pause_after: int = 0, pause: float = 0.0) -> int:
    """Fetch ``path`` until the connection ends; returns how many bytes its body had."""
    with connect(address) as connection:
        ask(connection, host, path)
        head, begun = read_ok(connection)
        return len(begun) + drain(connection, content_length(head) + 1 - len(begun), pause_after, pause)


def upload(address: Address, host: str, size: int) -> int:
    """Send ``size`` bytes (whole MiB); returns how many a `Sink` behind the proxy says it has read."""
    block = memoryview(bytes(MIB))
    with connect(address) as connection:
        connection.sendall(f"POST / HTTP/1.1\r\nHost: {host}\r\nContent-Length: {size}\r\n\r\n".encode("ascii"))
        for _ in range(size // len(block)):
            connection.sendall(block)
        return int(read_answer(connection))
