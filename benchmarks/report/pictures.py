"""The two pictures of the README as PNG, drawn by matplotlib where it is installed (the extra `bench`)."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Final

from benchmarks.measure.distribution import Distribution
from benchmarks.report import series
from benchmarks.report.series import Row
from benchmarks.report.store import Run
from benchmarks.scenarios.catalogue import SCENARIOS

SHARES: Final = (0.5, 0.9, 0.99, 0.999)
DOTS: Final = 160  # per inch


def draw(run: Run, stem: Path) -> str:
    """Write STEM-cost.png and STEM-tail.png where the run has their figures; words about it for the terminal."""
    try:
        import matplotlib as mpl
    except ImportError:
        return "; no PNG: matplotlib is not installed (pip install 'spanway[bench]')"
    mpl.use("Agg")
    written: list[str] = []
    cost = next(each for each in SCENARIOS["cost"].metrics if each.main)
    if "cost" in run.samples.scenarios():
        rows = [row for row in series.rows(run.samples, "cost", "", cost) if not row.invalid]
        if rows:
            written.append(_cost(rows, stem.with_name(f"{stem.name}-cost.png")))
    for point in run.samples.points("rate"):
        found = series.distributions(run.samples, "rate", point)
        if point == "50 %" and found:
            written.append(_tail(found, stem.with_name(f"{stem.name}-tail.png")))
    return "".join(f", {name}" for name in written)


def _cost(rows: Sequence[Row], path: Path) -> str:
    from matplotlib import pyplot

    figure, axes = pyplot.subplots(figsize=(8, 0.42 * len(rows) + 1.0), layout="constrained")
    names = [series.title(row.variant) for row in rows]
    middles = [row.value.median for row in rows]
    ranges = [[row.value.median - row.value.low for row in rows], [row.value.high - row.value.median for row in rows]]
    drawn = axes.barh(names, middles, xerr=ranges, color=[series.colour(row.variant) for row in rows], ecolor="#333333")
    axes.bar_label(drawn, [f"{row.value.median:.0f} us, {row.length.median:.2f} x" for row in rows], padding=6)
    axes.invert_yaxis()
    axes.set_xlim(0, max(row.value.high for row in rows) * 1.25)
    axes.set_xlabel("CPU time per request, microseconds")
    return _save(pyplot, figure, axes, path)


def _tail(found: Mapping[str, Distribution], path: Path) -> str:
    from matplotlib import pyplot

    figure, axes = pyplot.subplots(figsize=(8, 4.2), layout="constrained")
    shares = [1 - 10 ** (-3.5 * step / 120) for step in range(1, 121)]
    for name, each in found.items():
        known = [share for share in shares if (1 - share) * each.total >= 1]
        across = [1 / (1 - share) for share in known]
        axes.plot(across, each.percentiles(known), color=series.colour(name), label=series.title(name))
    axes.set_xscale("log")
    axes.set_yscale("log")
    axes.set_xticks([1 / (1 - share) for share in SHARES], [f"{share * 100:.10g} %" for share in SHARES])
    axes.minorticks_off()
    axes.set_xlabel("percentile of requests, open loop at half of capacity")
    axes.set_ylabel("microseconds")
    axes.legend(frameon=False)
    return _save(pyplot, figure, axes, path)


def _save(pyplot: Any, figure: Any, axes: Any, path: Path) -> str:
    axes.spines[["top", "right"]].set_visible(False)
    figure.savefig(path, dpi=DOTS)
    pyplot.close(figure)
    return path.name
