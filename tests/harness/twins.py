"""The two forms of a module side by side: what a test of the compiled one compares it with."""

from __future__ import annotations

import importlib.util
from collections.abc import Callable
from pathlib import Path
from types import ModuleType

import proxy
from proxy.errors import Fault

COMPILED = proxy.build() == "compiled"
"""Whether this process runs the compiled form; where it does not, a module is its own twin."""

HEAD_PARTS = ("method", "target", "mark", "plain", "status", "reason", "minor", "fields")


def python_form(name: str) -> ModuleType:
    """The module ``name`` from its Python file, beside whichever form is in use."""
    path = Path(proxy.__file__).parent.joinpath(*name.split(".")[1:]).with_suffix(".py")
    spec = importlib.util.spec_from_file_location(f"python_form_of_{name.replace('.', '_')}", path)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def outcome(scan: Callable[..., object], head: bytes, *arguments: object) -> tuple[object, ...]:
    """All there is to see of a scan: the parts of the head in order, or the fault."""
    try:
        made = scan(head, *arguments)
    except Fault as fault:
        return fault.kind, fault.detail
    parts = [getattr(made, part, None) for part in HEAD_PARTS]
    return (*parts, list(made.noted.items()), made.lines, repr(made))  # type: ignore[attr-defined] # either head
