"""What the kernel knows of routes, links and neighbours, asked by rtnetlink (pyroute2): one entry at a time, no dumps.

Unprivileged. pyroute2's calls run an event loop of their own, so these must not be made in a coroutine: use a thread.
Needs Linux 5.0 for asking neighbour and forwarding tables for one entry.
"""

from __future__ import annotations

import errno
import ipaddress
import socket
from typing import Any, Final, NamedTuple, Self

from pyroute2 import IPRoute
from pyroute2.netlink.exceptions import NetlinkError

Address = ipaddress.IPv4Address | ipaddress.IPv6Address

_RTN_LOCAL: Final = 2  # linux/rtnetlink.h
_NUD_USABLE: Final = 0x02 | 0x04 | 0x08 | 0x10 | 0x40 | 0x80  # linux/neighbour.h: all but incomplete, failed and none
_NONE: Final = frozenset({errno.ENOENT, errno.ENODEV, errno.ESRCH, errno.EINVAL})


class Route(NamedTuple):
    """Where packets to an address leave; ``local``: they do not, it is an address of this namespace."""

    ifindex: int
    local: bool


class Link(NamedTuple):
    """A network interface of this namespace. Numbers are interface indices, 0: none."""

    name: str
    ifindex: int
    kind: str  # "veth", "bridge", "tun", "openvswitch", ..; "" for hardware
    master: int  # the bridge whose port it is
    peer: int  # of a veth: its other end, when that is in this namespace
    elsewhere: bool  # of a veth: its other end is in another namespace


class Kernel:
    """A netlink socket; a context manager. Every method raises OSError when the kernel refuses to answer."""

    def __init__(self) -> None:
        self._netlink: Final = IPRoute()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._netlink.close()

    def route(self, address: Address) -> Route | None:
        """The way to an address, as `ip route get`; None: there is none."""
        try:
            for found in self._netlink.route("get", dst=str(address)):
                return Route(int(found.get("oif") or 0), found["type"] == _RTN_LOCAL)
        except NetlinkError as error:
            if error.code in (*_NONE, errno.ENETUNREACH, errno.EHOSTUNREACH, errno.EACCES):
                return None
            raise _refused(error) from error
        return None

    def link(self, ifindex: int) -> Link | None:
        """An interface by its number; None: there is none."""
        for found in self._one("link", "get", index=ifindex):
            kind = str(found.get(("linkinfo", "kind")) or "")
            other, elsewhere = int(found.get("link") or 0), found.get("link_netnsid") is not None
            if kind != "veth":
                other, elsewhere = 0, False
            name, master = str(found.get("ifname")), int(found.get("master") or 0)
            return Link(name, int(found["index"]), kind, master, 0 if elsewhere else other, elsewhere)
        return None

    def neighbour(self, address: Address, ifindex: int) -> str:
        """The Ethernet address of a neighbour behind an interface; "": not known."""
        family = socket.AF_INET if address.version == 4 else socket.AF_INET6
        for found in self._one("neigh", "get", family=family, dst=str(address), ifindex=ifindex):
            if found["state"] & _NUD_USABLE:
                return str(found.get("lladdr") or "")
        return ""

    def bridge_port(self, mac: str, bridge: int) -> int:
        """The port of a Linux bridge behind which an Ethernet address is, by interface index; 0: not known."""
        for found in self._one("fdb", "get", lladdr=mac, master=bridge):
            return int(found["ifindex"])
        return 0

    def _one(self, method: str, command: str, **what: Any) -> list[Any]:
        try:
            return list(getattr(self._netlink, method)(command, **what))
        except NetlinkError as error:
            if error.code in _NONE:
                return []
            raise _refused(error) from error


def _refused(error: NetlinkError) -> OSError:
    return OSError(error.code, f"rtnetlink: {error}")
