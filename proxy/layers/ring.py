"""A tap: the packets of one network interface, or of all, in a ring of memory that the kernel fills.

AF_PACKET with TPACKET_V3: the kernel stamps, filters and cuts each frame, writes it into blocks that this process has
mapped, and hands a block over once it is full or ``retire_ms`` old. Bounded by its blocks: when all are full, packets
are dropped and counted, and nobody's traffic waits.

Sources: packet(7), ``linux/if_packet.h``, ``Documentation/networking/packet_mmap.rst``, setns(2).
"""

from __future__ import annotations

import contextlib
import ctypes
import errno
import fcntl
import functools
import mmap
import os
import socket
import struct
import threading
from array import array
from collections.abc import Iterator
from typing import Final, NamedTuple, Self

BLOCKS: Final = 256
BLOCK_BYTES: Final = 65_536  # with 256 blocks 16 MiB, 90,000 packets of 180 bytes: what a second of a busy tap needs
RETIRE_MS: Final = 20  # the longest that a packet waits in a block that is not full; all blocks are 5 s of a quiet tap
_FILLING: Final = 4  # of how many blocks one waits, in a ring that is filling

_SOL_PACKET: Final = 263  # linux/socket.h

# linux/if_packet.h
_PACKET_RX_RING: Final = 5
_PACKET_STATISTICS: Final = 6
_PACKET_VERSION: Final = 10
_PACKET_TIMESTAMP: Final = 17
_TPACKET_V3: Final = 2
_STATUS_AT: Final = 8  # tpacket_block_desc.hdr.bh1.block_status
_KERNEL: Final = 0  # TP_STATUS_KERNEL
_USER: Final = 1  # TP_STATUS_USER
_REQUEST: Final = struct.Struct("=7I")  # struct tpacket_req3
_STATISTICS: Final = struct.Struct("=3I")  # struct tpacket_stats_v3
_FRAME_BYTES: Final = 2048  # divides every block; TPACKET_V3 packs packets closer than this

_SOFTWARE: Final = 1 << 4  # SOF_TIMESTAMPING_SOFTWARE: the system's clock, never that of a card
_SO_ATTACH_FILTER: Final = 26  # asm-generic/socket.h
_INSTRUCTION: Final = struct.calcsize("=HBBI")  # struct sock_filter
_EVERY_PROTOCOL: Final = 3  # ETH_P_ALL
_NO_PROTOCOL: Final = 0x88B5  # for experiments (IEEE 802, local experimental ethertype 1), and not what a filter takes
_SIOCGIFNAME: Final = 0x8910  # linux/sockios.h
_CLONE_NEWNET: Final = 0x40000000
_STATUS: Final = struct.Struct("=I")
_OPENED_AT: Final = 12  # tpacket_block_desc.hdr.bh1.num_pkts
_OPENED: Final = struct.Struct("=I16x2I")  # with it ts_first_pkt, which the kernel sets as it begins a block
_SECOND_NS: Final = 1_000_000_000
_ADDRESS: Final = struct.Struct("=HHiHBB8s")  # struct sockaddr_ll


class TapError(Exception):
    """An interface that cannot be tapped; the message names what, why and the next step."""


class NotPermitted(TapError):
    """A capability is missing."""


class NoInterface(TapError):
    """There is no such interface, or there is no more: this ring will see nothing again."""


class InterfaceDown(TapError):
    """The interface was set down. The ring stays, and sees packets again once it is up."""


class Statistics(NamedTuple):
    """What a ring was given since it was last asked: ``packets`` that the filter took, ``drops`` among them."""

    packets: int
    drops: int


class Ring:
    """The packets of one interface that a filter takes.

    ``ifindex`` is the interface's number in its network namespace, 0 for all of them (the records then tell which).
    ``program`` is a filter as `select.program` makes it; it is in force before the first packet. Memory is ``blocks``
    times ``block_bytes``. ``netns_fd`` is an open network namespace to tap in, -1 for the caller's own.

    Readable (``fileno``) when a block is there or the interface went away. Raises `NotPermitted`, `NoInterface`,
    `InterfaceDown`, `TapError` for what else the kernel refuses, and `ValueError` for sizes that cannot be.
    """

    def __init__(
        self,
        ifindex: int,
        *,
        program: bytes,
        blocks: int = BLOCKS,
        block_bytes: int = BLOCK_BYTES,
        retire_ms: int = RETIRE_MS,
        netns_fd: int = -1,
    ) -> None:
        if block_bytes < mmap.PAGESIZE or block_bytes & (block_bytes - 1):
            raise ValueError(f"blocks of {block_bytes} bytes; a power of two from {mmap.PAGESIZE} on is possible")
        if blocks < 2 or retire_ms < 1:
            raise ValueError(f"a ring of {blocks} blocks, each for {retire_ms} ms; 2 and 1 ms are the least")
        self.ifindex: Final = ifindex
        self._count: Final = blocks
        self._next = 0
        self._down = False
        self._binding: Final = threading.Lock()
        self._socket = _open_in(netns_fd)
        try:
            self.select(program)
            self._map = self._prepare(block_bytes, retire_ms)
            _bind(self._socket, ifindex, _EVERY_PROTOCOL)
        except BaseException:
            self._socket.close()
            raise
        whole = memoryview(self._map)
        self._blocks = [whole[at : at + block_bytes] for at in range(0, blocks * block_bytes, block_bytes)]
        whole.release()

    def _prepare(self, block_bytes: int, retire_ms: int) -> mmap.mmap:
        """What has to be before the first packet: format, clock, memory."""
        tap = self._socket
        frames = self._count * block_bytes // _FRAME_BYTES
        try:
            tap.setsockopt(_SOL_PACKET, _PACKET_VERSION, _TPACKET_V3)
            tap.setsockopt(_SOL_PACKET, _PACKET_TIMESTAMP, _SOFTWARE)
            request = _REQUEST.pack(block_bytes, self._count, _FRAME_BYTES, frames, retire_ms, 0, 0)
            tap.setsockopt(_SOL_PACKET, _PACKET_RX_RING, request)
            return mmap.mmap(tap.fileno(), self._count * block_bytes)
        except OSError as error:
            size = self._count * block_bytes
            raise TapError(
                f"the kernel refuses a packet ring of {size} bytes ({error.strerror}); "
                "give the process more memory, or take a smaller ring"
            ) from error

    def attend(self, attending: bool) -> None:
        """See packets, as from the beginning, or none: then those that pass cost nothing.

        The kernel waits until no processor is at work with what was in force, 8 to 16 ms and more: for a thread. Once
        closed it does nothing. Raises what the constructor does of the interface; of one that is down, which is bound
        all the same, only the first time.
        """
        with self._binding:
            if self.fileno() < 0:
                return
            try:
                _bind(self._socket, self.ifindex, _EVERY_PROTOCOL if attending else _NO_PROTOCOL)
            except InterfaceDown:
                known, self._down = self._down, True  # so that `blocks` asks whether it is still there
                if not known:
                    raise

    def fileno(self) -> int:
        """The descriptor to wait on; -1 once closed."""
        return self._socket.fileno()

    def select(self, program: bytes) -> None:
        """Put another filter in force, at once and for every packet from now on.

        Raises `ValueError` for what the kernel does not take as a program, and `TapError` once closed.
        """
        count, rest = divmod(len(program), _INSTRUCTION)
        if not count or rest:
            raise ValueError(f"a filter of {len(program)} bytes; it is one or more instructions of {_INSTRUCTION}")
        kept = array("B", program)
        fprog = struct.pack("@HP", count, kept.buffer_info()[0])  # struct sock_fprog
        try:
            self._socket.setsockopt(socket.SOL_SOCKET, _SO_ATTACH_FILTER, fprog)
        except OSError as error:
            if error.errno == errno.EINVAL:
                raise ValueError(f"the kernel finds a filter of {count} instructions faulty") from error
            raise TapError(f"the kernel takes no filter ({error.strerror}); is this tap still open?") from error

    def blocks(self) -> Iterator[memoryview]:
        """The blocks that are there now, oldest first, read-only; each goes back to the kernel as the next is taken.

        A block must not be looked at after that: copy what is to stay. Raises, once no block is left, `NoInterface` or
        `InterfaceDown` if that is what became of the interface. What became of one that is down can only be asked for:
        call this now and then.
        """
        while self._blocks:
            block = self._blocks[self._next]
            if not _STATUS.unpack_from(block, _STATUS_AT)[0] & _USER:
                self._check()
                return
            self._down = False
            view = block.toreadonly()
            try:
                yield view
            finally:
                with contextlib.suppress(BufferError):  # somebody kept a part of it
                    view.release()
                if self._blocks:  # else closed in between
                    _STATUS.pack_into(block, _STATUS_AT, _KERNEL)
                    self._next = (self._next + 1) % self._count

    def filling(self) -> bool:
        """Whether more than a quarter of the blocks wait to be given: packets that find no room may be next."""
        if not self._blocks:
            return False
        ahead = self._blocks[(self._next + self._count // _FILLING) % self._count]
        return bool(_STATUS.unpack_from(ahead, _STATUS_AT)[0] & _USER)

    def held_ns(self) -> int | None:
        """Packets stamped after this, Unix nanoseconds, are in a block that `blocks` has not given yet; None: no packet
        is. That may be too early, never too late: of a block that waits to be filled again it is what it was before.
        """
        packets, second, ns = _OPENED.unpack_from(self._blocks[self._next], _OPENED_AT)
        return second * _SECOND_NS + ns if packets else None

    def _check(self) -> None:
        """Raise what the kernel has to say about the interface."""
        code = self._socket.getsockopt(socket.SOL_SOCKET, socket.SO_ERROR)
        # One that goes away is set down first, and only that is told.
        if code or (self._down and not _exists(self._socket, self.ifindex)):
            error = _refusal(code, self.ifindex, self._socket)
            self._down = isinstance(error, InterfaceDown)
            raise error

    def statistics(self) -> Statistics:
        """What came since the last call. Raises `OSError` once closed."""
        packets, drops, _ = _STATISTICS.unpack(
            self._socket.getsockopt(_SOL_PACKET, _PACKET_STATISTICS, _STATISTICS.size)
        )
        return Statistics(packets, drops)

    def close(self) -> None:
        """Give everything back. Memory that is still looked at goes with the last look."""
        for block in self._blocks:
            block.release()
        self._blocks = []
        with contextlib.suppress(BufferError):
            self._map.close()
        with self._binding:
            self._socket.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def __repr__(self) -> str:
        state = f"fd {self.fileno()}" if self.fileno() >= 0 else "closed"
        return f"<Ring of interface {self.ifindex or 'any'}, {self._count} blocks, {state}>"


def _open_in(netns_fd: int) -> socket.socket:
    """A packet socket that takes nothing yet, in another network namespace if one is named."""
    if netns_fd < 0:
        return _open()
    made: list[socket.socket | BaseException] = []

    def enter() -> None:
        # A namespace is entered by a thread. One of its own never comes back, and so cannot fail to.
        try:
            if _libc().setns(netns_fd, _CLONE_NEWNET):
                code = ctypes.get_errno()
                if code == errno.EPERM:
                    raise NotPermitted(
                        "a tap in another network namespace needs CAP_SYS_ADMIN; grant it, or tap this namespace only"
                    )
                raise TapError(f"descriptor {netns_fd} is no network namespace to tap in ({os.strerror(code)})")
            made.append(_open())
        except BaseException as error:
            made.append(error)

    thread = threading.Thread(target=enter, name="tap")
    thread.start()
    thread.join()
    (one,) = made
    if isinstance(one, BaseException):
        raise one
    return one


def _open() -> socket.socket:
    try:
        # Protocol 0: nothing comes before bind().
        return socket.socket(socket.AF_PACKET, socket.SOCK_RAW | socket.SOCK_CLOEXEC, 0)
    except PermissionError as error:
        raise NotPermitted(
            "a tap needs CAP_NET_RAW: run as root, or grant it "
            "(systemd: AmbientCapabilities=CAP_NET_RAW; Kubernetes: capabilities.add: [NET_RAW])"
        ) from error
    except OSError as error:
        raise TapError(f"this kernel gives no packet sockets ({error.strerror}); load the module af_packet") from error


def _bind(tap: socket.socket, ifindex: int, protocol: int) -> None:
    """By number: socket.bind() takes names, which may change in between."""
    address = _ADDRESS.pack(socket.AF_PACKET, socket.htons(protocol), ifindex, 0, 0, 0, b"")
    if _libc().bind(tap.fileno(), address, len(address)):
        raise _refusal(ctypes.get_errno(), ifindex, tap)
    # An interface that is down can be bound to, and is no error before it is asked for.
    code = tap.getsockopt(socket.SOL_SOCKET, socket.SO_ERROR)
    if code:
        raise _refusal(code, ifindex, tap)


@functools.cache
def _libc() -> ctypes.CDLL:
    """One: each has classes of its own, which are cycles, and a tap is bound twice a second (`attend`)."""
    return ctypes.CDLL(None, use_errno=True)


def _exists(tap: socket.socket, ifindex: int) -> bool:
    """Whether there is an interface of this number in the namespace of the socket."""
    try:
        fcntl.ioctl(tap, _SIOCGIFNAME, struct.pack("=16si20x", b"", ifindex))  # struct ifreq, for a name
    except OSError:
        return False
    return True


def _refusal(code: int, ifindex: int, tap: socket.socket) -> TapError:
    """What an errno of bind() or of a bound socket says about the interface."""
    if not _exists(tap, ifindex):
        return NoInterface(f"there is no interface {ifindex}: it has gone, or never was; 'ip link' lists what there is")
    if code == errno.ENETDOWN:
        return InterfaceDown(f"interface {ifindex} is down and shows no packets; 'ip link set dev NAME up' lets it")
    return TapError(f"interface {ifindex} cannot be tapped ({os.strerror(code)}); name another interface")
