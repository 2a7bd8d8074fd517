"""Addresses and networks as people write them, and which peers are trusted."""

from __future__ import annotations

import ipaddress
import string
from bisect import bisect_right
from collections.abc import Iterable
from typing import Final

from proxy.errors import SettingsError
from proxy.settings import EVERYONE, PRIVATE, Address, Network

_LABEL: Final = frozenset(string.ascii_letters + string.digits + "-_")  # RFC 1123; "_" as in Docker's service names
_REMEMBERED: Final = 4096  # addresses whose trust is cached
_WORDS: Final = {"all": EVERYONE, "private": PRIVATE, "none": ()}


def parse_address(text: str, default_host: str = "") -> Address:
    """``HOST:PORT``, ``[IPv6]:PORT``, and with a ``default_host`` also ``:PORT`` or ``PORT``.

    Raises `SettingsError`.
    """
    host, colon, port = text.rpartition(":")
    if host.startswith("["):
        if not host.endswith("]"):
            raise SettingsError(f"'{text}' is not an address; write [::1]:8080, with a port behind the bracket")
        return Address(_ipv6(host[1:-1], text), _port(port, text))
    if ":" in host:
        raise SettingsError(f"'{text}' is not an address; an IPv6 address stands in brackets, as in [::1]:8080")
    if not colon and not port.isdecimal():
        raise SettingsError(f"'{text}' has no port; write {text or 'HOST'}:8080")
    if not host:
        if not default_host:
            raise SettingsError(f"'{text}' has no host; write 127.0.0.1:{port.lstrip(':') or '8080'}")
        return Address(default_host, _port(port, text))
    return Address(_host(host, text), _port(port, text))


def parse_networks(text: str) -> tuple[Network, ...]:
    """Networks in CIDR notation or single addresses, separated by commas; or ``all``, ``private``, ``none``.

    Raises `SettingsError`.
    """
    networks: dict[Network, None] = {}
    words = [word.strip() for word in text.split(",")]
    for word in words:
        if word in ("all", "none") and len(words) > 1:
            raise SettingsError(f"'{word}' stands alone, not in a list as '{text}'")
        if word in _WORDS:
            networks.update(dict.fromkeys(_WORDS[word]))
        else:
            networks[_network(word)] = None
    return tuple(networks)


class Trust:
    """Whether a peer's address lies in one of the networks; the latest answers are remembered."""

    __slots__ = ("_known", "_networks")

    def __init__(self, networks: Iterable[Network]) -> None:
        self._networks = tuple(_unmapped_network(network) for network in networks)
        self._known: dict[str, bool] = {}

    def __repr__(self) -> str:
        return f"Trust({', '.join(map(str, self._networks)) or 'none'})"

    def trusts(self, address: str) -> bool:
        """True for an IPv4 or IPv6 ``address`` in the networks; an IPv4-mapped one (RFC 4291 2.5.5.2) counts as IPv4.

        What is no address, such as a Unix peer's empty name, is not trusted.
        """
        known = self._known.get(address)
        if known is None:
            if len(self._known) >= _REMEMBERED:
                self._known.clear()  # strangers choose their addresses: no bookkeeping for them
            known = self._known[address] = self._judge(address)
        return known

    def _judge(self, text: str) -> bool:
        try:
            address = ipaddress.ip_address(text)
        except ValueError:
            return False
        if address.version == 6 and address.ipv4_mapped is not None:
            address = address.ipv4_mapped
        return any(address in network for network in self._networks if network.version == address.version)


class Ranges:
    """Whether an address lies in one of many networks, by bisection: nothing is remembered of who has asked."""

    __slots__ = ("_first", "_last", "_networks")

    def __init__(self, networks: Iterable[Network]) -> None:
        self._networks = tuple(_unmapped_network(network) for network in networks)
        v4 = ipaddress.collapse_addresses(each for each in self._networks if isinstance(each, ipaddress.IPv4Network))
        v6 = ipaddress.collapse_addresses(each for each in self._networks if isinstance(each, ipaddress.IPv6Network))
        # Per version the first and last addresses of disjoint networks, in order.
        found: dict[int, list[Network]] = {4: list(v4), 6: list(v6)}
        self._first = {version: [int(each.network_address) for each in every] for version, every in found.items()}
        self._last = {version: [int(each.broadcast_address) for each in every] for version, every in found.items()}

    def __repr__(self) -> str:
        return f"Ranges({', '.join(map(str, self._networks)) or 'none'})"

    def holds(self, text: str) -> bool:
        """True for an IPv4 or IPv6 address in the networks, an IPv4-mapped one as IPv4; False for no address."""
        try:
            address = ipaddress.ip_address(text)
        except ValueError:
            return False
        if address.version == 6 and address.ipv4_mapped is not None:
            address = address.ipv4_mapped
        number, version = int(address), address.version
        place = bisect_right(self._first[version], number) - 1
        return place >= 0 and number <= self._last[version][place]


def _unmapped_network(network: Network) -> Network:
    if network.version == 6 and network.prefixlen >= 96:
        mapped = network.network_address.ipv4_mapped
        if mapped is not None:
            return ipaddress.IPv4Network((mapped, network.prefixlen - 96))
    return network


def _network(word: str) -> Network:
    try:
        return ipaddress.ip_network(word)
    except ValueError:
        pass
    try:
        wider = ipaddress.ip_network(word, strict=False)
    except ValueError:
        raise SettingsError(
            f"'{word}' is not a network; write for example 10.0.0.0/8, 2001:db8::/32, all, private or none"
        ) from None
    raise SettingsError(f"'{word}' has bits set behind its prefix; write {wider}")


def _port(text: str, whole: str) -> int:
    if text.isascii() and text.isdecimal() and len(text) <= 5 and (text == "0" or text[0] != "0"):
        port = int(text)
        if port <= 0xFFFF:
            return port
    raise SettingsError(f"'{text}' in '{whole}' is not a port; ports are 0 to 65535")


def _ipv6(text: str, whole: str) -> str:
    try:
        return str(ipaddress.IPv6Address(text))
    except ValueError:
        raise SettingsError(f"'{text}' in '{whole}' is not an IPv6 address; write for example [::1]:8080") from None


def _host(text: str, whole: str) -> str:
    labels = text.removesuffix(".").split(".")
    if labels[-1].isascii() and labels[-1].isdecimal():  # WHATWG URL section 3.5: then it is meant as an IPv4 address
        try:
            return str(ipaddress.IPv4Address(text))
        except ValueError:
            raise SettingsError(f"'{text}' in '{whole}' is not an IPv4 address; write for example 127.0.0.1") from None
    if len(text) > 253 or not all(
        0 < len(label) <= 63 and _LABEL.issuperset(label) and label[0] != "-" and label[-1] != "-" for label in labels
    ):
        raise SettingsError(f"'{text}' in '{whole}' is not a host; write an address or a DNS name, IDNs as xn--..")
    return text.lower()
