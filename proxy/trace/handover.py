"""What the proxy hands to `spanway wire` of each recorded attempt at an upstream: the key and the stamps by which
packets are joined to it, never a byte of its payload.

A record has a fixed size; a datagram has a head and any number of them, back to back, and goes to a unix socket without
ever waiting. The head says which worker it is from, and until when that will show nothing more: then taps can be set
aside. With nobody behind the socket nothing is packed or sent. Both sides are of one host and one version, or do not
understand each other: `read` refuses what it does not know.
"""

from __future__ import annotations

import contextlib
import errno
import ipaddress
import logging
import os
import socket
import struct
from hashlib import blake2b
from typing import TYPE_CHECKING, Final, NamedTuple

if TYPE_CHECKING:
    from proxy.trace.record import RequestRecord, RouteIdentity, UpstreamIdentity

_log = logging.getLogger(__name__)

MAGIC: Final = b"Sw"
VERSION: Final = 2

TLS: Final = 0x01
"""Flag: the offsets count ciphertext."""
REUSED: Final = 0x02
"""Flag: the connection had served before."""
FAILED: Final = 0x04
"""Flag: cut or abandoned, so that its ranges may end before the messages do, or after what was really sent."""
TUNNEL: Final = 0x08
"""Flag: a tunnel (101), handed over at its end. The request's range is that of the upgrade, the response's of the whole
stream."""
CLOSED: Final = 0x10
"""Flag: the response ended with the connection (RFC 9112 section 6.3): by the FIN behind its range or, with `TLS`, by
the close_notify at the end of it."""

_HEAD: Final = struct.Struct("<2sB?4x8sQ")  # magic, version, busy; worker; until when it rests
HEAD: Final = _HEAD.size
"""Bytes of a datagram's head: 24."""
# Flags; local and peer port, local and peer address; trace and span id; offsets, stamps; route.
_ROW: Final = struct.Struct("<B3xHH16s16s16s8s8QQ")
_HOT: Final = struct.Struct("<B3x36s16s8s8QQ")  # the same, a connection's ends in one piece
_ENDS: Final = struct.Struct("<HH16s16s")
SIZE: Final = _ROW.size
"""Bytes of a record: 136."""

MOST: Final = 64
"""Records after which a datagram goes (9 KiB, and what one request may add). Those of a row of requests go together:
the kernel's queue of a unix socket may hold as few as ten datagrams (net.unix.max_dgram_qlen).
"""
KEPT: Final = 4096  # records that wait while the socket's queue is full: 560 KB, a second or two of them

LOOK: Final = 1.0  # seconds between two looks whether somebody listens
_WORKER: Final = 8  # bytes that a worker is known by
_ROUTES: Final = 4096  # routes whose keys are remembered; a full table starts anew
_MAPPED: Final = b"\0" * 10 + b"\xff\xff"  # ::ffff:a.b.c.d (RFC 4291 section 2.5.5.2)


class Head(NamedTuple):
    """Of a datagram: the worker that sent it, by 8 random bytes, until when it shows nothing, with nothing that it
    has shown under way (Unix nanoseconds; a time that is past, such as 0: it shows), and whether something is that will
    be shown once it is over."""

    worker: bytes
    rest_ns: int = 0
    busy: bool = False


class Record(NamedTuple):
    """One recorded attempt that had a connection.

    ``trace_id`` (16 bytes) and ``span_id`` (8) are the CLIENT span's. ``local`` and ``peer`` are 16 bytes in network
    order, IPv4 as ::ffff:a.b.c.d. The offsets are half-open ranges of the connection's two streams, in bytes of TCP
    payload from the stream's start; the response's is empty where none came. The stamps are Unix nanoseconds of the
    host's CLOCK_REALTIME, 0 for what did not happen: before the head was written, after the last byte of the request
    was, as the first read of the response returned, and when the attempt was over. ``route`` is `route_key`, 0 for
    none; ``flags`` are `TLS`, `REUSED`, `FAILED`, `TUNNEL`, `CLOSED`.
    """

    trace_id: bytes
    span_id: bytes
    local: bytes
    peer: bytes
    local_port: int
    peer_port: int
    request_start: int
    request_end: int
    response_start: int
    response_end: int
    write_ns: int
    sent_ns: int
    first_byte_ns: int
    end_ns: int
    route: int
    flags: int


def pack(record: Record) -> bytes:
    """A record's 136 bytes. Raises `struct.error` for a number that does not fit, `ValueError` for other lengths."""
    if (len(record.trace_id), len(record.span_id), len(record.local), len(record.peer)) != (16, 8, 16, 16):
        raise ValueError("ids are of 16 and 8 bytes, addresses of 16")
    return _ROW.pack(
        record.flags,
        record.local_port, record.peer_port, record.local, record.peer,
        record.trace_id, record.span_id,
        record.request_start, record.request_end, record.response_start, record.response_end,
        record.write_ns, record.sent_ns, record.first_byte_ns, record.end_ns,
        record.route,
    )  # fmt: skip


def unpack(data: bytes | memoryview) -> Record:
    """A record from its bytes. Raises `ValueError` for another size."""
    if len(data) != SIZE:
        raise ValueError(f"a record of {len(data)} bytes; it has {SIZE}")
    (
        flags,
        local_port, peer_port, local, peer,
        trace_id, span_id,
        request_start, request_end, response_start, response_end,
        write_ns, sent_ns, first_byte_ns, end_ns,
        route,
    ) = _ROW.unpack(data)  # fmt: skip
    return Record(
        trace_id, span_id, local, peer, local_port, peer_port,
        request_start, request_end, response_start, response_end,
        write_ns, sent_ns, first_byte_ns, end_ns,
        route, flags,
    )  # fmt: skip


def head(said: Head) -> bytes:
    """The 24 bytes that a datagram begins with."""
    return _HEAD.pack(MAGIC, VERSION, said.busy, said.worker, said.rest_ns)


def read(datagram: bytes) -> tuple[Head, list[Record]]:
    """What a datagram holds. Raises `ValueError` for another magic or version, and for a part of a head or record."""
    if len(datagram) < HEAD:
        raise ValueError(f"a datagram of {len(datagram)} bytes; its head has {HEAD}")
    magic, version, busy, worker, rest_ns = _HEAD.unpack_from(datagram)
    if magic != MAGIC:
        raise ValueError(f"it begins with {magic!r}")
    if version != VERSION:
        raise ValueError(f"it is of version {version}; this is version {VERSION}: run proxy and wire of one release")
    view = memoryview(datagram)[HEAD:]
    if len(view) % SIZE:
        raise ValueError(f"{len(view)} bytes after its head; records have {SIZE} each")
    return Head(worker, rest_ns, busy), [unpack(view[start : start + SIZE]) for start in range(0, len(view), SIZE)]


def address(text: str) -> bytes:
    """An address as records have it: 16 bytes, network order; zeros for what is no address."""
    try:
        parsed = ipaddress.ip_address(text.partition("%")[0])
    except ValueError:
        return bytes(16)
    return parsed.packed if parsed.version == 6 else _MAPPED + parsed.packed


def route_key(host: str, path: str, namespace: str, name: str) -> int:
    """What a route is known by beyond one process: the key of its rolling baseline, 64 bits, never 0."""
    text = f"{namespace}\0{name}\0{host}\0{path}"
    return int.from_bytes(blake2b(text.encode("utf-8", "replace"), digest_size=8).digest(), "little") or 1


class Handover:
    """The sender of one worker. ``listening`` says whether to `take` anything at all; `look` keeps it true.

    ``sent`` counts records, ``full`` and ``gone`` those that were dropped: the listener had no room, or had left.
    ``outside`` counts those of connections that it does not tap (`net.ports`). ``busy`` is to say whether anything that
    will be handed over is under way.
    """

    __slots__ = (
        "_due",
        "_held",
        "_path",
        "_records",
        "_rest_ns",
        "_routes",
        "_socket",
        "_told",
        "_worker",
        "busy",
        "full",
        "gone",
        "listening",
        "outside",
        "sent",
    )

    def __init__(self, path: str) -> None:
        """Hand over to the socket at ``path``; "" or ``off`` is nobody. Opens nothing that waits."""
        self._path = "" if path == "off" else path
        self._socket: socket.socket | None = None
        self._due = 0.0
        self._records: list[bytes] = []
        self._worker = os.urandom(_WORKER)
        self._rest_ns = 0  # until then nothing is shown
        self._told = False  # that it may not write there
        self._held = 0  # of them, that the socket would not take the last time
        self._routes: dict[int, int] = {}
        self.listening = False
        self.busy = False
        self.sent = self.full = self.gone = self.outside = 0

    def __repr__(self) -> str:
        state = "listening" if self.listening else "nobody"
        return f"Handover({self._path!r}, {state}, {self.sent} sent, {self.full} + {self.gone} dropped)"

    def look(self, now: float) -> bool:
        """See, at most once a second, whether somebody listens; ``now`` is ``loop.time()``. Returns ``listening``.

        Connecting anew each time also finds a listener that has replaced another at the same path (unix(7)).
        """
        if not self._path or now < self._due:
            return self.listening
        self._due = now + LOOK
        kind = socket.SOCK_DGRAM | socket.SOCK_CLOEXEC | socket.SOCK_NONBLOCK
        try:
            if self._socket is None:
                self._socket = socket.socket(socket.AF_UNIX, kind)
            self._socket.connect(self._path)
        except PermissionError:
            if not self._told:
                self._told = True
                _log.warning(
                    "'%s' is there, but user %d, group %d may not write to it: 'spanway wire' is not told of recorded "
                    "requests. Run both as one user, or give the folder to the proxy's group before the wire starts: "
                    "install -d -g %d -m 2750 %s",
                    self._path, os.geteuid(), os.getegid(), os.getegid(), os.path.dirname(self._path) or ".",  # noqa: PTH120
                )  # fmt: skip
            self._leave()
        # Not there, nobody behind it; a path that cannot be; no descriptor left.
        except (OSError, ValueError):
            self._leave()
        else:
            self.listening = True
            self._told = False
            self._say()  # that there is a worker which may show something at any time
        return self.listening

    def take(self, record: RequestRecord) -> None:
        """Take in the attempts of a recorded request, to go with the next `flush`. HOT: once per recorded request."""
        route = record.route
        key = 0 if route is None else self._routes.get(route.index) or self._key(route)
        for attempt in record.attempts:
            connection = attempt.connection
            if connection is None or not attempt.write_ns:
                continue
            if not connection.tapped:
                self.outside += 1
            flags = REUSED if attempt.reused else 0
            if attempt.scheme == "https":
                flags |= TLS
            if attempt.abandoned:
                flags |= FAILED
            if attempt.until_close:
                flags |= CLOSED
            if attempt.status == 101:
                flags |= TUNNEL
            row = _HOT.pack(
                flags,
                connection.wire_ends or _ends(connection), record.trace_id, attempt.span_id,
                attempt.request_start, attempt.request_end, attempt.response_start, attempt.response_end,
                attempt.write_ns, attempt.sent_ns, attempt.first_byte_ns, attempt.end_ns,
                key,
            )  # fmt: skip
            self._records.append(row)
        if len(self._records) - self._held >= MOST:
            self.flush()

    def flush(self) -> None:
        """Send what was taken in. What the socket does not take now waits for the next time; beyond `KEPT` records the
        oldest are dropped and counted."""
        if self._records and (self._socket is None or not self.listening):
            self._lose()
        while self._records and self._socket is not None:
            waiting = self._records[:MOST]
            try:
                self._socket.send(head(Head(self._worker, self._rest_ns, self.busy)) + b"".join(waiting))
            except OSError as error:
                if error.errno in (errno.EAGAIN, errno.ENOBUFS):
                    excess = max(len(self._records) - KEPT, 0)
                    self.full += excess
                    del self._records[:excess]
                else:
                    self._lose()
                    self._leave()
                break
            self.sent += len(waiting)
            del self._records[:MOST]
        self._held = len(self._records)

    def rest(self, rest_ns: int) -> None:
        """Tell, with what was taken in, that nothing is under way that was shown, nor will be until then (Unix
        nanoseconds)."""
        self._rest_ns = rest_ns
        if self._records:
            self.flush()
        else:
            self._say()

    def _say(self) -> None:
        """Send a head alone. It is not missed: taps are not set aside for the want of it."""
        if self._socket is not None:
            with contextlib.suppress(OSError):
                self._socket.send(head(Head(self._worker, self._rest_ns, self.busy)))

    def _lose(self) -> None:
        """Nobody is there to take what waits."""
        self.gone += len(self._records)
        self._records = []

    def close(self) -> None:
        """Send what is left, and hand over no more."""
        self.flush()
        self.full += len(self._records)
        self._records = []
        self._path = ""
        self._leave()

    def _leave(self) -> None:
        self.listening = False
        self._rest_ns = 0  # nobody has been told, who comes next
        if self._socket is not None:
            with contextlib.suppress(OSError):
                self._socket.close()
            self._socket = None

    def _key(self, route: RouteIdentity) -> int:
        if len(self._routes) >= _ROUTES:
            self._routes.clear()
        key = self._routes[route.index] = route_key(route.host, route.path, route.namespace, route.name)
        return key


def _ends(connection: UpstreamIdentity) -> bytes:
    """A connection's two ends as records have them, from now on kept on it."""
    ends = connection.wire_ends = _ENDS.pack(
        connection.local_port, connection.peer_port, address(connection.local_address), address(connection.peer_address)
    )
    return ends
