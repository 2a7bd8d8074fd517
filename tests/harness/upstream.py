"""A scripted upstream that records exactly what it saw, connection by connection.

A script is a function called with an `Exchange` once a request's head has been read; it reads as much of the body as
it likes, sends what it likes, closes if it likes. Without a script every request is read whole and answered with 200.
"""

from __future__ import annotations

import contextlib
import socket
import ssl
import struct
import threading
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

from tests.harness import poll
from tests.harness.feed import Feed, feed
from tests.harness.wire import TIMEOUT, Ended, Request, Stream, WireError, read_request_body, read_request_head

Script = Callable[["Exchange"], None]

OK = b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok"


@dataclass
class Connection:
    """One accepted connection: its bytes, its requests, and how it ended."""

    number: int
    stream: Stream
    requests: list[Request] = field(default_factory=list)
    closed: bool = False  # we, or the proxy, have closed it
    error: WireError | None = None  # what the proxy sent is not strict HTTP/1.1

    @property
    def raw(self) -> bytes:
        """Every byte the proxy sent on it."""
        return bytes(self.stream.raw)


class Exchange:
    """One request at the upstream, in the hands of a script."""

    def __init__(self, recorder: Recorder, connection: Connection, request: Request, attempt: int) -> None:
        self.recorder = recorder
        self.connection = connection
        self.request = request
        self.attempt = attempt  # 0 for the recorder's first request since its last reset
        self.stream = connection.stream
        self.socket = connection.stream.socket

    def read_body(self) -> bytes:
        """The whole request body."""
        read_request_body(self.stream, self.request)
        return self.request.body

    def send(self, data: bytes, how: Feed = Feed.WHOLE) -> None:
        """Send bytes to the proxy; a proxy that has left is no error."""
        self.socket.settimeout(TIMEOUT)
        feed(self.socket, data, how)

    def finish_writing(self) -> None:
        """Half-close."""
        self.socket.shutdown(socket.SHUT_WR)

    def close(self) -> None:
        """Close: FIN, or RST when the proxy's bytes were left unread."""
        self.connection.closed = True
        if isinstance(self.socket, ssl.SSLSocket):
            with contextlib.suppress(OSError):
                self.socket.settimeout(1)
                self.socket.unwrap()
        self.socket.close()

    def reset(self) -> None:
        """Close with RST."""
        self.socket.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        self.connection.closed = True
        self.socket.close()

    def hold(self, event: threading.Event) -> None:
        """Wait for ``event``, or for the test to be over."""
        deadline = time.monotonic() + 2 * TIMEOUT
        while not event.wait(0.01) and not self.recorder.over.is_set():
            assert time.monotonic() < deadline, "a held upstream was never released"

    def await_close(self) -> None:
        """Read until the proxy closes; everything lands in the connection's raw bytes."""
        with contextlib.suppress(TimeoutError):
            self.stream.rest()


def answer(response: bytes = OK, how: Feed = Feed.WHOLE, *, close: bool = False) -> Script:
    """Read the request whole, send ``response``, keep the connection or ``close`` it."""

    def script(exchange: Exchange) -> None:
        exchange.read_body()
        exchange.send(response, how)
        if close:
            exchange.close()

    return script


def in_turn(*scripts: Script) -> Script:
    """The first request gets the first script and so on; the last one stays."""

    def script(exchange: Exchange) -> None:
        scripts[min(exchange.attempt, len(scripts) - 1)](exchange)

    return script


def hang_up(exchange: Exchange) -> None:
    """Read the request whole and close without a word."""
    exchange.read_body()
    exchange.close()


def echo(exchange: Exchange) -> None:
    """Answer with the body that was sent."""
    body = exchange.read_body()
    exchange.send(b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n%b" % (len(body), body))


def silent(exchange: Exchange) -> None:
    """Read the request whole and never answer."""
    exchange.read_body()
    exchange.await_close()
    exchange.close()


class Recorder:
    """The upstream server, on a port the kernel chose. `reset` between tests; `stop` at the end."""

    def __init__(self, *, tls: ssl.SSLContext | None = None, receive_buffer: int = 0) -> None:
        self.tls = tls
        self.script: Script = answer()
        self.connections: list[Connection] = []
        self.errors: list[BaseException] = []  # of scripts: mistakes of the test itself
        self.over = threading.Event()
        self._begun = 0
        self._lock = threading.Lock()
        self._threads: list[threading.Thread] = []
        self._listener = socket.socket(socket.AF_INET, socket.SOCK_STREAM)
        if receive_buffer:
            self._listener.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, receive_buffer)
        self._listener.bind(("127.0.0.1", 0))
        self._listener.listen(128)
        self.address: tuple[str, int] = self._listener.getsockname()
        self._acceptor = threading.Thread(target=self._accept, name="recorder", daemon=True)
        self._acceptor.start()

    @property
    def port(self) -> int:
        """The port it listens on."""
        return self.address[1]

    # What it saw.

    @property
    def requests(self) -> list[Request]:
        """Every request whose head was read, in order of connection and arrival."""
        return [request for connection in list(self.connections) for request in connection.requests]

    @property
    def complete(self) -> list[Request]:
        """The requests read whole."""
        return [request for request in self.requests if request.complete]

    @property
    def raw(self) -> bytes:
        """Every byte of every connection."""
        return b"".join(connection.raw for connection in list(self.connections))

    @property
    def malformed(self) -> list[WireError]:
        """What the proxy sent that is not strict HTTP/1.1."""
        return [connection.error for connection in list(self.connections) if connection.error is not None]

    def one(self) -> Request:
        """The only request; AssertionError unless exactly one came and was read whole."""
        requests = self.wait(1)
        assert len(requests) == 1, [request.head for request in requests]
        poll.until(lambda: requests[0].complete, "the request's body")
        return requests[0]

    def wait(self, count: int) -> list[Request]:
        """The requests, once there are ``count`` of them."""
        poll.until(lambda: len(self.requests) >= count, f"{count} requests at the upstream")
        return self.requests

    def wait_closed(self, number: int = 0) -> None:
        """Wait until connection ``number`` is closed."""
        poll.until(
            lambda: len(self.connections) > number and self.connections[number].closed,
            f"upstream connection {number} to close",
        )

    # Its life.

    def reset(self) -> None:
        """Forget everything; idle connections are closed and seen closed by the proxy, so none is reused later."""
        self.over.set()
        with self._lock:
            connections, threads = self.connections, self._threads
            self.connections, self._threads, self._begun = [], [], 0
        for connection in connections:
            with contextlib.suppress(OSError):
                connection.stream.socket.shutdown(socket.SHUT_WR)
        deadline = time.monotonic() + 2
        for thread in threads:
            thread.join(max(0.0, deadline - time.monotonic()))
        for connection in connections:
            with contextlib.suppress(OSError):
                connection.stream.socket.shutdown(socket.SHUT_RDWR)
        for thread in threads:
            thread.join(TIMEOUT)
        errors, self.errors = self.errors, []
        self.script = answer()
        self.over.clear()
        assert not errors, f"a script failed: {errors!r}"

    def stop(self) -> None:
        """Close everything. Afterwards its port refuses connections."""
        self.refuse()
        self.reset()

    def refuse(self) -> None:
        """Stop listening: new connections are refused, the open ones live on."""
        with contextlib.suppress(OSError):
            self._listener.shutdown(socket.SHUT_RDWR)
        self._listener.close()
        self._acceptor.join(TIMEOUT)

    def _accept(self) -> None:
        while True:
            try:
                accepted, _ = self._listener.accept()
            except OSError:
                return
            thread = threading.Thread(target=self._serve, args=(accepted,), name="upstream", daemon=True)
            with self._lock:  # `reset` may join only what has started
                self._threads.append(thread)
                thread.start()

    def _serve(self, accepted: socket.socket) -> None:
        accepted.settimeout(TIMEOUT)
        accepted.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        if self.tls is not None:
            try:
                accepted = self.tls.wrap_socket(accepted, server_side=True)
            except (OSError, ssl.SSLError):
                accepted.close()
                return
        with self._lock:
            connection = Connection(len(self.connections), Stream(accepted, 10 * TIMEOUT))
            self.connections.append(connection)
        try:
            self._exchanges(connection)
        except Ended:
            pass  # cut short: the request stays incomplete
        except WireError as error:
            connection.error = error
        except OSError:
            pass
        except BaseException as error:
            self.errors.append(error)
        finally:
            connection.closed = True
            accepted.close()

    def _exchanges(self, connection: Connection) -> None:
        while not connection.closed:
            request = read_request_head(connection.stream)
            if request is None:
                return
            with self._lock:
                connection.requests.append(request)
                attempt, self._begun = self._begun, self._begun + 1
            self.script(Exchange(self, connection, request, attempt))


class Refusing:
    """A port that is taken and refuses every connection."""

    def __init__(self) -> None:
        self._socket = socket.socket(socket.AF_INET, socket.SOCK_STREAM)
        self._socket.bind(("127.0.0.1", 0))
        self.port: int = self._socket.getsockname()[1]

    def stop(self) -> None:
        """Give the port back."""
        self._socket.close()


def total_body(requests: Sequence[Request]) -> int:
    """Bytes of all bodies."""
    return sum(len(request.body) for request in requests)


class Held:
    """A script that answers only once it is released."""

    def __init__(self) -> None:
        self.release = threading.Event()

    def __call__(self, exchange: Exchange) -> None:
        exchange.read_body()
        exchange.hold(self.release)
        exchange.send(OK)


class Full:
    """A port whose backlog is full: SYNs go unanswered, so that connecting takes for ever."""

    def __init__(self) -> None:
        self._listener = socket.socket(socket.AF_INET, socket.SOCK_STREAM)
        self._listener.bind(("127.0.0.1", 0))
        self._listener.listen(0)
        self.port: int = self._listener.getsockname()[1]
        self._fillers: list[socket.socket] = []
        for _ in range(8):
            filler = socket.socket(socket.AF_INET, socket.SOCK_STREAM)
            filler.setblocking(False)
            filler.connect_ex(("127.0.0.1", self.port))
            self._fillers.append(filler)

    def stop(self) -> None:
        for filler in self._fillers:
            filler.close()
        self._listener.close()
