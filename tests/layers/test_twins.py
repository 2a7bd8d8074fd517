"""The compiled parser and what keeps packets against their Python twins: the same records, numbers and counts of any
sequence of blocks, the same packets kept in the same order."""

from __future__ import annotations

from types import ModuleType

import pytest
from hypothesis import given
from hypothesis import strategies as st

from proxy.layers import frames, packet, track, tracks
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
            assert flows.forget(step, 1) == others.forget(step, 1)
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


class Kept:
    """Connections of one form."""

    def __init__(self, module: ModuleType) -> None:
        self.module = module
        self.known: dict[int, tracks.Tracks] = {}

    @staticmethod
    def of(one: tracks.Track, start: int, end: int) -> tuple[int, int, str, bytes]:
        return len(one), one.floor_ns, repr(one), one.window(start, end)

    def told(self, start: int, end: int) -> list[object]:
        return [
            (number, len(kept), [one if one is None else self.of(one, start, end) for one in kept.at])
            for number, kept in self.known.items()
        ]


_STAMPS = st.integers(-5, 60)
_packets = st.lists(
    st.tuples(_STAMPS, st.integers(0, 2), st.sampled_from([frames.ACK, frames.SYN, frames.SYN | frames.ACK])),
    max_size=40,
)


@given(
    st.lists(st.tuples(st.integers(0, 2), _packets, _STAMPS, _STAMPS), max_size=6),
    st.sampled_from([0, 1 << 63, 1 << 70, -(1 << 70)]),
)
def test_the_same_packets_are_kept(steps: list[tuple[int, list[tuple[int, int, int]], int, int]], far: int) -> None:
    ours, theirs = Kept(track), Kept(tracks)
    for tap, packets, start, end in steps:
        data = bytearray(b"".join(
            frames.RECORD.pack(ts, flow, n, 0, n, 512, flags, -1, 0, 0, 0, 1, 60)
            for n, (ts, flow, flags) in enumerate(packets)
        ))  # fmt: skip
        found, wanted = (
            kept.module.sort_in(data, tap, kept.known, kept.module.Tracks) for kept in (ours, theirs)
        )  # fmt: skip
        assert found == wanted
        assert ours.told(start, end + far) == theirs.told(start, end + far)
        for mine, other in zip(ours.known.values(), theirs.known.values(), strict=True):
            assert mine.forget(start) == other.forget(start)
            for one, same in zip(mine.at, other.at, strict=True):
                if one and same:
                    assert (one.first_ns, one.last_ns) == (same.first_ns, same.last_ns)
        assert ours.told(-(1 << 65), 1 << 65) == theirs.told(-(1 << 65), 1 << 65)


@pytest.mark.parametrize("module", [track, tracks])
def test_a_track_is_bounded_and_what_comes_too_late_is_left_out(module: ModuleType) -> None:
    kept = {0: module.Tracks()}

    def rows(*stamps: int) -> bytearray:
        return bytearray(b"".join(frames.RECORD.pack(ts, 0, 0, 0, 0, 0, 0, -1, 0, 0, 0, 1, 0) for ts in stamps))

    most = module.PACKETS
    assert module.sort_in(rows(*range(most)), 1, kept, module.Tracks) == (most, [])
    assert module.sort_in(rows(most), 1, kept, module.Tracks) == (1 - most // 4, [])
    one = kept[0].at[1]
    assert (one.first_ns, one.last_ns, one.floor_ns, len(kept[0])) == (most // 4, most, most // 4, most - most // 4 + 1)
    assert module.sort_in(rows(5), 1, kept, module.Tracks) == (0, [])
    assert one.forget(most) == most - most // 4
    assert one.window(0, most) == bytes(rows(most))
    assert one.forget(most + 1) == 1
    assert module.sort_in(rows(5), 1, kept, module.Tracks) == (1, []), "there is nothing that it could contradict"
    with pytest.raises(IndexError):
        module.sort_in(rows(1), module.MOST_TAPS, kept, module.Tracks)
    with pytest.raises(IndexError):
        print(module.Track().first_ns)
    with pytest.raises(ValueError, match="a packet of 3 bytes"):
        one.add(b"abc")
