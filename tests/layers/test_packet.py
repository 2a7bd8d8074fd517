"""The parser in use, whichever form that is: what it makes of frames, and of blocks that are no blocks."""

from __future__ import annotations

import ctypes
import mmap
import struct
from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from proxy.layers import packet
from proxy.layers.packet import Flows, Packet, Packets, parse
from tests.layers.blocks import (
    ARP,
    ETHERNET,
    HEADER,
    IPV4,
    IPV6,
    LOOPBACK,
    NONE,
    START,
    Frame,
    Segment,
    address,
    block,
)  # fmt: skip
from tests.layers.strategies import broken, segments

SIX = Segment(source="fd00::1", target="fd00::2")
SCALED = b"\x02\x04\x05\xb4\x04\x02\x08\x0a\0\0\0\1\0\0\0\0\x01\x03\x03\x07"  # what Linux sends


def parsed(*frames: Frame) -> tuple[list[Packet], Packets]:
    out = Packets()
    assert parse(block(frames), Flows(), out) == len(out)
    return list(out), out


def one(segment: Segment, snap: int = 96) -> Packet:
    (found,), out = parsed(segment.frame().cut(snap))
    assert (out.unread, out.unknown, out.torn) == (0, 0, 0)
    return found


def test_every_field_of_a_segment() -> None:
    segment = Segment(seq=0xFFFFFFFF, ack=0x80000001, flags=0x18, window=0xFFFE, length=1448, outgoing=True, ifindex=3)
    assert one(segment) == Packet(
        ts_ns=START, flow=0, seq=0xFFFFFFFF, ack=0x80000001, length=1448, window=0xFFFE, flags=0x18, wscale=-1,
        direction=0, outgoing=1, vlan=0, ifindex=3, frame=14 + 40 + 1448,
    )  # fmt: skip


def test_the_record_is_of_40_bytes() -> None:
    _, out = parsed(Segment().frame())
    assert len(out.data) == packet.RECORD.size == 40
    assert packet.RECORD.unpack(out.data) == tuple(out[0])


@pytest.mark.parametrize(
    "segment",
    [
        Segment(),
        SIX,
        Segment(hatype=LOOPBACK),
        Segment(hatype=NONE),
        replace(SIX, hatype=NONE),
        Segment(ip_options=bytes(4)),
        Segment(ip_options=bytes(20)),
        replace(SIX, hops=b"\xc2\x04\0\0\0\0"),
        replace(SIX, hops=bytes(14)),
        Segment(tags=((0x8100, 5),)),
        replace(SIX, tags=((0x8100, 5),)),
        Segment(tags=((0x88A8, 5), (0x8100, 6))),
        Segment(tags=((0x9100, 5),)),
        Segment(pad=6, length=0),
        Segment(options=b"\x01\x01\x05\x0a" + bytes(8)),
    ],
    ids=repr,
)
def test_where_the_header_is(segment: Segment) -> None:
    found = one(segment, 112)
    assert (found.seq, found.ack, found.window, found.length) == (1, 2, 512, segment.length)
    assert found.vlan == (segment.tags[0][1] if segment.tags else 0)


def test_a_tag_that_was_taken_out_of_the_frame() -> None:
    assert one(Segment(stripped=0x6005)).vlan == 5, "of the tag's 16 bits, 12 are the id"
    assert one(Segment(stripped=5, tags=((0x8100, 6),))).vlan == 5, "the outermost"
    assert one(Segment(stripped=0, tags=((0x8100, 6),))).vlan == 6, "0 is a priority, and no network"


def test_a_frame_that_is_not_cut_yet_is_one_segment() -> None:
    assert one(Segment(length=64_000)).length == 64_000


@pytest.mark.parametrize("hops", [None, b"\xc2\x04\0\0\0\0"])
def test_more_than_an_ip_length_can_tell(hops: bytes | None) -> None:
    assert one(Segment(length=150_000, big=True)).length == 150_000
    assert one(replace(SIX, length=184_212, big=True, hops=hops)).length == 184_212


@pytest.mark.parametrize(
    ("options", "scale"),
    [
        (SCALED, 7),
        (b"\x03\x03\x0e\x00", 14),
        (b"\x03\x03\x0f\x00", 14),
        (b"\x03\x03\x00\x00", 0),
        (b"", -1),
        (b"\x00\x03\x03\x07", -1),
        (b"\x02\x00\x03\x03\x07\x00\x00\x00", -1),
        (b"\x02\xff\x03\x03\x07\x00\x00\x00", -1),
        (b"\x03\x04\x07\x00", -1),
        (b"\x01\x01\x01\x03", -1),
    ],
)
def test_the_window_scale_of_a_syn(options: bytes, scale: int) -> None:
    assert one(Segment(flags=packet.SYN, options=options, length=0), 112).wscale == scale
    assert one(Segment(flags=packet.ACK, options=options, length=0), 112).wscale == -1


def test_a_window_scale_that_was_not_captured() -> None:
    syn = Segment(flags=packet.SYN, options=SCALED, length=0)
    assert one(syn, 14 + 20 + 20 + 20).wscale == 7
    assert one(syn, 14 + 20 + 20 + 19).wscale == -1


def test_both_directions_are_one_flow() -> None:
    there = Segment()
    back = Segment(source="10.0.0.2", target="10.0.0.1", source_port=80, target_port=40000)
    other = replace(there, source_port=40001)
    found, _ = parsed(there.frame(), back.frame(), other.frame(), there.frame())
    assert [(each.flow, each.direction) for each in found] == [(0, 0), (0, 1), (1, 0), (0, 0)]


@pytest.mark.parametrize(
    "frame",
    [
        Frame(bytes(14 + 40), 54, kind=ARP),
        Segment().frame().cut(14 + 20 + 19),
        Segment().frame().cut(14 + 19),
        Segment().frame().cut(13),
        Segment().frame().cut(0),
        Segment(tags=((0x8100, 1),)).frame().cut(17),
        replace(SIX, hops=bytes(6)).frame().cut(14 + 41),
        replace(Segment().frame(), data=Segment().frame().data.replace(b"\x40\x06", b"\x40\x11")),  # UDP
        replace(Segment().frame(), data=Segment().frame().data.replace(b"\x40\0\x40\x06", b"\x20\0\x40\x06")),  # more
        replace(Segment().frame(), data=Segment().frame().data.replace(b"\x40\0\x40\x06", b"\0\1\x40\x06")),  # offset
        replace(Segment().frame(), data=Segment().frame().data.replace(b"\x45\0", b"\x44\0", 1)),
        replace(Segment().frame(), data=Segment().frame().data.replace(b"\x50\x10", b"\x40\x10")),  # of 16 bytes
        replace(Segment().frame(), length=100),  # shorter than the packet says
        Segment(tags=((0x8100, 1), (0x8100, 2), (0x8100, 3))).frame(),
        replace(Segment().frame(), more={"mac": HEADER - 1}),
        replace(Segment().frame(), more={"captured": 10_000}),
        replace(Segment(hatype=NONE).frame(), more={"net": HEADER - 1}),
        replace(Segment(hatype=NONE).frame(), more={"net": 60_000}),
        replace(Segment(hatype=NONE).frame(), kind=ARP),
        replace(Segment(hatype=NONE).frame(), kind=IPV6),
    ],
)
def test_what_is_no_whole_header_is_counted_and_the_next_is_read(frame: Frame) -> None:
    found, out = parsed(frame, Segment().frame())
    assert (len(found), out.unread, out.torn) == (1, 1, 0)


def test_a_block_of_nothing() -> None:
    out = Packets()
    assert parse(block([]), Flows(), out) == 0
    assert (out.unread, out.torn) == (0, 0)


def test_blocks_whose_headers_lead_out_are_torn() -> None:
    whole = block([Segment().frame(), Segment().frame()])
    for at, value, made in [(12, 3, 2), (16, 1 << 31, 0), (16, 47, 0), (48, 1 << 31, 1), (48, 67, 1), (48, 0, 1)]:
        out = Packets()
        torn = whole[:at] + struct.pack("=I", value) + whole[at + 4 :]
        assert parse(torn, Flows(), out) == made, (at, value)
        assert out.torn == 1
    for short in (b"", bytes(47), whole[:48], whole[:100]):
        out = Packets()
        assert parse(short, Flows(), out) == 0
        assert out.torn == 1


def test_packets_gather_until_they_are_cleared() -> None:
    flows, out = Flows(), Packets()
    for _ in range(3):
        parse(block([Segment().frame(), Frame(bytes(60), 60)]), flows, out)
    assert (len(out), out.unread) == (3, 3)
    assert out[2] == out[0]
    with pytest.raises(IndexError):
        out[3]
    with pytest.raises(IndexError):
        out[-1]
    assert repr(out) == "<Packets 3, 3 unread, 0 unknown, 0 torn>"
    out.clear()
    assert (len(out), out.unread, list(out)) == (0, 3, [])


# Flows


def ends(number: int) -> tuple[bytes, int, bytes, int]:
    return address("10.0.0.1"), 40000 + number, address("10.0.0.2"), 80


def meet(flows: Flows, *numbers: int, ts_ns: int = START) -> Packets:
    out = Packets()
    parse(block([Segment(source_port=40000 + number, ts_ns=ts_ns).frame() for number in numbers]), flows, out)
    return out


def test_a_connection_is_found_from_either_end() -> None:
    flows = Flows()
    meet(flows, 0, 1)
    assert (len(flows), list(flows)) == (2, [0, 1])
    local, port, peer, peer_port = ends(1)
    assert flows[1] == ends(1)
    assert flows.find(local, port, peer, peer_port) == (1, 0)
    assert flows.find(peer, peer_port, local, port) == (1, 1)
    assert flows.find(*ends(2)) is None
    for number in (-1, 2, 1 << 40):
        with pytest.raises(IndexError):
            flows[number]


@pytest.mark.parametrize(
    "wrong", [(b"", 1, bytes(16), 1), (bytes(16), -1, bytes(16), 1), (bytes(16), 1, bytes(16), 65536)]
)
def test_what_is_no_endpoint_is_not_looked_for(wrong: tuple[bytes, int, bytes, int]) -> None:
    with pytest.raises(ValueError, match="16 bytes"):
        Flows().find(*wrong)


def test_a_full_table_takes_no_more_until_something_is_forgotten() -> None:
    flows = Flows(2)
    assert repr(flows) == "<Flows 0 of 2>"
    meet(flows, 0)
    out = meet(flows, 1, 2, 0, ts_ns=START + 10)
    assert ([each.flow for each in out], out.unknown, out.unread) == ([1, 0], 1, 0)
    assert flows.forget(START + 10) == []
    meet(flows, 1, ts_ns=START + 20)
    assert flows.forget(START + 11) == [0], "by its last packet"
    assert flows.find(*ends(0)) is None
    assert flows.find(*ends(1)) == (1, 0)
    with pytest.raises(IndexError):
        flows[0]
    assert [each.flow for each in meet(flows, 3)] == [0], "the number names another"
    assert flows[0] == ends(3)


def test_a_packet_stamped_earlier_does_not_make_a_connection_older() -> None:
    flows = Flows()
    meet(flows, 0, ts_ns=START + 10)
    meet(flows, 0, ts_ns=START)
    assert flows.forget(START + 5) == []


def test_many_connections_keep_their_numbers() -> None:
    flows, count = Flows(5000), 6000
    out = meet(flows, *range(count))
    assert (len(out), out.unknown, len(flows)) == (5000, 1000, 5000)
    assert all(flows.find(*ends(number)) == (number, 0) for number in range(5000))
    meet(flows, *range(0, 5000, 2), ts_ns=START + 1)
    assert flows.forget(START + 1) == list(range(1, 5000, 2)) == [n for n in range(5000) if n not in set(flows)]
    assert all((flows.find(*ends(number)) == (number, 0)) == (number % 2 == 0) for number in range(5000))
    out = meet(flows, *range(10_000, 12_500))
    assert out.unknown == 0
    assert len({each.flow for each in out}) == 2500
    assert flows.limit == 5000


@pytest.mark.parametrize("limit", [0, -1, (1 << 24) + 1])
def test_a_table_of_no_size(limit: int) -> None:
    with pytest.raises(ValueError, match="1 to 16777216"):
        Flows(limit)


# Whatever it is


@given(st.lists(segments(), max_size=8), st.integers(0, 30))
def test_what_was_written_is_read(made: list[Segment], tail: int) -> None:
    flows, out = Flows(), Packets()
    assert parse(memoryview(block([each.frame() for each in made], tail=tail)).toreadonly(), flows, out) == len(made)
    for segment, found in zip(made, out, strict=True):
        wanted = (segment.ts_ns, segment.seq, segment.ack, segment.length, segment.window, segment.flags)
        assert (found.ts_ns, found.seq, found.ack, found.length, found.window, found.flags) == wanted
        assert (found.outgoing, found.ifindex) == (segment.outgoing, segment.ifindex)
        sides = [(address(segment.source), segment.source_port), (address(segment.target), segment.target_port)]
        low, high = sorted(sides)
        assert flows[found.flow] == (*low, *high)
        assert found.direction == (sides[0] != low)


class Guarded:
    """Memory right behind which nothing may be read: who does, ends the process."""

    SIZE = 16 * mmap.PAGESIZE

    def __init__(self) -> None:
        self.memory = mmap.mmap(-1, self.SIZE + mmap.PAGESIZE)
        at = ctypes.addressof(ctypes.c_char.from_buffer(self.memory))
        assert ctypes.CDLL(None).mprotect(ctypes.c_void_p(at + self.SIZE), mmap.PAGESIZE, 0) == 0

    def put(self, data: bytes) -> memoryview:
        assert len(data) <= self.SIZE
        self.memory[self.SIZE - len(data) : self.SIZE] = data
        return memoryview(self.memory)[self.SIZE - len(data) : self.SIZE]


GUARDED = Guarded()


@given(broken())
def test_bytes_that_are_no_block_neither_raise_nor_lead_out(data: bytes) -> None:
    out = Packets()
    made = parse(GUARDED.put(data), Flows(4), out)
    assert made == len(out) == len(list(out))
    said = struct.unpack_from("=I", data, 12)[0] if len(data) >= 48 else 0
    assert made + out.unread + out.unknown <= said
    assert out.torn in (0, 1)
    assert out.torn or made + out.unread + out.unknown == said


def test_the_kinds_the_tests_know_are_those_of_the_parser() -> None:
    assert {ETHERNET, LOOPBACK} == {1, 772}
    assert (IPV4, IPV6) == (0x0800, 0x86DD)
