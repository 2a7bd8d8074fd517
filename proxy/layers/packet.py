"""The parser of packet rings that is in use: `frames`, unless its compiled twin ``packet.pyx`` stands in this module's
place. Both write the same records; what one is, and how a ring's block becomes some, `frames` says.
"""

from proxy.layers.frames import (
    ACK,
    DEFAULT_FLOWS,
    FIN,
    RECORD,
    RST,
    SYN,
    Flow,
    Flows,
    Packet,
    Packets,
    parse,
)

__all__ = ["ACK", "DEFAULT_FLOWS", "FIN", "RECORD", "RST", "SYN", "Flow", "Flows", "Packet", "Packets", "parse"]
