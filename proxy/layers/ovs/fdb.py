"""The addresses that a bridge of Open vSwitch has learned: `fdb/show`."""

from __future__ import annotations

from typing import Final, NamedTuple

from proxy.layers.ovs.ovsdb import LOCAL
from proxy.layers.ovs.unixctl import Control

MOST_ENTRIES: Final = 65_536  # the default table has 8192 (other_config:mac-table-size)


class Entry(NamedTuple):
    """An Ethernet address and the port behind which it is."""

    port: int  # OpenFlow's number; `LOCAL` is the bridge's own port
    vlan: int
    mac: str  # small letters
    age_s: int  # since it was last seen; -1: static


def parse(text: str) -> list[Entry]:
    """Read what `fdb/show` prints; lines that are no entry are left out."""
    entries: list[Entry] = []
    for line in text.splitlines()[:MOST_ENTRIES]:
        fields = line.split()
        if len(fields) != 4 or fields[2].count(":") != 5:
            continue
        port, vlan, mac, age = fields
        try:
            number = LOCAL if port == "LOCAL" else int(port)
            entries.append(Entry(number, int(vlan), mac.lower(), -1 if age == "static" else int(age)))
        except ValueError:
            continue
    return entries


def show(control: Control, bridge: str) -> list[Entry]:
    """What the bridge has learned; raises `OvsError` when there is no such bridge."""
    return parse(control.call("fdb/show", bridge))


def port_of(entries: list[Entry], mac: str) -> int | None:
    """The port behind which the address was seen last, in whatever VLAN; None when it was not."""
    seen = [entry for entry in entries if entry.mac == mac.lower()]
    return min(seen, key=lambda entry: entry.age_s).port if seen else None
