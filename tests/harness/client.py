"""A raw downstream: bytes in, strictly read responses out, and whether the proxy closed."""

from __future__ import annotations

import contextlib
import socket
import ssl
import struct
from types import TracebackType
from typing import Self

from tests.harness.feed import Feed, feed
from tests.harness.wire import TIMEOUT, Response, Stream, WireError, read_response


class Client:
    """One connection to the proxy. Usable as a context manager; every wait is bounded by ``timeout`` seconds."""

    def __init__(
        self,
        address: tuple[str, int],
        *,
        timeout: float = TIMEOUT,
        tls: ssl.SSLContext | None = None,
        server_name: str | None = None,
        receive_buffer: int = 0,
        preamble: bytes = b"",
    ) -> None:
        self.socket = socket.socket(socket.AF_INET, socket.SOCK_STREAM)
        if receive_buffer:  # before connect: the window is agreed in the handshake
            self.socket.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, receive_buffer)
        self.socket.settimeout(timeout)
        try:
            self.socket.connect(address)
            self.socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            self.local = self.socket.getsockname()
            if preamble:
                self.socket.sendall(preamble)
            if tls is not None:
                self.socket = tls.wrap_socket(self.socket, server_hostname=server_name)
        except BaseException:
            self.socket.close()
            raise
        self.stream = Stream(self.socket, timeout)
        self.timeout = timeout

    @property
    def port(self) -> int:
        """Our port: `network.peer.port` of the proxy's SERVER spans."""
        return int(self.local[1])

    def send(self, data: bytes, how: Feed = Feed.WHOLE) -> bool:
        """Send ``data``; False when the proxy closed before it was all sent."""
        self.socket.settimeout(self.timeout)
        return feed(self.socket, data, how)

    def response(self, method: str = "GET") -> Response:
        """The next final response; see `wire.read_response`."""
        return read_response(self.stream, method)

    def ask(self, data: bytes, how: Feed = Feed.WHOLE, method: str = "GET") -> Response:
        """Send a request and read its response."""
        self.send(data, how)
        return self.response(method)

    def closed(self, timeout: float | None = None) -> bool:
        """Whether the proxy closes within ``timeout`` seconds; `WireError` if it says anything more."""
        limit = self.timeout if timeout is None else timeout
        try:
            more = self.stream.buffer or self.stream.fill(limit)
        except TimeoutError:
            return False
        if more:
            raise WireError(f"bytes after the last response: {bytes(self.stream.buffer)!r}")
        return True

    def ended(self) -> bool:
        """Whether the stream has ended; False when something waits to be read."""
        return not self.stream.buffer and not self.stream.fill()

    def finish_writing(self) -> None:
        """Half-close: FIN, while we go on reading. A proxy that has reset the connection is no error here."""
        with contextlib.suppress(OSError):
            self.socket.shutdown(socket.SHUT_WR)

    def reset(self) -> None:
        """Leave with RST."""
        self.socket.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        self.socket.close()

    def close(self) -> None:
        """Leave."""
        self.socket.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()
