"""What the kernel knows of a TCP connection: TCP_INFO, tcp(7), struct tcp_info of linux/tcp.h.

Compiled, ``tcp_info.pyx`` beside it stands in its place: both are read twice for each recorded request. The struct
only ever grew at its end (232 bytes since Linux 5.4, 280 in 6.18), so it is read as far as it is needed, which Linux
4.10 has. Times of being limited are counted in the kernel's ticks (1 to 10 ms); round trips are exact.
"""

from __future__ import annotations

import contextlib
import os
import socket
import struct
from typing import TYPE_CHECKING, Final, Protocol

if TYPE_CHECKING:
    import asyncio

NEEDED: Final = 192
"""Bytes of struct tcp_info that are read."""

# tcpi_rtt, tcpi_total_retrans, tcpi_min_rtt, tcpi_data_segs_out, tcpi_delivery_rate, tcpi_rwnd_limited,
# tcpi_sndbuf_limited
_ROW: Final = struct.Struct("=68xI28xI44xI4xIQ8xQQ")
_NO_SAMPLE: Final = 0xFFFFFFFF  # tcpi_min_rtt before the first one


class Reading:
    """A connection at one moment, or, made by `since`, what happened between two.

    ``rtt_us`` and ``min_rtt_us`` (microseconds, 0 before the first sample) and ``delivery_rate`` (bytes per second) are
    of the moment; ``segments`` and ``retransmitted`` (segments with data that we sent), ``rwnd_limited_us`` and
    ``sndbuf_limited_us`` (for how long the peer's window, or our buffer, held us up) are counted.
    """

    __slots__ = (
        "delivery_rate",
        "min_rtt_us",
        "retransmitted",
        "rtt_us",
        "rwnd_limited_us",
        "segments",
        "sndbuf_limited_us",
    )

    rtt_us: int
    min_rtt_us: int
    retransmitted: int
    segments: int
    rwnd_limited_us: int
    sndbuf_limited_us: int
    delivery_rate: int

    def __repr__(self) -> str:
        return f"Reading({', '.join(f'{name}={getattr(self, name)}' for name in sorted(self.__slots__))})"

    def since(self, before: Reading) -> Reading:
        """What was counted after ``before``, with the figures of this moment."""
        made = Reading()
        made.rtt_us = self.rtt_us
        made.min_rtt_us = self.min_rtt_us
        made.retransmitted = self.retransmitted - before.retransmitted
        made.segments = self.segments - before.segments
        made.rwnd_limited_us = self.rwnd_limited_us - before.rwnd_limited_us
        made.sndbuf_limited_us = self.sndbuf_limited_us - before.sndbuf_limited_us
        made.delivery_rate = self.delivery_rate
        return made


def parse(data: bytes) -> Reading | None:
    """A reading from struct tcp_info as the kernel gave it, None where it is too short (before Linux 4.10)."""
    if len(data) < NEEDED:
        return None
    made = Reading()
    (
        made.rtt_us,
        made.retransmitted,
        made.min_rtt_us,
        made.segments,
        made.delivery_rate,
        made.rwnd_limited_us,
        made.sndbuf_limited_us,
    ) = _ROW.unpack_from(data)
    if made.min_rtt_us == _NO_SAMPLE:
        made.min_rtt_us = 0
    return made


class Probe:
    """A second descriptor of a connection's socket, so that asking it makes no object per call as asking uvloop's does.

    Close it with the connection, which does not end before.
    """

    __slots__ = ("_socket",)

    def __init__(self, descriptor: int) -> None:
        self._socket = socket.socket(socket.AF_INET, socket.SOCK_STREAM, 0, fileno=os.dup(descriptor))

    def read(self) -> Reading | None:
        """The connection as it is now; None of a socket that is closed, or none of TCP."""
        try:
            data = self._socket.getsockopt(socket.IPPROTO_TCP, socket.TCP_INFO, NEEDED)
        except OSError:
            return None
        return parse(data)

    def close(self) -> None:
        """Let go of the socket."""
        with contextlib.suppress(OSError):
            self._socket.close()


class Owner(Protocol):
    """A connection that may be asked: upstream or downstream. It closes its ``probe`` when it is lost."""

    transport: asyncio.Transport
    probe: Probe | None


def begin(owner: Owner) -> Reading | None:
    """A connection as it is now; its probe is made the first time. None where no descriptor is left for one: what
    watches a request is no reason to fail it."""
    probe = owner.probe
    if probe is None:
        sock = owner.transport.get_extra_info("socket")
        if sock is None or sock.fileno() < 0:
            return None
        try:
            probe = owner.probe = Probe(sock.fileno())
        except OSError:
            return None
    return probe.read()


def end(owner: Owner, before: Reading) -> Reading | None:
    """What has happened on it since ``before``, which `begin` gave."""
    probe = owner.probe
    after = None if probe is None else probe.read()
    return None if after is None else after.since(before)
