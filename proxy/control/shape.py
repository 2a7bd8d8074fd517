"""What a decoder or a reader says of a value of the wrong shape, in words for the person who wrote it."""

from __future__ import annotations

import re
from collections.abc import Iterator
from difflib import get_close_matches
from typing import Any, Final

import msgspec

_EXPECTED: Final = re.compile(r"Expected `([^`]+)`, got `([^`]+)`")
_MISSING: Final = re.compile(r"Object missing required field `([^`]+)`")
_WORDS: Final = {
    "object": "a mapping",
    "array": "a list",
    "str": "a text",
    "int": "a whole number",
    "float": "a number",
    "bool": "true or false",
    "null": "empty",
    "int | str": "a number or a text",
}


def explain(error: msgspec.ValidationError, value: Any) -> tuple[str, str, str]:
    """msgspec's sentence as ours: (message, field path, hint). It never quotes values."""
    message, _, where = str(error).partition(" - at ")
    field = where.strip("`").removeprefix("$").removeprefix(".")
    if field.endswith("[...]"):
        field = _first_wrong(field.removesuffix("[...]"), value)
    if missing := _MISSING.match(message):
        return f"{missing[1]} is missing", field, ""
    expected = _EXPECTED.match(message)
    if expected is None:
        return message, field, ""
    wanted, got = expected[1].removesuffix(" | null"), expected[2]
    hint = ""
    if wanted == "str" and got in ("int", "float", "bool"):
        hint = "put the value in quotes"
    elif wanted == "int" and got == "str":
        hint = "write the number without quotes"
    return f"must be {_WORDS.get(wanted, wanted)}, not {_WORDS.get(got, got)}", field, hint


def _first_wrong(field: str, value: Any) -> str:
    """The first value of a mapping of texts that is none; msgspec only says that there is one."""
    for part in field.split("."):
        value = value.get(part, {}) if isinstance(value, dict) else {}
    if isinstance(value, dict):
        for key, found in value.items():
            if not isinstance(found, str):
                return f"{field}[{key}]"
    return field


def unknown_fields(value: Any, shape: msgspec.inspect.Type, field: str) -> Iterator[tuple[str, str]]:
    """Every field of a value that its type does not have, with a hint: decoding skips them, as API servers may."""
    if isinstance(shape, msgspec.inspect.UnionType):
        shape = next(one for one in shape.types if not isinstance(one, msgspec.inspect.NoneType))
    if isinstance(shape, msgspec.inspect.VarTupleType) and isinstance(value, list):
        for number, item in enumerate(value):
            yield from unknown_fields(item, shape.item_type, f"{field}[{number}]")
    elif isinstance(shape, msgspec.inspect.StructType) and isinstance(value, dict):
        known = {one.encode_name: one.type for one in shape.fields}
        for key, item in value.items():
            if key in known:
                yield from unknown_fields(item, known[key], f"{field}.{key}")
            else:
                near = get_close_matches(key, known, 1)
                yield f"{field}.{key}", f"did you mean {near[0]}?" if near else f"it has {', '.join(known)}"
