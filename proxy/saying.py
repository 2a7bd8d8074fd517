"""What the program says to whoever runs it: one line on standard error."""

from __future__ import annotations

import contextlib
import sys


def say(text: str) -> None:
    """Write one line, whatever the text holds, if anybody can read it.

    A log collector that went away, a full disk or a closed terminal must not end what serves: it says it in callbacks,
    where an OSError (or the ValueError of a closed stream) would be somebody else's failure.
    """
    if sys.stderr is None:  # pythonw, or a service that closed descriptor 2 before the start
        return
    line = " ".join(filter(None, (part.strip() for part in text.splitlines())))
    with contextlib.suppress(OSError, ValueError):
        sys.stderr.write(f"spanway: {line}\n")
        sys.stderr.flush()


def flush() -> None:
    """Write out what both streams hold back, as far as that can be done."""
    for stream in (sys.stdout, sys.stderr):
        if stream is not None:
            with contextlib.suppress(OSError, ValueError):
                stream.flush()
