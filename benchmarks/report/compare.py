"""Two runs side by side: what got worse by more than their noise."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

from rich.console import Console
from rich.table import Table

from benchmarks.measure.samples import REFERENCE, Samples
from benchmarks.measure.statistics import Spread, Verdict, chance, judge
from benchmarks.report.figures import number
from benchmarks.report.store import Run
from benchmarks.scenarios.base import Metric
from benchmarks.scenarios.catalogue import SCENARIOS

COLOURS: Final = {"worse": "red", "better": "green", "same": "dim", "too few rounds": "yellow"}


@dataclass(frozen=True, slots=True)
class Difference:
    """One figure of both runs; ``ratio``: it is the ratio to nginx within each round, not the figure itself."""

    scenario: str
    point: str
    variant: str
    metric: Metric
    ratio: bool
    before: Spread
    after: Spread
    verdict: Verdict | str

    @property
    def change(self) -> float:
        """By which share the median rose."""
        return (self.after.median - self.before.median) / (abs(self.before.median) or 1.0)


def compare(before: Run, after: Run) -> list[Difference]:
    """Every main figure that both runs have.

    Where both measured nginx a figure is compared as its ratio to nginx, so that two days or two machines differ less;
    nginx itself, and what nobody else has, as it is. A figure that is invalid in either run is none.
    """
    found = []
    for scenario in (each for each in before.samples.scenarios() if each in SCENARIOS):
        metrics = [metric for metric in SCENARIOS[scenario].metrics if metric.main]
        for point in before.samples.points(scenario):
            for variant in before.samples.variants(scenario, point):
                for metric in metrics:
                    difference = _difference(before.samples, after.samples, scenario, point, variant, metric)
                    if difference is not None:
                        found.append(difference)
    return found


def _difference(
    before: Samples, after: Samples, scenario: str, point: str, variant: str, metric: Metric
) -> Difference | None:
    runs = (before, after)
    if any(samples.faults(scenario, point, variant) for samples in runs):
        return None
    ratio = variant != REFERENCE and all(
        samples.cell(scenario, point, REFERENCE) and not samples.faults(scenario, point, REFERENCE) for samples in runs
    )
    then, now = (
        samples.ratios(scenario, point, variant, REFERENCE, metric.name)
        if ratio
        else samples.values(scenario, point, variant, metric.name)
        for samples in runs
    )
    if not then or not now:
        return None
    verdict = judge(then, now, less_is_better=metric.less_is_better)
    return Difference(scenario, point, variant, metric, ratio, Spread.of(then), Spread.of(now), verdict)


def show(console: Console, found: Sequence[Difference], before: str, after: str) -> None:
    """As a table, what got worse first."""
    table = Table(title=f"{after} against {before}", title_justify="left")
    for heading in ("", "figure", "before", "after", "change", ""):
        table.add_column(heading, justify="right" if heading in ("before", "after", "change") else "left")
    order = list(COLOURS)
    for each in sorted(found, key=lambda one: order.index(one.verdict)):
        of = " of nginx's" if each.ratio else f", {each.metric.unit}" if each.metric.unit else ""
        table.add_row(
            f"{each.scenario} {each.point} {each.variant}".replace("  ", " "),
            f"{each.metric.title}{of}",
            _range(each.before),
            _range(each.after),
            f"{each.change:+.1%}",
            f"[{COLOURS[each.verdict]}]{each.verdict}[/]",
        )
    console.print(table)
    rounds = [min(each.before.rounds, each.after.rounds) for each in found]
    if rounds:
        odds = chance(min(rounds), min(rounds))
        console.print(
            f"Worse or better: medians 3 % apart or more, and no round within the other run's range. "
            f"By chance that happens to {odds:.1%} of equal figures of {min(rounds)} rounds.",
            highlight=False,
        )
    else:
        console.print("The two runs have no valid figure in common.")


def _range(spread: Spread) -> str:
    return f"{number(spread.median)} ({number(spread.low)} to {number(spread.high)})"
