"""What Spanway promises, by name (`bars.toml`), and whether a run keeps it."""

from __future__ import annotations

import tomllib
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final, Literal

from benchmarks.measure.samples import Samples
from benchmarks.measure.statistics import Spread
from benchmarks.peers.catalogue import PURE, SPANWAY

FILE: Final = Path(__file__).resolve().parents[1] / "bars.toml"
UNITS: Final = {"x": 1.0, "KiB": 1024.0, "MiB": 1024.0**2, "us": 1.0}  # what a metric is divided by


@dataclass(frozen=True, slots=True)
class Bar:
    """One promise; `bars.toml` says what its fields mean."""

    name: str
    text: str
    scenario: str
    metric: str
    limit: float
    point: str = ""
    one: str = SPANWAY
    over: str | None = None
    unit: str = "x"
    at_least: bool = False
    build: Literal["compiled", "pure", "any"] = "any"

    @property
    def words(self) -> str:
        """The limit, for people."""
        return f"{'at least' if self.at_least else 'at most'} {self.limit:g} {self.unit}"

    def variants(self, *, compiled: bool) -> list[str] | None:
        """Which variants this bar is about in a run of a compiled or a pure Spanway; None when it is about neither."""
        named = [self.one] if self.over is None else [self.one, self.over]
        if self.build == "compiled":
            return named if compiled else None
        if self.build == "pure" and compiled:
            return [name.replace(SPANWAY, PURE, 1) for name in named]
        return named


@dataclass(frozen=True, slots=True)
class Judged:
    """A bar and what was measured; ``invalid`` says why the figure is worthless, "" when it is not."""

    bar: Bar
    spread: Spread | None
    invalid: str = ""

    @property
    def kept(self) -> bool:
        """Whether the promise is kept by a valid figure."""
        if self.spread is None or self.invalid:
            return False
        value = self.spread.median
        return value >= self.bar.limit if self.bar.at_least else value <= self.bar.limit

    def plain(self) -> dict[str, Any]:
        """For JSON."""
        spread = self.spread
        figures = {} if spread is None else {"median": spread.median, "low": spread.low, "high": spread.high}
        return {
            "name": self.bar.name,
            "text": self.bar.text,
            "bar": self.bar.words,
            "unit": self.bar.unit,
            **{name: round(value, 4) for name, value in figures.items()},
            "invalid": self.invalid,
            "kept": self.kept,
        }


def read(path: Path = FILE) -> tuple[Bar, ...]:
    """The table of bars; TypeError for a field that is none."""
    return tuple(Bar(**each) for each in tomllib.loads(path.read_text(encoding="utf-8"))["bar"])


BARS: Final = read()
NAMES: Final = tuple(bar.name for bar in BARS)


def judge(samples: Samples, *, compiled: bool) -> list[Judged]:
    """Every bar that this run has figures for."""
    found = []
    for bar in BARS:
        variants = bar.variants(compiled=compiled)
        if variants is None or not all(samples.cell(bar.scenario, bar.point, name) for name in variants):
            continue
        if len(variants) == 1:
            values = samples.values(bar.scenario, bar.point, variants[0], bar.metric)
        else:
            values = samples.ratios(bar.scenario, bar.point, variants[0], variants[1], bar.metric)
        spread = Spread.of([value / UNITS[bar.unit] for value in values]) if values else None
        found.append(Judged(bar, spread, _invalid(samples, bar, variants, spread)))
    return found


def _invalid(samples: Samples, bar: Bar, variants: list[str], spread: Spread | None) -> str:
    reasons = [
        f"{variant}: {count:,} {kind}"
        for variant in variants
        for kind, count in samples.faults(bar.scenario, bar.point, variant).items()
    ]
    return "; ".join(reasons) or ("" if spread is not None else "no round has the figures")
