"""A run as one page that needs nothing else: bars, a picture and a table for each scenario, the machine."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from html import escape
from pathlib import Path
from string import Template
from typing import Any, Final

from benchmarks.measure.samples import Samples
from benchmarks.measure.statistics import Spread
from benchmarks.report import series, svg
from benchmarks.report.figures import noise, number, of_metric
from benchmarks.report.store import Run
from benchmarks.scenarios.base import Metric, Scenario
from benchmarks.scenarios.catalogue import SCENARIOS

TEMPLATE: Final = Path(__file__).with_name("page.html")


def write(run: Run, path: Path, date: str) -> None:
    """The page of a run, beside its JSON."""
    path.write_text(render(run, date), encoding="utf-8")


def render(run: Run, date: str) -> str:
    """The page."""
    scenarios = [SCENARIOS[name] for name in run.samples.scenarios() if name in SCENARIOS]
    links = [("bars", "Bars"), *((each.name, each.title) for each in scenarios), ("machine", "Where and how")]
    left_out = "".join(f"<li>{escape(each)}</li>" for each in run.left_out)
    return Template(TEMPLATE.read_text(encoding="utf-8")).substitute(
        date=escape(date),
        place=escape(", ".join(filter(None, (run.machine.get("cpu"), _cpus(run.machine), run.machine.get("kernel"))))),
        warnings=_warning(run.samples),
        contents=" ".join(f'<a href="#{name}">{escape(words)}</a>' for name, words in links),
        bars=_bars(run.bars),
        scenarios="".join("".join(_scenario(each, run.samples)) for each in scenarios),
        machine="".join(
            f'<tr><td>{escape(name)}</td><td class="words">{escape(value)}</td></tr>'
            for name, value in run.machine.items()
            if value
        ),
        left_out=f"<h3>Left out</h3><ul>{left_out}</ul>" if left_out else "",
    )


def _cpus(machine: Mapping[str, str]) -> str:
    return f"{machine['cpus']} CPUs" if "cpus" in machine else ""


def _warning(samples: Samples) -> str:
    loud = [f"{name} ({words})" for name in samples.scenarios() if (words := noise(samples, name))]
    if not loud:
        return ""
    return (
        '<p class="bad">Others used the proxy\'s CPU meanwhile, and the figures say as much about them: '
        f"{escape('; '.join(loud))}.</p>"
    )


def _bars(bars: Any) -> str:
    if not bars:
        return '<p class="soft">This run has no figure that a bar is about.</p>'
    lines = []
    for bar in bars:
        measured = f"{bar['median']:.2f} {bar['unit']}" if "median" in bar else ""
        ranged = f"{bar['low']:.2f} to {bar['high']:.2f}" if "median" in bar else ""
        verdict = "kept" if bar["kept"] else f"invalid: {bar['invalid']}" if bar["invalid"] else "missed"
        style = "good" if bar["kept"] else "bad"
        lines.append(
            f'<tr><td>{escape(bar["name"])}</td><td class="words">{escape(bar["text"])}</td><td>{measured}</td>'
            f'<td>{ranged}</td><td>{escape(bar["bar"])}</td><td class="{style}">{escape(verdict)}</td></tr>'
        )
    head = (
        '<tr><th>name</th><th class="words"></th><th>measured</th><th>least to greatest</th><th>bar</th><th></th></tr>'
    )
    return f'<div class="wide"><table>{head}{"".join(lines)}</table></div>'


def _scenario(scenario: Scenario, samples: Samples) -> Iterator[str]:
    yield f'<h2 id="{scenario.name}">{escape(scenario.title)}</h2><p>{escape(scenario.what)}</p>'
    main = next(metric for metric in scenario.metrics if metric.main)
    points = samples.points(scenario.name)
    if scenario.curve and len(points) > 1:
        lines = series.lines(samples, scenario, main)
        if lines:
            yield f"<h3>{escape(main.title)}, {escape(main.unit)}</h3>"
            yield svg.curves(lines, scenario.axis.rstrip(": "), main.unit)
    else:
        for point in points:
            rows = series.rows(samples, scenario.name, point, main)
            if rows:
                reference = series.title(samples.reference(scenario.name, point))
                where = f", {scenario.axis}{point}" if point else ""
                yield f"<h3>{escape(main.title)} as a multiple of {escape(reference)}'s{escape(where)}</h3>"
                yield svg.bars(rows, main.unit, reference)
    for point in points:
        found = series.distributions(samples, scenario.name, point)
        if found:
            yield f"<h3>Latency by percentile, {escape(scenario.axis)}{escape(point)}</h3>" + svg.percentiles(found)
    yield _table(scenario, samples)


def _table(scenario: Scenario, samples: Samples) -> str:
    points = samples.points(scenario.name)
    metrics = [
        each for each in scenario.metrics if any(of_metric(samples, scenario.name, p, each.name) for p in points)
    ]
    head = "".join(f"<th>{escape(each.title)}<br>{escape(each.unit)}</th>" for each in metrics)
    lines = []
    for point in points:
        if point:
            where = escape(f"{scenario.axis}{point}")
            lines.append(f'<tr class="point"><td colspan="{len(metrics) + 1}">{where}</td></tr>')
        for variant in samples.variants(scenario.name, point):
            invalid = series.faults(samples, scenario.name, point, variant)
            words = f'<br><span class="bad">invalid: {escape(invalid)}</span>' if invalid else ""
            cells = "".join(_cell(samples, scenario.name, point, variant, metric) for metric in metrics)
            lines.append(f"<tr><td>{escape(series.title(variant))}{words}</td>{cells}</tr>")
    return f'<div class="wide"><table><tr><th></th>{head}</tr>{"".join(lines)}</table></div>'


def _cell(samples: Samples, scenario: str, point: str, variant: str, metric: Metric) -> str:
    values = samples.values(scenario, point, variant, metric.name)
    if not values:
        return "<td></td>"
    spread = Spread.of(values)
    ranged = f"<br><small>{number(spread.low)} to {number(spread.high)}</small>" if spread.rounds > 1 else ""
    return f"<td>{number(spread.median)}{ranged}</td>"
