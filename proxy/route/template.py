"""Text with nginx variables and capture groups in it: ``/api/$1``, ``https://new.example.org$request_uri``.

A template is data that is looked through once: literals, groups and names, in order. What comes out of a group or a
variable is never looked at again, so nothing that a client sends can become a variable.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Collection, Mapping, Sequence
from typing import Any, Final, TypeAlias

Part: TypeAlias = bytes | int | str
"""A literal, the number of a group, or the name of a variable."""

# nginx's scripts know groups of one digit only, so that $10 is the first group and a zero.
_PLACE: Final = re.compile(r"\$(?:([1-9])|([a-z_][a-z0-9_]*)|\{([a-z_][a-z0-9_]*)\})?", re.IGNORECASE)


class TemplateError(Exception):
    """A template that cannot mean anything; the text says why."""


def parse(text: str, variables: Collection[str] = (), *, groups: bool = True) -> tuple[Part, ...]:
    """The parts of a template of ASCII text.

    Raises `TemplateError` for a name that is not in ``variables``, and for a group where ``groups`` is False.
    """
    parts: list[Part] = []
    end = 0
    for found in _PLACE.finditer(text):
        if found.start() > end:
            parts.append(text[end : found.start()].encode("ascii"))
        end = found.end()
        group, plain, braced = found.groups()
        name = (plain or braced or "").lower()
        if group and groups:
            parts.append(int(group))
        elif name and name in variables:
            parts.append(name)
        else:
            known = [*(["$1 to $9"] if groups else []), *(f"${each}" for each in variables)]
            hint = f"what is known here is {', '.join(known)}" if known else "no variables are known here"
            raise TemplateError(f"'{found[0]}' is unknown: {hint}")
    if end < len(text):
        parts.append(text[end:].encode("ascii"))
    return tuple(parts)


def fill(
    parts: Sequence[Part],
    groups: Sequence[bytes | None],
    values: Mapping[str, Callable[[Any], bytes]] | None = None,
    source: object = None,
) -> bytes:
    """The text of a template; a variable is what ``values`` makes of ``source``.

    ``groups`` are those of a match, from the first. One that took no part, or that there is none of, is empty.
    """
    out = []
    for part in parts:
        if isinstance(part, bytes):
            out.append(part)
        elif isinstance(part, int):
            out.append((groups[part - 1] if part <= len(groups) else None) or b"")
        elif values is not None:
            out.append(values[part](source))
    return b"".join(out)


def substitute(text: str, values: Mapping[str, str]) -> str:
    """``text`` with the variables of ``values`` filled in; any other stays as it is."""

    def one(found: re.Match[str]) -> str:
        name = (found[2] or found[3] or "").lower()
        return values.get(name, found[0]) if name else found[0]

    return _PLACE.sub(one, text)
