"""Annotations as typed data: one row each, no templates, nothing ignored in silence.

Semantics and defaults are those of ingress-nginx (its annotations reference). Every row is read under both prefixes;
``spanway.io/`` goes before ``nginx.ingress.kubernetes.io/``, which exists for those who migrate. What an annotation
cannot mean is an error of its object, and so is a snippet. What Spanway does not do is a warning. Where a protection is
asked for that cannot be given, the Ingress is closed: its requests get 503, as in ingress-nginx.

To support one more: give `Options` a field and `ROWS` a row, and take its name out of `annotation_others`.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from difflib import get_close_matches
from typing import Any, Final

import msgspec

from proxy.control.annotation_others import ALREADY, KNOWN, OTHERS, PROTECTING, SNIPPETS, SNIPPETS_INSTEAD, SNIPPETS_WHY
from proxy.control.annotation_rows import NGINX, OURS, PREFIXES, ROWS, Options, Row
from proxy.control.annotation_values import MOST_TRIES, InvalidValue, UnsupportedValue
from proxy.control.problem import Subject, quoted

__all__ = ["ALREADY", "KNOWN", "MOST_TRIES", "NGINX", "OURS", "ROWS", "SNIPPETS", "Options", "options_of"]

MOST_TOLD: Final = 50  # annotations without effect that are looked at one by one; an API server takes 256 KiB of them

_BY_NAME: Final = {row.name: row for row in ROWS}
_GUARDS: Final = ("allow", "deny")  # fields of which a value that cannot be read must not leave the door open


def options_of(
    annotations: Mapping[str, str], defaults: Options, subject: Subject, most_tries: int = MOST_TRIES
) -> Options:
    """The options that an Ingress's annotations give, ``defaults`` where they give none or cannot be used.

    More than ``most_tries`` attempts are made for no request, whatever an annotation says.
    """
    found: dict[str, Any] = {}
    untold = -MOST_TOLD
    for prefix, name, value in _ours(annotations):
        field = f"metadata.annotations[{prefix}{name}]"
        row = _BY_NAME.get(name)
        if row is None or prefix not in row.prefixes:
            untold += 1
            if untold > 0 and name not in PROTECTING and name not in SNIPPETS:
                continue
            if _report(name, prefix, value, field, subject):
                found.setdefault("closed", f"{prefix}{name} is not supported")
        else:
            _read(row, value, field, found, subject, most_tries)
    if untold > 0:
        subject.warning(
            "metadata.annotations", f"about {untold} more that have no effect are not listed", "remove them"
        )
    if found.get("hash_by"):
        found["policy"] = "hash"  # ingress-nginx: upstream-hash-by goes before load-balance
    if found.get("service_upstream"):
        found["tries"] = 1  # ingress-nginx: proxy_next_upstream has no effect
    return msgspec.structs.replace(defaults, **found)


def _ours(annotations: Mapping[str, str]) -> Iterator[tuple[str, str, str]]:
    for prefix in PREFIXES:
        for name, value in sorted(annotations.items()):
            if name.startswith(prefix):
                yield prefix, name[len(prefix) :], value


def _read(row: Row, value: str, field: str, found: dict[str, Any], subject: Subject, most_tries: int) -> None:
    try:
        parsed = row.parse(value)
    except InvalidValue as exc:
        subject.error(field, f"{quoted(value)} cannot be used", str(exc))
        if row.field in _GUARDS:
            found.setdefault("closed", f"{row.name} cannot be read")
        return
    except UnsupportedValue as exc:
        subject.warning(field, str(exc))
        return
    if row.field == "tries" and parsed > most_tries:
        _report_tries(value, field, most_tries, subject)
        parsed = most_tries
    if found.setdefault(row.field, parsed) != parsed:  # the first prefix goes first
        subject.warning(field, "has no effect: the same is said otherwise by an annotation that goes first", "keep one")


def _report_tries(value: str, field: str, most: int, subject: Subject) -> None:
    if int(value):  # 0 is as many as there may be, and gets them
        hint = f"write {most} or less, or raise the setting retry-tries"
        subject.warning(
            field, f"{quoted(value)} is more than the setting retry-tries allows: it counts as {most}", hint
        )


def _report(name: str, prefix: str, value: str, field: str, subject: Subject) -> bool:
    """An annotation under our prefixes that sets nothing; returns whether it closes its Ingress."""
    if name in SNIPPETS:
        subject.error(field, SNIPPETS_WHY, SNIPPETS_INSTEAD)
        return False
    if ALREADY.get(name) == value.strip().lower():
        return False
    if name in PROTECTING:
        hint = f"{OTHERS[name].instead}; then remove it"
        subject.warning(field, "is not supported yet, and protects what is behind it: requests get 503", hint)
        return True
    if name in KNOWN:
        subject.warning(field, "is not supported and has no effect", f"{OTHERS[name].why}: {OTHERS[name].instead}")
        return False
    names = [row.name for row in ROWS if prefix in row.prefixes]
    near = get_close_matches(name[:100], [*names, *KNOWN], 1, 0.8)
    hint = f"did you mean {prefix}{near[0]}?" if near else f"known are {', '.join(sorted(names))}"
    subject.warning(field, "is unknown and has no effect", hint)
    return False
