"""Every name that the wire's spans use: those of `spanway wire`, below a CLIENT span of the proxy.

The span `WIRE` carries the split of one attempt over its places; a place that mattered has a child with `PLACE` and
`DIRECTION`. Beside these stand OpenTelemetry's `network.*` of the connection. The tables of docs/tracing.md are made of
this one by `semconv`.
"""

from __future__ import annotations

import re
from functools import lru_cache
from typing import Final

from proxy.trace.semconv import Attribute

WIRE: Final = "wire"
"""The span's name; kind INTERNAL, parent the CLIENT span, from the first byte's writing to the attempt's end."""

TRANSPORT: Final = Attribute("network.transport", "string", "", "wire", "`tcp`")
SPLIT: Final = Attribute(
    "spanway.wire.split",
    "string",
    "",
    "wire",
    "the segments in the order of time, as text: `proxy send 12 us | link px > 3 us | ovs br0 > 61 us | ..`",
)
PLACE: Final = Attribute("spanway.wire.place", "string", "", "place", "the place: `proxy`, `ovs br0`, `backend` ..")
DIRECTION: Final = Attribute("spanway.wire.direction", "string", "", "place", "`request` or `response`")
TIME_US: Final = Attribute(
    "spanway.wire.time.us",
    "int",
    "us",
    "place",
    "time spent there on this way; less than the span where a long message came back to it again and again",
)
BYTES: Final = Attribute(
    "spanway.wire.bytes", "int", "By", "wire", "bytes of the request and the response in their streams"
)
PACKETS: Final = Attribute("spanway.wire.packets", "int", "", "wire", "packets seen at all taps, acknowledgements too")
RETRANSMITTED: Final = Attribute(
    "spanway.wire.retransmitted.bytes", "int", "By", "wire", "bytes that their sender's tap has seen more than once"
)
LOST: Final = Attribute(
    "spanway.wire.lost.bytes", "int", "By", "wire", "bytes that vanished between two taps (on a place: there)"
)
LOST_AT: Final = Attribute("spanway.wire.lost.at", "string", "", "wire", "the place where most of them did")
ZERO_WINDOW_US: Final = Attribute(
    "spanway.wire.zero_window.us", "int", "us", "wire", "time for which a receiver's window was closed"
)
ANCHOR: Final = Attribute(
    "spanway.wire.anchor",
    "string",
    "",
    "wire",
    "how sequence numbers were joined to offsets: `syn`, or `vote` where the connection is older than the tap",
)
TAPS: Final = Attribute("spanway.wire.taps", "string", "", "wire", "the interfaces, from the proxy to the backend")
INCOMPLETE: Final = Attribute(
    "spanway.wire.incomplete", "boolean", "", "wire", "true where a tap dropped packets meanwhile: loss may be unseen"
)
OVS_BRIDGE: Final = Attribute("spanway.wire.ovs.bridge", "string", "", "wire", "Open vSwitch bridge on the way")
OVS_IN_PORT: Final = Attribute("spanway.wire.ovs.in_port", "string", "", "wire", "its port towards the proxy")
OVS_OUT_PORT: Final = Attribute("spanway.wire.ovs.out_port", "string", "", "wire", "its port towards the backend")
OVS_TABLES: Final = Attribute(
    "spanway.wire.ovs.tables", "string", "", "wire", "its flow tables that the connection passes, in order: `0, 10, 20`"
)
OVS_ACTIONS: Final = Attribute(
    "spanway.wire.ovs.actions", "string", "", "wire", "what the switch does with the connection, by `ofproto/trace`"
)
IPFIX_PACKETS: Final = Attribute(
    "spanway.wire.ipfix.packets",
    "int",
    "",
    "wire",
    "packets of the connection that Open vSwitch sampled during the attempt, to 3 ms (`spanway wire --ipfix`)",
)
IPFIX_BRIDGE: Final = Attribute(
    "spanway.wire.ipfix.bridge",
    "string",
    "",
    "wire",
    "the bridge whose ports they passed, where it lies between two taps",
)
IPFIX_POINT: Final = Attribute(
    "spanway.wire.ipfix.point",
    "string",
    "",
    "wire",
    "observation domain and point of the rule that sampled them: `1/7`",
)
IPFIX_IN_PORT: Final = Attribute(
    "spanway.wire.ipfix.in_port", "string", "", "wire", "port where they entered the switch, seen from the proxy"
)
IPFIX_OUT_PORT: Final = Attribute(
    "spanway.wire.ipfix.out_port",
    "string",
    "",
    "wire",
    "port where they left it, as far as that was sampled: at egress, or of the answers at ingress",
)
VERDICT: Final = Attribute("spanway.wait.verdict", "string", "", "wire", "who is to blame for the wait, see below")
VERDICT_PLACE: Final = Attribute("spanway.wait.place", "string", "", "wire", "the place that the verdict is about")
EXCESS_US: Final = Attribute(
    "spanway.wait.excess.us",
    "int",
    "us",
    "wire",
    "what that place took beyond the route's usual (rolling median); with loss the whole attempt, with a closed window "
    "the backend",
)

US: Final = "spanway.wire.us."
"""Prefix of one attribute per place, see `place_us`."""
PLACE_US: Final = Attribute(
    f"{US}<place>",
    "int",
    "us",
    "wire",
    "time at a place, on both ways together; in the name `_` stands for what is no letter or digit: "
    "`spanway.wire.us.ovs_br0`. They add up to the span, to a microsecond each",
)

ATTRIBUTES: Final[tuple[Attribute, ...]] = tuple(
    value for value in list(globals().values()) if isinstance(value, Attribute)
)

APPLICATION: Final = "application"
NETWORK: Final = "network"
SWITCH: Final = "switch"
PROXY: Final = "proxy"
NOT_READING: Final = "peer not reading"
SENDING: Final = "client"
LOSS_AT: Final = "loss at "

VERDICTS: Final[dict[str, str]] = {
    APPLICATION: "behind the last tap: the backend's kernel, its event loop, its code",
    NETWORK: "on a link",
    SWITCH: "in a virtual switch or bridge",
    PROXY: "before the first tap, or after it on the way back: the proxy's event loop, its kernel",
    NOT_READING: "a receiver's window was closed, or it left data lying: the sender had to wait",
    SENDING: "the proxy was still to get the rest of the request from its client",
    f"{LOSS_AT}PLACE": "packets vanished there, and the wait is that of their retransmission",
}
"""Values of `spanway.wait.verdict`."""


@lru_cache(256)
def place_us(place: str) -> str:
    """The name of the attribute with the time at a place, in microseconds."""
    return US + re.sub(r"[^a-z0-9]+", "_", place.lower()).strip("_")
