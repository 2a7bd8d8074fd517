"""What a setting means, said once beside its default: for `--help`, docs/settings.md, the check of its value."""

from __future__ import annotations

from dataclasses import field
from typing import Any, Literal, NamedTuple


class Meaning(NamedTuple):
    """What a setting means, for `--help`, the reference and the check of its value.

    ``flag`` is its command-line flag without dashes ("" for none), ``otel`` the OpenTelemetry variables that set it:
    the first present wins. ``least`` and ``most`` bound a number; ``choices`` are the only words allowed, or the
    only words allowed in a list.
    """

    text: str
    unit: Literal["", "s", "bytes"] = ""
    source: str = ""
    flag: str = ""
    value: str = ""
    otel: tuple[str, ...] = ()
    least: float | None = None
    most: float | None = None
    choices: tuple[str, ...] = ()
    secret: bool = False


def setting(default: Any, text: str, **meaning: Any) -> Any:
    """A dataclass field that carries its `Meaning`; a callable default makes a fresh value per instance."""
    metadata = {"meaning": Meaning(text, **meaning)}
    if callable(default):
        return field(default_factory=default, metadata=metadata)
    return field(default=default, metadata=metadata)


def otlp(name: str) -> tuple[str, ...]:
    """The variables of an OTLP exporter option: the one for traces, then the one for every signal."""
    return f"OTEL_EXPORTER_OTLP_TRACES_{name}", f"OTEL_EXPORTER_OTLP_{name}"
