"""What Open vSwitch says of a connection: asked once, remembered, and never waited for."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Mapping
from pathlib import Path

import pytest

from proxy.layers.find import Interface, OpenVSwitch
from proxy.layers.otlp import Value
from proxy.layers.ovs.flow_trace import FlowTrace, Step
from proxy.layers.ovs.rpc import OvsError
from proxy.layers.switching import KEPT_S, RETRY_S, Switching, _crossing, _tables
from proxy.layers.ways import Way
from tests.layers.path import Ask, Hop, Net

PORTS = tuple(Interface(name, number) for number, name in enumerate(("px", "br-px", "br-app"), 1))
WAY = Way(PORTS, ("link", "ovs br0"))
(RECORD,) = Net([Hop(), Hop(), Hop()]).run([Ask()])


def switching(answer: Callable[[], Mapping[str, Value]]) -> tuple[Switching, list[str]]:
    said: list[str] = []
    made = Switching(OpenVSwitch(Path("/nowhere")), said.append)
    vars_of = {"_trace": lambda record, crossing: answer()}
    for name, value in vars_of.items():
        setattr(made, name, value)
    return made, said


async def settled(made: Switching) -> None:
    if made._asking is not None:
        await asyncio.wait([made._asking])


def test_where_a_way_crosses_a_bridge() -> None:
    assert _crossing(WAY) == ("br0", "br-px", "br-app")
    assert _crossing(Way(PORTS, ("link", "bridge cni0"))) is None
    assert _crossing(Way(PORTS[:1], ())) is None


def test_tables_of_several_bridges_are_told_apart() -> None:
    def found(*steps: tuple[str, int]) -> FlowTrace:
        bridges = tuple(dict.fromkeys(bridge for bridge, _ in steps))
        return FlowTrace(bridges, "in", (), tuple(Step(bridge, table, "", "") for bridge, table in steps), "", "")

    assert _tables(found(("br0", 0))) == "0"
    assert _tables(found(("br-int", 0), ("br-int", 10), ("br-int", 20))) == "0, 10, 20"
    assert _tables(found(("br-int", 0), ("br-int", 20), ("br-ex", 0))) == "br-int 0, 20 | br-ex 0"


async def test_a_connection_is_asked_about_once() -> None:
    calls = []

    def answer() -> Mapping[str, Value]:
        calls.append(1)
        return {"spanway.wire.ovs.bridge": "br0"}

    made, said = switching(answer)
    assert made.describe(RECORD, WAY) is None
    assert made.describe(RECORD, WAY) is None
    await settled(made)
    assert made.describe(RECORD, WAY) == {"spanway.wire.ovs.bridge": "br0"}
    made.describe(RECORD, Way(PORTS, ("link", "bridge cni0")))
    await settled(made)
    assert (len(calls), said) == (1, [])
    assert KEPT_S > RETRY_S
    made.close()


async def test_a_switch_that_is_silent_is_left_alone_for_a_while() -> None:
    calls = []

    def answer() -> Mapping[str, Value]:
        calls.append(1)
        raise OvsError("nobody answers")

    made, said = switching(answer)
    for _ in range(3):
        assert made.describe(RECORD, WAY) is None
        await settled(made)
    assert len(calls) == 1
    assert said == ["Open vSwitch is not asked about connections for now: nobody answers"]


async def test_what_was_known_is_no_longer_told_once_it_is_old_and_nobody_answers() -> None:
    def answer() -> Mapping[str, Value]:
        raise OvsError("nobody answers")

    made, _ = switching(answer)
    key = (RECORD.local, RECORD.local_port, RECORD.peer, RECORD.peer_port)
    now = asyncio.get_running_loop().time()
    told = {"spanway.wire.ovs.bridge": "br0"}
    made._known[key] = (now - RETRY_S / 2, told)
    assert made.describe(RECORD, WAY) == told  # while it is asked for again
    await settled(made)
    made._known[key] = (now - RETRY_S, told)
    assert made.describe(RECORD, WAY) is None


async def test_an_answer_that_was_not_thought_of_is_told_and_not_asked_for_again_at_once() -> None:
    calls = []

    def answer() -> Mapping[str, Value]:
        calls.append(1)
        raise KeyError("ofport")

    made, said = switching(answer)
    for _ in range(3):
        assert made.describe(RECORD, WAY) is None
        await settled(made)
    assert len(calls) == len(said) == 1
    assert "a bug, please report it" in said[0]
    assert "KeyError: 'ofport'" in said[0]
    assert made._asking is not None
    assert made._asking.exception() is None

    class Strange:
        def control(self) -> object:
            raise ValueError("not thought of")

    made._switch = Strange()  # type: ignore[misc,assignment] # whatever it is
    made.read()
    assert made._reading is not None
    await asyncio.wait([made._reading])
    assert made._reading.exception() is None
    assert "does not tell its counters: a bug" in said[1]
    made.close()


async def test_its_counters_are_read_beside_the_loop(monkeypatch: pytest.MonkeyPatch) -> None:
    made, said = switching(dict)
    made.read()
    made.read()
    assert made._reading is not None
    await asyncio.wait([made._reading])
    assert made.samples == ()
    assert len(said) == 1
    assert "Open vSwitch does not tell its counters" in said[0]
    made.close()
