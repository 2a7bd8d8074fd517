"""A delay and loss box: a process between two interfaces that passes each frame on, later or not at all.

    python -m proxy.demo.lab.box LEFT RIGHT TRUTH touched|all

What `tc netem` does, for kernels that have none, and with a log: the file TRUTH has a row of every TCP frame that it
touched or, with ``all``, of every one, as a box is a program itself and late now and then. One JSON object a line on
standard input sets what happens from now on (`Setting`), the answer on standard output is when it began to. Null
instead empties TRUTH. It ends with its standard input.
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
from typing import BinaryIO, Final, NamedTuple, TextIO

MOST_EVENTS: Final = 500_000  # rows of truth; later ones are not written
MOST_HELD: Final = 20_000  # frames held back in each direction; later ones are passed at once
BUFFER: Final = 16 << 20  # bytes unread; a burst must not be lost here
FRAME: Final = 65536 + 256  # bytes: the largest segmentation offload of IPv4
_ETH_P_ALL: Final = 3  # linux/if_ether.h
_SOL_PACKET: Final = 263  # linux/socket.h
_PACKET_VNET_HDR: Final = 15  # linux/if_packet.h: checksums and segmentation left to do, as virtio_net_hdr
_PACKET_IGNORE_OUTGOING: Final = 23
_SO_RCVBUFFORCE: Final = 33  # asm-generic/socket.h
_SO_TIMESTAMPNS: Final = 35  # the same; also the kind of the control message
_TIMESPEC: Final = struct.Struct("@qq")
_VNET: Final = 10  # bytes of struct virtio_net_hdr
_IPV4, _IPV6, _TCP = b"\x08\x00", b"\x86\xdd", 6
ROW: Final = struct.Struct("<qqqBBBI")  # `Event`'s stamps, act, side, bytes of heads behind it, bytes of the frame
_HEADS: Final = 14 + 40 + 60  # bytes: Ethernet's, IPv6's, the longest of TCP
_ACTS: Final = ("pass", "delay", "drop")
_PASS, _DELAY, _DROP = range(3)
_CONTROL: Final = socket.CMSG_SPACE(_TIMESPEC.size)


class Setting(NamedTuple):
    """What happens to frames: each direction is delayed by ``delay_us`` microseconds, the share ``loss`` is dropped.

    Only TCP frames are dropped, and with ``data_only`` only those with payload.
    """

    delay_us: int = 0
    loss: float = 0.0
    data_only: bool = True
    seed: int = 0


class Event(NamedTuple):
    """One frame of TRUTH: it was in the box from ``at_ns`` to ``left_ns``, Unix nanoseconds.

    ``head`` is its IP and TCP header: with IPv4 no two frames of a connection have the same, so that the same frame is
    found in the truth of another box.
    """

    at_ns: int  # it came in, by the kernel's stamp
    gone_ns: int  # it was about to be sent
    left_ns: int  # it had been sent; 0 for one that was dropped
    act: str  # "pass", "delay" or "drop"
    toward: str  # "right" or "left"
    source: str
    source_port: int
    destination: str
    destination_port: int
    sequence: int
    length: int  # bytes of TCP payload
    head: bytes


class Segment(NamedTuple):
    """The TCP part of a frame."""

    source: str
    source_port: int
    destination: str
    destination_port: int
    sequence: int
    length: int


def segment(frame: bytes, size: int = 0) -> Segment | None:
    """Read a frame behind its virtio header; None when it is not TCP, is a fragment, or is cut.

    ``size``: its length, where only the beginning is there.
    """
    start = _VNET + 14
    kind = frame[start - 2 : start]
    try:
        if kind == _IPV4:
            head = (frame[start] & 15) * 4
            (total,) = struct.unpack_from(">H", frame, start + 2)
            if frame[start + 9] != _TCP or struct.unpack_from(">H", frame, start + 6)[0] & 0x1FFF:
                return None
            addresses = [socket.inet_ntop(socket.AF_INET, frame[start + at : start + at + 4]) for at in (12, 16)]
            end = start + total if total else size or len(frame)
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


def events(truth: bytes) -> list[Event]:
    """The rows of a TRUTH file as far as they are whole, those of TCP frames."""
    found: list[Event] = []
    at = 0
    while at + ROW.size <= len(truth):
        at_ns, gone_ns, left_ns, act, side, kept, size = ROW.unpack_from(truth, at)
        heads = truth[at + ROW.size : at + ROW.size + kept]
        at += ROW.size + kept
        one = segment(bytes(_VNET) + heads, _VNET + size) if len(heads) == kept else None
        if one is not None:
            toward = ("right", "left")[side]
            found.append(Event(at_ns, gone_ns, left_ns, _ACTS[act], toward, *one, heads[14:]))
    return found


class _Held(NamedTuple):
    release_ns: int  # of the monotonic clock
    at_ns: int
    frame: bytes


class Box:
    """Two sockets, two queues, one loop."""

    def __init__(self, left: str, right: str, truth: BinaryIO, *, log_all: bool = False) -> None:
        self.setting = Setting()
        self._sockets: Final = (_opened(left), _opened(right))
        self._held: Final[tuple[deque[_Held], ...]] = (deque(), deque())
        self._truth: Final = truth
        self._log_all: Final = log_all
        self._events = 0
        self._random = random.Random(0)

    def set(self, setting: Setting) -> int:
        """Take over ``setting``; the Unix time in nanoseconds from which it holds."""
        self.setting = setting
        self._random = random.Random(setting.seed)
        self._truth.flush()
        return time.time_ns()

    def forget(self) -> int:
        """Empty the truth; the Unix time in nanoseconds."""
        self._truth.flush()
        self._truth.truncate(0)
        self._events = 0
        return time.time_ns()

    def run(self, control: TextIO, answers: TextIO) -> None:
        """Pass frames on until ``control`` ends."""
        left, right = self._sockets
        while True:
            first = min((queue[0].release_ns for queue in self._held if queue), default=0)
            wait = None if first == 0 else max(0.0, (first - time.monotonic_ns()) / 1e9)
            watched: list[socket.socket | TextIO] = [left, right, control]
            ready, _, _ = select.select(watched, [], [], wait)
            now = time.monotonic_ns()
            for side, queue in enumerate(self._held):
                while queue and queue[0].release_ns <= now:
                    _, at_ns, frame = queue.popleft()
                    self._send(side, frame, at_ns, _DELAY)
            for side, each in enumerate(self._sockets):
                if each in ready:
                    self._receive(side)
            if control in ready:
                line = control.readline()
                if not line:
                    return
                wanted = json.loads(line)
                at = self.forget() if wanted is None else self.set(Setting(**wanted))
                answers.write(json.dumps({"at": at}) + "\n")
                answers.flush()

    def _receive(self, side: int) -> None:
        source = self._sockets[side]
        for _ in range(64):
            try:
                frame, told, _, _ = source.recvmsg(FRAME, _CONTROL)
            except BlockingIOError:
                return
            except OSError:  # the interface went down: it may come back
                return
            seconds, ns = _TIMESPEC.unpack(told[0][2]) if told else (0, time.time_ns())
            self._take(side, frame, seconds * 1_000_000_000 + ns)

    def _take(self, side: int, frame: bytes, at_ns: int) -> None:
        delay, loss = self.setting.delay_us * 1000, self.setting.loss
        queue = self._held[side]
        if not (delay or loss or queue):
            self._send(side, frame, at_ns, _PASS)
            return
        found = segment(frame)
        if found is not None and loss and (found.length or not self.setting.data_only) and self._random.random() < loss:
            self._log(_DROP, side, frame, at_ns, time.time_ns(), 0)
            return
        if (not delay and not queue) or len(queue) >= MOST_HELD:
            self._send(side, frame, at_ns, _PASS)
            return
        # From when it came in, and in order, also when the delay has just shrunk.
        further = max(0, delay - (time.time_ns() - at_ns))
        release = time.monotonic_ns() + further
        queue.append(_Held(max(release, queue[-1].release_ns if queue else 0), at_ns, frame))

    def _send(self, side: int, frame: bytes, at_ns: int, act: int) -> None:
        gone_ns = time.time_ns()
        try:
            self._sockets[1 - side].send(frame)
        except OSError:  # down, or no room: what a wire would lose as well
            act = _DROP
        if act or self._log_all:
            self._log(act, side, frame, at_ns, gone_ns, time.time_ns() if act != _DROP else 0)

    def _log(self, act: int, side: int, frame: bytes, at_ns: int, gone_ns: int, left_ns: int) -> None:
        self._events += 1
        if self._events <= MOST_EVENTS:
            heads = frame[_VNET : _VNET + _HEADS]
            self._truth.write(ROW.pack(at_ns, gone_ns, left_ns, act, side, len(heads), len(frame) - _VNET) + heads)


def _opened(interface: str) -> socket.socket:
    opened = socket.socket(socket.AF_PACKET, socket.SOCK_RAW, 0)  # no protocol: nothing arrives before it is bound
    opened.setsockopt(_SOL_PACKET, _PACKET_VNET_HDR, 1)
    opened.setsockopt(_SOL_PACKET, _PACKET_IGNORE_OUTGOING, 1)
    opened.setsockopt(socket.SOL_SOCKET, _SO_RCVBUFFORCE, BUFFER)
    opened.setsockopt(socket.SOL_SOCKET, _SO_TIMESTAMPNS, 1)
    opened.bind((interface, _ETH_P_ALL))
    opened.setblocking(False)
    return opened


def main(left: str, right: str, truth: str, which: str) -> None:
    """Run the box; see the module's text."""
    gc.disable()  # nothing here makes cycles, and a pause is a delay that nobody asked for
    with Path(truth).open("ab") as log:
        box = Box(left, right, log, log_all=which == "all")
        sys.stdout.write(json.dumps({"at": time.time_ns()}) + "\n")
        sys.stdout.flush()
        box.run(sys.stdin, sys.stdout)


if __name__ == "__main__":
    main(*sys.argv[1:])
