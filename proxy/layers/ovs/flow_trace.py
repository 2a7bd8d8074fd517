"""How Open vSwitch would forward one connection: `ofproto/trace` of its addresses and ports, parsed."""

from __future__ import annotations

import ipaddress
import re
from typing import Final, NamedTuple

from proxy.layers.ovs.rpc import OvsError
from proxy.layers.ovs.unixctl import Control

MOST_STEPS: Final = 64  # tables that one flow passes; pipelines of CNI plugins have up to 40
MOST_TEXT: Final = 200  # characters of a rule, or of a table's actions
_BRIDGE: Final = re.compile(r'bridge\("([^"]+)"\)')
_TABLE: Final = re.compile(r"\s*(\d+)\. (.+)")
_NO_PORT: Final = frozenset({"drop", "pop_vlan", "pop_nsh", "pop_eth", "pop_mpls", "ct_clear"})


class Connection(NamedTuple):
    """One direction of a TCP connection as it enters a bridge; ``in_port`` by name or by OpenFlow number.

    Numbers do not follow the order in which ports were added: with a wrong one the answer is about another packet.
    """

    bridge: str
    in_port: str
    source: str
    source_port: int
    destination: str
    destination_port: int
    source_mac: str = ""  # without them a flow that depends on addresses learned is answered with a flood
    destination_mac: str = ""

    def flow(self) -> str:
        """In the syntax of ovs-fields(7); raises ValueError for what is no address."""
        source, destination = ipaddress.ip_address(self.source), ipaddress.ip_address(self.destination)
        kind, network = ("tcp", "nw") if source.version == 4 else ("tcp6", "ipv6")
        parts = [f"in_port={self.in_port}", kind]
        parts += [f"dl_src={self.source_mac}"] if self.source_mac else []
        parts += [f"dl_dst={self.destination_mac}"] if self.destination_mac else []
        parts += [f"{network}_src={source}", f"{network}_dst={destination}", "nw_ttl=64"]
        return ",".join([*parts, f"tp_src={self.source_port}", f"tp_dst={self.destination_port}"])


class Step(NamedTuple):
    """A table that the packet passed."""

    bridge: str
    table: int
    rule: str  # what it matched, "No match" where nothing did
    actions: str


class FlowTrace(NamedTuple):
    """Where a connection's packets go. ``out_ports`` is empty when they are dropped."""

    bridges: tuple[str, ...]
    in_port: str
    out_ports: tuple[str, ...]
    steps: tuple[Step, ...]
    megaflow: str
    actions: str  # the datapath's

    @property
    def tables(self) -> tuple[int, ...]:
        """The numbers of the tables that were passed, in that order."""
        return tuple(step.table for step in self.steps)


def parse(text: str, in_port: str = "") -> FlowTrace:
    """Read what `ofproto/trace --names` prints, also of a flow that is recirculated; raises ValueError for no trace."""
    bridge, steps, megaflow, actions = "", list[Step](), "", list[str]()
    bridges: list[str] = []
    for line in text.splitlines():
        if found := _BRIDGE.match(line):
            bridge = found[1]
            if bridge not in bridges:
                bridges.append(bridge)
        elif line.startswith("Megaflow: "):
            megaflow = megaflow or line.removeprefix("Megaflow: ").strip()
        elif line.startswith("Datapath actions: "):
            actions.append(line.removeprefix("Datapath actions: ").strip())
        elif bridge and (found := _TABLE.match(line)):
            if len(steps) < MOST_STEPS:
                steps.append(Step(bridge, int(found[1]), found[2].strip()[:MOST_TEXT], ""))
        elif steps and line.startswith((" ", "\t")) and line.strip():
            last = steps[-1]
            more = "; ".join(filter(None, (last.actions, line.strip())))
            steps[-1] = last._replace(actions=more[:MOST_TEXT])
    if not actions:
        raise ValueError("no datapath actions")
    ports = tuple(dict.fromkeys(port for each in actions for port in _ports(each)))
    return FlowTrace(tuple(bridges), in_port, ports, tuple(steps), megaflow[:1000], ",".join(actions)[:1000])


def _ports(actions: str) -> list[str]:
    """The names of ports among datapath actions: what is outside of any parentheses and no word for something else."""
    depth, word, words = 0, "", list[str]()
    for character in actions + ",":
        depth += (character == "(") - (character == ")")
        if character == "," and depth <= 0:
            words.append(word.strip().strip('"'))
            word = ""
        else:
            word += character
    return [each for each in words if each and "(" not in each and each not in _NO_PORT]


def trace(control: Control, connection: Connection) -> FlowTrace:
    """Ask how the connection's packets are forwarded; raises `OvsError`.

    It takes the switch's main loop 0.1 ms, and has no effect there.
    """
    try:
        flow = connection.flow()
        try:
            return parse(control.call("ofproto/trace", "--names", connection.bridge, flow), connection.in_port)
        except OvsError:  # before 3.1 it has not the option: ports are then numbers of the datapath's
            return parse(control.call("ofproto/trace", connection.bridge, flow), connection.in_port)
    except ValueError as error:
        raise OvsError(f"ofproto/trace of {connection.source} to {connection.destination}: {error}") from error
