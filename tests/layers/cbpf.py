"""Classic BPF as the kernel runs it, instruction by instruction (Documentation/networking/filter.rst)."""

from __future__ import annotations

import struct
from typing import Final

AD: Final = 0xFFFFF000  # SKF_AD_OFF
NET: Final = 0xFFF00000  # SKF_NET_OFF
WORD: Final = 0xFFFFFFFF


class Outside(Exception):
    """A load from beyond what there is, which rejects the packet."""


def run(program: bytes, frame: bytes, *, net: int, kind: int, hatype: int) -> int:
    """How many bytes of a frame a program takes; 0 rejects it."""
    rows = [struct.unpack_from("=HBBI", program, at) for at in range(0, len(program), 8)]
    said = {AD: kind, AD + 28: hatype}

    def load(at: int, size: int) -> int:
        if at in said:
            return said[at]
        if at >= NET:
            at += net - NET
        if at + size > len(frame):
            raise Outside
        return int.from_bytes(frame[at : at + size], "big")

    a = x = at = 0
    memory = [0] * 16
    try:
        while True:
            code, yes, no, k = rows[at]
            at += 1
            match code:
                case 0x20 | 0x28 | 0x30:
                    a = load(k, {0x20: 4, 0x28: 2, 0x30: 1}[code])
                case 0x40 | 0x48 | 0x50:
                    a = load((x + k) & WORD, {0x40: 4, 0x48: 2, 0x50: 1}[code])
                case 0x00:
                    a = k
                case 0x01:
                    x = k
                case 0x60:
                    a = memory[k]
                case 0x02:
                    memory[k] = a
                case 0x07:
                    x = a
                case 0x87:
                    a = x
                case 0x04:
                    a = (a + k) & WORD
                case 0x0C:
                    a = (a + x) & WORD
                case 0x54:
                    a &= k
                case 0x64:
                    a = (a << k) & WORD
                case 0x05:
                    at += k
                case 0x15 | 0x25 | 0x35 | 0x45:
                    met = {0x15: a == k, 0x25: a > k, 0x35: a >= k, 0x45: bool(a & k)}[code]
                    at += yes if met else no
                case 0x06:
                    return k
                case 0x16:
                    return a
                case _:
                    raise AssertionError(f"{code:#x} is no instruction of a filter of ours")
    except Outside:
        return 0
