"""Which packets a tap takes: classic BPF programs for TCP over IPv4 and IPv6 by port, run by the kernel.

A program walks a frame as `packet` does: Ethernet with up to two tags in it, or a bare packet; IPv4 with options, no
fragments; IPv6, with a hop-by-hop header (BIG TCP has one, RFC 2675); TCP. What it takes is captured up to a length
that holds all headers and the options of a SYN that matter; what it rejects costs its few instructions.

Sources: ``linux/filter.h``, ``Documentation/networking/filter.rst``, McCanne and Jacobson's The BSD Packet Filter.
"""

from __future__ import annotations

import struct
from collections.abc import Collection
from typing import Final

SNAP: Final = 96  # bytes of a frame: Ethernet, two tags, IPv4 without options, and 54 of TCP
SNAP_LONG: Final = 112  # for IPv4 with options, and for IPv6: a header of 20 more, hop by hop another
MOST_PEERS: Final = 64  # ports of the other side: further ones would be out of a jump's reach

_WORD, _HALF, _BYTE = 0x00, 0x08, 0x10  # linux/bpf_common.h: BPF_W, BPF_H, BPF_B
_LD_ABS: Final = 0x20  # A = what is at K of the frame
_LD_IND: Final = 0x40  # A = what is at X + K
_LD_MEM: Final = 0x60  # A = M[K]
_LD_IMM: Final = 0x00
_LDX_IMM: Final = 0x01
_ST: Final = 0x02  # M[K] = A
_TAX: Final = 0x07
_TXA: Final = 0x87
_ADD: Final = 0x04
_ADD_X: Final = 0x0C
_AND: Final = 0x54
_LSH: Final = 0x64
_JA: Final = 0x05
_JEQ: Final = 0x15
_JGT: Final = 0x25
_JGE: Final = 0x35
_JSET: Final = 0x45
_RET: Final = 0x06
_RET_A: Final = 0x16
_REACH: Final = 255  # instructions that a conditional jump leads over at most

# linux/filter.h: offsets that mean something else than a place in the frame.
_PROTOCOL: Final = 0xFFFFF000  # SKF_AD_OFF + SKF_AD_PROTOCOL: what the packet is, by the kernel
_HATYPE: Final = 0xFFFFF000 + 28  # SKF_AD_OFF + SKF_AD_HATYPE: what the interface is
_NET: Final = 0xFFF00000  # SKF_NET_OFF: the packet in its frame

_ETHERNET: Final = (1, 772)  # ARPHRD_ETHER, ARPHRD_LOOPBACK
_TAGS: Final = (0x8100, 0x88A8, 0x9100)
_IPV4: Final = 0x0800
_IPV6: Final = 0x86DD
_TCP: Final = 6
_HOP_BY_HOP: Final = 0


class Assembler:
    """Instructions and labels of a classic BPF program, which jumps forward only."""

    def __init__(self) -> None:
        self._rows: list[tuple[int, int, str, str]] = []
        self._labels: dict[str, int] = {}

    def label(self, name: str) -> None:
        """What is emitted next is known as ``name``."""
        self._labels[name] = len(self._rows)

    def emit(self, code: int, k: int = 0) -> None:
        """An instruction that the next one follows."""
        self._rows.append((code, k, "", ""))

    def jump(self, code: int, k: int, yes: str = "", no: str = "") -> None:
        """A comparison of A with ``k``, and where it leads; the next instruction where no label is given."""
        self._rows.append((code, k, yes, no))

    def go(self, label: str) -> None:
        """A jump in any case, however far."""
        self._rows.append((_JA, 0, label, ""))

    def assemble(self) -> bytes:
        """An array of ``struct sock_filter``. Raises `ValueError` for a jump backward or out of reach."""
        made = []
        for index, (code, k, yes, no) in enumerate(self._rows):
            over = [self._labels[label] - index - 1 if label else 0 for label in (yes, no)]
            if min(over) < 0 or (code != _JA and max(over) > _REACH):
                raise ValueError(f"instruction {index} jumps over {over}; 0 to {_REACH} are possible")
            made.append(struct.pack("=HBBI", code, *((0, 0, over[0]) if code == _JA else (*over, k))))
        return b"".join(made)


def program(
    ports: tuple[int, int] | None = None, peers: Collection[int] = (), strangers: Collection[int] = ()
) -> bytes:
    """A filter for TCP with one port in ``ports`` (first and last) and the other among ``peers``; None and () are any.

    With ``strangers`` the other port is none of these. Returns an array of ``struct sock_filter`` (`ring.Ring`). Raises
    `ValueError` for ports that cannot be, for more than `MOST_PEERS` peers or strangers, or for both.
    """
    first, last = ports or (0, 0xFFFF)
    others = sorted({*peers, *strangers})
    if not 0 <= first <= last <= 0xFFFF or not all(0 <= other <= 0xFFFF for other in others):
        raise ValueError(f"ports {first}-{last} and {others}; they are ascending, from 0 to 65535")
    if len(others) > MOST_PEERS or (peers and strangers):
        raise ValueError(f"a filter for {len(others)} peer ports; up to {MOST_PEERS} of a kind are possible")
    made = Assembler()
    _find_packet(made, first, last)
    _find_segment(made)
    _choose_ports(made, first, last, others, "take" if peers else "")
    return made.assemble()


def _find_packet(made: Assembler, first: int, last: int) -> None:
    """X = where the packet is in the frame, A = its EtherType; goes on at "kind", or rejects by the ports at once."""
    made.emit(_LD_ABS | _WORD, _HATYPE)
    for kind in _ETHERNET:
        made.jump(_JEQ, kind, "ethernet")
    made.emit(_LDX_IMM, _NET)
    made.emit(_LD_ABS | _WORD, _PROTOCOL)
    made.go("kind")
    made.label("ethernet")
    if last - first < 0xFFFF:
        _glance(made, first, last)
    made.emit(_LDX_IMM, 14)
    made.emit(_LD_ABS | _HALF, 12)
    for number, packet in enumerate((18, 22)):
        for tag in _TAGS:
            made.jump(_JEQ, tag, f"tag {number}")
        made.go("kind")
        made.label(f"tag {number}")
        made.emit(_LDX_IMM, packet)
        made.emit(_LD_ABS | _HALF, packet - 2)
    made.label("kind")


def _glance(made: Assembler, first: int, last: int) -> None:
    """Reject what has neither port in the range, where the ports are in the usual place: nearly all that is rejected.

    A load from a place that is known beforehand is an instruction of the processor, one relative to X is a call.
    """
    made.emit(_LD_ABS | _HALF, 12)
    made.jump(_JEQ, _IPV4, "glance 4")
    made.jump(_JEQ, _IPV6, "glance 6", "closer")
    for name, at, usual, ports in (("glance 4", 14, 0x45, 34), ("glance 6", 20, _TCP, 54)):
        made.label(name)
        made.emit(_LD_ABS | _BYTE, at)  # version and length, or what follows the header
        made.jump(_JEQ, usual, no="closer")
        made.emit(_LD_ABS | _HALF, ports)
        made.jump(_JGE, first, no=f"{name} other")
        made.jump(_JGT, last, no="closer")
        made.label(f"{name} other")
        made.emit(_LD_ABS | _HALF, ports + 2)
        made.jump(_JGE, first, no=f"{name} none")
        made.jump(_JGT, last, no="closer")
        made.label(f"{name} none")
        made.emit(_RET, 0)
    made.label("closer")


def _find_segment(made: Assembler) -> None:
    """X = where the TCP header is, M[0] = what is captured of the frame; goes on at "ports"."""
    made.jump(_JEQ, _IPV4, "v4")
    made.jump(_JEQ, _IPV6, "v6", "reject")
    made.label("v4")
    made.emit(_LD_IMM, SNAP)
    made.emit(_ST, 0)
    made.emit(_LD_IND | _BYTE, 0)
    made.jump(_JGE, 0x45, no="reject")
    made.jump(_JGT, 0x4F, "reject")
    made.emit(_LD_IND | _HALF, 6)
    made.jump(_JSET, 0x3FFF, "reject")  # more fragments, or an offset
    made.emit(_LD_IND | _BYTE, 9)
    made.jump(_JEQ, _TCP, no="reject")
    made.emit(_LD_IND | _BYTE, 0)
    made.jump(_JEQ, 0x45, "plain")
    made.emit(_LD_IMM, SNAP_LONG)
    made.emit(_ST, 0)
    made.emit(_LD_IND | _BYTE, 0)
    made.label("plain")
    made.emit(_AND, 0xF)
    made.emit(_LSH, 2)
    made.emit(_ADD_X)
    made.emit(_TAX)
    made.go("ports")
    made.label("v6")
    made.emit(_LD_IMM, SNAP_LONG)
    made.emit(_ST, 0)
    made.emit(_LD_IND | _BYTE, 0)
    made.emit(_AND, 0xF0)
    made.jump(_JEQ, 0x60, no="reject")
    made.emit(_LD_IND | _BYTE, 6)
    made.jump(_JEQ, _TCP, "fixed")
    made.jump(_JEQ, _HOP_BY_HOP, no="reject")
    made.emit(_LD_IND | _BYTE, 40)
    made.jump(_JEQ, _TCP, no="reject")
    made.emit(_LD_IND | _BYTE, 41)  # in units of 8 bytes, the first not counted
    made.emit(_ADD, 1)
    made.emit(_LSH, 3)
    made.emit(_ADD_X)
    made.emit(_TAX)
    made.label("fixed")
    made.emit(_TXA)
    made.emit(_ADD, 40)
    made.emit(_TAX)
    made.label("ports")


def _choose_ports(made: Assembler, first: int, last: int, others: list[int], then: str) -> None:
    """Take what has a port in the range, whichever it is, and the other among the ``others``; among none of them where
    ``then`` is not "take"."""
    for near, far, otherwise in ((0, 2, "swapped"), (2, 0, "reject")):
        made.emit(_LD_IND | _HALF, near)
        made.jump(_JGE, first, no=otherwise)
        made.jump(_JGT, last, otherwise)
        if others:
            made.emit(_LD_IND | _HALF, far)
        for other in others:
            made.jump(_JEQ, other, then or otherwise)
        made.go(otherwise if then else "take")
        if otherwise != "reject":
            made.label(otherwise)
    # The kernel holds a way to a load from M against all ways that led before it: what rejects comes last.
    made.label("take")
    made.emit(_LD_MEM, 0)
    made.emit(_RET_A)
    made.label("reject")
    made.emit(_RET, 0)
