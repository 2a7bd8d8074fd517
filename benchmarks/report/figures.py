"""Numbers as people read them."""

from __future__ import annotations

from benchmarks.measure.samples import Samples


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


def duration(seconds: float) -> str:
    """A time a person waits."""
    minutes, rest = divmod(round(seconds), 60)
    return f"{minutes} min {rest:02d} s" if minutes else f"{rest} s"
