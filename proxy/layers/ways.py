"""Which interfaces the packets to a backend pass, in order from the proxy, and what lies between them.

Three sources: a file that says so, a list of names, or what is found out per backend's address (`layers.find`). What
was found out is kept for a minute, as addresses of pods are given away again; what was not is tried again sooner.
"""

from __future__ import annotations

import asyncio
import ipaddress
import logging
import socket
from collections.abc import Callable, Sequence
from functools import lru_cache
from itertools import pairwise
from pathlib import Path
from typing import Any, Final, NamedTuple

import yaml

from proxy.errors import SettingsError
from proxy.layers.find import Interface, NotFound, OpenVSwitch, Silent, find
from proxy.layers.track import MOST_TAPS

Address = ipaddress.IPv4Address | ipaddress.IPv6Address
Network = ipaddress.IPv4Network | ipaddress.IPv6Network

log: Final = logging.getLogger(__name__)

KEPT_S: Final = 60.0
RETRY_S: Final = 5.0
MOST: Final = 4096  # addresses remembered; a full table starts anew
MOST_LOOKING: Final = 64  # at a time; others are looked for with a later record
SHAPE: Final = """\
ways:
  - peers: [10.8.0.0/16]        # left out: every backend
    taps: [veth-proxy, veth-app]  # from the proxy to the backend
    between: [bridge cni0]      # one fewer than taps"""


class Way(NamedTuple):
    """Interfaces from the proxy to the backend, and the names of the places between two of them: one fewer."""

    interfaces: tuple[Interface, ...]
    between: tuple[str, ...]


class NoWay(Exception):
    """Nothing is known of the way to an address; the text says why. ``silent``: who knows does not answer now."""

    def __init__(self, why: str, *, silent: bool = False) -> None:
        super().__init__(why)
        self.silent: Final = silent


Look = Callable[[Address, Address], Way]
"""The way from one address to another; raises `NoWay`. May take milliseconds: it is called in a thread."""


class Ways:
    """What ``look`` has found out, remembered."""

    def __init__(self, look: Look, found: Callable[[Way], object], unknown: Callable[[str], None]) -> None:
        """``found`` is told of each way, ``unknown`` why there is none."""
        self._look: Final = look
        self._tell: Final = found
        self._unknown: Final = unknown
        self._found: dict[tuple[Address, Address], tuple[float, Way | None]] = {}
        self._looking: dict[tuple[Address, Address], asyncio.Task[None]] = {}

    def __repr__(self) -> str:
        return f"Ways({sum(way is not None for _, way in self._found.values())} known)"

    def of(self, local: Address, peer: Address, now: float) -> Way | None:
        """The way as far as it is known; None starts to find it out. ``now`` is ``loop.time()``."""
        key = (local, peer)
        due, way = self._found.get(key, (0.0, None))
        if now >= due and key not in self._looking and len(self._looking) < MOST_LOOKING:
            self._looking[key] = asyncio.get_running_loop().create_task(self._find(key))
        return way

    async def _find(self, key: tuple[Address, Address]) -> None:
        way: Way | None = None
        kept_s = RETRY_S
        try:
            way, kept_s = await asyncio.to_thread(self._look, *key), KEPT_S
        except NoWay as problem:
            self._unknown(str(problem))
            if problem.silent:  # pods do not move because a switch is away; one whose interface goes is forgotten
                _, way = self._found.get(key, (0.0, None))
        except Exception as problem:  # else each record of this backend would have it asked again, at once
            log.exception("the way to a backend could not be looked for")
            self._unknown(f"the way to {key[1]} could not be looked for: {problem!r}")
        finally:
            self._looking.pop(key, None)
        if len(self._found) >= MOST:
            self._found.clear()
        self._found[key] = (asyncio.get_running_loop().time() + kept_s, way)
        if way is not None:
            self._tell(way)

    def forget(self, name: str) -> None:
        """An interface of this name has gone: ways over it are found anew."""
        self._found = {
            key: (due, way)
            for key, (due, way) in self._found.items()
            if way is None or all(interface.name != name for interface in way.interfaces)
        }

    def close(self) -> None:
        """End what is being looked for."""
        for task in self._looking.values():
            task.cancel()


@lru_cache(4096)
def address(packed: bytes) -> Address:
    """An address of a record's 16 bytes, IPv4 without its prefix."""
    found = ipaddress.IPv6Address(packed)
    return found.ipv4_mapped or found


@lru_cache(4096)
def address_text(packed: bytes) -> str:
    """The same as text."""
    return str(address(packed))


class _Row(NamedTuple):
    """A way by names: for backends in ``networks``, for every one where there are none."""

    networks: tuple[Network, ...]
    taps: tuple[str, ...]
    between: tuple[str, ...]


class Fixed:
    """Ways that were written down; a `Look`. ``where`` says in messages where."""

    def __init__(self, rows: Sequence[_Row], where: str) -> None:
        self._rows: Final = tuple(rows)
        self._where: Final = where

    def __repr__(self) -> str:
        return f"Fixed({len(self._rows)} ways of {self._where})"

    def __call__(self, _local: Address, peer: Address) -> Way:
        """The way to a backend."""
        for row in self._rows:
            if not row.networks or any(peer in network for network in row.networks):
                return _over(row)
        raise NoWay(f"{self._where} has no way to {peer}: name its network under 'peers', or leave 'peers' out")

    def every(self) -> tuple[Way, ...]:
        """All of them, so that they are listened to from the start."""
        return tuple(_over(row) for row in self._rows)


def named(names: Sequence[str]) -> Fixed:
    """One way for all: over the interfaces of these names. Raises `SettingsError` where one is not there."""
    if not 1 <= len(names) <= MOST_TAPS or len(set(names)) != len(names):
        raise SettingsError(f"--interfaces names 1 to {MOST_TAPS} interfaces, each once, from the proxy to the backend")
    for name in names:
        _ifindex(name, SettingsError, "--interfaces")
    between = tuple(_bridge(one) if _bridge(one) == _bridge(other) else "" for one, other in pairwise(names))
    named = tuple(place or f"{one} to {other}" for place, (one, other) in zip(between, pairwise(names), strict=True))
    return Fixed([_Row((), tuple(names), named)], "--interfaces")


def _bridge(name: str) -> str:
    """``bridge NAME`` for a port of a Linux bridge, "" for what is none (or a port of Open vSwitch's in user space)."""
    master = Path(f"/sys/class/net/{name}/master")
    return f"bridge {master.readlink().name}" if master.is_symlink() else ""


def written(path: Path) -> Fixed:
    """The ways of a file. Raises `SettingsError` for one that cannot be used."""
    try:
        document = yaml.safe_load(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise SettingsError(f"--places: '{path}' cannot be read: {error.strerror}") from None
    except (UnicodeDecodeError, yaml.YAMLError) as error:
        raise SettingsError(f"--places: '{path}' is not YAML: {' '.join(str(error).split())}") from None
    return Fixed(_rows(document, f"--places: {path}"), str(path))


def _rows(document: Any, where: str) -> list[_Row]:
    ways = document.get("ways") if isinstance(document, dict) and set(document) == {"ways"} else None
    if not isinstance(ways, list) or not ways:
        raise SettingsError(f"{where}: is not a list of ways; write for example\n{SHAPE}")
    rows: list[_Row] = []
    for number, way in enumerate(ways, 1):
        here = f"{where}: way {number}"
        if not isinstance(way, dict) or not {"taps"} <= set(way) <= {"taps", "peers", "between"}:
            raise SettingsError(f"{here}: takes 'taps', and beside them 'between' and 'peers'; for example\n{SHAPE}")
        taps, between = _texts(way["taps"], f"{here}: taps"), _texts(way.get("between", []), f"{here}: between")
        if not 1 <= len(taps) <= MOST_TAPS or len(set(taps)) != len(taps):
            raise SettingsError(f"{here}: taps names 1 to {MOST_TAPS} interfaces, each once, from proxy to backend")
        if len(between) != len(taps) - 1:
            raise SettingsError(
                f"{here}: {len(taps)} taps have {len(taps) - 1} places between them, and 'between' names {len(between)}"
            )
        try:
            networks = tuple(ipaddress.ip_network(text) for text in _texts(way.get("peers", []), f"{here}: peers"))
        except ValueError as error:
            raise SettingsError(f"{here}: peers: {error}") from None
        for name in taps:
            _ifindex(name, SettingsError, here)
        rows.append(_Row(networks, taps, between))
    return rows


def _texts(value: Any, where: str) -> tuple[str, ...]:
    if not isinstance(value, list) or not all(isinstance(item, str) and item.strip() for item in value):
        raise SettingsError(f"{where}: is not a list of names")
    return tuple(item.strip() for item in value)


def _over(row: _Row) -> Way:
    return Way(tuple(Interface(name, _ifindex(name, NoWay, "")) for name in row.taps), row.between)


def _ifindex(name: str, problem: type[Exception], where: str) -> int:
    """The interface's number, found anew each time: one that was removed and made again has another."""
    try:
        return socket.if_nametoindex(name)
    except OSError:
        there = ", ".join(sorted(found for _, found in socket.if_nameindex())[:12])
        text = f"there is no interface '{name}' here; there are {there}"
        raise problem(f"{where}: {text}" if where else text) from None


def found(switch: OpenVSwitch | None, said: Callable[[str], None]) -> Look:
    """Ways as they are found out for each backend's address; ``switch`` is the node's Open vSwitch, if it has one.

    ``said`` is told where only a part of a way can be listened to; it may be called in a thread.
    """

    def look(local: Address, peer: Address) -> Way:
        try:
            way = find(local, peer, switch)
        except NotFound as problem:
            silent = isinstance(problem, Silent)
            raise NoWay(f"the way to {peer} is not known: {problem}", silent=silent) from problem
        if way.note:
            said(f"only {', '.join(each.name for each in way.interfaces)} on the way to {peer}: {way.note}")
        return Way(way.interfaces, way.between)

    return look
