"""The rings that are open: at most eight, each opened when the first connection is known to pass its interface.

A tap is known by its slot, a small number, for as long as it is open. What it hears goes to one function, block by
block, whenever `Taps.drain` is called: to be woken by each block that a quiet ring hands over costs more than the
packets in it. Who calls late finds the blocks still there, for as long as the ring holds.
What a full ring has no room for is lost for ever, so that everything else waits while one is filling.
"""

from __future__ import annotations

import asyncio
import logging
import os
import socket
import time
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import TYPE_CHECKING, Final, Protocol

from proxy.layers.ring import InterfaceDown, NoInterface, Ring, TapError

if TYPE_CHECKING:
    from proxy.layers.find import Interface

log: Final = logging.getLogger(__name__)

MOST: Final = 8
"""Rings open at a time; 16 MiB each."""
UNUSED_S: Final = 300.0  # a ring that no record has needed for so long is closed
LOOKS: Final = 16
"""Looks for such rings until a time counts, some 4 s: after this process was stopped, what needs them comes first."""
BUSY_S: Final = 5.0  # one that was needed so recently is not given up for another
_IFF_LOOPBACK: Final = 0x8  # linux/if.h
_SOL_PACKET: Final = 263  # linux/socket.h
_PACKET_IGNORE_OUTGOING: Final = 23  # linux/if_packet.h
_BLOCKS_AT_ONCE: Final = 64  # of one ring before the others, and records, have their turn: some 10 ms
STINT_NS: Final = 1_000_000  # of this thread's time on a processor until it rests, while there is time
REST: Final = 1e-6
"""Seconds that it asks for then; the kernel's timers make 50 us of them (PR_SET_TIMERSLACK)."""


class RingLike(Protocol):
    """What of `ring.Ring` is used here."""

    def fileno(self) -> int:
        """See `ring.Ring`."""
        ...

    def blocks(self) -> Iterator[memoryview]:
        """See `ring.Ring`."""
        ...

    def filling(self) -> bool:
        """See `ring.Ring`."""
        ...

    def held_ns(self) -> int | None:
        """See `ring.Ring`."""
        ...

    def statistics(self) -> tuple[int, int]:
        """See `ring.Ring`."""
        ...

    def select(self, program: bytes) -> None:
        """See `ring.Ring`."""
        ...

    def attend(self, attending: bool) -> None:
        """See `ring.Ring`."""
        ...

    def close(self) -> None:
        """See `ring.Ring`."""
        ...


class _Tap:
    __slots__ = ("heard_ns", "interface", "ring", "since_ns", "used")

    def __init__(self, interface: Interface, ring: RingLike, now: float) -> None:
        self.interface: Final = interface
        self.ring: Final = ring
        self.since_ns = time.time_ns()
        self.heard_ns = 0
        self.used = now


class Taps:
    """Open rings with the filter ``program``; ``hear`` is given a slot and a block, ``gone`` a slot and its interface's
    name once it is closed."""

    def __init__(
        self,
        program: bytes,
        hear: Callable[[int, memoryview], None],
        gone: Callable[[int, str], None],
        *,
        open_ring: Callable[..., RingLike] = Ring,
    ) -> None:
        self._program = program
        self._hear: Final = hear
        self._gone: Final = gone
        self._open_ring: Final = open_ring
        self._taps: dict[int, _Tap] = {}
        self._slots: dict[int, int] = {}  # by ifindex
        self._looks: Final[deque[float]] = deque(maxlen=LOOKS)
        self._rested_ns = 0  # by the thread's clock
        # Of their own: look-ups of ways take as long as they take, and taps must be back in time.
        self._binders: Final = ThreadPoolExecutor(MOST, "bind")

    def __repr__(self) -> str:
        return f"Taps({', '.join(tap.interface.name for tap in self._taps.values()) or 'none'})"

    def __len__(self) -> int:
        return len(self._taps)

    def use(self, interfaces: Sequence[Interface], now: float) -> tuple[int, ...]:
        """The slots of these interfaces, opened where they are not yet; ``now`` is ``loop.time()``.

        Raises `ring.TapError` for what cannot be had.
        """
        slots: list[int] = []
        for interface in interfaces:
            slot = self._slots.get(interface.ifindex)
            if slot is None:
                slot = self._open(interface, now)
            self._taps[slot].used = now
            slots.append(slot)
        return tuple(slots)

    def _open(self, interface: Interface, now: float) -> int:
        free = next((slot for slot in range(MOST) if slot not in self._taps), None)
        if free is None:
            free, oldest = min(self._taps.items(), key=lambda item: item[1].used)
            if oldest.used > now - BUSY_S:
                raise TapError(
                    f"{interface.name} is not listened to: {MOST} interfaces are, and all of them are needed; "
                    "name the ones that matter with --interfaces or --places"
                )
            self.close(free)
        ring = self._open_ring(interface.ifindex, program=self._program)
        if _loops(interface.name):
            try:
                _once(ring.fileno())
            except OSError as error:
                ring.close()
                raise TapError(
                    f"{interface.name} shows each packet twice, and the kernel does not leave one out "
                    f"({error.strerror}); Linux 4.20 does"
                ) from error
        self._taps[free] = _Tap(interface, ring, now)
        self._slots[interface.ifindex] = free
        log.info("listening to %s", interface.name)
        return free

    def since_ns(self, slots: Sequence[int]) -> int:
        """Since when all of these have been listening as they do now, Unix nanoseconds."""
        return max(self._taps[slot].since_ns for slot in slots)

    def heard_ns(self, slots: Sequence[int]) -> int:
        """Up to which stamp `drain` has heard every packet of these taps, Unix nanoseconds."""
        return min(self._taps[slot].heard_ns for slot in slots)

    def select(self, program: bytes) -> None:
        """Put another filter in force, at every tap."""
        self._program = program
        for tap in self._taps.values():
            tap.ring.select(program)
            tap.since_ns = time.time_ns()

    async def attend(self, attending: bool) -> None:
        """Set every tap aside, so that what passes costs nothing and is not seen, or put them back.

        One of which that cannot be done is closed: the next record that needs it opens it anew.
        """
        loop = asyncio.get_running_loop()

        async def bind(tap: _Tap) -> None:
            await loop.run_in_executor(self._binders, tap.ring.attend, attending)

        taps = list(self._taps.items())
        problems = await asyncio.gather(*(bind(tap) for _, tap in taps), return_exceptions=True)
        for (slot, tap), problem in zip(taps, problems, strict=True):
            if not isinstance(problem, Exception) or self._taps.get(slot) is not tap:
                continue
            log.warning("%s: %s", tap.interface.name, problem)
            if not isinstance(problem, InterfaceDown):  # that one sees packets again once it is up
                self.close(slot)

    def _read(self, slot: int, tap: _Tap) -> bool:
        """Hear some blocks of a ring; whether there may be more."""
        try:
            for number, block in enumerate(tap.ring.blocks(), 1):
                self._hear(slot, block)
                if number >= _BLOCKS_AT_ONCE:
                    return True
                self.rest()
        except InterfaceDown as error:
            log.warning("%s: %s", tap.interface.name, error)  # it sees packets again once it is up
        except NoInterface as error:
            log.warning("%s is listened to no more: %s", tap.interface.name, error)
            self.close(slot)
        except TapError as error:
            log.warning("%s: %s", tap.interface.name, error)
        return False

    def rest(self) -> bool:
        """Leave the processor to others for a moment, after `STINT_NS` on it. False in place of a rest where a ring is
        filling: its packets come first.

        A sleep: who yields (sched_yield(2)) forfeits on Linux 6.18 a slice of some 3 ms, however little of it was used.
        """
        now_ns = time.thread_time_ns()
        if now_ns - self._rested_ns < STINT_NS:
            return True
        self._rested_ns = now_ns
        if any(tap.ring.filling() for tap in self._taps.values()):
            return False
        time.sleep(REST)
        return True

    def drain(self) -> bool:
        """Hear what has been handed over, and see up to when that is all there was. Says whether there may be more."""
        more = False
        for slot, tap in list(self._taps.items()):
            begun_ns = time.time_ns()
            more = self._read(slot, tap) or more
            if slot in self._taps:
                held_ns = tap.ring.held_ns()
                tap.heard_ns = begun_ns if held_ns is None else min(begun_ns, held_ns)
        return more

    def statistics(self) -> Iterator[tuple[int, str, int, int]]:
        """(slot, interface, packets, drops) of each tap since the last call."""
        for slot, tap in self._taps.items():
            packets, drops = tap.ring.statistics()
            yield slot, tap.interface.name, packets, drops

    def sweep(self, now: float) -> None:
        """Close what has not been used for long; what time it is counts `LOOKS` calls later."""
        self._looks.append(now)
        for slot, tap in list(self._taps.items()):
            if tap.used < self._looks[0] - UNUSED_S:
                log.info("no longer listening to %s: nothing has needed it for %g s", tap.interface.name, UNUSED_S)
                self.close(slot)

    def close(self, slot: int) -> None:
        """Close one tap."""
        tap = self._taps.pop(slot)
        del self._slots[tap.interface.ifindex]
        tap.ring.close()
        self._gone(slot, tap.interface.name)

    def close_all(self) -> None:
        """Close every tap, for good."""
        self._binders.shutdown(wait=False, cancel_futures=True)
        for slot in list(self._taps):
            self.close(slot)


def _loops(name: str) -> bool:
    """Whether an interface is the loopback, which sends each packet to itself and so shows it twice."""
    try:
        flags = int(Path(f"/sys/class/net/{name}/flags").read_text(encoding="ascii"), 16)
    except (OSError, ValueError):
        return False
    return bool(flags & _IFF_LOOPBACK)


def _once(descriptor: int) -> None:
    """Have a packet socket see packets only as they come in (Linux 4.20)."""
    with socket.socket(fileno=os.dup(descriptor)) as tap:
        tap.setsockopt(_SOL_PACKET, _PACKET_IGNORE_OUTGOING, 1)
