"""Three ways to send the same bytes: whole, one byte at a time, split at every CRLF.

Sending single bytes proves nothing if the kernel hands them over together, so the slow ways wait, after each piece,
until the receiving socket's queue is empty: the receiver has read that piece before the next one leaves. The kernel
tells (sock_diag(7), one exact lookup); where it does not, a short pause has to do.
"""

from __future__ import annotations

import atexit
import contextlib
import enum
import socket
import struct
import threading
import time
from collections.abc import Iterator

#: Seconds to wait for a receiver that does not read (one that has answered already, or has paused).
_STUBBORN = 0.01
_PAUSE = 0.0003
_NETLINK_SOCK_DIAG = 4
_BY_FAMILY = 20  # SOCK_DIAG_BY_FAMILY
_NLM_F_REQUEST = 1
_HEADER = struct.Struct("=IHHII")
_REQUEST = struct.Struct("=BBBBI")
_EVERY_STATE = 0xFFFFFFFF
_QUEUE_AT = _HEADER.size + 4 + 48 + 4  # inet_diag_msg: four bytes, sockid, expires; then rqueue


class Feed(enum.Enum):
    """A way of sending."""

    WHOLE = "whole"
    BYTES = "bytes"
    LINES = "lines"

    def pieces(self, data: bytes) -> Iterator[bytes]:
        """``data`` in the pieces this way sends."""
        if self is Feed.WHOLE:
            yield data
        elif self is Feed.BYTES:
            for index in range(len(data)):
                yield data[index : index + 1]
        else:
            lines = data.split(b"\r\n")
            for line in lines[:-1]:
                yield line + b"\r\n"
            if lines[-1]:
                yield lines[-1]


class _Diag:
    """The one netlink socket, shared under a lock; None where the kernel offers none."""

    def __init__(self) -> None:
        self.lock = threading.Lock()
        self.netlink: socket.socket | None = None
        with contextlib.suppress(OSError, AttributeError):
            self.netlink = socket.socket(socket.AF_NETLINK, socket.SOCK_RAW, _NETLINK_SOCK_DIAG)
            self.netlink.settimeout(1)
            atexit.register(self.netlink.close)

    def ask(self, message: bytes) -> bytes:
        """One request, one reply; b"" without netlink."""
        if self.netlink is None:
            return b""
        with self.lock:
            self.netlink.send(message)
            return self.netlink.recv(4096)


_diag = _Diag()


def peer_queue(connection: socket.socket) -> int | None:
    """Bytes the other end of a loopback TCP ``connection`` has received but not read; None where nobody can tell."""
    if connection.family != socket.AF_INET:
        return None
    ours, theirs = connection.getsockname(), connection.getpeername()
    sockid = struct.pack("!HH", theirs[1], ours[1])
    sockid += socket.inet_aton(theirs[0]).ljust(16, b"\0") + socket.inet_aton(ours[0]).ljust(16, b"\0")
    sockid += struct.pack("=III", 0, 0xFFFFFFFF, 0xFFFFFFFF)
    request = _REQUEST.pack(socket.AF_INET, socket.IPPROTO_TCP, 0, 0, _EVERY_STATE) + sockid
    reply = _diag.ask(_HEADER.pack(_HEADER.size + len(request), _BY_FAMILY, _NLM_F_REQUEST, 0, 0) + request)
    if len(reply) < _QUEUE_AT + 4 or struct.unpack_from("=H", reply, 4)[0] != _BY_FAMILY:
        return None  # NLMSG_ERROR: the other end is gone
    return int(struct.unpack_from("=I", reply, _QUEUE_AT)[0])


def _settle(connection: socket.socket) -> None:
    deadline = time.monotonic() + _STUBBORN
    try:
        while queued := peer_queue(connection):
            if time.monotonic() > deadline:
                return
        if queued is None:
            time.sleep(_PAUSE)
    except OSError:  # the connection has gone in between
        return


def feed(connection: socket.socket, data: bytes, how: Feed = Feed.WHOLE) -> bool:
    """Send ``data``; False when the receiver had closed before all of it was sent."""
    try:
        for piece in how.pieces(data):
            connection.sendall(piece)
            if how is not Feed.WHOLE:
                _settle(connection)
    except (BrokenPipeError, ConnectionResetError):
        return False
    return True
