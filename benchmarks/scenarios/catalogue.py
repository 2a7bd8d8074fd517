"""Every scenario by its name."""

from __future__ import annotations

from typing import Final

from benchmarks.scenarios.base import Level, Scenario
from benchmarks.scenarios.bodies import Bodies
from benchmarks.scenarios.configuration import Apply, Swap
from benchmarks.scenarios.connections import Churn, Connections, Tls, TlsBulk, WebSocket
from benchmarks.scenarios.cost import Cost, Latency
from benchmarks.scenarios.memory import Big, Growth, Idle
from benchmarks.scenarios.propagation import Propagation
from benchmarks.scenarios.rate import Rate
from benchmarks.scenarios.scale import Rules, Workers
from benchmarks.scenarios.tracing import Price
from benchmarks.scenarios.wire import Wire
from benchmarks.scenarios.wire_memory import WireMemory

SCENARIOS: Final[dict[str, Scenario]] = {
    scenario.name: scenario
    for scenario in (
        Cost(),
        Latency(),
        Rate(),
        Price(),
        Bodies(),
        Idle(),
        Connections(),
        Churn(),
        Tls(),
        TlsBulk(),
        WebSocket(),
        Rules(),
        Workers(),
        Apply(),
        Swap(),
        Propagation(),
        Big(),
        Growth(),
        Wire(),
        WireMemory(),
    )
}


def chosen(level: Level, only: list[str]) -> list[Scenario]:
    """Those of a level, or those named, in the catalogue's order; KeyError for a name that is none."""
    if only:
        wanted = {SCENARIOS[name].name for name in only}
        return [scenario for scenario in SCENARIOS.values() if scenario.name in wanted]
    return [
        scenario
        for scenario in SCENARIOS.values()
        if (level > Level.QUICK or scenario.quick) and (level == Level.FULL or not scenario.full_only)
    ]
