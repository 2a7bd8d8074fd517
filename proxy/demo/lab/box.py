"""A delay and loss box: a process between two interfaces that passes each frame on, later or not at all.

    python -m proxy.demo.lab.box LEFT RIGHT TRUTH

What `tc netem` does, for kernels that have none, and with a log: every TCP frame that it touched is a line of the
file TRUTH. One JSON object a line on standard input sets what happens from now on
(`Setting`), the answer on standard output is when it began to. It ends with its standard input.
"""

from __future__ import annotations

import gc
import json
import random
import select
import socket
import struct
import sys
import time
from collections import deque
from pathlib import Path
from typing import Final, NamedTuple, TextIO

MOST_EVENTS: Final = 500_000  # lines of truth; later ones are not written
MOST_HELD: Final = 20_000  # frames held back in each direction; later ones are passed at once
BUFFER: Final = 16 << 20  # bytes unread; a burst must not be lost here
FRAME: Final = 65536 + 256  # bytes: the largest segmentation offload of IPv4
_ETH_P_ALL: Final = 3  # linux/if_ether.h
_SOL_PACKET: Final = 263  # linux/socket.h
_PACKET_VNET_HDR: Final = 15  # linux/if_packet.h: checksums and segmentation left to do, as virtio_net_hdr
_PACKET_IGNORE_OUTGOING: Final = 23
_SO_RCVBUFFORCE: Final = 33  # asm-generic/socket.h
_VNET: Final = 10  # bytes of struct virtio_net_hdr
_IPV4, _IPV6, _TCP = b"\x08\x00", b"\x86\xdd", 6


class Setting(NamedTuple):
    """What happens to frames: each direction is delayed by ``delay_us`` microseconds, the share ``loss`` is dropped.

    Only TCP frames are dropped, and with ``data_only`` only those with payload.
    """

    delay_us: int = 0
    loss: float = 0.0
    data_only: bool = True
    seed: int = 0


class Event(NamedTuple):
    """One touched frame, as TRUTH has it: a JSON array in this order."""

    at_ns: int  # Unix time at which it came in
    act: str  # "drop" or "delay"
    toward: str  # "right" or "left"
    source: str
    source_port: int
    destination: str
    destination_port: int
    sequence: int
    length: int  # bytes of TCP payload
    held_ns: int  # for how long it was delayed


class Segment(NamedTuple):
    """The TCP part of a frame."""

    source: str
    source_port: int
    destination: str
    destination_port: int
    sequence: int
    length: int


def segment(frame: bytes) -> Segment | None:
    """Read a frame behind its virtio header; None when it is not TCP, is a fragment, or is cut."""
    start = _VNET + 14
    kind = frame[start - 2 : start]
    try:
        if kind == _IPV4:
            head = (frame[start] & 15) * 4
            (total,) = struct.unpack_from(">H", frame, start + 2)
            if frame[start + 9] != _TCP or struct.unpack_from(">H", frame, start + 6)[0] & 0x1FFF:
                return None
            addresses = [socket.inet_ntop(socket.AF_INET, frame[start + at : start + at + 4]) for at in (12, 16)]
            end = start + total if total else len(frame)
        elif kind == _IPV6 and frame[start + 6] == _TCP:
            head = 40
            addresses = [socket.inet_ntop(socket.AF_INET6, frame[start + at : start + at + 16]) for at in (8, 24)]
            end = start + 40 + struct.unpack_from(">H", frame, start + 4)[0]
        else:
            return None
        tcp = start + head
        source_port, destination_port, sequence = struct.unpack_from(">HHI", frame, tcp)
        length = end - tcp - (frame[tcp + 12] >> 4) * 4
    except (struct.error, IndexError, ValueError):
        return None
    return Segment(addresses[0], source_port, addresses[1], destination_port, sequence, max(0, length))


class Box:
    """Two sockets, two queues, one loop."""

    def __init__(self, left: str, right: str, truth: TextIO) -> None:
        self.setting = Setting()
        self._sockets: Final = (_opened(left), _opened(right))
        self._held: Final[tuple[deque[tuple[int, bytes]], ...]] = (deque(), deque())
        self._truth: Final = truth
        self._events = 0
        self._random = random.Random(0)

    def set(self, setting: Setting) -> int:
        """Take over ``setting``; the Unix time in nanoseconds from which it holds."""
        self.setting = setting
        self._random = random.Random(setting.seed)
        self._truth.flush()
        return time.time_ns()

    def run(self, control: TextIO, answers: TextIO) -> None:
        """Pass frames on until ``control`` ends."""
        left, right = self._sockets
        while True:
            first = min((queue[0][0] for queue in self._held if queue), default=0)
            wait = None if first == 0 else max(0.0, (first - time.monotonic_ns()) / 1e9)
            watched: list[socket.socket | TextIO] = [left, right, control]
            ready, _, _ = select.select(watched, [], [], wait)
            now = time.monotonic_ns()
            for side, queue in enumerate(self._held):
                while queue and queue[0][0] <= now:
                    self._send(1 - side, queue.popleft()[1])
            for side, each in enumerate(self._sockets):
                if each in ready:
                    self._receive(side)
            if control in ready:
                line = control.readline()
                if not line:
                    return
                at = self.set(Setting(**json.loads(line)))
                answers.write(json.dumps({"at": at}) + "\n")
                answers.flush()

    def _receive(self, side: int) -> None:
        source = self._sockets[side]
        for _ in range(64):
            try:
                frame = source.recv(FRAME)
            except BlockingIOError:
                return
            except OSError:  # the interface went down: it may come back
                return
            self._take(side, frame)

    def _take(self, side: int, frame: bytes) -> None:
        delay, loss = self.setting.delay_us * 1000, self.setting.loss
        queue = self._held[side]
        if not (delay or loss or queue):
            self._send(1 - side, frame)
            return
        found = segment(frame)
        if found is not None and loss and (found.length or not self.setting.data_only) and self._random.random() < loss:
            self._log("drop", side, found, 0)
            return
        if (not delay and not queue) or len(queue) >= MOST_HELD:
            self._send(1 - side, frame)
            return
        now = time.monotonic_ns()
        release = max(now + delay, queue[-1][0] if queue else 0)  # in order, also when the delay has just shrunk
        if found is not None:
            self._log("delay", side, found, release - now)
        queue.append((release, frame))

    def _send(self, side: int, frame: bytes) -> None:
        try:
            self._sockets[side].send(frame)
        except OSError:  # down, or no room: what a wire would lose as well
            return

    def _log(self, act: str, side: int, found: Segment, held: int) -> None:
        self._events += 1
        if self._events <= MOST_EVENTS:
            toward = ("right", "left")[side]
            self._truth.write(json.dumps(Event(time.time_ns(), act, toward, *found, held)) + "\n")


def _opened(interface: str) -> socket.socket:
    opened = socket.socket(socket.AF_PACKET, socket.SOCK_RAW, 0)  # no protocol: nothing arrives before it is bound
    opened.setsockopt(_SOL_PACKET, _PACKET_VNET_HDR, 1)
    opened.setsockopt(_SOL_PACKET, _PACKET_IGNORE_OUTGOING, 1)
    opened.setsockopt(socket.SOL_SOCKET, _SO_RCVBUFFORCE, BUFFER)
    opened.bind((interface, _ETH_P_ALL))
    opened.setblocking(False)
    return opened


def main(left: str, right: str, truth: str) -> None:
    """Run the box; see the module's text."""
    gc.disable()  # nothing here makes cycles, and a pause is a delay that nobody asked for
    with Path(truth).open("a", encoding="utf-8") as log:
        box = Box(left, right, log)
        sys.stdout.write(json.dumps({"at": time.time_ns()}) + "\n")
        sys.stdout.flush()
        box.run(sys.stdin, sys.stdout)


if __name__ == "__main__":
    main(*sys.argv[1:])
