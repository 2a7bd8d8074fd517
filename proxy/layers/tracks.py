"""What is kept of packets: by connection and tap, in the order of their stamps.

Pure functions without clock or I/O; the compiled twin, ``track.pyx``, keeps the same, and `track` is the one in use.
"""

from __future__ import annotations

import struct
from array import array
from bisect import bisect_left, bisect_right
from collections.abc import Callable
from typing import Final, TypeVar

from proxy.layers.frames import RECORD, SYN

WIDTH: Final = RECORD.size
MOST_TAPS: Final = 8
PACKETS: Final = 65_536
"""Packets that are kept of one connection at one tap: 2.5 MiB, some more in the Python form."""

_KEY: Final = struct.Struct("<qI14xB13x")  # of frames.RECORD: ts_ns, flow, flags
_STAMP: Final = struct.Struct("<q32x")
assert _KEY.size == _STAMP.size == WIDTH  # noqa: S101 - three views of one layout


class Track:
    """The packets of one connection at one tap, in the order of their stamps; bounded, the oldest go first.

    ``floor_ns``: packets before it may have been dropped.
    """

    __slots__ = ("_rows", "_times", "floor_ns")

    def __init__(self) -> None:
        self._times = array("q")
        self._rows = bytearray()
        self.floor_ns = 0

    def __len__(self) -> int:
        return len(self._times)

    def __repr__(self) -> str:
        return f"Track({len(self)} packets)"

    @property
    def first_ns(self) -> int:
        """The oldest stamp; raises `IndexError` where there is none."""
        return self._times[0]

    @property
    def last_ns(self) -> int:
        """The latest stamp; raises `IndexError` where there is none."""
        return self._times[-1]

    def add(self, row: bytes) -> None:
        """Take in a packet, a `frames.RECORD`. Stamps of two CPUs may come in the wrong order; it is put where it goes.

        Raises `ValueError` for another size.
        """
        if len(row) != WIDTH:
            raise ValueError(f"a packet of {len(row)} bytes; one is kept in {WIDTH}")
        times = self._times
        (ts_ns,) = _STAMP.unpack(row)
        if not times or ts_ns >= times[-1]:
            times.append(ts_ns)
            self._rows += row
        elif ts_ns >= self.floor_ns:
            at = bisect_right(times, ts_ns)
            times.insert(at, ts_ns)
            self._rows[at * WIDTH : at * WIDTH] = row
        if len(times) > PACKETS:
            self.forget(times[PACKETS // 4])

    def forget(self, before_ns: int) -> int:
        """Drop packets stamped before ``before_ns``; returns how many."""
        gone = bisect_left(self._times, before_ns)
        if gone:
            self.floor_ns = max(self.floor_ns, before_ns)
            del self._times[:gone]
            del self._rows[: gone * WIDTH]
        return gone

    def window(self, start_ns: int, end_ns: int) -> bytes:
        """The rows stamped within [start_ns, end_ns]."""
        times = self._times
        return bytes(self._rows[bisect_left(times, start_ns) * WIDTH : bisect_right(times, end_ns) * WIDTH])


class Tracks:
    """One connection at every tap: ``at`` has its track by the tap's slot, None where it was not seen."""

    __slots__ = ("at",)

    def __init__(self) -> None:
        self.at: list[Track | None] = [None] * MOST_TAPS

    def __len__(self) -> int:
        """Packets at all taps."""
        return sum(len(track) for track in self.at if track is not None)

    def forget(self, before_ns: int) -> int:
        """`Track.forget` at every tap."""
        return sum(track.forget(before_ns) for track in self.at if track is not None)


_Kept = TypeVar("_Kept", bound=Tracks)


def sort_in(data: bytearray, tap: int, known: dict[int, _Kept], make: Callable[[], _Kept]) -> tuple[int, list[bytes]]:
    """Put packets (`Packets.data`) that a tap has seen where their connections are kept; ``known`` is by number, and
    ``make`` makes what one is kept in.

    Returns by how many packets there are more now, and those with SYN. Raises `IndexError` for a tap that cannot be.
    """
    kept = 0
    opening: list[bytes] = []
    rows = bytes(data)
    for at, (_, number, flags) in enumerate(_KEY.iter_unpack(rows)):
        tracks = known.get(number)
        if tracks is None:
            tracks = known[number] = make()
        track = tracks.at[tap]
        if track is None:
            track = tracks.at[tap] = Track()
        row = rows[at * WIDTH : (at + 1) * WIDTH]
        kept -= len(track)
        track.add(row)
        kept += len(track)
        if flags & SYN:
            opening.append(row)
    return kept, opening
