"""Results for people at a terminal: tables with the ratios first."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from rich.console import Console
from rich.table import Table

from benchmarks.measure.samples import Samples
from benchmarks.measure.statistics import Spread
from benchmarks.report.bars import Judged
from benchmarks.report.figures import noise, number, of_metric
from benchmarks.scenarios.base import Metric, Scenario


def print_scenario(console: Console, scenario: Scenario, samples: Samples) -> None:
    """One table, a section for each point; main figures first as the median of their ratios to the reference."""
    points = samples.points(scenario.name)
    metrics = [
        each for each in scenario.metrics if any(of_metric(samples, scenario.name, p, each.name) for p in points)
    ]
    references = dict.fromkeys(samples.reference(scenario.name, point) for point in points)
    table = Table(title=scenario.title, title_justify="left")
    table.add_column("")
    for metric in metrics:
        if metric.main:
            table.add_column(f"{metric.title}\nof {' or '.join(references)}'s", justify="right")
    for metric in metrics:
        table.add_column(f"{metric.title}\n{metric.unit}".rstrip(), justify="right")
    for point in points:
        if point:
            table.add_section()
            table.add_row(f"[bold]{scenario.axis}{point}[/]")
        for variant in samples.variants(scenario.name, point):
            faults = samples.faults(scenario.name, point, variant)
            words = "; ".join(f"{count:,} {kind}" for kind, count in faults.items())
            label = f"[red]{variant}: invalid ({words})[/]" if faults else variant
            table.add_row(label, *_cells(samples, scenario.name, point, variant, metrics))
    console.print(table)
    noisy = noise(samples, scenario.name)
    if noisy:
        console.print(f"[yellow]Others used the proxy's CPU meanwhile ({noisy}): measure again when it is idle.[/]")


def _cells(samples: Samples, scenario: str, point: str, variant: str, metrics: Sequence[Metric]) -> list[str]:
    reference = samples.reference(scenario, point)
    first: list[str] = []
    then: list[str] = []
    for metric in metrics:
        values = samples.values(scenario, point, variant, metric.name)
        if metric.main:
            ratios = samples.ratios(scenario, point, variant, reference, metric.name)
            first.append(f"[bold]{Spread.of(ratios).median:.2f}[/]" if ratios else "")
        spread = Spread.of(values) if values else None
        if spread is None:
            then.append("")
        elif metric.main and spread.rounds > 1:
            then.append(f"{number(spread.median)} [dim]{number(spread.low)} to {number(spread.high)}[/]")
        else:
            then.append(number(spread.median))
    return first + then


def print_bars(console: Console, bars: Sequence[Judged]) -> None:
    """The promises, each with what was measured."""
    if not bars:
        return
    table = Table(title="Bars", title_justify="left")
    for heading in ("name", "", "measured", "least to greatest", "bar", ""):
        table.add_column(heading, justify="right" if heading in ("measured", "least to greatest", "bar") else "left")
    for each in bars:
        bar, spread = each.bar, each.spread
        verdict = (
            "[green]kept[/]"
            if each.kept
            else f"[bold red]{'INVALID: ' + each.invalid if each.invalid else 'MISSED'}[/]"
        )
        measured = "" if spread is None else f"{spread.median:.2f} {bar.unit}"
        ranged = "" if spread is None else f"{spread.low:.2f} to {spread.high:.2f}"
        table.add_row(bar.name, bar.text, measured, ranged, bar.words, verdict)
    console.print(table)


def print_machine(console: Console, machine: Mapping[str, str]) -> None:
    """What the figures were taken on."""
    console.print("\n".join(f"[dim]{name}: {value}[/]" for name, value in machine.items() if value), highlight=False)
