"""The settings of what the proxy hands to `spanway wire`, which sees the packets of the requests that are recorded."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final, Literal, NamedTuple

from proxy.meaning import setting

SOCKET: Final = "/run/spanway/wire.sock"
"""Where `spanway wire` listens and the proxy hands over."""


class PortRange(NamedTuple):
    """Local TCP ports, both ends included."""

    low: int
    high: int

    def __str__(self) -> str:
        return f"{self.low}-{self.high}"

    def holds(self, port: int) -> bool:
        """Whether a port is one of them."""
        return self.low <= port <= self.high


PORTS: Final = PortRange(57344, 60999)


@dataclass(frozen=True, slots=True)
class Wire:
    """What the proxy tells `spanway wire` of recorded requests, so that it can join packets to them."""

    socket: str = setting(
        SOCKET,
        "unix socket of `spanway wire`, which is told of recorded requests while it listens, or 'off'",
        flag="wire",
        value="PATH|off",
    )
    ports: PortRange = setting(
        PORTS,
        "local ports of the connections that recorded requests take meanwhile, by which it picks their packets; "
        "within net.ipv4.ip_local_port_range (needs Linux 6.3)",
        source="the upper end of the kernel's 32768-60999",
        value="LOW-HIGH",
    )
    rate: int = setting(
        100,
        "recorded requests a second, in each worker, that it is told of at most; of more, rows with pauses between",
        source="to join one takes it some 60 us of a busy CPU; after a calm time 4,096 in a row",
        value="N",
        least=1,
    )
    kernel: Literal["wire", "always", "never"] = setting(
        "wire",
        "read the kernel's account of both TCP connections (TCP_INFO): for recorded requests that `spanway wire` is "
        "told of, always for recorded ones, or never",
        source="getsockopt TCP_INFO: four calls, some 4 us of CPU per request",
    )
