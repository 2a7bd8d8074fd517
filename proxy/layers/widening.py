"""Which packets the taps are to take: those of the proxy's own ports for recorded requests, more only where it must be.

The proxy keeps recorded requests to its ports where its kernel can, and as long as one is free; else any port is used,
and what tells packets apart is the backend's. That takes in the unrecorded requests to it as well, so it is done once
most records come from elsewhere, and ends when they no longer do.

Others have such ports by chance: a client's connection to the proxy, the proxy's to its collector. What is seen of many
packets and of no record is left out by the port at its other end, until a record of that port comes.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import TYPE_CHECKING, Final

from proxy.layers.select import MOST_PEERS, program

if TYPE_CHECKING:
    from collections import Counter

    from proxy.settings_wire import PortRange
    from proxy.trace.handover import Record

SETTLE_NS: Final = 2_000_000_000  # within half of it a proxy knows that somebody listens (`handover.LOOK`)
STRANGE: Final = 500  # packets of no record, before a port is left out
NARROW: Final = 8  # times as many records of the proxy's ports as of others, before only those are listened to again


class Widening:
    """``ports`` None: any are listened to, and nothing changes that.

    ``widen``: further ones as the proxy tells of them, for which ``select`` is called with another filter program.
    """

    __slots__ = ("_inside", "_outside", "_ports", "_select", "_settled_ns", "_told", "_widen", "peers", "strangers")

    def __init__(self, ports: PortRange | None, widen: bool, select: Callable[[bytes], None]) -> None:
        self._ports: Final = ports
        self._widen: Final = widen
        self._select: Final = select
        self.peers: Final[set[int]] = set()
        """Ports of backends that connections from other local ports lead to."""
        self.strangers: Final[set[int]] = set()
        """Ports that are left out, at most `select.MOST_PEERS`."""
        self._told: Final[set[int]] = set()  # ports of backends that records were of
        self._inside = self._outside = 0  # records lately, by their local port
        self._settled_ns = time.time_ns() + SETTLE_NS

    def __repr__(self) -> str:
        return f"Widening({self._ports or 'any port'}, {len(self.peers)} backends' ports)"

    def takes(self, record: Record) -> bool:
        """Whether the packets of a record's connection are taken, from now on at the latest."""
        if self._ports is None:
            return True
        if self._ports.holds(record.local_port):
            self._inside += 1
            self._told.add(record.peer_port)
            if record.peer_port in self.strangers:
                self.strangers.discard(record.peer_port)
                self._choose()
            return True
        # A connection that is older than the proxy's knowledge of us is no reason to look at all others, nor is an
        # attempt that was under way by then: the packets of a whole site would be ours for seconds.
        if not self._widen or record.write_ns < self._settled_ns:
            return False
        self._outside += 1
        if not self.peers and self._outside <= self._inside:
            return False
        if record.peer_port not in self.peers and len(self.peers) <= MOST_PEERS:
            self.peers.add(record.peer_port)
            self._choose()
        return True

    def refusal(self, record: Record) -> str:
        """What to say of one that is not taken; "" where later ones are."""
        if self._widen:
            return ""
        return (
            f"the proxy has connections from ports such as {record.local_port}, which is not within {self._ports}: "
            "their packets are not looked at. Give --ports the proxy's (wire.ports), or leave --ports out"
        )

    def leave_out(self, count: Callable[[tuple[int, int]], Counter[int]]) -> None:
        """Look for what is none of the proxy's; ``count`` is `join.Joiner.strangers`."""
        if self._ports is None or self.peers or len(self.strangers) >= MOST_PEERS:
            return
        found = count((self._ports.low, self._ports.high))
        new = [port for port, packets in found.most_common() if packets >= STRANGE]
        new = [port for port in new if port not in self._told and port not in self.strangers]
        if new:
            self.strangers.update(new[: MOST_PEERS - len(self.strangers)])
            self._choose()

    def _choose(self) -> None:
        if self.peers or self._ports is None:
            self._select(program(None, self.peers if len(self.peers) <= MOST_PEERS else ()))
        else:
            self._select(program((self._ports.low, self._ports.high), (), self.strangers))

    def narrow(self) -> None:
        """Go back to the proxy's ports once it keeps to them; what is long ago counts less and less."""
        self._settled_ns = min(self._settled_ns, time.time_ns() + SETTLE_NS)  # the clock may have been set back
        if self.peers and self._ports is not None and NARROW * self._outside < self._inside:
            self.peers.clear()
            self._choose()
        self._inside, self._outside = self._inside // 2, self._outside // 2
