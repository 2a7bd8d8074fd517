"""The compiled parser against its Python twin: the same records, numbers and counts of any sequence of blocks."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from proxy.layers import frames, packet
from tests.harness.twins import COMPILED
from tests.layers.blocks import START, Segment, block
from tests.layers.strategies import broken, segments

pytestmark = pytest.mark.skipif(not COMPILED, reason="compares the compiled form, and this is the pure one")

_blocks = st.one_of(broken(), st.lists(segments(), max_size=8).map(lambda made: block([each.frame() for each in made])))
_forget = st.integers(START, START + 10_000_000_000)


def test_there_are_two() -> None:
    assert packet.parse is not frames.parse
    assert packet.Packet is frames.Packet


@given(st.lists(st.one_of(_blocks, _forget), max_size=6), st.sampled_from([1, 3, 8, frames.DEFAULT_FLOWS]))
def test_the_same_of_any_blocks(steps: list[bytes | int], limit: int) -> None:
    flows, out = packet.Flows(limit), packet.Packets()
    others, wanted = frames.Flows(limit), frames.Packets()
    for step in steps:
        if isinstance(step, int):
            assert flows.forget(step) == others.forget(step)
        else:
            assert packet.parse(step, flows, out) == frames.parse(step, others, wanted)
    assert out.data == wanted.data
    assert list(out) == list(wanted)
    assert repr(out) == repr(wanted)
    assert (len(flows), list(flows), repr(flows)) == (len(others), list(others), repr(others))
    assert [flows[number] for number in flows] == [others[number] for number in others]
    for flow in map(others.__getitem__, others):
        assert flows.find(*flow) == others.find(*flow)
        assert flows.find(*flow[2:], *flow[:2]) == others.find(*flow[2:], *flow[:2])


def test_the_same_where_it_is_used_wrongly() -> None:
    for module in (packet, frames):
        out = module.Packets()
        module.parse(block([]), module.Flows(), out)
        with memoryview(out.data), pytest.raises(BufferError):
            module.parse(block([Segment().frame()]), module.Flows(), out)
        with pytest.raises(TypeError):
            module.parse(None, module.Flows(), out)
        with pytest.raises(TypeError):
            module.Flows()["a"]
