"""Which frames a tap's filter takes: by an interpreter of classic BPF, and by the kernel itself."""

from __future__ import annotations

import fcntl
import os
import socket
import struct
from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from proxy.layers.packet import Flows, Packets, parse
from proxy.layers.ring import Ring
from proxy.layers.select import MOST_PEERS, SNAP, SNAP_LONG, Assembler, program
from tests.harness.poll import until
from tests.layers.blocks import IPV4, IPV6, NONE, Frame, Segment, block
from tests.layers.cbpf import run
from tests.layers.netns import cable
from tests.layers.strategies import PORTS, segments

POOL = (57344, 60999)
RANGES = st.one_of(st.none(), st.just(POOL), st.tuples(PORTS, PORTS).map(lambda two: (min(two), max(two))))
PEERS = st.sets(PORTS, max_size=5)


def takes(filtered: bytes, frame: Frame) -> int:
    data = frame.data + bytes(20)  # some payload
    return run(filtered, data, net=frame.net, kind=frame.kind, hatype=frame.hatype)


def wanted(segment: Segment, ports: tuple[int, int] | None, peers: set[int]) -> bool:
    ends = (segment.source_port, segment.target_port)
    first, last = ports or (0, 65535)
    return any(first <= near <= last and (not peers or far in peers) for near, far in (ends, ends[::-1]))


@given(segments(), RANGES, PEERS)
def test_segments_by_either_port(segment: Segment, ports: tuple[int, int] | None, peers: set[int]) -> None:
    taken = takes(program(ports, peers), segment.frame())
    assert taken == (wanted(segment, ports, peers) and (SNAP_LONG if segment.six() or segment.ip_options else SNAP))


@given(segments(), RANGES, PEERS)
def test_segments_of_strangers(segment: Segment, ports: tuple[int, int] | None, strangers: set[int]) -> None:
    taken = takes(program(ports, (), strangers), segment.frame())
    ends = (segment.source_port, segment.target_port)
    first, last = ports or (0, 65535)
    assert bool(taken) == any(first <= near <= last and far not in strangers for near, far in (ends, ends[::-1]))


@given(segments())
def test_what_is_captured_is_enough_for_the_parser(segment: Segment) -> None:
    frame = segment.frame()
    assert parse(block([frame.cut(takes(program(), frame))]), Flows(), Packets()) == 1


@given(segments(), st.lists(st.tuples(st.integers(0, 80), st.integers(0, 255)), max_size=3), st.integers(0, 120))
def test_what_a_parser_reads_a_filter_takes(segment: Segment, wrong: list[tuple[int, int]], snap: int) -> None:
    frame = segment.frame()
    data = bytearray(frame.data)
    for at, value in wrong:
        if at < len(data):
            data[at] = value
    frame = replace(frame, data=bytes(data[: max(snap, 20)]))
    read = parse(block([frame]), Flows(), Packets())
    taken = run(program(), frame.data, net=frame.net, kind=frame.kind, hatype=frame.hatype)
    assert taken or not read


@pytest.mark.parametrize(
    "segment",
    [
        Segment(),
        Segment(tags=((0x8100, 1),)),
        Segment(tags=((0x88A8, 1), (0x8100, 2))),
        Segment(source="fd00::1", target="fd00::2"),
        Segment(source="fd00::1", target="fd00::2", tags=((0x8100, 1),)),
        Segment(source="fd00::1", target="fd00::2", tags=((0x88A8, 1), (0x8100, 2))),
    ],
    ids=repr,
)
def test_what_is_captured_of_a_syn_of_linux_has_its_window_scale(segment: Segment) -> None:
    options = b"\x02\x04\x05\xb4\x04\x02\x08\x0a\0\0\0\1\0\0\0\0\x01\x03\x03\x07"
    frame = replace(segment, flags=2, options=options, length=0).frame()
    out = Packets()
    parse(block([frame.cut(takes(program(), frame))]), Flows(), out)
    assert [each.wscale for each in out] == [7]


@pytest.mark.parametrize(
    ("old", "new"),
    [
        (b"\x40\x06", b"\x40\x11"),  # UDP
        (b"\x40\0\x40\x06", b"\x20\0\x40\x06"),  # more fragments
        (b"\x40\0\x40\x06", b"\0\1\x40\x06"),  # not the first of them
        (b"\x45\0", b"\x44\0"),
        (b"\x45\0", b"\x65\0"),
        (b"\x08\0\x45", b"\x08\6\x45"),  # ARP
        (b"\x08\0\x45", b"\x86\xdd\x45"),
    ],
)
def test_what_is_no_tcp_is_rejected(old: bytes, new: bytes) -> None:
    frame = Segment().frame()
    assert takes(program(), frame)
    assert not takes(program(), replace(frame, data=frame.data.replace(old, new, 1)))


def test_another_interface_is_believed_in_what_its_packets_are() -> None:
    frame = Segment(hatype=NONE).frame()
    assert takes(program(), frame) == SNAP
    assert not takes(program(), replace(frame, kind=0x0806))


@pytest.mark.parametrize("ports", [(1, 0), (-1, 5), (5, 65536)])
def test_ports_that_cannot_be(ports: tuple[int, int]) -> None:
    with pytest.raises(ValueError, match="from 0 to 65535"):
        program(ports)


def test_peers_are_bounded_by_what_a_jump_reaches() -> None:
    with pytest.raises(ValueError, match="from 0 to 65535"):
        program(POOL, [70000])
    with pytest.raises(ValueError, match=f"up to {MOST_PEERS}"):
        program(POOL, range(MOST_PEERS + 1))
    with pytest.raises(ValueError, match="up to"):
        program(POOL, [80], [443])
    assert takes(program(POOL, range(80 - MOST_PEERS + 1, 81)), Segment(source_port=POOL[0]).frame())


def test_jumps_lead_forward_and_within_reach() -> None:
    far = Assembler()
    far.jump(0x15, 0, "end")
    for _ in range(256):
        far.emit(0x06)
    far.label("end")
    far.emit(0x06)
    with pytest.raises(ValueError, match="jumps over"):
        far.assemble()
    back = Assembler()
    back.label("start")
    back.go("start")
    with pytest.raises(ValueError, match="jumps over"):
        back.assemble()


# The kernel


FIVE = Segment(source_port=POOL[1], length=0)
SIX = replace(FIVE, source="fd00::1", target="fd00::2")
FRAMES = [
    FIVE, SIX, replace(FIVE, source_port=80, target_port=POOL[0]), replace(FIVE, source_port=POOL[1] + 1),
    replace(FIVE, source_port=POOL[0] - 1), replace(FIVE, ip_options=bytes(20)), replace(FIVE, tags=((0x8100, 5),)),
    replace(SIX, tags=((0x8100, 5),)), replace(FIVE, tags=((0x88A8, 5), (0x8100, 6))), replace(SIX, hops=bytes(6)),
    replace(SIX, hops=bytes(14)), replace(FIVE, target_port=443), replace(SIX, target_port=443),
    replace(FIVE, tags=((0x8100, 1), (0x8100, 2), (0x8100, 3))),
]  # fmt: skip
OTHERS = [
    (b"\x40\x06", b"\x40\x11"), (b"\x40\0\x40\x06", b"\x20\0\x40\x06"), (b"\x40\0\x40\x06", b"\0\1\x40\x06"),
    (b"\x45\0", b"\x44\0"), (b"\x08\0\x45", b"\x08\6\x45"),
]  # fmt: skip


@pytest.mark.real
@pytest.mark.parametrize(("ports", "peers"), [(POOL, set()), (POOL, {80}), (None, {443}), (None, set())])
def test_the_kernel_takes_what_the_interpreter_takes(ports: tuple[int, int] | None, peers: set[int]) -> None:
    frames = [each.frame() for each in FRAMES]
    frames += [replace(frames[0], data=frames[0].data.replace(old, new, 1)) for old, new in OTHERS]
    frames += [frames[0].cut(size) for size in (14, 20, 33, 34, 36, 37, 38, 53)]
    # A number in the source's hardware address tells them apart.
    sent = [bytes(6) + struct.pack(">HI", 0x0200, number) + each.data[12:] for number, each in enumerate(frames)]
    filtered = program(ports, peers)
    expected = {
        number: taken for number, data in enumerate(sent) if (taken := run(filtered, data, net=14, kind=IPV4, hatype=1))
    }
    assert 0 < len(expected) < len(sent)
    # What is taken for certain comes last.
    last, taken = next(iter(expected.items()))
    expected[len(sent)] = taken
    sent.append(bytes(6) + struct.pack(">HI", 0x0200, len(sent)) + sent[last][12:])
    found: dict[int, int] = {}
    with (
        cable() as (here, _),
        here.run(lambda: socket.socket(socket.AF_PACKET, socket.SOCK_RAW, 0)) as source,
        Ring(here.index("end"), program=filtered, netns_fd=here.fd) as ring,
    ):
        source.bind(("end", 0))
        for data in sent:
            source.send(data)

        def all_here() -> bool:
            found.update(captured(ring))
            return len(sent) - 1 in found

        until(all_here, "the last frame")
    assert found == {number: min(taken, len(sent[number])) for number, taken in expected.items()}


def captured(ring: Ring) -> dict[int, int]:
    """How many bytes were captured of the frames that are there, by their numbers."""
    found = {}
    for made in ring.blocks():
        count, at = struct.unpack_from("=II", made, 12)
        for _ in range(count):
            step, size, mac = struct.unpack_from("=I8xI8xH", made, at)
            found[struct.unpack_from(">I", made, at + mac + 8)[0]] = size
            at += step
    return found


@pytest.mark.real
@pytest.mark.parametrize("segment", [replace(FIVE, hatype=NONE), replace(SIX, hatype=NONE, hops=bytes(6))], ids=repr)
def test_the_kernel_on_an_interface_without_ethernet(segment: Segment) -> None:
    with cable() as (here, _):
        tun = here.run(lambda: os.open("/dev/net/tun", os.O_RDWR))
        try:
            here.run(lambda: fcntl.ioctl(tun, 0x400454CA, struct.pack("16sH22x", b"bare", 0x1001)))  # TUNSETIFF, NO_PI
            here.ip("link", "set", "bare", "up")
            with Ring(here.index("bare"), program=program(POOL), netns_fd=here.fd) as ring:
                os.write(tun, replace(segment, source_port=1).frame().data)
                os.write(tun, segment.frame().data)
                out = Packets()
                until(lambda: sum(parse(each, Flows(), out) for each in ring.blocks()), "a packet")
        finally:
            os.close(tun)
    (found,) = out
    assert (found.seq, found.length, found.outgoing) == (segment.seq, 0, 0)
    assert segment.kind() in {IPV4, IPV6}
