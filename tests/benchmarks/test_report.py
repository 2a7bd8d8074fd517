"""The page and the pictures: complete, well-formed, and in need of nothing else."""

from __future__ import annotations

import itertools
import re
import xml.etree.ElementTree as ElementTree
from html.parser import HTMLParser
from pathlib import Path

import pytest

from benchmarks.measure.distribution import Distribution
from benchmarks.measure.samples import Reading, Sample, Samples
from benchmarks.measure.statistics import Spread
from benchmarks.peers.catalogue import VARIANTS
from benchmarks.report import bars, figures, page, pictures, series, store, svg
from benchmarks.report.series import Line, Row
from benchmarks.report.store import Run
from benchmarks.scenarios.catalogue import SCENARIOS
from tests.benchmarks.samples import cells

VOID = {"meta", "br", "link", "img", "hr", "input"}


class Balance(HTMLParser):
    """Which elements are open, and every address an element would load."""

    def __init__(self) -> None:
        super().__init__()
        self.open: list[str] = []
        self.faults: list[str] = []
        self.loads: list[str] = []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.loads += [f"{name}={value}" for name, value in attrs if name in ("src", "href", "xlink:href")]
        if tag not in VOID:
            self.open.append(tag)

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        pass

    def handle_endtag(self, tag: str) -> None:
        if not self.open or self.open.pop() != tag:
            self.faults.append(tag)


def run() -> Run:
    """A run of three scenarios: with a fault, with a curve, with distributions."""
    cost = {
        "nginx": [{"cpu": 10.0}, {"cpu": 11.0}],
        "spanway": [{"cpu": 15.0}, {"cpu": 18.0}],
        "haproxy": [{"cpu": 9.0}],
    }
    samples = cells("cost", cost, faults={"haproxy": {"<script>": 3}})
    for count in ("1", "1,000", "100,000"):
        samples += cells("rules", {"nginx": [{"cpu": 10.0}], "spanway": [{"cpu": 15.0, "of_one": 1.0}]}, count)
    for name, most in (("nginx", 300.0), ("spanway", 900.0)):
        latency = Distribution.count([100.0] * 990 + [most] * 10)
        reading = Reading({"p99": latency.percentile(0.99), "p50": 100.0}, {}, {"foreign": 0.2}, latency)
        samples.append(Sample("rate", "50 %", name, 0, reading))
    whole = Samples(samples)
    machine = {"cpu": "a <fast> one", "cpus": "2", "kernel": "6"}
    return store.of(machine, whole, bars.judge(whole, compiled=True), ["caddy: is missing"], True)


@pytest.fixture(scope="module")
def rendered() -> str:
    return page.render(run(), "today")


def test_the_page_is_whole(rendered: str) -> None:
    balance = Balance()
    balance.feed(rendered)
    assert balance.faults == []
    assert balance.open == []
    for words in (
        "1.15 x",
        "invalid: 3 &lt;script&gt;",
        "a &lt;fast&gt; one",
        "caddy: is missing",
        "Others used",
        "missed",
    ):
        assert words in rendered, words
    for name in ("cost", "rules", "rate"):
        assert SCENARIOS[name].title in rendered


def test_the_page_needs_nothing_else(rendered: str) -> None:
    balance = Balance()
    balance.feed(rendered)
    assert [each for each in balance.loads if not each.startswith("href=#")] == []
    assert not re.search(r"@import|url\(|<script|<link", rendered)


def test_every_picture_is_well_formed(rendered: str) -> None:
    found = re.findall(r"<svg.*?</svg>", rendered, re.DOTALL)
    assert len(found) == 4  # bars of cost and of rate, curves of rules, the distribution
    for each in found:
        ElementTree.fromstring(each)


def test_a_bar_is_as_long_as_its_ratio() -> None:
    def row(name: str, ratio: float) -> Row:
        return Row(name, Spread(ratio, ratio, ratio, 3), Spread(10 * ratio, 9 * ratio, 11 * ratio, 3), "")

    drawn = svg.bars([row("nginx", 1.0), row("spanway", 2.0)], "us", "nginx")
    one, two = (float(width) for width in re.findall(r'<rect[^>]* width="([\d.]+)"', drawn))
    assert two == pytest.approx(2 * one, rel=0.01)
    assert "2.00 x" in drawn
    assert "20.0 us" in drawn


def test_a_slower_line_is_higher() -> None:
    def line(name: str, value: float) -> Line:
        return Line(name, [(x, Spread(value, value, value, 1)) for x in (1.0, 1000.0)])

    drawn = svg.curves([line("nginx", 10.0), line("spanway", 20.0)], "rules", "us")
    heights = [float(points.split(",")[1].split()[0]) for points in re.findall(r'points="([^"]+)"', drawn)]
    assert heights[1] < heights[0]  # downwards is more in SVG


def test_names_at_the_end_of_lines_do_not_overlap() -> None:
    names = svg._names([(100.0, "nginx"), (101.0, "spanway"), (102.0, "haproxy"), (259.0, "caddy"), (260.0, "envoy")])
    heights = [float(match) for match in re.findall(r' y="([\d.]+)"', "".join(names))]
    assert all(after - before >= 14.9 for before, after in itertools.pairwise(heights))
    assert heights[-1] <= svg.HEIGHT


def test_percentiles_beyond_the_values_are_not_drawn() -> None:
    few, many = Distribution.count([100.0] * 100), Distribution.count([100.0] * 100_000)
    short, long = (
        points.split() for points in re.findall(r'points="([^"]+)"', svg.percentiles({"nginx": few, "spanway": many}))
    )
    assert len(short) < len(long) == svg.STEPS


def test_the_pictures_are_drawn(tmp_path: Path) -> None:
    assert pictures.draw(run(), tmp_path / "run") == ", run-cost.png, run-tail.png"
    for name in ("run-cost.png", "run-tail.png"):
        assert (tmp_path / name).read_bytes().startswith(b"\x89PNG")


def test_every_variant_has_a_colour_of_its_own() -> None:
    assert set(series.COLOURS) == set(VARIANTS)
    assert len(set(series.COLOURS.values())) == len(series.COLOURS)


@pytest.mark.parametrize(
    ("value", "words"), [(12345.6, "12,346"), (99.96, "100.0"), (12.34, "12.3"), (1.234, "1.23"), (0.01234, "0.0123")]
)
def test_numbers_are_short(value: float, words: str) -> None:
    assert figures.number(value) == words


def test_times_are_in_minutes() -> None:
    assert [figures.duration(each) for each in (0.4, 59.6, 61)] == ["0 s", "1 min 00 s", "1 min 01 s"]
