"""Numbers as people read them in a terminal."""

from __future__ import annotations


def duration(ns: float) -> str:
    """Nanoseconds in three significant digits: ``850 µs``, ``12.3 ms``, ``1.84 s``, ``2 m 05 s``."""
    us = ns / 1000
    if us < 999.5:
        return f"{us:.0f} µs" if us >= 9.95 or us == 0 else f"{us:.1f} µs"
    ms = us / 1000
    if ms < 999.5:
        return f"{_three_digits(ms)} ms"
    seconds = ms / 1000
    if seconds < 99.95:
        return f"{_three_digits(seconds)} s"
    minutes, rest = divmod(round(seconds), 60)
    return f"{minutes} m {rest:02d} s"


def _three_digits(value: float) -> str:
    if value < 9.995:
        return f"{value:.2f}"
    return f"{value:.1f}" if value < 99.95 else f"{value:.0f}"


def share(part: float, whole: float) -> str:
    """A share in percent, never rounded up to all or down to nothing: ``78 %``, ``<1 %``, ``>99 %``."""
    if whole <= 0 or part <= 0:
        return "0 %"
    percent = 100 * part / whole
    if percent < 1:
        return "<1 %"
    if 99 < percent < 100:
        return ">99 %"
    return f"{percent:.0f} %"


def count(number: int, one: str, many: str = "") -> str:
    """A number with its noun: ``1 span``, ``2 spans``, ``12,400 requests``."""
    return f"{number:,} {one if number == 1 else many or one + 's'}"
