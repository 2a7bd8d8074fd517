"""`spanway wire` whose taps miss packets: `python -m tests.real.wire_deaf PER_MILLE ARGUMENT..`.

As `tests.real.wire_telling`. Its filters begin with the kernel's dice (SKF_AD_RANDOM, linux/filter.h), so that each tap
misses its own packets.
"""

from __future__ import annotations

import struct
import sys
from typing import Any

from proxy.cli import main
from proxy.layers import select, service, widening
from tests.real.wire_telling import tell

_LOAD, _AT_LEAST, _RETURN = 0x20, 0x35, 0x06  # BPF_LD | BPF_W | BPF_ABS, BPF_JMP | BPF_JGE, BPF_RET
_RANDOM = 0xFFFFF000 + 56

if __name__ == "__main__":
    least = (1 << 32) * int(sys.argv[1]) // 1000
    rows = ((_LOAD, 0, 0, _RANDOM), (_AT_LEAST, 1, 0, least), (_RETURN, 0, 0, 0))
    dice = b"".join(struct.pack("=HBBI", *row) for row in rows)
    whole = select.program

    def program(*arguments: Any) -> bytes:
        return dice + whole(*arguments)

    for module in (service, widening):
        vars(module)["program"] = program
    tell()
    sys.exit(main(sys.argv[2:]))
