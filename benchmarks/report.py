"""Results for people, as tables with the ratios first, and for programs, as JSON."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import asdict
from datetime import datetime
from pathlib import Path
from statistics import median
from typing import Any, Final

from rich.console import Console
from rich.table import Table

from benchmarks.bars import KIB, MIB, Bar
from benchmarks.cost import Results
from benchmarks.memory import BigBody, Growth, Idle

DIRECTORY: Final = Path(__file__).with_name("results")
NOISY: Final = 0.05  # of the proxy's CPU taken by others: beyond, figures say as much about them


def print_bars(console: Console, bars: Sequence[Bar]) -> None:
    """The promises, each with what was measured."""
    table = Table(title="Promises", title_justify="left")
    for heading in ("", "measured", "least to greatest", "at most", ""):
        table.add_column(heading, justify="left" if heading == "" else "right")
    for bar in bars:
        spread = "" if bar.low is None or bar.high is None else f"{bar.low:.2f} to {bar.high:.2f}"
        verdict = "[green]kept[/]" if bar.kept else "[bold red]MISSED[/]"
        measured = f"{bar.measured:,.0f}" if bar.limit == 0 else f"{bar.measured:.2f}"  # limits of 0 are of counts
        table.add_row(bar.text, f"{measured} {bar.unit}", spread, f"{bar.limit:g} {bar.unit}", verdict)
    console.print(table)


def print_cost(console: Console, results: Results, reference: str) -> None:
    """CPU and latency of every peer, as ratios to ``reference`` and as they are."""
    table = Table(title="CPU time per request (user and system, all the proxy's processes)", title_justify="left")
    for heading in (
        "",
        f"of {reference}'s",
        "us",
        "least to greatest",
        "system",
        "requests/s",
        "used",
        "others",
        "stolen",
    ):
        table.add_column(heading, justify="left" if heading == "" else "right")
    for name, samples in results.cpu.items():
        costs = [sample.cpu_us for sample in samples]
        table.add_row(
            name,
            f"{median(results.ratios(name, reference)):.2f}",
            f"{median(costs):.1f}",
            f"{min(costs):.1f} to {max(costs):.1f}",
            f"{median(sample.system_share for sample in samples):.0%}",
            f"{median(sample.rate for sample in samples):,.0f}",
            f"{median(sample.used for sample in samples):.0%}",
            f"{median(sample.foreign for sample in samples):.1%}",
            f"{median(sample.stolen for sample in samples):.1%}",
        )
    console.print(table)
    if any(results.latency.values()):
        _print_latency(console, results, reference)
    if max(sample.foreign + sample.stolen for samples in results.cpu.values() for sample in samples) > NOISY:
        console.print(
            "[yellow]Others used the proxy's CPU meanwhile: the figures are noisy. Measure again when idle.[/]"
        )
    for name, count in results.errors().items():
        console.print(f"[red]{name}: {count} requests failed[/]")


def _print_latency(console: Console, results: Results, reference: str) -> None:
    table = Table(title="Latency, one connection, one request at a time", title_justify="left")
    for heading in ("", f"p50 of {reference}'s", "p50 us", "least to greatest", "p90 us", "p99 us"):
        table.add_column(heading, justify="left" if heading == "" else "right")
    for name, samples in results.latency.items():
        halves = [sample.p50 for sample in samples]
        table.add_row(
            name,
            f"{median(results.latency_ratios(name, reference)):.2f}",
            f"{median(halves):.0f}",
            f"{min(halves)} to {max(halves)}",
            f"{median(sample.p90 for sample in samples):.0f}",
            f"{median(sample.p99 for sample in samples):.0f}",
        )
    console.print(table)


def print_memory(console: Console, idle: dict[str, Idle], body: BigBody | None, growth: Growth | None) -> None:
    """What each measurement of memory found."""
    table = Table(title="Memory (resident, all the proxy's processes)", title_justify="left")
    table.add_column("")
    table.add_column("", justify="right")
    for name, each in idle.items():
        table.add_row(f"{name}: idle connection, of {each.connections:,}", f"{each.bytes / KIB:.2f} KiB")
    if body is not None:
        for way, moved, seconds in (
            ("down", body.download, body.download_seconds),
            ("up", body.upload, body.upload_seconds),
        ):
            rate = body.size / MIB / seconds
            table.add_row(f"{body.size / MIB:,.0f} MiB {way}, {rate:,.0f} MiB/s", f"{moved / MIB:+.2f} MiB at the peak")
    if growth is not None:
        for requests, resident in growth.points:
            table.add_row(f"after {requests:,} requests", f"{resident / MIB:.2f} MiB")
    console.print(table)


def print_machine(console: Console, machine: dict[str, str]) -> None:
    """What the figures were taken on."""
    console.print("\n".join(f"[dim]{name}: {value}[/]" for name, value in machine.items() if value), highlight=False)


def save(name: str, machine: dict[str, str], bars: Sequence[Bar], found: dict[str, Any]) -> Path:
    """Write everything to a new file in `DIRECTORY`."""
    DIRECTORY.mkdir(exist_ok=True)
    path = DIRECTORY / f"{datetime.now().astimezone():%Y%m%d-%H%M%S}-{name}.json"
    promises = [asdict(bar) | {"kept": bar.kept} for bar in bars]
    path.write_text(json.dumps({"machine": machine, "promises": promises, **found}, indent=1) + "\n")
    return path
