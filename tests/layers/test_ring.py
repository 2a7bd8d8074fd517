"""Taps on real interfaces: every byte of real connections, the ring's bounds, and what goes wrong with interfaces."""

from __future__ import annotations

import contextlib
import ctypes
import gc
import os
import select
import socket
import struct
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace

import pytest

from proxy.layers.packet import ACK, FIN, RST, SYN, Flows, Packet, Packets, parse
from proxy.layers.ring import InterfaceDown, NoInterface, NotPermitted, Ring, TapError
from proxy.layers.select import program
from tests.harness.poll import until
from tests.layers.blocks import Segment, address
from tests.layers.netns import Namespace, cable, in_thread

pytestmark = [pytest.mark.real]

POOL = (57344, 60999)
EVERY = program()
UP, DOWN = 300_000, 500_000  # bytes of the two bodies


@pytest.fixture
def ends() -> Iterator[tuple[Namespace, Namespace]]:
    with cable() as made:
        yield made


def exchange(
    here: Namespace, there: Namespace, *, host: str, port: int = POOL[0], sizes: tuple[int, int] = (UP, DOWN)
) -> tuple[str, int]:
    """A connection from ``here`` to ``host`` that carries both bodies and is closed; the server's address."""
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    listener = there.run(lambda: socket.create_server((host, 0), family=family))
    client = here.run(lambda: socket.socket(family))
    with listener, client:
        client.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        client.settimeout(10)
        client.bind(("", port))

        def serve() -> None:
            server, _ = listener.accept()
            with server:
                server.settimeout(10)
                left = sizes[0]
                while left:
                    left -= len(server.recv(left))
                server.sendall(bytes(sizes[1]))
                server.recv(1)

        thread = threading.Thread(target=serve)
        thread.start()
        at: tuple[str, int] = listener.getsockname()[:2]
        client.connect(at)
        client.sendall(bytes(sizes[0]))
        left = sizes[1]
        while left:
            left -= len(client.recv(left))
        client.close()
        thread.join(10)
    return at


def drain(rings: Sequence[Ring], flows: Flows) -> list[list[Packet]]:
    """All that the rings get, until for 100 ms (five times what a block may wait) nothing comes."""
    outs = [Packets() for _ in rings]
    quiet = time.monotonic() + 0.1
    while time.monotonic() < quiet:
        for ring, out in zip(rings, outs, strict=True):
            for made in ring.blocks():
                parse(made, flows, out)
                quiet = time.monotonic() + 0.1
        select.select(rings, [], [], 0.02)
    assert [(out.unread, out.unknown, out.torn) for out in outs] == [(0, 0, 0)] * len(outs)
    return [list(out) for out in outs]


def covered(packets: Sequence[Packet], direction: int) -> int:
    """Bytes of one direction's stream from its SYN to its first hole."""
    first = next(each.seq for each in packets if each.direction == direction and each.flags & SYN)
    whole = 0
    for at, end in sorted(
        ((each.seq - first - 1) & 0xFFFFFFFF, ((each.seq - first - 1) & 0xFFFFFFFF) + each.length)
        for each in packets
        if each.direction == direction and each.length
    ):
        if at > whole:
            break
        whole = max(whole, end)
    return whole


@pytest.mark.parametrize("gso", ["on", "off"])
@pytest.mark.parametrize("six", [False, True])
def test_every_byte_of_a_connection_at_both_ends(ends: tuple[Namespace, Namespace], six: bool, gso: str) -> None:
    for each in ends:
        each.ethtool("-K", "end", "tso", gso, "gso", gso, "gro", gso)
    net = "2001:db8::" if six else "192.0.2."
    flows = Flows()
    with contextlib.ExitStack() as stack:
        rings = [stack.enter_context(Ring(each.index("end"), program=program(POOL), netns_fd=each.fd)) for each in ends]
        before = time.time_ns()
        _, port = exchange(*ends, host=f"{net}2")
        after = time.time_ns()
        exchange(*ends, host=f"{net}2", port=POOL[0] - 1, sizes=(1, 1))  # which no tap takes
        taps = drain(rings, flows)
        assert [ring.statistics().drops for ring in rings] == [0, 0]
    assert len(flows) == 1
    client = address(f"{net}1")
    number, up = flows.find(client, POOL[0], address(f"{net}2"), port) or (-1, -1)
    assert number == 0
    for found, ring, sends in zip(taps, rings, (up, 1 - up), strict=True):
        assert (covered(found, up), covered(found, 1 - up)) == (UP, DOWN)
        assert {each.vlan for each in found} == {0}
        assert {each.ifindex for each in found} == {ring.ifindex}
        assert all(each.outgoing == (each.direction == sends) for each in found)
        assert all(before <= each.ts_ns <= after + 1_000_000_000 for each in found)
        assert all((each.wscale >= 0) == bool(each.flags & SYN) for each in found)
        assert {each.direction for each in found if each.flags & (FIN | RST)} == {0, 1}
        assert all(each.flags & ACK for each in found if each.length)
        assert (max(each.length for each in found) > 1460) == (gso == "on")
    sent, received = ({(each.seq, each.length): each.ts_ns for each in found if each.length} for found in taps)
    both = sent.keys() & received.keys()
    assert both
    for key in both:
        ahead = next(each for each in taps[0] if (each.seq, each.length) == key).direction == up
        assert (sent[key] <= received[key]) == ahead, "one clock, and the sender is first"


def test_segments_beyond_what_an_ip_length_can_tell(ends: tuple[Namespace, Namespace]) -> None:
    for each in ends:
        each.ip("link", "set", "end", "gso_max_size", "185000", "gro_max_size", "185000")
    with Ring(ends[0].index("end"), program=EVERY, netns_fd=ends[0].fd) as ring:
        exchange(*ends, host="2001:db8::2", sizes=(4_000_000, 1))
        (found,) = drain([ring], flows := Flows())
        assert ring.statistics().drops == 0
    up = next(each.direction for each in found if each.flags & SYN)
    assert len(flows) == 1
    assert covered(found, up) == 4_000_000
    assert max(each.length for each in found) > 65_535


@pytest.mark.parametrize("segment", [Segment(), Segment(source="fd00::1", target="fd00::2")], ids=["IPv4", "IPv6"])
def test_a_tag_is_in_the_frame_where_it_is_sent_and_beside_it_where_it_is_received(
    ends: tuple[Namespace, Namespace], segment: Segment
) -> None:
    tagged = [((0x8100, 5),), ((0x88A8, 6), (0x8100, 7))]
    frames = [replace(segment, tags=tags, source_port=POOL[0], length=0).frame() for tags in tagged]
    with contextlib.ExitStack() as stack:
        rings = [stack.enter_context(Ring(each.index("end"), program=program(POOL), netns_fd=each.fd)) for each in ends]
        source = stack.enter_context(ends[0].run(lambda: socket.socket(socket.AF_PACKET, socket.SOCK_RAW, 0)))
        source.bind(("end", 0))
        for frame in frames:
            source.send(b"\xff" * 6 + frame.data[6:])
        taps = drain(rings, Flows())
    assert [[(each.vlan, each.outgoing, each.length) for each in found] for found in taps] == [
        [(5, 1, 0), (6, 1, 0)],
        [(5, 0, 0), (6, 0, 0)],
    ]
    assert [[each.frame for each in found] for found in taps] == [
        [len(frame.data) for frame in frames],
        [len(frame.data) - 4 for frame in frames],
    ]


def test_a_ring_of_all_interfaces_tells_which(ends: tuple[Namespace, Namespace]) -> None:
    here, there = ends
    with Ring(0, program=EVERY, netns_fd=here.fd) as ring:
        exchange(here, there, host="192.0.2.2", sizes=(1, 1))
        exchange(here, here, host="127.0.0.1", sizes=(1, 1))
        (found,) = drain([ring], Flows())
        assert repr(ring).startswith("<Ring of interface any, 256 blocks, fd ")
    assert {each.ifindex for each in found} == {here.index("end"), here.index("lo")}


def test_another_filter_takes_over_at_once(ends: tuple[Namespace, Namespace]) -> None:
    with Ring(ends[0].index("end"), program=program(POOL), netns_fd=ends[0].fd) as ring:
        exchange(*ends, host="192.0.2.2", port=POOL[0], sizes=(1, 1))
        ring.select(program((40000, 40000)))
        exchange(*ends, host="192.0.2.2", port=POOL[0] + 1, sizes=(1, 1))
        exchange(*ends, host="192.0.2.2", port=40000, sizes=(1, 1))
        drain([ring], flows := Flows())
        ports = {port for number in flows for port in (flows[number].low_port, flows[number].high_port)}
        assert {40000, POOL[0]} < ports
        assert POOL[0] + 1 not in ports
        for wrong in (b"", bytes(7), struct.pack("=HBBI", 0xFFFF, 0, 0, 0)):
            with pytest.raises(ValueError, match="filter"):
                ring.select(wrong)
    with pytest.raises(TapError, match="still open"):
        ring.select(EVERY)


def test_what_is_still_in_a_block_is_told_until_it_has_been_handed_over(ends: tuple[Namespace, Namespace]) -> None:
    here, there = ends
    with Ring(here.index("end"), program=EVERY, netns_fd=here.fd, retire_ms=200) as ring:
        assert ring.held_ns() is None
        for number in range(3):
            exchange(here, there, host="192.0.2.2", port=POOL[0] + number, sizes=(10, 10))
            held_ns = ring.held_ns()
            assert held_ns is not None
            assert held_ns <= time.time_ns()
            out, flows = Packets(), Flows()

            def all_of_it(out: Packets = out, flows: Flows = flows) -> bool:
                for block in ring.blocks():
                    parse(block, flows, out)
                return bool(out) and ring.held_ns() is None

            until(all_of_it, "the block, and no more")
            assert held_ns <= min(packet.ts_ns for packet in out)


def test_a_ring_that_is_full_drops_and_counts_and_goes_on(ends: tuple[Namespace, Namespace]) -> None:
    here, there = ends
    with Ring(here.index("end"), program=EVERY, netns_fd=here.fd, blocks=2, block_bytes=4096) as ring:
        for _ in range(3):
            exchange(here, there, host="192.0.2.2")
        packets, drops = ring.statistics()
        assert 0 < drops < packets
        (found,) = drain([ring], Flows())
        assert len(found) == packets - drops
        assert ring.statistics() == (0, 0)
        exchange(here, there, host="192.0.2.2", sizes=(1, 1))
        drain([ring], flows := Flows())
        assert len(flows) == 1


def test_a_ring_is_filling_where_more_than_a_quarter_waits(ends: tuple[Namespace, Namespace]) -> None:
    here, there = ends
    ring = Ring(here.index("end"), program=EVERY, netns_fd=here.fd, blocks=8, block_bytes=4096, retire_ms=5)
    assert not ring.filling()

    def filled() -> bool:
        exchange(here, there, host="192.0.2.2", sizes=(1, 1))
        return ring.filling()

    until(filled, "a third block")
    assert sum(1 for _ in ring.blocks()) >= 3
    assert not ring.filling()
    ring.close()
    assert not ring.filling()


def test_blocks_are_read_only_and_gone_with_the_next(ends: tuple[Namespace, Namespace]) -> None:
    here, there = ends
    with Ring(here.index("end"), program=EVERY, netns_fd=here.fd, blocks=4, block_bytes=4096) as ring:
        assert list(ring.blocks()) == []

        def some() -> Iterator[memoryview]:
            exchange(here, there, host="192.0.2.2", sizes=(1, 1))
            assert select.select([ring], [], [], 5)[0]
            return ring.blocks()

        blocks = some()
        first = next(blocks)
        assert first.readonly
        assert len(first) == 4096
        list(blocks)
        with pytest.raises(ValueError, match="released"):
            first[0]
        blocks = some()
        kept = next(blocks)[:48]
        ring.close()
        assert len(bytes(kept)) == 48, "what is looked at stays until it is looked at no more"
        assert list(blocks) == []
    assert repr(ring).endswith("closed>")
    assert ring.fileno() == -1
    assert list(ring.blocks()) == []
    with pytest.raises(OSError, match="descriptor"):
        ring.statistics()


# What goes wrong


def test_an_interface_that_is_set_down_and_up_again(ends: tuple[Namespace, Namespace]) -> None:
    here, there = ends
    number = here.index("end")
    with Ring(number, program=EVERY, netns_fd=here.fd) as ring:
        here.ip("link", "set", "end", "down")
        assert select.select([ring], [], [], 5)[0], "a tap that sees no more tells so"
        with pytest.raises(InterfaceDown, match=f"interface {number} is down.*ip link set"):
            list(ring.blocks())
        assert not select.select([ring], [], [], 0)[0], "told once"
        assert list(ring.blocks()) == []
        with pytest.raises(InterfaceDown):
            Ring(number, program=EVERY, netns_fd=here.fd)
        here.ip("link", "set", "end", "up")
        exchange(here, there, host="192.0.2.2", sizes=(1, 1))
        drain([ring], flows := Flows())
        assert len(flows) == 1


def test_an_interface_that_goes_away_after_it_was_down(ends: tuple[Namespace, Namespace]) -> None:
    here, _ = ends
    with Ring(here.index("end"), program=EVERY, netns_fd=here.fd) as ring:
        here.ip("link", "set", "end", "down")
        with pytest.raises(InterfaceDown):
            list(ring.blocks())
        here.ip("link", "delete", "end")
        with pytest.raises(NoInterface):
            list(ring.blocks())
        assert list(ring.blocks()) == []


def test_an_interface_that_goes_away(ends: tuple[Namespace, Namespace]) -> None:
    here, there = ends
    number = here.index("end")
    with Ring(number, program=EVERY, netns_fd=here.fd) as ring:
        exchange(here, there, host="192.0.2.2", sizes=(1, 1))
        here.ip("link", "delete", "end")
        out = Packets()
        with pytest.raises(NoInterface, match=f"no interface {number}.*ip link"):
            until(lambda: [parse(each, Flows(), out) for each in ring.blocks()] and False, "the end of the interface")
        assert out, "what was seen before is not lost"
    for absent in (number, 1 << 30, -1):
        with pytest.raises(NoInterface, match=f"no interface {absent}"):
            Ring(absent, program=EVERY, netns_fd=here.fd)


class _Capabilities(ctypes.Structure):
    _fields_ = (("effective", ctypes.c_uint32), ("permitted", ctypes.c_uint32), ("inheritable", ctypes.c_uint32))


def powerless(work: Callable[[], object]) -> object:
    """Do ``work`` in a thread without capabilities (capset(2), version 3 of its header)."""

    def drop() -> object:
        header = (ctypes.c_uint32 * 2)(0x20080522, 0)
        assert ctypes.CDLL(None).capset(header, (_Capabilities * 2)()) == 0
        return work()

    return in_thread(drop)


def test_without_the_capability() -> None:
    with pytest.raises(NotPermitted, match=r"needs CAP_NET_RAW.*NET_RAW"):
        powerless(lambda: Ring(1, program=EVERY))


def test_without_the_capability_of_another_namespace(ends: tuple[Namespace, Namespace]) -> None:
    with pytest.raises(NotPermitted, match="needs CAP_SYS_ADMIN"):
        powerless(lambda: Ring(1, program=EVERY, netns_fd=ends[0].fd))


def test_a_descriptor_that_is_no_namespace(ends: tuple[Namespace, Namespace]) -> None:
    fd = os.open("/dev/null", os.O_RDONLY)
    try:
        with pytest.raises(TapError, match=f"descriptor {fd} is no network namespace"):
            Ring(1, program=EVERY, netns_fd=fd)
    finally:
        os.close(fd)


@pytest.mark.parametrize(
    "sizes",
    [{"block_bytes": 2048}, {"block_bytes": 12_288}, {"blocks": 1}, {"blocks": 0}, {"retire_ms": 0}],
    ids=repr,
)
def test_sizes_that_cannot_be(sizes: dict[str, int]) -> None:
    with pytest.raises(ValueError, match=r"a ring of|blocks of"):
        Ring(1, program=EVERY, **sizes)


def test_one_that_is_set_aside_sees_nothing_until_it_is_put_back(ends: tuple[Namespace, Namespace]) -> None:
    with Ring(ends[0].index("end"), program=program(POOL), netns_fd=ends[0].fd) as ring:
        for number, attending in enumerate((True, False, False, True)):
            ring.attend(attending)
            exchange(*ends, host="192.0.2.2", port=POOL[0] + number, sizes=(1, 1))
        drain([ring], flows := Flows())
        ports = {port for number in flows for port in (flows[number].low_port, flows[number].high_port)}
        assert ports & set(range(POOL[0], POOL[0] + 4)) == {POOL[0], POOL[0] + 3}
    ring.attend(True)  # closed: nothing happens


def test_setting_aside_leaves_no_garbage_behind(ends: tuple[Namespace, Namespace]) -> None:
    # `spanway wire` does so twice a second, and hardly ever looks for cycles (layers/start.py).
    with Ring(ends[0].index("end"), program=program(POOL), netns_fd=ends[0].fd) as ring:
        ring.attend(False)
        gc.collect()
        for number in range(3):
            ring.attend(True)
            ring.select(program((POOL[0], POOL[0] + number)))
            ring.attend(False)
        assert gc.collect() == 0


def test_one_that_is_set_aside_and_whose_interface_goes_away(ends: tuple[Namespace, Namespace]) -> None:
    with Ring(ends[0].index("end"), program=program(POOL), netns_fd=ends[0].fd) as ring:
        ring.attend(False)
        ends[0].ip("link", "del", "end")
        with pytest.raises(NoInterface):
            ring.attend(True)


def test_one_that_is_down_is_said_once_and_its_end_is_found(ends: tuple[Namespace, Namespace]) -> None:
    with Ring(ends[0].index("end"), program=program(POOL), netns_fd=ends[0].fd) as ring:
        ends[0].ip("link", "set", "end", "down")
        with pytest.raises(InterfaceDown):
            ring.attend(False)
        ring.attend(True)
        ends[0].ip("link", "del", "end")
        with pytest.raises(NoInterface):
            list(ring.blocks())
