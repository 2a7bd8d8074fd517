"""`spanway wire` whose spans have a child for the backend always: `python -m tests.real.wire_telling ARGUMENT..`.

As a rule a place has one where it mattered. So every request's window of the backend can be held against its own times.
"""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING

from proxy.cli import main
from proxy.layers import spans
from proxy.layers.split import BACKEND

if TYPE_CHECKING:
    from proxy.layers.split import Split
    from proxy.trace.handover import Record


def tell() -> None:
    """Have the spans that this process makes be so."""
    whole = spans._mattered

    def mattered(record: Record, split: Split) -> list[tuple[str, int, int]]:
        """What matters, and the backend."""
        found = whole(record, split)
        if all(name != BACKEND for name, *_ in found) and BACKEND in (marks := split.marks()):
            found.append((BACKEND, *marks[BACKEND]))
        return found

    vars(spans)["_mattered"] = mattered


if __name__ == "__main__":
    tell()
    sys.exit(main(sys.argv[1:]))
