"""A server whose answers, and delays, are known."""

from __future__ import annotations

import socket
import threading
import time
from collections.abc import Callable

OK = b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok"


def slowly(seconds: float) -> bytes:
    time.sleep(seconds)
    return OK


class Server:
    """Answers each request on each connection by ``answer``, which is told the number of the request."""

    def __init__(self, answer: Callable[[int], bytes]) -> None:
        self._listener = socket.create_server(("127.0.0.1", 0), backlog=64)
        self.port = int(self._listener.getsockname()[1])
        self._answer = answer
        self._lock = threading.Lock()  # held while an answer is made: a stall stalls everybody, as one event loop does
        self._requests = 0
        self._open: list[socket.socket] = []
        self._thread = threading.Thread(target=self._accept, daemon=True)
        self._thread.start()

    def _accept(self) -> None:
        while True:
            try:
                connection, _ = self._listener.accept()
            except OSError:
                return
            self._open.append(connection)
            threading.Thread(target=self._serve, args=(connection,), daemon=True).start()

    def _serve(self, connection: socket.socket) -> None:
        try:
            while connection.recv(65536):
                with self._lock:
                    self._requests += 1
                    answer = self._answer(self._requests)
                if not answer:
                    break
                connection.sendall(answer)
                if b"Connection: close" in answer:
                    break
        except OSError:
            pass
        finally:
            connection.close()

    def close(self) -> None:
        self._listener.shutdown(socket.SHUT_RDWR)
        self._listener.close()
        self._thread.join(10)
        for connection in self._open:
            connection.close()
