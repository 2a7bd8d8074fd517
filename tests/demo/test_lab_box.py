"""What a box reads of a frame: the truth of every fault rests on it."""

from __future__ import annotations

import socket
import struct

import pytest
from hypothesis import given
from hypothesis import strategies as st

from proxy.demo.lab.box import ROW, Segment, events, segment

VNET = bytes(10)
ETHERNET = bytes(12)


def tcp(payload: bytes, sequence: int = 7, options: bytes = b"") -> bytes:
    head = struct.pack(">HHIIBBHHH", 40000, 8080, sequence, 9, (20 + len(options)) // 4 << 4, 0x18, 500, 0, 0)
    return head + options + payload


def ipv4(inner: bytes, *, total: int | None = None, protocol: int = 6, fragment: int = 0) -> bytes:
    length = 20 + len(inner) if total is None else total
    addresses = socket.inet_aton("198.18.0.1") + socket.inet_aton("198.18.0.2")
    return (
        VNET
        + ETHERNET
        + b"\x08\x00"
        + struct.pack(">BBHHHBBH", 69, 0, length, 0, fragment, 64, protocol, 0)
        + (addresses + inner)
    )


def ipv6(inner: bytes) -> bytes:
    addresses = socket.inet_pton(socket.AF_INET6, "fd00::1") + socket.inet_pton(socket.AF_INET6, "fd00::2")
    return VNET + ETHERNET + b"\x86\xdd" + struct.pack(">IHBB", 6 << 28, len(inner), 6, 64) + addresses + inner


@pytest.mark.parametrize("options", [b"", b"\x01\x01\x08\x0a" + bytes(8)])
def test_a_segment_is_read(options):
    expected = Segment("198.18.0.1", 40000, "198.18.0.2", 8080, 7, 5)
    assert segment(ipv4(tcp(b"hello", options=options))) == expected
    assert segment(ipv4(tcp(b"hello", options=options)) + bytes(6)) == expected, "the Ethernet's padding is no payload"
    assert segment(ipv4(tcp(b"hello", options=options), total=0)) == expected, "a large segment's length is the frame's"
    assert segment(ipv6(tcp(b"hello", options=options))) == expected._replace(source="fd00::1", destination="fd00::2")


@pytest.mark.parametrize(
    "frame",
    [
        b"",
        VNET + ETHERNET,
        VNET + ETHERNET + b"\x08\x06" + bytes(28),
        ipv4(tcp(b""), protocol=17),
        ipv4(tcp(b""), fragment=100),
        ipv4(b"", total=40),
    ],
)
def test_what_is_no_segment_is_passed_on_untouched(frame):
    assert segment(frame) is None


@given(st.binary(max_size=200))
def test_no_frame_stops_the_box(frame):
    segment(VNET + ETHERNET + b"\x08\x00" + frame)
    segment(frame)


def test_a_truth_is_read_as_far_as_it_is_whole():
    def row(frame: bytes, side: int, act: int, *, kept: int = 114) -> bytes:
        heads = frame[10 : 10 + kept]
        return ROW.pack(1000, 2000, 0 if act == 2 else 3000, act, side, len(heads), len(frame) - 10) + heads

    long = ipv4(tcp(b"x" * 3000), total=0)  # a large segment, of which the heads alone are kept
    truth = row(long, 0, 1) + row(VNET + ETHERNET + b"\x08\x06" + bytes(28), 1, 0) + row(ipv6(tcp(b"")), 1, 2)
    first, second = events(truth)
    assert (first.act, first.toward, first.at_ns, first.gone_ns, first.left_ns) == ("delay", "right", 1000, 2000, 3000)
    assert (first.source_port, first.sequence, first.length) == (40000, 7, 3000)
    assert first.head == long[24:124]
    assert (second.act, second.toward, second.left_ns, second.length) == ("drop", "left", 0, 0)
    for cut in range(len(truth)):
        assert events(truth[:cut]) == [first, second][: len(events(truth[:cut]))]
