"""The database of Open vSwitch (RFC 7047): its bridges, their ports, and what plugins wrote on them about pods."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, Final, NamedTuple

from proxy.layers.ovs.rpc import TIMEOUT_S, OvsError, ask

MOST_PORTS: Final = 20_000  # a node has hundreds
LOCAL: Final = 65534  # OFPP_LOCAL of OpenFlow 1.0: the bridge's own port
_LARGEST: Final = (1 << 31) - 1  # of an interface's number in the kernel, which OpenFlow's 1.0 are far below
_DATABASE: Final = "Open_vSwitch"
_COLUMNS: Final = {
    "Bridge": ["name", "ports", "datapath_type"],
    "Port": ["_uuid", "interfaces"],
    "Interface": ["_uuid", "name", "type", "ofport", "ifindex", "external_ids", "options"],
}


class Port(NamedTuple):
    """An interface of a bridge (a bond is several)."""

    name: str
    bridge: str
    number: int  # OpenFlow's, -1 while the switch has none for it
    ifindex: int  # 0: not known, as for ports that are no network device
    type: str  # "" for a system device, "internal", "patch", "vxlan", ..
    external_ids: Mapping[str, str]
    peer: str  # of a patch port: the other end


class Switch(NamedTuple):
    """What the database knew when it was asked."""

    bridges: Mapping[str, str]  # name: datapath type, "" being the kernel's
    ports: tuple[Port, ...]

    def port(self, name: str) -> Port | None:
        """The port of that name."""
        return next((port for port in self.ports if port.name == name), None)

    def numbered(self, bridge: str, number: int) -> Port | None:
        """The port of a bridge with that OpenFlow number."""
        return next((port for port in self.ports if port.bridge == bridge and port.number == number), None)


def read(path: Path, timeout_s: float = TIMEOUT_S) -> Switch:
    """Ask ovsdb-server at the unix socket ``path``; raises `OvsError`."""
    operations = [
        {"op": "select", "table": table, "where": [], "columns": columns} for table, columns in _COLUMNS.items()
    ]
    result = ask(path, "transact", [_DATABASE, *operations], timeout_s)
    try:
        return switch(*(each["rows"] for each in result))
    except (KeyError, TypeError, ValueError, IndexError) as error:
        raise OvsError(f"{path}: the answer has not the form of RFC 7047: {error!r}"[:300]) from error


def switch(bridges: list[Any], ports: list[Any], interfaces: list[Any]) -> Switch:
    """Rows of the three tables put together; raises KeyError, TypeError or ValueError for other forms."""
    bridge_of = {port: str(row["name"]) for row in bridges for port in _uuids(row["ports"])}
    owner = {
        interface: bridge_of[_uuid(row["_uuid"])]
        for row in ports
        if _uuid(row["_uuid"]) in bridge_of
        for interface in _uuids(row["interfaces"])
    }
    found = []
    for row in interfaces[:MOST_PORTS]:
        bridge = owner.get(_uuid(row["_uuid"]))
        if bridge is not None:
            number, ifindex = _number(row["ofport"], -1), _number(row["ifindex"], 0)
            ids, options = _map(row["external_ids"]), _map(row["options"])
            found.append(
                Port(str(row["name"]), bridge, number, ifindex, str(row["type"]), ids, options.get("peer", ""))
            )
    return Switch({str(row["name"]): str(row["datapath_type"]) for row in bridges}, tuple(found))


# Values as RFC 7047 section 5.1 writes them: ["uuid", ID], ["set", [..]], ["map", [[key, value], ..]], or an atom.


def _uuid(value: Any) -> str:
    kind, uuid = value
    if kind != "uuid":
        raise ValueError(f"{kind!r} is no uuid")
    return str(uuid)


def _uuids(value: Any) -> Iterator[str]:
    if value[0] == "set":
        for each in value[1]:
            yield _uuid(each)
    else:
        yield _uuid(value)


def _map(value: Any) -> dict[str, str]:
    kind, pairs = value
    if kind != "map":
        raise ValueError(f"{kind!r} is no map")
    return {str(key): str(text) for key, text in pairs}


def _number(value: Any, absent: int) -> int:
    return value if isinstance(value, int) and 0 <= value <= _LARGEST else absent
