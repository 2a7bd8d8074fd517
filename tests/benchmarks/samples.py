"""Runs made by hand."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from benchmarks.measure.samples import Reading, Sample, Samples


def cells(
    scenario: str,
    figures: Mapping[str, Sequence[Mapping[str, float]]],
    point: str = "",
    faults: Mapping[str, Mapping[str, int]] | None = None,
) -> list[Sample]:
    """One sample per variant and round; ``faults`` are of a variant's first round."""
    found = []
    for variant, rounds in figures.items():
        for number, values in enumerate(rounds):
            broken = (faults or {}).get(variant, {}) if number == 0 else {}
            found.append(Sample(scenario, point, variant, number, Reading(values, broken)))
    return found


def cost(**cpu: Sequence[float]) -> Samples:
    """CPU per request by variant (underscores stand for hyphens), round by round."""
    figures = {name.replace("_", "-"): [{"cpu": value} for value in values] for name, values in cpu.items()}
    return Samples(cells("cost", figures))
