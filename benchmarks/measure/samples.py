"""The figures of a run: one sample per scenario, point, variant and round, and what is asked of many."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field, replace
from typing import Any, Final, Self

from benchmarks.measure.distribution import Distribution

REFERENCE: Final = "nginx"  # what ratios are taken to, where it was measured; else the first variant


@dataclass(frozen=True, slots=True)
class Reading:
    """One measurement of one peer.

    ``values`` are the figures by the names of the scenario's metrics. ``faults`` are failed requests, lost spans and
    the like, by kind: any of them makes the figures worthless. ``noise`` is what disturbed: the shares (0 to 1) of the
    proxy's CPU that other processes (``foreign``) or machines (``stolen``) took meanwhile.
    """

    values: Mapping[str, float]
    faults: Mapping[str, int] = field(default_factory=dict)
    noise: Mapping[str, float] = field(default_factory=dict)
    distribution: Distribution | None = None


@dataclass(frozen=True, slots=True)
class Sample:
    """A reading and what it is of. ``point`` is where on the scenario's axis, "" when it has one point only."""

    scenario: str
    point: str
    variant: str
    round: int
    reading: Reading

    def plain(self) -> dict[str, Any]:
        """For JSON."""
        reading = self.reading
        found: dict[str, Any] = {
            "scenario": self.scenario,
            "point": self.point,
            "variant": self.variant,
            "round": self.round,
            "values": {name: _short(value) for name, value in reading.values.items()},
        }
        if reading.faults:
            found["faults"] = dict(reading.faults)
        if reading.noise:
            found["noise"] = {name: round(value, 4) for name, value in reading.noise.items()}
        if reading.distribution is not None:
            found["distribution"] = reading.distribution.plain()
        return found

    @classmethod
    def of(cls, plain: Mapping[str, Any]) -> Self:
        """From JSON."""
        distribution = plain.get("distribution")
        reading = Reading(
            plain["values"],
            plain.get("faults", {}),
            plain.get("noise", {}),
            None if distribution is None else Distribution.of(distribution),
        )
        return cls(plain["scenario"], plain["point"], plain["variant"], plain["round"], reading)


class Samples:
    """All samples of a run."""

    def __init__(self, samples: Iterable[Sample] = ()) -> None:
        self._samples: list[Sample] = []
        self._by_cell: dict[tuple[str, str, str], list[Sample]] = {}
        for sample in samples:
            self.add(sample)

    def __iter__(self) -> Iterator[Sample]:
        return iter(self._samples)

    def __len__(self) -> int:
        return len(self._samples)

    def __repr__(self) -> str:
        return f"Samples({len(self._samples)} of {', '.join(self.scenarios()) or 'nothing'})"

    def add(self, sample: Sample) -> None:
        """One more."""
        self._samples.append(sample)
        self._by_cell.setdefault((sample.scenario, sample.point, sample.variant), []).append(sample)

    def scenarios(self) -> list[str]:
        """Which were measured, in their order."""
        return list(dict.fromkeys(sample.scenario for sample in self._samples))

    def points(self, scenario: str) -> list[str]:
        """The points of a scenario, in their order."""
        return list(dict.fromkeys(each.point for each in self._samples if each.scenario == scenario))

    def variants(self, scenario: str, point: str | None = None) -> list[str]:
        """Which variants a scenario (at one of its points) has."""
        cells = (cell for cell in self._by_cell if cell[0] == scenario and point in (None, cell[1]))
        return list(dict.fromkeys(variant for _, _, variant in cells))

    def cell(self, scenario: str, point: str, variant: str) -> list[Sample]:
        """The rounds of one variant at one point; empty when it was not measured."""
        return self._by_cell.get((scenario, point, variant), [])

    def values(self, scenario: str, point: str, variant: str, metric: str) -> list[float]:
        """One metric, round by round."""
        cell = self.cell(scenario, point, variant)
        return [each.reading.values[metric] for each in cell if metric in each.reading.values]

    def ratios(self, scenario: str, point: str, one: str, other: str, metric: str) -> list[float]:
        """``one`` over ``other`` within each round that has both: what disturbs a round disturbs both."""
        others = {
            each.round: each.reading.values[metric]
            for each in self.cell(scenario, point, other)
            if metric in each.reading.values
        }
        return [
            each.reading.values[metric] / others[each.round]
            for each in self.cell(scenario, point, one)
            if metric in each.reading.values and others.get(each.round)
        ]

    def subtract(self, scenario: str, metric: str, base: str, name: str) -> None:
        """Give every sample of a scenario that shares its round with one of ``base`` a further value, ``name``.

        It is the sample's ``metric`` less that of ``base``.
        """
        for point in self.points(scenario):
            bases = {each.round: each.reading.values.get(metric) for each in self.cell(scenario, point, base)}
            for variant in self.variants(scenario, point):
                for each in list(self.cell(scenario, point, variant)) if variant != base else ():
                    less, value = bases.get(each.round), each.reading.values.get(metric)
                    if less is not None and value is not None:
                        self._replace(each, {name: value - less})

    def _replace(self, sample: Sample, more: Mapping[str, float]) -> None:
        reading = replace(sample.reading, values={**sample.reading.values, **more})
        renewed = replace(sample, reading=reading)
        for samples in (self._samples, self._by_cell[sample.scenario, sample.point, sample.variant]):
            samples[next(index for index, each in enumerate(samples) if each is sample)] = renewed

    def faults(self, scenario: str, point: str, variant: str) -> dict[str, int]:
        """What failed in any round; a cell with a fault has no valid figure."""
        sums: dict[str, int] = {}
        for each in self.cell(scenario, point, variant):
            for kind, count in each.reading.faults.items():
                sums[kind] = sums.get(kind, 0) + count
        return {kind: count for kind, count in sums.items() if count}

    def reference(self, scenario: str, point: str) -> str:
        """What the ratios at a point are taken to."""
        variants = self.variants(scenario, point)
        return REFERENCE if REFERENCE in variants else variants[0]


def _short(value: float) -> float:
    """Six significant digits: more than any figure here is good for."""
    return float(f"{value:.6g}")
