"""What keeps packets: `tracks`, unless its compiled twin ``track.pyx`` stands in this module's place. Both keep the
same; what, and in which order, `tracks` says.
"""

from proxy.layers.tracks import MOST_TAPS, PACKETS, WIDTH, Track, Tracks, sort_in

__all__ = ["MOST_TAPS", "PACKETS", "WIDTH", "Track", "Tracks", "sort_in"]
