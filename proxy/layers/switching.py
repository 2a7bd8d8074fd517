"""What Open vSwitch does with a joined connection, asked beside the loop and remembered: attributes for its spans.

One question per connection and minute, one at a time, answered by `ofproto/trace`. Where the switch does not answer,
spans are without these attributes and a line says so; joining does not need it.
"""

from __future__ import annotations

import asyncio
import traceback
from collections.abc import Callable, Mapping, Sequence
from itertools import groupby, pairwise
from typing import TYPE_CHECKING, Final, NamedTuple

from proxy.layers.ovs import counters, fdb, flow_trace
from proxy.layers.ovs.flow_trace import Connection, FlowTrace
from proxy.layers.ovs.rpc import OvsError
from proxy.layers.ways import address_text
from proxy.trace import semconv_wire

if TYPE_CHECKING:
    from proxy.layers.find import OpenVSwitch
    from proxy.layers.otlp import Value
    from proxy.layers.ways import Way
    from proxy.trace.handover import Record

OVS: Final = "ovs "
"""How the name of a place begins that is a bridge of Open vSwitch's."""
KEPT_S: Final = 60.0  # rules change
RETRY_S: Final = 10.0  # after a failure
MOST: Final = 4096  # connections; a full table starts anew


class _Crossing(NamedTuple):
    """Where a way enters a bridge, and where it leaves it."""

    bridge: str
    in_port: str
    out_port: str


class Switching:
    """Asks ``switch`` about connections; ``complain`` is told why it cannot."""

    def __init__(self, switch: OpenVSwitch, complain: Callable[[str], None]) -> None:
        self._switch: Final = switch
        self._complain: Final = complain
        self._known: dict[tuple[bytes, int, bytes, int], tuple[float, Mapping[str, Value] | None]] = {}
        self._asking: asyncio.Task[None] | None = None
        self._silent_until = 0.0
        self._reading: asyncio.Task[None] | None = None
        self.samples: Sequence[counters.Sample] = ()
        """What the switch counts of its own work, as it was last asked."""

    def __repr__(self) -> str:
        return f"Switching({self._switch!r}, {len(self._known)} connections)"

    def describe(self, record: Record, way: Way) -> Mapping[str, Value] | None:
        """What is known of a connection as attributes; None at first, which has it asked for, and once that is too
        long ago. Never waits."""
        key = (record.local, record.local_port, record.peer, record.peer_port)
        now = asyncio.get_running_loop().time()
        until, known = self._known.get(key, (0.0, None))
        idle = self._asking is None or self._asking.done()
        if now >= until and now >= self._silent_until and idle and (crossing := _crossing(way)) is not None:
            self._asking = asyncio.get_running_loop().create_task(self._ask(key, record, crossing))
        return known if now < until + RETRY_S else None  # rules may have changed

    async def _ask(self, key: tuple[bytes, int, bytes, int], record: Record, crossing: _Crossing) -> None:
        loop = asyncio.get_running_loop()
        try:
            found = await asyncio.to_thread(self._trace, record, crossing)
        except OvsError as problem:
            self._refused(loop.time(), str(problem))
            return
        except Exception as problem:  # an answer that was not thought of: else each record would have it asked again
            self._refused(loop.time(), _bug(problem))
            return
        if len(self._known) >= MOST:
            self._known.clear()
        self._known[key] = (loop.time() + KEPT_S, found)

    def _refused(self, now: float, why: str) -> None:
        self._silent_until = now + RETRY_S
        self._complain(f"Open vSwitch is not asked about connections for now: {why}")

    def _trace(self, record: Record, crossing: _Crossing) -> Mapping[str, Value]:
        control = self._switch.control()
        # A bridge that learns floods what it has not learned: the trace needs both Ethernet addresses.
        entries = fdb.show(control, crossing.bridge)
        switch = self._switch.switch()
        macs = []
        for name in (crossing.in_port, crossing.out_port):
            port = switch.port(name)
            behind = {entry.mac for entry in entries if port is not None and entry.port == port.number}
            macs.append(behind.pop() if len(behind) == 1 else "")
        connection = Connection(
            crossing.bridge,
            crossing.in_port,
            address_text(record.local),
            record.local_port,
            address_text(record.peer),
            record.peer_port,
            *macs,
        )
        found = flow_trace.trace(control, connection)
        return {
            semconv_wire.OVS_BRIDGE.name: ", ".join(found.bridges),
            semconv_wire.OVS_IN_PORT.name: found.in_port,
            semconv_wire.OVS_OUT_PORT.name: ", ".join(found.out_ports),
            semconv_wire.OVS_TABLES.name: _tables(found),
            semconv_wire.OVS_ACTIONS.name: found.actions,
        }

    def read(self) -> None:
        """Have the switch's counters read again, beside the loop; nothing while that is under way."""
        if self._reading is None or self._reading.done():
            self._reading = asyncio.get_running_loop().create_task(self._read())

    async def _read(self) -> None:
        try:
            self.samples = await asyncio.to_thread(lambda: counters.read(self._switch.control()))
        except OvsError as problem:
            self.samples = ()
            self._complain(f"Open vSwitch does not tell its counters: {problem}")
        except Exception as problem:
            self.samples = ()
            self._complain(f"Open vSwitch does not tell its counters: {_bug(problem)}")

    def close(self) -> None:
        """End what is being asked."""
        for task in (self._asking, self._reading):
            if task is not None:
                task.cancel()


def _tables(found: FlowTrace) -> str:
    """The tables that were passed, in that order; of several bridges each with its name before its own."""
    if len(found.bridges) == 1:
        return ", ".join(str(table) for table in found.tables)
    rows = groupby(found.steps, key=lambda step: step.bridge)
    return " | ".join(f"{bridge} {', '.join(str(step.table) for step in steps)}" for bridge, steps in rows)


def _bug(problem: Exception) -> str:
    return f"a bug, please report it: {''.join(traceback.format_exception(problem))}"


def _crossing(way: Way) -> _Crossing | None:
    """The first bridge of Open vSwitch's on a way."""
    for place, (near, far) in zip(way.between, pairwise(way.interfaces), strict=True):
        if place.startswith(OVS):
            return _Crossing(place.removeprefix(OVS), near.name, far.name)
    return None
