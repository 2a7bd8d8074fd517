"""A report for people: a stacked bar per route and percentile, who owns the tail, what was lost, what was joined."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Final

import msgspec
from rich.console import Console, Group, RenderableType
from rich.style import Style
from rich.table import Table
from rich.text import Text

from proxy.admin.labels import clean
from proxy.admin.units import count, duration, share
from proxy.layers.coverage import REASONS
from proxy.layers.report import APPLICATION, BACKEND, BANDS, CONNECT, PROXY, report
from proxy.layers.report_source import from_admin, from_file

if TYPE_CHECKING:
    from proxy.layers.coverage import Coverage
    from proxy.layers.report import Report, RouteReport

BAR: Final = 40  # characters of a bar, which is the whole of a request
FEW: Final = 100  # requests below which a p99 is the slowest one

DIM: Final = Style(dim=True)
_OWN: Final = {PROXY: "cyan", CONNECT: "bright_black", BACKEND: "yellow", APPLICATION: "green"}
_PLACES: Final = ("magenta", "blue", "bright_magenta", "bright_blue", "red", "bright_cyan", "bright_red")
_PLAIN: Final = "#=+:%*o~x-"  # the same without colour: one sign per layer


def run(file: str | None, seconds: float | None, admin: str, *, as_json: bool) -> int:
    """``spanway layers``: report on a file, else on a proxy's traces; returns 0 where anything was joined.

    Raises `SettingsError` for what cannot be read.
    """
    spans = from_file(Path(file)) if file is not None else from_admin(admin, seconds or 0.0)
    made = report(spans)
    show(made, as_json=as_json)
    return 0 if made.coverage.joined else 1


def show(made: Report, *, as_json: bool, console: Console | None = None) -> None:
    """Write a report to standard output."""
    if as_json:
        sys.stdout.buffer.write(msgspec.json.format(msgspec.json.encode(made), indent=1) + b"\n")
        sys.stdout.flush()
        return
    console = console or Console(highlight=False)
    plain = console.color_system is None or console.no_color or console.options.ascii_only
    console.print(Group(*_parts(made, plain)))


def _parts(made: Report, plain: bool) -> Iterator[RenderableType]:
    for route in made.routes:
        yield from _route(route, plain)
        yield Text()
    yield _coverage("all routes", made.coverage)
    for reason in made.coverage.missing:
        yield Text(f"  {reason}: {REASONS.get(reason, '')}", DIM)


def _route(route: RouteReport, plain: bool) -> Iterator[RenderableType]:
    head = Text().append(clean(route.route), "bold")
    head.append(f"  {count(route.requests, 'request')} joined", DIM)
    if 0 < route.requests < FEW:
        head.append(f"; below {FEW} the p99 is the slowest of them", DIM)
    yield head
    if not route.requests:
        yield _coverage("  coverage", route.coverage)
        return
    names = [layer.name for layer in route.layers]
    styles = _styles(names)
    signs = {name: _PLAIN[i % len(_PLAIN)] if plain else "█" for i, name in enumerate(names)}
    for label in BANDS:
        line = Text().append(f"  {label}  ", DIM)
        drawn = 0
        reached = 0.0
        for layer in route.layers:
            reached += max(layer.mean_us[label], 0.0)
            width = min(round(BAR * reached / (route.band_us[label] or 1.0)), BAR) - drawn
            line.append(signs[layer.name] * width, styles[layer.name])
            drawn += max(width, 0)
        line.append(" " * (BAR - drawn + 2))
        line.append(duration(route.total_us[label] * 1000), "bold")
        yield line
    yield _table(route, signs, styles)
    if route.owner:
        line = Text("  ▸ the tail is ") if not plain else Text("  > the tail is ")
        line.append(_possessive(route.owner), "bold")
        gap = next(layer.tail_us for layer in route.layers if layer.name == route.owner)
        whole = (route.band_us["p99"] - route.band_us["p50"]) * 1000
        line.append(f": {duration(gap * 1000)} of the {duration(whole)} that it takes beyond a typical request")
        line.append(f" ({share(gap * 1000, whole)})")
        yield line
    if route.verdicts:
        yield Text(
            "  verdicts: " + " · ".join(f"{clean(name)} {number}" for name, number in route.verdicts.items()), DIM
        )
    for place, loss in route.lost.items():
        yield Text(f"  lost at {clean(place)}: {loss.bytes:,} bytes in {count(loss.requests, 'request')}", "yellow")
    yield Text(f"  slowest: {' '.join(clean(each) for each in route.slowest)}", DIM)
    yield _coverage("  coverage", route.coverage)


def _table(route: RouteReport, signs: dict[str, str], styles: dict[str, Style]) -> Table:
    table = Table(box=None, padding=(0, 2), pad_edge=False, header_style="dim")
    table.add_column("  layer")
    for label in BANDS:
        table.add_column(label, justify="right")
        table.add_column("", justify="right", style="dim")
    table.add_column("of the tail", justify="right")
    for layer in route.layers:
        name = Text("  ").append(signs[layer.name], styles[layer.name]).append(f" {clean(layer.name)}")
        cells: list[RenderableType] = []
        for label in BANDS:
            mean = layer.mean_us[label]
            cells += [duration(max(mean, 0.0) * 1000), share(mean, route.band_us[label])]
        table.add_row(name, *cells, f"{100 * layer.tail_share:.0f} %")
    return table


def _possessive(layer: str) -> str:
    if layer == CONNECT:
        return "that of opening connections"
    return f"the {layer}'s" if layer in _OWN else f"{clean(layer)}'s"


def _styles(names: list[str]) -> dict[str, Style]:
    places = [name for name in names if name not in _OWN]
    return {name: Style.parse(_OWN.get(name) or _PLACES[places.index(name) % len(_PLACES)]) for name in names}


def _coverage(title: str, coverage: Coverage) -> Text:
    line = Text(f"{title}: ", DIM)
    line.append(f"{coverage.joined:,} of {count(coverage.attempts, 'attempt')} joined exactly", DIM)
    line.append(f" ({share(coverage.joined, coverage.attempts)})", DIM)
    if coverage.incomplete:
        line.append(f", {coverage.incomplete:,} of them while a tap dropped packets", "yellow")
    if coverage.missing:
        line.append(
            "; missing: " + ", ".join(f"{reason} {number:,}" for reason, number in coverage.missing.items()), DIM
        )
    if coverage.unsent:
        line.append(f"; {coverage.unsent:,} never sent", DIM)
    return line
