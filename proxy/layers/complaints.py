"""What `spanway wire` complains of: a line at a time, the same thing once a minute, and no bug is fatal."""

from __future__ import annotations

import time
import traceback
from typing import TYPE_CHECKING, Final

from proxy.saying import say

if TYPE_CHECKING:
    from collections.abc import Callable

REPEAT: Final = 60.0  # seconds until the same complaint is made again
MOST: Final = 64  # complaints remembered


class Complaints:
    """Says what is wrong, without flooding whoever reads it: strangers may cause the same trouble at will."""

    def __init__(self) -> None:
        self._until: dict[str, float] = {}

    def __repr__(self) -> str:
        return f"Complaints({len(self._until)} remembered)"

    def make(self, text: str, about: str = "") -> None:
        """Say it, but the same thing, or anything ``about`` the same, only once a minute."""
        now, about = time.monotonic(), about or text
        if now >= self._until.get(about, 0.0):
            if len(self._until) >= MOST:
                self._until.clear()
            self._until[about] = now + REPEAT
            say(" ".join(text.split()))  # a library's message may be of several lines

    def guard(self, what: Callable[[], None]) -> bool:
        """Do it, and go on if it fails: one record or ring that is beyond us must not end the others. Says whether it
        was done."""
        try:
            what()
        except Exception as problem:
            self.make(f"a bug, please report it: {''.join(traceback.format_exception(problem))}", repr(problem))
            return False
        return True
