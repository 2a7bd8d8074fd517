"""An open loop: requests leave by the clock, whether or not earlier ones have been answered.

    python -m benchmarks.load.pacer PORT RATE SECONDS WARM_UP CONNECTIONS HOST PATH

Request number n is due at start + n / RATE. It leaves at once on a connection that is idle, or on the first that
becomes idle, and its latency counts from when it was due: what a stalled server keeps waiting is counted as waiting,
which a closed loop, or a log of send times such as h2load's, leaves out ("coordinated omission"). Latencies of the
first WARM_UP seconds are dropped. The answer is one line of JSON, see `Result`.

The clock is a periodic timerfd, so that the process sleeps between two requests and the upstream beside it can run.
"""

from __future__ import annotations

import ctypes
import gc
import json
import os
import select
import socket
import sys
import time
from collections import Counter, deque
from dataclasses import asdict, dataclass
from typing import Any, Final

from benchmarks.measure.distribution import Distribution

PATIENCE: Final = 10.0  # seconds without any answer
RECEIVE: Final = 65_536  # bytes
NANOSECONDS: Final = 1_000_000_000
FINEST: Final = 5_000  # nanoseconds between two ticks: beyond, a tick sends several requests
TFD_NONBLOCK: Final = 0o4000  # timerfd_create(2)


@dataclass(frozen=True, slots=True)
class Result:
    """What came of it.

    ``latency`` and ``lag`` are distributions of microseconds: from due to the answer's last byte, and from due to sent
    for requests that found an idle connection: how late the generator itself was. ``errors`` are requests without a
    whole answer of status 200, by kind. ``rate`` is answers a second over the measured time.
    """

    requests: int
    rate: float
    latency: dict[str, int]
    lag: dict[str, int]
    errors: dict[str, int]


class Pacer:
    """One run over ``count`` connections to a loopback port."""

    def __init__(self, port: int, rate: float, count: int, host: str, path: str) -> None:
        self._address = ("127.0.0.1", port)
        self._interval = NANOSECONDS / rate
        self._request = f"GET {path} HTTP/1.1\r\nHost: {host}\r\n\r\n".encode("ascii")
        self._poll = select.epoll()
        self._sockets: dict[int, socket.socket] = {}
        self._partial: dict[int, bytes] = {}
        self._due: dict[int, float] = {}  # of the request that is in flight on a descriptor
        self._idle: deque[int] = deque()
        self._whole = 0  # bytes of an answer that is known to be whole
        self._latency: list[float] = []
        self._lag: list[float] = []
        self.errors: Counter[str] = Counter()
        for _ in range(count):
            self._idle.append(self._open())

    def __repr__(self) -> str:
        return f"Pacer({self._address[1]}, {NANOSECONDS / self._interval:.0f}/s, {len(self._due)} in flight)"

    def run(self, seconds: float, warm_up: float) -> Result:
        """Send for ``seconds``, of which ``warm_up`` are dropped, wait for the answers, and close the connections."""
        start = time.monotonic_ns() + NANOSECONDS // 100
        timer = _timer(start, max(FINEST, round(self._interval)))
        self._poll.register(timer, select.EPOLLIN)
        total = round(seconds * NANOSECONDS / self._interval)
        kept_from = start + warm_up * NANOSECONDS
        last = start + (seconds + PATIENCE) * NANOSECONDS
        sent = 0
        blocked = 0  # when all connections were busy last: what was due by then was not the generator's to delay
        while sent < total or self._due:
            for descriptor, _ in self._poll.poll(PATIENCE):
                if descriptor == timer:
                    os.read(timer, 8)  # which sets it for its next tick
                else:
                    self._receive(descriptor, kept_from)
            now = time.monotonic_ns()
            while sent < total and self._idle:
                due = start + sent * self._interval
                if due > now:
                    break
                sent += 1
                self._send(due, now if due > blocked and due >= kept_from else None)
            if not self._idle:
                blocked = now
            if now > last:
                self.errors["timeout"] += len(self._due) + total - sent
                break
        os.close(timer)
        self._poll.close()
        for connection in self._sockets.values():
            connection.close()
        measured = (max(time.monotonic_ns(), 1) - kept_from) / NANOSECONDS
        return Result(
            sent,
            len(self._latency) / measured,
            Distribution.count(self._latency).plain(),
            Distribution.count(self._lag).plain(),
            dict(self.errors),
        )

    def _send(self, due: float, now: int | None) -> None:
        descriptor = self._idle.popleft()
        try:
            self._sockets[descriptor].send(self._request)
        except OSError:
            self.errors["write"] += 1
            self._idle.append(self._again(descriptor))
            return
        self._due[descriptor] = due
        if now is not None:
            self._lag.append((now - due) / 1000)

    def _receive(self, descriptor: int, kept_from: float) -> None:
        try:
            received = self._sockets[descriptor].recv(RECEIVE)
        except BlockingIOError:
            return
        except OSError:
            received = b""
        due = self._due.get(descriptor)
        if due is None:  # closed while idle, as a server may
            self._idle.remove(descriptor)
            self._idle.append(self._again(descriptor))
            return
        keep = True
        if len(received) != self._whole or not received.startswith(b"HTTP/1.1 200 "):
            if not received:
                self.errors["read"] += 1
                del self._due[descriptor]
                self._idle.append(self._again(descriptor))
                return
            received = self._partial.pop(descriptor, b"") + received
            length, keep = _complete(received)
            if length is None:
                self._partial[descriptor] = received
                return
            if not received.startswith(b"HTTP/1.1 200 "):
                self.errors["status"] += 1
            elif keep:
                self._whole = length
        del self._due[descriptor]
        if due >= kept_from:
            self._latency.append((time.monotonic_ns() - due) / 1000)
        self._idle.append(descriptor if keep else self._again(descriptor))

    def _open(self) -> int:
        connection = socket.create_connection(self._address, timeout=PATIENCE)
        connection.setblocking(False)
        connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        descriptor = connection.fileno()
        self._sockets[descriptor] = connection
        self._poll.register(descriptor, select.EPOLLIN)
        return descriptor

    def _again(self, descriptor: int) -> int:
        """Another connection in place of one that is over."""
        self._partial.pop(descriptor, None)
        self._sockets.pop(descriptor).close()
        return self._open()


def _complete(received: bytes) -> tuple[int | None, bool]:
    """Of an answer with Content-Length: its size once it is whole, else None; and whether the connection stays."""
    head, found, body = received.partition(b"\r\n\r\n")
    if not found:
        return None, True
    lines = (line.partition(b":") for line in head.lower().split(b"\r\n")[1:])
    fields = {name.strip(): value.strip() for name, _, value in lines}
    if len(body) < int(fields.get(b"content-length", b"0")):
        return None, True
    return len(received), fields.get(b"connection") != b"close"


class _Timespec(ctypes.Structure):
    _fields_ = (("seconds", ctypes.c_long), ("nanoseconds", ctypes.c_long))


class _Itimerspec(ctypes.Structure):
    _fields_ = (("interval", _Timespec), ("value", _Timespec))


def _timer(start: int, interval: int) -> int:
    """A timerfd on the monotonic clock: first at ``start``, then every ``interval`` nanoseconds.

    Python has these calls since 3.13 only (os.timerfd_create).
    """
    library: Any = ctypes.CDLL(None, use_errno=True)
    descriptor = int(library.timerfd_create(time.CLOCK_MONOTONIC, TFD_NONBLOCK))
    spec = _Itimerspec(_Timespec(*divmod(interval, NANOSECONDS)), _Timespec(*divmod(start, NANOSECONDS)))
    absolute = 1  # TFD_TIMER_ABSTIME
    if descriptor < 0 or library.timerfd_settime(descriptor, absolute, ctypes.byref(spec), None) < 0:
        number = ctypes.get_errno()
        raise OSError(number, os.strerror(number))
    return descriptor


def main(arguments: list[str]) -> None:
    """Run once and print the result."""
    port, rate, seconds, warm_up, connections, host, path = arguments
    gc.disable()  # there are no cycles, and its pauses would be the server's
    pacer = Pacer(int(port), float(rate), int(connections), host, path)
    print(json.dumps(asdict(pacer.run(float(seconds), float(warm_up)))))


if __name__ == "__main__":
    main(sys.argv[1:])
