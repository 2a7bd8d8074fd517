"""Which interfaces of this node a connection passes, from the proxy to the backend, and what lies between them.

| the backend's address | is looked for in | its interface |
|---|---|---|
| routed to a veth (Calico, Cilium) | the routes | that veth |
| routed to a Linux bridge (bridge CNI) | neighbours, then the bridge's forwarding table | the bridge's port |
| routed to a port of Open vSwitch (Antrea, OVN) | its database, neighbours, then `fdb/show` | the switch's port |
| routed elsewhere (another node) | the routes | the interface towards it |

The proxy is either in this namespace (hostNetwork) or a pod whose address is looked for in the same way.
"""

from __future__ import annotations

import contextlib
import ipaddress
import re
import socket
import time
from collections.abc import Callable
from pathlib import Path
from typing import Final, NamedTuple, Protocol

from proxy.layers.netlink import Address, Kernel, Link, Route
from proxy.layers.ovs import fdb, ovsdb
from proxy.layers.ovs.ovsdb import LOCAL, Port, Switch
from proxy.layers.ovs.rpc import OvsError
from proxy.layers.ovs.unixctl import Control, control_of

LINK: Final = "link"  # the two ends of a veth
NODE: Final = "node"  # the node's own routing
PATCHES: Final = 4  # bridges in a row, as br-int and br-ex
KEPT_S: Final = 5.0  # how long the switch's ports are remembered
RESOLVE_S: Final = 0.3  # to wait for an answer to ARP
_STEP_S: Final = 0.02
_SWITCHED: Final = ("openvswitch", "tun")  # kinds of a switch's own ports, by its datapath: kernel's, in user space
_DISCARD: Final = 9  # UDP port of RFC 863: nobody answers
_ADDRESS_IDS: Final = ("ip-address", "ip_addresses", "ip", "ips")  # external_ids of Antrea, Kube-OVN, ovs-cni
_MAC_IDS: Final = ("attached-mac", "attached_mac")  # external_ids, see "Integration Guide" of Open vSwitch's manual


class Interface(NamedTuple):
    """A network interface of this namespace."""

    name: str
    ifindex: int


class Found(NamedTuple):
    """Interfaces from the proxy to the backend, and names of the places between two of them: one fewer.

    ``note`` says what more there is and why it was not found.
    """

    interfaces: tuple[Interface, ...]
    between: tuple[str, ...]
    note: str = ""


class NotFound(Exception):
    """No interface is known on the way to an address; the text says why, and what would help."""


class Silent(NotFound):
    """Open vSwitch does not answer, and the way may lead over it: what was found before may still be so."""


class Tables(Protocol):
    """What `Kernel` answers."""

    def route(self, address: Address) -> Route | None: ...  # noqa: D102
    def link(self, ifindex: int) -> Link | None: ...  # noqa: D102
    def neighbour(self, address: Address, ifindex: int) -> str: ...  # noqa: D102
    def bridge_port(self, mac: str, bridge: int) -> int: ...  # noqa: D102


class OpenVSwitch:
    """The node's Open vSwitch by its run directory; what its database says is remembered for `KEPT_S` seconds."""

    def __init__(self, run_directory: Path, clock: Callable[[], float] = time.monotonic) -> None:
        self.run_directory: Final = run_directory
        self._clock: Final = clock
        self._known: tuple[float, Switch] | None = None

    def __repr__(self) -> str:
        return f"OpenVSwitch({self.run_directory})"

    def control(self) -> Control:
        """Its daemon's control socket; raises `OvsError`."""
        return Control(control_of(self.run_directory))

    def switch(self) -> Switch:
        """Its bridges and ports; raises `OvsError`."""
        now = self._clock()
        if self._known is None or now >= self._known[0]:
            self._known = now + KEPT_S, ovsdb.read(self.run_directory / "db.sock")
        return self._known[1]


class _End(NamedTuple):
    """Where an address is attached: behind ``port``, which belongs to ``switch`` ("ovs br0", "bridge cni0", "")."""

    port: Interface
    switch: str


def find(local: Address, peer: Address, ovs: OpenVSwitch | None = None) -> Found:
    """The way of a connection from the proxy's address to the backend's.

    Takes milliseconds (a silent neighbour `RESOLVE_S`, a stopped switch seconds) and blocks: in a program with an
    event loop call it in a thread. The caller remembers the answer. Raises `NotFound`.
    """
    with Kernel() as kernel:
        return Finder(kernel, ovs).find(local, peer)


class Finder:
    """`find` on given tables. ``resolve`` makes the kernel ask for a neighbour's Ethernet address."""

    def __init__(
        self, tables: Tables, ovs: OpenVSwitch | None, resolve: Callable[[Address], None] | None = None
    ) -> None:
        self._tables: Final = tables
        self._ovs: Final = ovs
        self._silent: OvsError | None = None
        self._resolve: Final = resolve or solicit

    def find(self, local: Address, peer: Address) -> Found:
        """See `find`."""
        try:
            route = self._tables.route(local)
            if route is not None and route.local:
                return self._from_here(peer)
            near = self._end(local, route)
            try:
                far = self._end(peer, self._tables.route(peer))
            except NotFound as reason:
                return Found((near.port,), (), str(reason))
        except OvsError as error:
            raise Silent(str(error)) from error
        except OSError as error:
            raise NotFound(f"the kernel does not tell the way to {peer}: {error.strerror}") from error
        if near.port == far.port:
            raise NotFound(f"{local} and {peer} are both behind {near.port.name}: their packets do not pass this node")
        if near.switch == far.switch:
            return Found((near.port, far.port), (near.switch or NODE,))
        return Found((near.port, far.port), (f"{near.switch or near.port.name} to {far.switch or far.port.name}",))

    def _from_here(self, peer: Address) -> Found:
        """The proxy is in this namespace."""
        route = self._tables.route(peer)
        if route is None:
            raise NotFound(f"this node has no route to {peer}")
        if route.local:
            raise NotFound(f"{peer} is an address of this node: nothing lies between the proxy and the backend")
        link = self._link(route.ifindex)
        first = Interface(link.name, link.ifindex)
        second = self._tables.link(link.peer) if link.peer else None
        if second is None:
            far = self._end(peer, route)
            if far.port == first:
                return Found((first,), ())
            return Found((first, far.port), (far.switch or NODE,))
        # A veth whose other end is in this namespace as well: what that is a port of, the packets enter.
        entered = Interface(second.name, second.ifindex)
        try:
            mac = self._mac(peer, link)
            far = self._behind(second, mac, peer)
        except NotFound as reason:
            return Found((first, entered), (LINK,), str(reason))
        return Found((first, entered, far.port), (LINK, far.switch))

    def _end(self, address: Address, route: Route | None) -> _End:
        """Where a pod's address is attached."""
        switch = self._switch()
        for port in switch.ports if switch else ():
            if str(address) in _addresses(port):
                return self._ovs_end(port)
        if self._silent is not None and (route is None or self._link(route.ifindex).kind in _SWITCHED):
            raise self._silent
        if route is None:
            raise NotFound(f"this node has no route to {address}: it is not told which interface is its")
        link = self._link(route.ifindex)
        if link.kind == "bridge":
            return self._bridge_end(link, self._mac(address, link), address)
        own = switch.port(link.name) if switch else None
        if own is not None and own.type == "internal":
            return self._switch_end(own.bridge, self._mac(address, link), address)
        if link.kind == "openvswitch":
            raise NotFound(f"{address} is behind Open vSwitch's {link.name}, and Open vSwitch's sockets are not here")
        return _End(Interface(link.name, link.ifindex), "")

    def _behind(self, port: Link, mac: str, address: Address) -> _End:
        """Where an Ethernet address is attached to the switch that ``port`` belongs to."""
        bridge = self._tables.link(port.master) if port.master else None
        if bridge is not None and bridge.kind == "bridge":
            return self._bridge_end(bridge, mac, address)
        switch = self._switch()
        if self._silent is not None:
            raise self._silent
        own = switch.port(port.name) if switch else None
        if own is None:
            raise NotFound(f"{port.name} is no port of a bridge, nor of an Open vSwitch that can be asked here")
        return self._switch_end(own.bridge, mac, address)

    def _bridge_end(self, bridge: Link, mac: str, address: Address) -> _End:
        number = self._tables.bridge_port(mac, bridge.ifindex)
        link = self._tables.link(number) if number else None
        if link is None:
            raise NotFound(f"the bridge {bridge.name} has not learned {mac}, the Ethernet address of {address}")
        return _End(Interface(link.name, link.ifindex), f"bridge {bridge.name}")

    def _switch_end(self, bridge: str, mac: str, address: Address) -> _End:
        switch = self._switch()
        if switch is None or self._ovs is None:
            raise NotFound(f"{address} is behind Open vSwitch's {bridge}, which cannot be asked here")
        for port in switch.ports:
            if any(port.external_ids.get(name, "").lower() == mac for name in _MAC_IDS):
                return self._ovs_end(port)
        control = self._ovs.control()
        at = bridge
        for _ in range(PATCHES):
            number = fdb.port_of(fdb.show(control, at), mac)
            found = None if number is None or number == LOCAL else switch.numbered(at, number)
            if found is None:
                break
            other = switch.port(found.peer) if found.type == "patch" else None
            if other is None:
                return self._ovs_end(found)
            at = other.bridge
        raise NotFound(f"Open vSwitch's {at} has not learned {mac}, the Ethernet address of {address}")

    def _ovs_end(self, port: Port) -> _End:
        ifindex = port.ifindex
        with contextlib.suppress(OSError):
            ifindex = socket.if_nametoindex(port.name)  # the database is told of a new number later
        if not ifindex:
            raise NotFound(f"Open vSwitch's port {port.name} is no interface of this namespace: it cannot be tapped")
        return _End(Interface(port.name, ifindex), f"ovs {port.bridge}")

    def _switch(self) -> Switch | None:
        """Open vSwitch's ports; None where there is none, or ``_silent`` says why it does not tell them."""
        if self._ovs is None or self._silent is not None:
            return None
        try:
            return self._ovs.switch()
        except OvsError as problem:
            self._silent = problem
            return None

    def _link(self, ifindex: int) -> Link:
        link = self._tables.link(ifindex)
        if link is None:
            raise NotFound(f"the interface {ifindex} of a route has gone")
        return link

    def _mac(self, address: Address, link: Link) -> str:
        mac = self._tables.neighbour(address, link.ifindex)
        if not mac:
            self._resolve(address)
            deadline = time.monotonic() + RESOLVE_S
            while not (mac := self._tables.neighbour(address, link.ifindex)) and time.monotonic() < deadline:
                time.sleep(_STEP_S)
        if not mac:
            raise NotFound(f"nobody on {link.name} answers for {address}: is the pod running?")
        return mac.lower()


def solicit(address: Address) -> None:
    """Have the kernel resolve a neighbour's Ethernet address: an empty datagram to a port where nobody listens."""
    family = socket.AF_INET if address.version == 4 else socket.AF_INET6
    with socket.socket(family, socket.SOCK_DGRAM) as any_socket, contextlib.suppress(OSError):
        any_socket.setblocking(False)
        any_socket.sendto(b"", (str(address), _DISCARD))


def _addresses(port: Port) -> set[str]:
    """The pod's addresses that a plugin has written on its port."""
    texts = (port.external_ids.get(name, "") for name in _ADDRESS_IDS)
    found: set[str] = set()
    for text in texts:
        for word in re.split(r"[\s,/]+", text):
            with contextlib.suppress(ValueError):
                found.add(str(ipaddress.ip_address(word)))
    return found
