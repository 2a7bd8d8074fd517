"""What is wrong with the configuration, said so that its author can mend it."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final, Literal

import msgspec

if TYPE_CHECKING:
    from proxy.control.objects import Place

_LONGEST: Final = 80  # characters of a quoted value: enough to find it, too little to leak much of it


class Problem(msgspec.Struct, frozen=True):
    """One mistake: where it stands, what was expected there, and the next step.

    An **error** is something that an API server would have refused, or a value that cannot mean anything: a table
    with an error in its files is not taken over. A **warning** is everything that can still be served around: what is
    named but missing, ignored, unsupported or about to expire.

    ``kind``, ``namespace`` and ``name`` say the object, ``file`` and ``line`` (from 1, 0 if unknown) the place;
    whichever does not apply is empty. ``field`` is a path such as ``spec.rules[0].host``.
    """

    severity: Literal["error", "warning"]
    message: str
    hint: str = ""
    kind: str = ""
    namespace: str = ""
    name: str = ""
    file: str = ""
    line: int = 0
    field: str = ""

    def __str__(self) -> str:
        place = f"{self.file}:{self.line}: " if self.file and self.line else f"{self.file}: " if self.file else ""
        name = f"{self.namespace}/{self.name}" if self.namespace else self.name
        subject = ": ".join(part for part in (f"{self.kind} {name}".strip(), self.field) if part)
        hint = f" ({self.hint})" if self.hint else ""
        return f"{place}{self.severity}: {f'{subject}: ' if subject else ''}{self.message}{hint}"


def quoted(value: str) -> str:
    """A value from a manifest as a message may show it: in quotes, controls escaped, cut short.

    Never give it what a Secret holds.
    """
    return repr(value if len(value) <= _LONGEST else f"{value[: _LONGEST - 3]}...")


class Subject:
    """The object that is being looked at, and the problems found in it."""

    __slots__ = ("_place", "kind", "name", "namespace", "problems")

    def __init__(self, kind: str, namespace: str, name: str, place: Place) -> None:
        self.kind: Final = kind
        self.namespace: Final = namespace
        self.name: Final = name
        self._place: Final = place
        self.problems: Final[list[Problem]] = []

    def __repr__(self) -> str:
        return f"Subject({self.kind} {self.namespace}/{self.name}, {len(self.problems)} problems)"

    def error(self, field: str, message: str, hint: str = "") -> None:
        """Note an error in a field ("" for the object as a whole)."""
        self.problems.append(self._problem("error", field, message, hint))

    def warning(self, field: str, message: str, hint: str = "") -> None:
        """Note a warning."""
        self.problems.append(self._problem("warning", field, message, hint))

    def _problem(self, severity: Literal["error", "warning"], field: str, message: str, hint: str) -> Problem:
        return Problem(
            severity=severity,
            message=message,
            hint=hint,
            kind=self.kind,
            namespace=self.namespace,
            name=self.name,
            file=self._place.file,
            line=self._place.line(field),
            field=field,
        )

    @property
    def broken(self) -> bool:
        """Whether an error has been noted."""
        return any(problem.severity == "error" for problem in self.problems)
