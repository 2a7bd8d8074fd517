"""The one clock of all stamps: Unix time in nanoseconds.

A module of its own since it is asked six times per request: compiled, ``now.pyx`` beside it answers with a plain call
of the C library instead.
"""

from time import time_ns

__all__ = ["time_ns"]
