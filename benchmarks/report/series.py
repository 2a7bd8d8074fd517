"""What is drawn, apart from how: the rows of a bar chart, the lines of a curve, whole distributions."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import reduce
from operator import add
from typing import Final

from benchmarks.measure.distribution import Distribution
from benchmarks.measure.samples import Samples
from benchmarks.measure.statistics import Spread
from benchmarks.peers.catalogue import VARIANTS
from benchmarks.scenarios.base import Metric, Scenario

COLOURS: Final = {
    "nginx": "#3f4754",
    "nginx-again": "#7d8794",
    "haproxy": "#b7791f",
    "spanway": "#0b62d6",
    "spanway-10": "#4b8fe8",
    "spanway-1": "#7db0f2",
    "spanway-0": "#a8cbf7",
    "spanway-pure": "#0f8a83",
    "spanway-pure-0": "#86cfc9",
    "envoy": "#d98ab5",
    "envoy-traced": "#b83280",
    "traefik": "#8fce9f",
    "traefik-traced": "#2f855a",
    "caddy": "#b9a3e3",
    "caddy-traced": "#6b46c1",
    "direct": "#9aa3af",
}
OTHER: Final = "#888888"


@dataclass(frozen=True, slots=True)
class Row:
    """One bar: ``length`` is what is drawn (a ratio where there is a reference), ``value`` the figure itself."""

    variant: str
    length: Spread
    value: Spread
    invalid: str


@dataclass(frozen=True, slots=True)
class Line:
    """One variant's figures over a scenario's axis."""

    variant: str
    points: Sequence[tuple[float, Spread]]


def title(variant: str) -> str:
    """A variant's name for people."""
    return VARIANTS[variant].title if variant in VARIANTS else variant


def colour(variant: str) -> str:
    """A variant's colour, in every picture the same."""
    return COLOURS.get(variant, OTHER)


def rows(samples: Samples, scenario: str, point: str, metric: Metric) -> list[Row]:
    """The bars of one metric at one point; lengths are ratios to the reference, within rounds."""
    reference = samples.reference(scenario, point)
    found = []
    for variant in samples.variants(scenario, point):
        ratios = samples.ratios(scenario, point, variant, reference, metric.name)
        values = samples.values(scenario, point, variant, metric.name)
        if ratios and values:
            found.append(Row(variant, Spread.of(ratios), Spread.of(values), faults(samples, scenario, point, variant)))
    return found


def lines(samples: Samples, scenario: Scenario, metric: Metric) -> list[Line]:
    """The curves of one metric; a point that is invalid is left out."""
    labels = samples.points(scenario.name)
    found = []
    for variant in samples.variants(scenario.name):
        points = [
            (axis_value(label), Spread.of(samples.values(scenario.name, label, variant, metric.name)))
            for label in labels
            if samples.values(scenario.name, label, variant, metric.name)
            and not samples.faults(scenario.name, label, variant)
        ]
        if points:
            found.append(Line(variant, points))
    return found


def axis_value(label: str) -> float:
    """The number a curve's point is at."""
    return float(label.replace(",", ""))


def distributions(samples: Samples, scenario: str, point: str) -> dict[str, Distribution]:
    """Every variant's whole distribution at a point, all rounds together; invalid ones are left out."""
    found = {}
    for variant in samples.variants(scenario, point):
        rounds = [each.reading.distribution for each in samples.cell(scenario, point, variant)]
        known = [each for each in rounds if each is not None and each.total]
        if known and not samples.faults(scenario, point, variant):
            found[variant] = reduce(add, known)
    return found


def faults(samples: Samples, scenario: str, point: str, variant: str) -> str:
    """Why a figure is invalid, as words; "" when it is not."""
    return "; ".join(f"{count:,} {kind}" for kind, count in samples.faults(scenario, point, variant).items())
