"""Connections whose local port says what they are for: IP_LOCAL_PORT_RANGE, ip(7), Linux 6.3.

While `spanway wire` listens, recorded requests take connections from a range of their own, so that its filter passes
their packets and rejects all others'. Where the kernel cannot do that, connections take any port, as they always did.
"""

from __future__ import annotations

import errno
import logging
import socket
import struct
from pathlib import Path
from typing import TYPE_CHECKING, Final

from proxy.settings_wire import PortRange

if TYPE_CHECKING:
    import asyncio

_log = logging.getLogger(__name__)

_OPTION: Final = 51  # IP_LOCAL_PORT_RANGE, linux/in.h; of IPv6 sockets too
_KERNEL: Final = Path("/proc/sys/net/ipv4/ip_local_port_range")
_PAUSE: Final = 1.0  # seconds for which a range that is used up is not asked for again: each time is a search of it all
_PAUSES: Final = 1024  # destinations that are remembered to be paused; the one that was first goes first


def confine(sock: socket.socket, ports: PortRange) -> None:
    """Have ``sock`` connect from one of ``ports``. Raises `OSError` where the kernel has no such option.

    A bound that lies outside `kernel_range` has no effect.
    """
    sock.setsockopt(socket.IPPROTO_IP, _OPTION, struct.pack("=I", ports.low | ports.high << 16))


def supported() -> bool:
    """Whether this kernel has the option."""
    with socket.socket(socket.AF_INET, socket.SOCK_STREAM) as sock:
        try:
            confine(sock, PortRange(1024, 65535))
        except OSError:
            return False
    return True


def kernel_range() -> PortRange:
    """The ports that the kernel takes for connections (net.ipv4.ip_local_port_range) in this network namespace."""
    try:
        low, high = _KERNEL.read_text("ascii").split()
        return PortRange(int(low), int(high))
    except (OSError, ValueError):
        return PortRange(32768, 60999)  # its default


def rest(ports: PortRange, among: PortRange) -> PortRange | None:
    """The larger part of ``among`` that ``ports`` leaves, None where it leaves nothing."""
    below = PortRange(among.low, min(ports.low - 1, among.high))
    above = PortRange(max(ports.high + 1, among.low), among.high)
    largest = max(below, above, key=lambda part: part.high - part.low)
    return largest if largest.low <= largest.high else None


class Ports:
    """The local ports of a worker's upstream connections: ``tapped`` ones for recorded requests, the rest for others.

    ``exhausted`` counts connections that found none free in their range and took any.
    """

    __slots__ = ("_asked", "_paused", "exhausted", "others", "tapped")

    def __init__(self, tapped: PortRange) -> None:
        self.tapped: Final = tapped
        self.others: PortRange | None = None
        self.exhausted = 0
        self._asked = False
        self._paused: Final[dict[tuple[str, int, bool], float]] = {}  # `loop.time()` until when, by destination

    def __repr__(self) -> str:
        return f"Ports({self.tapped} tapped, {self.others or 'none'} for others, {self.exhausted} times exhausted)"

    def usable(self) -> bool:
        """Whether the ports can be told apart here. Looks once; what is in the way is one line in the log."""
        if not self._asked:
            self._asked = True
            kernel = kernel_range()
            if not (kernel.holds(self.tapped.low) and kernel.holds(self.tapped.high)):
                _log.warning(
                    "wire.ports %s is not within net.ipv4.ip_local_port_range, %s: recorded requests have no ports of "
                    "their own, and the wire sees few of them; set one of the two",
                    self.tapped,
                    kernel,
                )
            elif not supported():
                _log.warning(
                    "this kernel has no IP_LOCAL_PORT_RANGE (Linux 6.3): recorded requests have no ports of their own, "
                    "and the wire looks at all connections"
                )
            else:
                self.others = rest(self.tapped, kernel)
        return self.others is not None

    async def connect(self, loop: asyncio.AbstractEventLoop, host: str, port: int, tapped: bool) -> socket.socket:
        """A connection to an address from a port of its kind, else from any. Raises `OSError`."""
        ports = self.tapped if tapped else self.others
        destination = (host, port, tapped)  # a port is free or not for each: connections differ in all four
        if ports is not None and loop.time() >= self._paused.get(destination, 0.0):
            try:
                return await connect(loop, host, port, ports)
            except OSError as error:
                if error.errno != errno.EADDRNOTAVAIL:
                    raise
            self.exhausted += 1
            self._paused.pop(destination, None)
            self._paused[destination] = loop.time() + _PAUSE
            if len(self._paused) > _PAUSES:
                del self._paused[next(iter(self._paused))]
        return await connect(loop, host, port, None)


async def connect(loop: asyncio.AbstractEventLoop, host: str, port: int, ports: PortRange | None) -> socket.socket:
    """A connection to an address, from one of ``ports`` or any. Raises `OSError`."""
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    # With the protocol by its name: asyncio's own transports turn Nagle's algorithm off only then.
    sock = socket.socket(family, socket.SOCK_STREAM | socket.SOCK_NONBLOCK, socket.IPPROTO_TCP)
    try:
        if ports is not None:
            confine(sock, ports)
        await loop.sock_connect(sock, (host, port))
    except BaseException:
        sock.close()
        raise
    return sock
