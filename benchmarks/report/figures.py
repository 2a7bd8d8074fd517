"""Numbers as people read them."""

from __future__ import annotations

from typing import Final

from benchmarks.measure.samples import Samples

NOISY: Final = 0.05  # of the proxy's CPU taken by others: beyond, figures say as much about them


def number(value: float) -> str:
    """Three significant digits, or whole thousands with separators."""
    size = abs(value)
    if size >= 100:
        return f"{value:,.0f}"
    if size >= 10:
        return f"{value:.1f}"
    if size >= 1:
        return f"{value:.2f}"
    return f"{value:.3g}"


def of_metric(samples: Samples, scenario: str, point: str, metric: str) -> bool:
    """Whether anybody has a figure of a metric at a point."""
    return any(samples.values(scenario, point, variant, metric) for variant in samples.variants(scenario, point))


def noise(samples: Samples, scenario: str) -> str:
    """The loudest measurement of a scenario, as words; "" when all were quiet."""
    worst: dict[str, float] = {}
    for each in samples:
        if each.scenario == scenario and each.reading.noise:
            share = max(each.reading.noise.get(kind, 0.0) for kind in ("foreign", "stolen"))
            worst[each.variant] = max(worst.get(each.variant, 0.0), share)
    variant = max(worst, key=lambda name: worst[name], default="")
    return f"{worst[variant]:.0%} while {variant} was measured" if variant and worst[variant] > NOISY else ""


def duration(seconds: float) -> str:
    """A time a person waits."""
    minutes, rest = divmod(round(seconds), 60)
    return f"{minutes} min {rest:02d} s" if minutes else f"{rest} s"
