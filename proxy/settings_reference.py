"""The settings reference: docs/settings.md, and what `spanway serve --help` says of settings without a flag.

``python -m proxy.settings_reference`` prints the page; `./dev docs` writes it; a test holds it current.
"""

from __future__ import annotations

import sys
import textwrap
from collections.abc import Iterator, Sequence
from typing import Final

from proxy.catalogue import DEV, LACKS, Entry, catalogue, sections
from proxy.settings import Limits, Settings, Timeouts, Tracing
from proxy.settings_cluster import Cluster
from proxy.settings_wire import Wire

INTRODUCTION: Final = """\
# Settings

<!-- Written by './dev docs' from proxy/settings.py. Edit that file, not this one. -->

Each setting can be given in up to four places. Where several give it, the first of these wins:

1. a **flag** of `spanway serve` and `spanway controller` (`spanway dev` and `spanway demo` take
   [most of them](#spanway-dev-and-spanway-demo));
2. an **environment variable**: its own, `SPANWAY_` and its name, before the OpenTelemetry variable listed beside it;
3. the **file** that `--config FILE` or `SPANWAY_CONFIG` names;
4. the **default** below.

What cannot be used is an error that names the place, down to the file's line, and Spanway does not start.
Only the `OTEL_*` variables follow their own specification: a value that cannot be used is ignored, with a warning.

How values are written:

| kind | written as |
|---|---|
| time | seconds, or with a unit: `60`, `1.5`, `500ms`, `2m`, `1h` (in `OTEL_*` variables always milliseconds) |
| bytes | a number, or with a unit in powers of 1024: `8192`, `8KiB`, `1m` |
| address | `[HOST:]PORT`: `8080`, `127.0.0.1:8080`, `[::1]:8080`; port 0 lets the kernel choose |
| list | members separated by commas (overrides: by spaces); in the file also an array; `none`: the empty list |
| pairs | `KEY=VALUE,KEY=VALUE`, percent-decoded; in the file also a table |
| true, false | also `yes`, `no`, `on`, `off`, `1`, `0` |

An empty environment variable counts as absent. Relative paths are relative to the working directory.

An example file:

```toml
ingress = ["manifests/"]
http = [8080, "[::1]:8080"]
access-log = "off"

[timeouts]
idle = "2m"

[tracing]
endpoint = "http://collector:4317"
resource = { "deployment.environment.name" = "staging" }
```
"""

TITLES: Final = {
    "": ("Serving", Settings.__doc__),
    "limits": ("Limits", Limits.__doc__),
    "timeouts": ("Timeouts", Timeouts.__doc__),
    "tracing": ("Tracing", Tracing.__doc__),
    "wire": ("The wire", Wire.__doc__),
    "cluster": ("In a cluster", Cluster.__doc__),
}

DEV_HEADING: Final = """\
## `spanway dev` and `spanway demo`

They are for one developer at one machine. Where nothing else is said they have these defaults:

| setting | `serve` | `dev` and `demo` |
|---|---|---|"""

ENDING: Final = """\
## OpenTelemetry variables without a setting of their own

| variable | effect |
|---|---|
| `OTEL_SDK_DISABLED` | `true`: nothing is recorded or exported; context is still passed on |
| `OTEL_TRACES_EXPORTER` | `none`: export is off; `otlp`: export, by default to `http://localhost:4317` |
"""


def markdown() -> str:
    """The page docs/settings.md."""
    defaults = Settings()
    parts = [INTRODUCTION]
    for section in ("", *sections()):
        title, text = TITLES[section]
        table = f" (table `[{section}]` of the file)" if section else ""
        parts.append(f"## {title}{table}\n\n{text}\n")
        parts.append("| setting | flag | variables | default | meaning |\n|---|---|---|---|---|")
        parts += [_row(entry, defaults) for entry in catalogue().values() if entry.section == section]
        parts.append("")
    parts += [*_developing(defaults), "", ENDING]
    return "\n".join(parts)


def _developing(defaults: Settings) -> Iterator[str]:
    """What `dev` and `demo` have otherwise, and the flags they lack."""
    yield DEV_HEADING
    for entry in catalogue().values():
        if (own := entry.written(DEV)) != (usual := entry.written(defaults)):
            yield f"| `{entry.key.replace('_', '-')}` | `{usual}` | `{own.replace(',', ', ')}` |"
    for command, lacks in LACKS.items():
        yield ""
        reasons: dict[str, list[str]] = {}
        for flag, why in lacks.items():
            reasons.setdefault(why, []).append(f"`--{flag}`")
        listed = "; ".join(f"{', '.join(flags)} ({why.replace(chr(39), '`')})" for why, flags in reasons.items())
        yield f"`spanway {command}` lacks these flags: {listed}."
    yield ""
    yield "`spanway demo` needs its admin listener: no `--admin off`. Where a port is taken it chooses another."


def _row(entry: Entry, defaults: Settings) -> str:
    flag = f"`--{entry.meaning.flag} {entry.placeholder}`" if entry.meaning.flag else ""
    if entry.kind is bool and flag:
        flag = f"`--{entry.meaning.flag}`, `--no-{entry.meaning.flag}`"
    variables = "<br>".join(f"`{name}`" for name in (entry.variable, *entry.meaning.otel))
    written = entry.written(defaults)
    default = f"`{written.replace(',', ', ')}`" if written else "none"
    meaning = entry.meaning.text
    if entry.choices and entry.placeholder != "|".join(entry.choices):
        meaning += f"; of {', '.join(entry.choices)}"
    if entry.meaning.source:
        meaning += f" ({entry.meaning.source})"
    cells = (f"`{entry.name.replace('_', '-')}`", flag, variables, default, meaning)
    return "| " + " | ".join(cell.replace("|", "\\|") for cell in cells) + " |"


def further(width: int, among: Sequence[str]) -> str:
    """The settings without a flag in these sections, for `--help`: variable, meaning, default.

    Lines are of at most ``width`` characters.
    """
    entries = [entry for entry in catalogue().values() if not entry.meaning.flag and entry.section in among]
    column = max(len(entry.variable) for entry in entries) + 4
    lines = [
        textwrap.fill(
            f"{'  ' + entry.variable:<{column}}{explained(entry, Settings())}",
            width,
            subsequent_indent=" " * column,
            drop_whitespace=True,
            break_on_hyphens=False,
        )
        for entry in entries
    ]
    heading = "settings without a flag, by environment variable (in the file: without SPANWAY_, docs/settings.md):"
    return "\n".join([textwrap.fill(heading, width), *lines])


def explained(entry: Entry, defaults: Settings, variable: str = "") -> str:
    """One line: the meaning, the words allowed, ``variable``, OpenTelemetry's, and the default where there is one."""
    default = entry.written(defaults).replace(",", ", ")
    if entry.kind is bool and default == "false":
        default = ""
    text = entry.meaning.text
    if entry.choices and entry.placeholder != "|".join(entry.choices):
        text += f"; of {', '.join(entry.choices)}"
    notes = "; ".join(note for note in (variable, *entry.meaning.otel[-1:], default and f"default {default}") if note)
    return f"{text} [{notes}]" if notes else text


if __name__ == "__main__":
    sys.stdout.write(markdown())
