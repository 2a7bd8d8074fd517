"""What a lab consists of, by name and address: pure, so that it can be written down before anything is made."""

from __future__ import annotations

import ipaddress
import re
import zlib
from dataclasses import dataclass
from typing import Final, Literal

Kind = Literal["ovs", "bridge", "veth"]
Spot = Literal["proxy", "switch", "backend"]  # where a box may sit: the proxy's link, inside the switch, a backend's

KINDS: Final[tuple[Kind, ...]] = ("ovs", "bridge", "veth")
LONGEST_PREFIX: Final = 6  # characters: an interface's name has 15, IFNAMSIZ of linux/if.h less its end
LONGEST_POD: Final = 6
MOST_BACKENDS: Final = 32
NETWORK: Final = ipaddress.ip_network("198.18.0.0/15")  # for benchmarks, RFC 2544: no network of anybody's
NETWORK6: Final = ipaddress.ip_network("fd53:7061:6e77::/48")  # unique local, RFC 4193
DATAPATH: Final = "ovs-netdev"  # a tap that every Open vSwitch with the userspace datapath makes, under this one name
NODE: Final = 254  # the host part of the node's own address on the switch


@dataclass(frozen=True, slots=True)
class Pod:
    """One end: the proxy's, or a backend's.

    ``namespace`` is None for a proxy that stays in the namespace of whoever makes the lab. ``interface`` is the end
    in the pod, ``port`` the node's end of the same link, ``boxed`` the ends between which its box sits, the
    pod's side first: its left. ``port`` is empty in a lab of veths alone: there a backend's link leads to the proxy.
    """

    name: str
    namespace: str | None
    interface: str
    address: str
    address6: str
    mac: str
    port: str
    boxed: tuple[str, str] | None = None


@dataclass(frozen=True, slots=True)
class Plan:
    """Everything that will exist: `links` and `namespaces` are what clean-up removes."""

    prefix: str
    kind: Kind
    proxy: Pod
    backends: tuple[Pod, ...]
    boxes: frozenset[Spot]
    bridges: tuple[str, ...]  # two when a box sits in the switch
    trunk: tuple[str, str, str, str] | None  # port of the first bridge, the box's left and right, port of the second
    node: str  # the node's own address on the switch; empty where the proxy is in the node's namespace

    @property
    def network(self) -> str:
        """The IPv4 network of all pods."""
        return str(ipaddress.ip_interface(f"{self.proxy.address}/24").network)

    @property
    def namespaces(self) -> tuple[str, ...]:
        """The names of all namespaces that are made."""
        return tuple(pod.namespace for pod in (self.proxy, *self.backends) if pod.namespace is not None)

    @property
    def links(self) -> tuple[str, ...]:
        """The names of all links in the node's namespace."""
        names = [*self.bridges, *(self.trunk or ()), *((DATAPATH,) if self.kind == "ovs" else ())]
        for pod in (self.proxy, *self.backends):
            names += [pod.port, *(pod.boxed or ())]
            if self.kind == "veth" and self.proxy.namespace is None and pod is not self.proxy:
                names.append(self.proxy_end(pod))
        if self.proxy.namespace is None and self.kind != "veth":
            names.append(self.proxy.interface)
        return tuple(name for name in names if name)

    def proxy_end(self, backend: Pod) -> str:
        """The proxy's interface towards the backend."""
        if self.kind != "veth":
            return self.proxy.interface
        if self.proxy.namespace is None:
            return f"{self.prefix}-{backend.name}0"
        return f"eth{self.backends.index(backend)}"

    def on_the_way(self, backend: str) -> tuple[tuple[str, str | None], ...]:
        """Each interface between the proxy's socket and the backend's as (interface, namespace), in that order.

        Two neighbours that are the ends of one veth see a frame within microseconds of each other.
        """
        (pod,) = [each for each in self.backends if each.name == backend]
        way: list[tuple[str, str | None]] = [(self.proxy_end(pod), self.proxy.namespace)]
        if self.kind != "veth":
            way += [(name, None) for name in self.proxy.boxed or ()]
            way.append((self.proxy.port, None))
            way += [(name, None) for name in self.trunk or ()]
            way.append((pod.port, None))
        way += [(name, None) for name in reversed(pod.boxed or ())]
        return (*way, (pod.interface, pod.namespace))


def plan(
    prefix: str,
    kind: Kind = "ovs",
    backends: tuple[str, ...] = ("app",),
    *,
    boxes: frozenset[Spot] = frozenset(),
    proxy_here: bool = False,
) -> Plan:
    """A lab's names and addresses; raises ValueError when they cannot be made of the arguments."""
    if not re.fullmatch(rf"[a-z][a-z0-9]{{0,{LONGEST_PREFIX - 1}}}", prefix):
        raise ValueError(f"prefix {prefix!r}: {LONGEST_PREFIX} small letters and digits at most, a letter first")
    if kind not in KINDS:
        raise ValueError(f"kind {kind!r}: one of {', '.join(KINDS)}")
    for name in backends:
        if not re.fullmatch(rf"[a-z][a-z0-9]{{0,{LONGEST_POD - 1}}}", name) or name in {"px", "sw", "br"}:
            raise ValueError(f"backend {name!r}: {LONGEST_POD} small letters and digits at most, not px, sw or br")
    if not 1 <= len(backends) <= MOST_BACKENDS or len(set(backends)) < len(backends):
        raise ValueError(f"1 to {MOST_BACKENDS} backends with different names")
    if kind == "veth" and boxes - {"backend"}:
        raise ValueError("a lab of veths has one link per backend: its box is 'backend'")

    network = zlib.crc32(prefix.encode()) % 512
    base = int(NETWORK.network_address) + network * 256
    base6 = int(NETWORK6.network_address) + (network << 64)

    def pod(name: str, number: int, *, spot: Spot, here: bool = False) -> Pod:
        return Pod(
            name,
            None if here else f"{prefix}-{name}",
            f"{prefix}-{name}0" if here else "eth0",
            str(ipaddress.IPv4Address(base + number)),
            str(ipaddress.IPv6Address(base6 + number)),
            f"02:53:{network >> 8:02x}:{network & 255:02x}:00:{number:02x}",  # locally administered
            "" if kind == "veth" else f"{prefix}-{name}1",
            (f"{prefix}-{name}2", f"{prefix}-{name}3") if spot in boxes else None,
        )

    split = "switch" in boxes
    return Plan(
        prefix,
        kind,
        pod("px", 1, spot="proxy", here=proxy_here),
        tuple(pod(name, number, spot="backend") for number, name in enumerate(backends, 2)),
        boxes,
        () if kind == "veth" else tuple(f"{prefix}-br{number}" for number in range(1 + split)),
        (f"{prefix}-sw0", f"{prefix}-sw2", f"{prefix}-sw3", f"{prefix}-sw1") if split else None,
        "" if kind == "veth" or proxy_here else str(ipaddress.IPv4Address(base + NODE)),
    )
