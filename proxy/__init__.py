"""Spanway: an ingress proxy that traces every request through every layer it crosses.

Reading the package from top to bottom is a request walking through the house: `accept` takes its connection, `http1`
reads its head, `admit` judges it, `route` finds its way, `balance` an endpoint, `connect` a connection, `relay` moves
the bytes; `exchange` tells the story, `trace` remembers it.
"""

import os
import sys
from importlib.machinery import SOURCE_SUFFIXES, FileFinder, ModuleSpec, SourceFileLoader
from importlib.util import find_spec
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from collections.abc import Sequence
    from types import ModuleType

__version__: Final = "0.1.0"

PURE: Final = os.environ.get("SPANWAY_PURE", "") not in ("", "0")
"""Whether compiled modules are to be left alone, where there are any."""


class _Sources:
    """Finds our modules as Python files only: without it, a compiled module stands before the file of its name."""

    @staticmethod
    def find_spec(name: str, path: "Sequence[str] | None", target: "ModuleType | None" = None) -> ModuleSpec | None:
        if path is None or not name.startswith("proxy."):
            return None
        for folder in path:
            found = FileFinder(folder, (SourceFileLoader, SOURCE_SUFFIXES)).find_spec(name, target)
            if found is not None:
                return found
        return None


if PURE:
    sys.meta_path.insert(0, _Sources)


def build() -> str:
    """Which of its two forms the proxy runs in, in words."""
    spec = find_spec("proxy.exchange")
    if spec is not None and spec.origin is not None and not spec.origin.endswith(".py"):
        return "compiled"
    return "pure Python, by SPANWAY_PURE" if PURE else "pure Python, not compiled"
