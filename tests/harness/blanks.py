"""Every function and method of the compiled modules called with what it was not made for: it may raise, never crash.

    python -m tests.harness.blanks

A program, as a crash ends the process. Objects are blank: made by ``__new__`` alone, so that every attribute of a
compiled class is None or zero, as it is while a constructor runs or once the garbage collector has cleared a cycle.
"""

from __future__ import annotations

import contextlib
import faulthandler
import importlib
import logging
import sys
import warnings
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import proxy

MOST = 8  # arguments; no function that is compiled takes more
# Python's own, and what would end or change the class rather than use the object.
LEFT_OUT = {"__class__", "__del__", "__delattr__", "__getattribute__", "__init_subclass__", "__new__", "__setattr__"}


def modules() -> Iterator[Any]:
    """The modules that have types."""
    root = Path(proxy.__file__).parent
    for path in sorted(root.rglob("*.pxd")):
        yield importlib.import_module(".".join(("proxy", *path.relative_to(root).with_suffix("").parts)))


def blank(kind: Any) -> Any:
    """An object that no constructor has seen; None if there is none."""
    with contextlib.suppress(TypeError):
        return kind.__new__(kind)
    return None


def call(function: Any, values: list[Any]) -> int:
    """Call ``function`` with up to `MOST` arguments: all of one value, or that value and then None."""
    calls = 0
    for count in range(MOST + 1):
        for value in values:
            for arguments in ([value] * count, [value, *[None] * (count - 1)][:count]):
                calls += 1
                with contextlib.suppress(Exception):
                    result = function(*arguments)
                    if hasattr(result, "close"):
                        result.close()  # a coroutine, which nobody is to wait for
    return calls


def main() -> int:
    """Call everything there is; returns how many calls that were."""
    faulthandler.enable()
    logging.disable()
    warnings.simplefilter("ignore")
    loaded = list(modules())
    kinds = {
        each for module in loaded for each in vars(module).values()
        if isinstance(each, type) and each.__module__ == module.__name__
    }  # fmt: skip
    ordered = sorted(kinds, key=lambda kind: kind.__qualname__)
    values = [None, b"", "", 0, *filter(None.__ne__, map(blank, ordered))]
    calls = 0
    for module in loaded:
        for each in list(vars(module).values()):
            if callable(each) and not isinstance(each, type) and getattr(each, "__module__", None) == module.__name__:
                calls += call(each, values)
    for kind in ordered:
        for name in sorted(set(dir(kind)) - LEFT_OUT):
            with contextlib.suppress(Exception):
                method = getattr(blank(kind), name)
                if callable(method):
                    calls += call(method, values)
    return calls


if __name__ == "__main__":
    print(f"{main()} calls of the {proxy.build()} form")
    sys.exit(0)
