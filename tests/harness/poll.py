"""Bounded waiting for something another process does: the only place in the harness that sleeps."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import TypeVar

T = TypeVar("T")

#: Seconds. Generous, since it is only ever used up by a failing test.
PATIENCE = 10.0
_STEP = 0.005


def until(probe: Callable[[], T], what: str, timeout: float = PATIENCE) -> T:
    """The first truthy value of ``probe``, asked again and again; AssertionError naming ``what`` after ``timeout``."""
    deadline = time.monotonic() + timeout
    while True:
        value = probe()
        if value:
            return value
        if time.monotonic() > deadline:
            raise AssertionError(f"waited {timeout:g} s in vain for {what}; last seen: {value!r}")
        time.sleep(_STEP)


def stalls(progress: Callable[[], int], limit: int, what: str) -> int:
    """The value at which ``progress`` stops growing, which must be below ``limit``."""
    last, since = progress(), time.monotonic()
    while time.monotonic() - since < 0.7:
        now = progress()
        assert now < limit, f"{what}: {now} bytes went through against nobody"
        if now != last:
            last, since = now, time.monotonic()
        time.sleep(0.02)
    return last
