"""Frames and ring blocks made by hand, as the kernel lays them out (linux/if_packet.h)."""

from __future__ import annotations

import ipaddress
import struct
from collections.abc import Sequence
from dataclasses import dataclass, field, replace

ETHERNET, LOOPBACK, NONE = 1, 772, 65534  # ARPHRD_*
IPV4, IPV6, ARP = 0x0800, 0x86DD, 0x0806
HEADER = 68  # tpacket3_hdr and sockaddr_ll
START = 1_700_000_000_123_456_789


def address(text: str) -> bytes:
    """16 bytes, IPv4 as ::ffff:a.b.c.d."""
    packed = ipaddress.ip_address(text).packed
    return packed if len(packed) == 16 else bytes(10) + b"\xff\xff" + packed


@dataclass(frozen=True)
class Segment:
    """A TCP segment in its packet in its frame: what is on the wire, and what a parser is to find."""

    source: str = "10.0.0.1"
    target: str = "10.0.0.2"
    source_port: int = 40000
    target_port: int = 80
    seq: int = 1
    ack: int = 2
    flags: int = 0x10
    window: int = 512
    options: bytes = b""
    length: int = 100
    tags: tuple[tuple[int, int], ...] = ()  # EtherType and tag, the outermost first
    stripped: int | None = None
    ip_options: bytes = b""
    hops: bytes | None = None  # a hop-by-hop header without its first two bytes
    big: bool = False  # the IP length is 0
    hatype: int = ETHERNET
    pad: int = 0
    ts_ns: int = START
    ifindex: int = 7
    outgoing: bool = False

    def six(self) -> bool:
        return ":" in self.source

    def tcp(self) -> bytes:
        assert len(self.options) % 4 == 0
        offset = (20 + len(self.options)) // 4 << 4
        return (
            struct.pack(
                ">HHIIBBHHH",
                self.source_port,
                self.target_port,
                self.seq,
                self.ack,
                offset,
                self.flags,
                self.window,
                0,
                0,
            )
            + self.options
        )

    def packet(self) -> bytes:
        """Headers only: of the payload, ``length`` bytes are said to follow."""
        tcp = self.tcp()
        if self.six():
            extra = b"" if self.hops is None else bytes((6, (len(self.hops) + 2) // 8 - 1)) + self.hops
            size = 0 if self.big else len(extra) + len(tcp) + self.length
            ends = ipaddress.ip_address(self.source).packed + ipaddress.ip_address(self.target).packed
            following = 6 if self.hops is None else 0
            return struct.pack(">IHBB", 6 << 28, size, following, 64) + ends + extra + tcp
        words = 5 + len(self.ip_options) // 4
        size = 0 if self.big else words * 4 + len(tcp) + self.length
        ends = ipaddress.ip_address(self.source).packed + ipaddress.ip_address(self.target).packed
        return struct.pack(">BBHHHBBH", 0x40 | words, 0, size, 1, 0x4000, 64, 6, 0) + ends + self.ip_options + tcp

    def kind(self) -> int:
        return IPV6 if self.six() else IPV4

    def frame(self) -> Frame:
        packet = self.packet()
        link = b""
        if self.hatype != NONE:
            link = bytes(12) + b"".join(struct.pack(">HH", *tag) for tag in self.tags) + struct.pack(">H", self.kind())
        return Frame(
            link + packet, len(link) + len(packet) + self.length + self.pad, net=len(link), kind=self.kind(),
            hatype=self.hatype, stripped=self.stripped, ts_ns=self.ts_ns, ifindex=self.ifindex, outgoing=self.outgoing,
        )  # fmt: skip


@dataclass(frozen=True)
class Frame:
    """What was captured, and what the kernel says about it."""

    data: bytes
    length: int  # on the wire
    net: int = 14
    kind: int = IPV4
    hatype: int = ETHERNET
    stripped: int | None = None
    ts_ns: int = START
    ifindex: int = 7
    outgoing: bool = False
    more: dict[str, int] = field(default_factory=dict)

    def cut(self, snap: int) -> Frame:
        return replace(self, data=self.data[:snap])

    def header(self, step: int) -> bytes:
        """tpacket3_hdr and sockaddr_ll; the data begins right behind."""
        seconds, nanoseconds = divmod(self.ts_ns, 1_000_000_000)
        status = 1 | (0 if self.stripped is None else 1 << 4)
        said = {"captured": len(self.data), "length": self.length, "mac": HEADER, "net": HEADER + self.net, **self.more}
        return (
            struct.pack(
                "=IIIIIIHHIIHH8x", step, seconds, nanoseconds, said["captured"], said["length"], status, said["mac"],
                said["net"], 0, self.stripped or 0, 0x8100, 0,
            )
            + struct.pack("=H", 17) + struct.pack(">H", self.kind)
            + struct.pack("=iHBB8x", self.ifindex, self.hatype, 4 if self.outgoing else 0, 6)
        )  # fmt: skip


def block(frames: Sequence[Frame], *, tail: int = 0) -> bytes:
    """A block of a ring with these frames, and ``tail`` bytes that nothing was written to."""
    made = b""
    for index, frame in enumerate(frames):
        size = HEADER + len(frame.data)
        step = (size + 15) // 16 * 16
        last = index == len(frames) - 1
        made += frame.header(0 if last else step) + frame.data + bytes(0 if last else step - size)
    head = struct.pack("=IIIIIIQ16x", 3, 0, 1, len(frames), 48, 48 + len(made), 1)
    return head + made + bytes(tail)
