"""The tables of docs/migrate-from-ingress-nginx.md, made from the annotations as they are read.

``python -m proxy.control.annotation_reference docs/migrate-from-ingress-nginx.md`` renews them; a test keeps the page
current.
"""

from __future__ import annotations

import sys
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Final

from proxy.control.annotation_others import ALREADY, GROUPS, SNIPPETS, SNIPPETS_INSTEAD, SNIPPETS_WHY
from proxy.control.annotation_rows import NGINX, ROWS
from proxy.trace.semconv import renew, section

SOURCE: Final = "proxy/control/annotation_rows.py and annotation_others.py"


def _table(*rows: Iterable[str]) -> Iterator[str]:
    for number, row in enumerate(rows):
        cells = [cell.replace("|", "\\|") for cell in row]
        yield "| " + " | ".join(cells) + " |"
        if not number:
            yield "|" + "---|" * len(cells)


def _code(names: Iterable[str]) -> str:
    return ", ".join(f"`{name}`" for name in names)


def supported() -> str:
    """What has an effect, and where it differs."""
    rows = [("annotation", "without it", "differs from ingress-nginx")]
    for row in ROWS:
        name = f"`{row.name}`" if NGINX in row.prefixes else f"`spanway.io/{row.name}` only"
        rows.append((name, row.default, row.differs))
    return "\n".join(_table(*rows))


def others() -> str:
    """What has none, why, and what to do instead."""
    rows = [("annotations", "why", "instead")]
    rows += [(_code(group.names), group.why, group.instead) for group in GROUPS]
    return "\n".join(_table(*rows))


def refused() -> str:
    """What is an error."""
    return "\n".join(_table(("annotations", "why", "instead"), (_code(SNIPPETS), SNIPPETS_WHY, SNIPPETS_INSTEAD)))


def already() -> str:
    """What asks for what is done anyway."""
    return ", ".join(f"`{name}: {value}`" for name, value in sorted(ALREADY.items()))


def sections() -> dict[str, str]:
    """Every generated part of the page between its markers, by name."""
    parts = {"supported": supported, "others": others, "refused": refused, "already": already}
    return {name: section(name, SOURCE, part()) for name, part in parts.items()}


def main(arguments: list[str]) -> None:
    """Print every part; with the path of a page, renew its parts in place."""
    if arguments:
        path = Path(arguments[0])
        path.write_text(renew(path.read_text("utf-8"), sections()), "utf-8")
    else:
        sys.stdout.write("\n\n".join(sections().values()) + "\n")


if __name__ == "__main__":
    main(sys.argv[1:])
