"""Blocks of a packet ring taken apart into one small record per TCP segment.

Pure functions without clock or I/O; the compiled twin, ``packet.pyx``, writes the same records, and `packet` is the one
in use. Whatever bytes a block has, neither reads outside it nor raises: what is no whole TCP header is counted and left
out.

Sources: ``linux/if_packet.h`` (TPACKET_V3), ``Documentation/networking/packet_mmap.rst``, RFC 791, RFC 8200, RFC 2675,
RFC 9293, RFC 7323, IEEE 802.1Q.
"""

from __future__ import annotations

import struct
from collections.abc import Iterator
from typing import Final, NamedTuple

RECORD: Final = struct.Struct("<qIIIIHBbBBHiI")
"""How a packet is kept: the fields of `Packet` in order, 40 bytes, little-endian."""

# Flags of a segment (RFC 9293 section 3.1).
FIN: Final = 0x01
SYN: Final = 0x02
RST: Final = 0x04
ACK: Final = 0x10

DEFAULT_FLOWS: Final = 65_536  # 18 times the ports of the sampled pool

# linux/if_packet.h: struct tpacket_block_desc; struct tpacket3_hdr and the struct sockaddr_ll behind it.
_BLOCK: Final = struct.Struct("=12xII28x")  # packets, where the first is
# 0 next, 1 seconds, 2 nanoseconds, 3 captured, 4 frame, 5 status, 6 mac, 7 net, 8 tag; 9 ifindex, 10 type, 11 direction
_HEADER: Final = struct.Struct("=IIIIIIHH4xI12x4xiHB9x")
_PROTOCOL_AT: Final = 50  # sll_protocol, in network order
_VLAN_VALID: Final = 1 << 4  # TP_STATUS_VLAN_VALID: the tag was taken out of the frame
_OUTGOING: Final = 4  # PACKET_OUTGOING

_ETHERNET: Final = frozenset({1, 772})  # ARPHRD_ETHER, ARPHRD_LOOPBACK (linux/if_arp.h): a header of 14 bytes
_TAGS: Final = frozenset({0x8100, 0x88A8, 0x9100})  # 802.1Q, 802.1ad, and what was used before it
_MOST_TAGS: Final = 2  # inside a frame
_IPV4: Final = 0x0800
_IPV6: Final = 0x86DD
_TCP: Final = 6
_HOP_BY_HOP: Final = 0
_MAPPED: Final = bytes(10) + b"\xff\xff"
_WINDOW_SCALE: Final = 3  # kind of the option, of 3 bytes (RFC 7323 section 2.2)
_MOST_SCALE: Final = 14  # a larger one counts as this (RFC 7323 section 2.3)
_SHORT: Final = struct.Struct(">H")
_TAG: Final = struct.Struct(">HH")  # tag, what is behind it
_V4: Final = struct.Struct(">BxH2xHxB")  # version and header length, total length, fragment, protocol
_V6: Final = struct.Struct(">B3xHB")  # version, payload length, next header
_TCP_HEADER: Final = struct.Struct(">2s2sIIBBH")  # ports, seq, ack, data offset, flags, window


class Packet(NamedTuple):
    """One TCP segment as a tap saw it; a frame that the kernel has not yet cut, or has put together, is one segment."""

    ts_ns: int  # Unix time, nanoseconds, by the kernel of the tap
    flow: int  # its number in `Flows`
    seq: int  # as in the header, modulo 2^32
    ack: int
    length: int  # bytes of TCP payload on the wire, however few were captured
    window: int  # as in the header, not scaled
    flags: int  # as in the header
    wscale: int  # the window scale option of a SYN, 0..14; -1 without one
    direction: int  # 0 from the flow's lower endpoint, 1 from the higher
    outgoing: int  # 1 where the tap's interface sent it, 0 where it received it
    vlan: int  # VLAN id of the outermost tag, 0 without one
    ifindex: int  # of the tap's interface
    frame: int  # bytes of the whole frame


class Flow(NamedTuple):
    """A connection's two endpoints, the lower first: addresses of 16 bytes, IPv4 as ::ffff:a.b.c.d, then ports."""

    low: bytes
    low_port: int
    high: bytes
    high_port: int


class Flows:
    """The connections that were seen, each by a number below ``limit`` that both of its directions share.

    Shared by the taps of one process, so that a connection has one number at all of them. Bounded: once ``limit``
    connections are known, a new one is not taken in (`Packets.unknown` counts its packets) until `forget` makes room.
    Raises `ValueError` for a limit outside 1..16,777,216.
    """

    __slots__ = ("_free", "_keys", "_last", "_limit", "_numbers")

    def __init__(self, limit: int = DEFAULT_FLOWS) -> None:
        if not 1 <= limit <= 1 << 24:
            raise ValueError(f"a table of {limit} connections; 1 to 16777216 are possible")
        self._limit = limit
        self._numbers: dict[bytes, int] = {}
        self._keys: list[bytes] = []  # empty: free
        self._last: list[int] = []
        self._free: list[int] = []

    @property
    def limit(self) -> int:
        """The most connections that are known at a time."""
        return self._limit

    def __len__(self) -> int:
        return len(self._numbers)

    def __iter__(self) -> Iterator[int]:
        """The numbers that name a connection, in ascending order."""
        return iter([number for number, key in enumerate(self._keys) if key])

    def __repr__(self) -> str:
        return f"<Flows {len(self)} of {self._limit}>"

    def __getitem__(self, number: int) -> Flow:
        """The connection of a number; raises `IndexError` for one that names none."""
        key = self._keys[number] if 0 <= number < len(self._keys) else b""
        if not key:
            raise IndexError(number)
        return Flow(key[:16], int.from_bytes(key[16:18], "big"), key[18:34], int.from_bytes(key[34:], "big"))

    def find(self, local: bytes, local_port: int, peer: bytes, peer_port: int) -> tuple[int, int] | None:
        """The number of a connection, and the direction of what ``local`` sends; None if it was not seen.

        Addresses are 16 bytes, IPv4 as ::ffff:a.b.c.d. Raises `ValueError` for another size or a port outside 0..65535.
        """
        if len(local) != 16 or len(peer) != 16 or not (0 <= local_port <= 65535 and 0 <= peer_port <= 65535):
            raise ValueError("an endpoint is an address of 16 bytes and a port of 0 to 65535")
        ours, theirs = local + local_port.to_bytes(2, "big"), peer + peer_port.to_bytes(2, "big")
        direction = int(ours > theirs)
        number = self._numbers.get(theirs + ours if direction else ours + theirs)
        return None if number is None else (number, direction)

    def forget(self, before_ns: int, most: int | None = None) -> list[int]:
        """Make room: connections whose last packet is older than ``before_ns`` are known no more; of too many, the
        first ``most``.

        Returns their numbers, in ascending order. From now on each may name another connection: whoever keeps
        something by number drops it for these.
        """
        gone = [number for number, key in enumerate(self._keys) if key and self._last[number] < before_ns][:most]
        for number in gone:
            del self._numbers[self._keys[number]]
            self._keys[number] = b""
        self._free.extend(gone)
        return gone

    def _number(self, key: bytes, ts_ns: int) -> int:
        """The number of ``key``, the lower endpoint first, which was seen at ``ts_ns``; -1 if there is no room."""
        number = self._numbers.get(key, -1)
        if number < 0:
            if self._free:
                number = self._free.pop()
                self._keys[number] = key
                self._last[number] = ts_ns
            elif len(self._keys) < self._limit:
                number = len(self._keys)
                self._keys.append(key)
                self._last.append(ts_ns)
            else:
                return -1
            self._numbers[key] = number
        elif ts_ns > self._last[number]:
            self._last[number] = ts_ns
        return number


class Packets:
    """Records in the order of the ring, which is that of time but for packets that several CPUs stamped at once.

    ``data`` holds them one after the other (`RECORD`). Counters grow until they are set back: ``unread`` packets that
    were no whole TCP header over IP, ``unknown`` ones of connections that `Flows` had no room for, and ``torn`` blocks
    whose own headers led out of them.
    """

    __slots__ = ("data", "torn", "unknown", "unread")

    def __init__(self) -> None:
        self.data = bytearray()
        self.unread = 0
        self.unknown = 0
        self.torn = 0

    def __len__(self) -> int:
        return len(self.data) // RECORD.size

    def __getitem__(self, index: int) -> Packet:
        """One record; raises `IndexError` outside of 0..len-1."""
        if not 0 <= index < len(self):
            raise IndexError(index)
        return Packet._make(RECORD.unpack_from(self.data, index * RECORD.size))

    def __iter__(self) -> Iterator[Packet]:
        """Every record. Nothing can be added to ``data`` while this goes on (`BufferError`)."""
        return map(Packet._make, RECORD.iter_unpack(self.data))

    def __repr__(self) -> str:
        return f"<Packets {len(self)}, {self.unread} unread, {self.unknown} unknown, {self.torn} torn>"

    def clear(self) -> None:
        """Drop the records; the counters stay."""
        self.data.clear()


def parse(block: memoryview | bytes, flows: Flows, out: Packets) -> int:
    """Add the TCP segments of one block of a TPACKET_V3 ring to ``out``; returns how many there were.

    What is left out, `Packets` counts: what no whole header was captured of, other protocols, fragments.
    """
    data = bytes(block)
    size = len(data)
    made = []
    left, at = _BLOCK.unpack_from(data) if size >= _BLOCK.size else (1, 0)
    if at < _BLOCK.size and left:
        at = size  # leads out
    while left:
        if at + _HEADER.size > size:
            out.torn += 1
            break
        header = _HEADER.unpack_from(data, at)
        step = header[0]
        last = step < _HEADER.size  # 0
        segment = _segment(data, at, size if last else min(size, at + step), header)
        if segment is None:
            out.unread += 1
        else:
            source, target, seq, ack, length, window, flags, wscale, vlan = segment
            ts_ns = header[1] * 1_000_000_000 + header[2]
            direction = source > target
            number = flows._number(target + source if direction else source + target, ts_ns)  # noqa: SLF001
            if number < 0:
                out.unknown += 1
            else:
                outgoing = header[11] == _OUTGOING
                made.append(
                    RECORD.pack(
                        ts_ns, number, seq, ack, length, window, flags, wscale, direction, outgoing, vlan,
                        header[9], header[4],
                    )
                )  # fmt: skip
        left -= 1
        if last:
            out.torn += bool(left)
            break
        at += step
    out.data += b"".join(made)
    return len(made)


def _segment(
    data: bytes, at: int, end: int, header: tuple[int, ...]
) -> tuple[bytes, bytes, int, int, int, int, int, int, int] | None:
    """The segment of the frame whose ring header is at ``at``, and which ends at ``end`` at the latest.

    Source and target (address and port), seq, ack, payload length, window, flags, window scale, VLAN id.
    """
    _, _, _, captured, frame, status, mac, net, tci, _, hatype, _ = header
    start = at + mac
    end = min(end, start + captured) if start + captured <= end else -1
    vlan = tci & 0xFFF if status & _VLAN_VALID else 0
    if hatype in _ETHERNET:
        packet = start + 14
        if packet > end:
            return None
        kind = _SHORT.unpack_from(data, packet - 2)[0]
        for _ in range(_MOST_TAGS):
            if kind in _TAGS:
                if packet + 4 > end:
                    return None
                tag, kind = _TAG.unpack_from(data, packet)
                vlan = vlan or tag & 0xFFF
                packet += 4
    else:
        packet = at + net
        kind = _SHORT.unpack_from(data, at + _PROTOCOL_AT)[0]
    size = frame - (packet - start)  # of the packet, and of what pads the frame
    if mac < _HEADER.size or packet < start or size < 0:
        return None
    if kind == _IPV4:
        if packet + 20 > end:
            return None
        first, total, cut, protocol = _V4.unpack_from(data, packet)
        segment = packet + (first & 0xF) * 4
        if not 0x45 <= first <= 0x4F or cut & 0x3FFF or protocol != _TCP:
            return None
        source, target = _MAPPED + data[packet + 12 : packet + 16], _MAPPED + data[packet + 16 : packet + 20]
    elif kind == _IPV6:
        if packet + 40 > end:
            return None
        first, total, protocol = _V6.unpack_from(data, packet)
        segment = packet + 40
        if first >> 4 != 6:
            return None
        total += 40 if total else 0
        if protocol == _HOP_BY_HOP:
            if segment + 2 > end:
                return None
            protocol = data[segment]
            segment += (data[segment + 1] + 1) * 8
        if protocol != _TCP:
            return None
        source, target = data[packet + 8 : packet + 24], data[packet + 24 : packet + 40]
    else:
        return None
    if segment + 20 > end or total > size:
        return None
    source_port, target_port, seq, ack, offset, flags, window = _TCP_HEADER.unpack_from(data, segment)
    options = (offset >> 4) * 4
    # An IP length of 0: more than it can tell (BIG TCP).
    length = (total or size) - (segment - packet) - options
    if options < 20 or length < 0:
        return None
    wscale = _window_scale(data, segment + 20, min(segment + options, end)) if flags & SYN else -1
    return source + source_port, target + target_port, seq, ack, length, window, flags, wscale, vlan


def _window_scale(data: bytes, at: int, end: int) -> int:
    """The window scale among the options from ``at`` to ``end``, -1 without one."""
    while at < end:
        kind = data[at]
        if kind == 0:
            break
        if kind == 1:
            at += 1
            continue
        if at + 2 > end or data[at + 1] < 2:
            break
        if kind == _WINDOW_SCALE and data[at + 1] == 3 and at + 3 <= end:
            return min(data[at + 2], _MOST_SCALE)
        at += data[at + 1]
    return -1
