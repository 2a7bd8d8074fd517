"""Ratios within rounds, faults, bars, and files of runs."""

from __future__ import annotations

import io
import json
from pathlib import Path

import pytest
from rich.console import Console

from benchmarks.measure.distribution import Distribution
from benchmarks.measure.samples import Reading, Sample, Samples
from benchmarks.measure.statistics import Spread
from benchmarks.report import bars, compare, store, terminal
from benchmarks.report.bars import Bar, Judged
from benchmarks.report.store import NoRun, Run
from benchmarks.scenarios.catalogue import SCENARIOS
from tests.benchmarks.samples import cells, cost


def judged(samples: Samples, *, compiled: bool) -> dict[str, Judged]:
    return {each.bar.name: each for each in bars.judge(samples, compiled=compiled)}


def run(samples: Samples, *, compiled: bool = False) -> Run:
    return store.of({"cpu": "a fast one"}, samples, bars.judge(samples, compiled=compiled), ["caddy"], compiled)


def test_ratios_are_taken_round_by_round() -> None:
    # In the second round the machine was half as fast, for both.
    found = cost(spanway=[15.0, 30.0, 15.0], nginx=[10.0, 20.0, 10.0])
    assert found.ratios("cost", "", "spanway", "nginx", "cpu") == [1.5, 1.5, 1.5]
    assert judged(found, compiled=False)["pure-cpu"].kept
    assert not judged(found, compiled=True)["cpu"].kept


def test_a_round_that_only_one_has_gives_no_ratio() -> None:
    found = cost(spanway=[15.0, 30.0], nginx=[10.0])
    assert found.ratios("cost", "", "spanway", "nginx", "cpu") == [1.5]


def test_ratios_are_to_nginx_or_to_the_first() -> None:
    assert cost(spanway=[1.0], nginx=[1.0]).reference("cost", "") == "nginx"
    assert cost(haproxy=[1.0], spanway=[1.0]).reference("cost", "") == "haproxy"


def test_what_a_proxy_adds_is_told_within_rounds() -> None:
    figures = {"nginx": [{"p50": 150.0}, {"p50": 300.0}, {"p50": 160.0}], "direct": [{"p50": 100.0}, {"p50": 200.0}]}
    found = Samples(cells("latency", figures))
    found.subtract("latency", "p50", "direct", "added")
    assert found.values("latency", "", "nginx", "added") == [50.0, 100.0]
    assert found.values("latency", "", "direct", "added") == []
    assert [each.reading.values.get("added") for each in found if each.variant == "nginx"] == [50.0, 100.0, None]


def test_a_bar_speaks_of_its_build() -> None:
    found = cost(spanway=[10.0], spanway_pure=[17.0], spanway_0=[9.5], spanway_pure_0=[15.0], nginx=[10.0])
    compiled = judged(found, compiled=True)
    assert compiled["cpu"].spread is not None
    assert compiled["cpu"].spread.median == 1.0
    assert compiled["pure-cpu"].spread is not None
    assert compiled["pure-cpu"].spread.median == 1.7
    assert compiled["pure-tracing"].spread is not None
    assert compiled["pure-tracing"].spread.median == pytest.approx(17 / 15)
    assert all(each.kept for each in compiled.values())
    assert set(judged(cost(spanway=[10.0], nginx=[10.0]), compiled=False)) == {"pure-cpu"}


def test_one_failed_request_invalidates_a_bar_on_either_side() -> None:
    for broken in ("spanway", "nginx"):
        figures = {name: [{"cpu": 10.0}, {"cpu": 10.0}] for name in ("spanway", "nginx")}
        found = Samples(cells("cost", figures, faults={broken: {"status": 1}}))
        (bar,) = bars.judge(found, compiled=True)
        assert not bar.kept
        assert bar.invalid == f"{broken}: 1 status"


def test_a_measurement_that_failed_leaves_a_bar_without_a_figure() -> None:
    figures: dict[str, list[dict[str, float]]] = {"spanway": [{}], "nginx": [{"cpu": 10.0}]}
    (bar,) = bars.judge(Samples(cells("cost", figures)), compiled=True)
    assert not bar.kept
    assert bar.invalid == "no round has the figures"


def test_a_bar_that_wants_much_is_kept_by_more() -> None:
    bar = Bar("much", "as much as can be", "cost", "cpu", 0.8, over="nginx", at_least=True)
    assert Judged(bar, Spread(0.8, 0.1, 0.9, 3)).kept
    assert not Judged(bar, Spread(0.79, 0.7, 0.9, 3)).kept


def test_every_bar_names_figures_that_exist() -> None:
    for bar in bars.BARS:
        assert bar.metric in {metric.name for metric in SCENARIOS[bar.scenario].metrics}, bar.name
        assert bar.unit in bars.UNITS
    assert len(set(bars.NAMES)) == len(bars.NAMES)


def test_a_run_is_written_and_read_whole(tmp_path: Path) -> None:
    reading = Reading({"cpu": 10.0}, {"status": 2}, {"foreign": 0.25}, Distribution.count([5.0, 7.0]))
    samples = Samples(
        [Sample("cost", "", "nginx", 0, reading), Sample("cost", "", "spanway", 0, Reading({"cpu": 9.0}))]
    )
    run(samples).write(tmp_path / "deep" / "run.json")
    again = Run.read(tmp_path / "deep" / "run.json")
    assert [each.plain() for each in again.samples] == [each.plain() for each in samples]
    assert (again.left_out, again.compiled, again.machine) == (["caddy"], False, {"cpu": "a fast one"})
    assert again.bars[0]["invalid"] == "nginx: 2 status"


@pytest.mark.parametrize("text", ["", "[]", "{}", '{"format": 1}', '{"format": 99, "samples": []}'])
def test_a_file_that_is_no_run_is_refused_by_name(tmp_path: Path, text: str) -> None:
    path = tmp_path / "other.json"
    path.write_text(text)
    with pytest.raises(NoRun, match=r"other\.json"):
        Run.read(path)


def test_a_comparison_tells_a_regression_from_noise() -> None:
    before = run(cost(spanway=[10.0, 10.2, 10.4], spanway_0=[9.0, 9.2, 9.4], nginx=[10.0, 10.0, 10.0]))
    after = run(cost(spanway=[22.0, 22.4, 22.8], spanway_0=[18.1, 18.3, 18.6], nginx=[20.0, 20.0, 20.0]))
    found = {each.variant: each for each in compare.compare(before, after)}
    assert found["spanway"].verdict == "worse"  # the machine was slower, but nginx tells by how much
    assert found["spanway"].ratio
    assert found["spanway"].change == pytest.approx(1.12 / 1.02 - 1)
    assert found["spanway-0"].verdict == "same"
    assert found["nginx"].verdict == "worse"
    assert not found["nginx"].ratio


def test_a_comparison_leaves_out_what_is_invalid_in_either() -> None:
    figures = {name: [{"cpu": 10.0}] * 3 for name in ("spanway", "nginx")}
    good, bad = (run(Samples(cells("cost", figures, faults=faults))) for faults in (None, {"spanway": {"read": 1}}))
    assert [each.variant for each in compare.compare(good, bad)] == ["nginx"]
    # Without a sound reference the figure itself is compared.
    bad = run(Samples(cells("cost", figures, faults={"nginx": {"read": 1}})))
    (only,) = compare.compare(good, bad)
    assert (only.variant, only.ratio) == ("spanway", False)


def test_everything_is_printed() -> None:
    figures = {
        "nginx": [{"cpu": 10.0, "rate": 1e5}, {"cpu": 12.0, "rate": 1e5}],
        "spanway": [{"cpu": 15.0}, {"cpu": 18.0}],
    }
    samples = Samples(cells("cost", figures, faults={"spanway": {"status": 3}}))
    console = Console(file=io.StringIO(), width=200)
    terminal.print_scenario(console, SCENARIOS["cost"], samples)
    terminal.print_bars(console, bars.judge(samples, compiled=False))
    terminal.print_machine(console, {"cpu": "a fast one", "haproxy": ""})
    compare.show(console, compare.compare(run(samples), run(samples)), "a.json", "b.json")
    compare.show(console, [], "a.json", "b.json")
    assert isinstance(console.file, io.StringIO)
    printed = console.file.getvalue()
    for words in ("1.50", "16.5", "10.0 to 12.0", "invalid (3 status)", "INVALID", "a fast one", "too few rounds"):
        assert words in printed, words


def test_the_terminal_says_when_others_took_the_cpu() -> None:
    quiet, loud = (Reading({"cpu": 1.0}, {}, {"foreign": share, "stolen": 0.0}) for share in (0.01, 0.3))
    for reading, said in ((quiet, False), (loud, True)):
        console = Console(file=io.StringIO(), width=200)
        terminal.print_scenario(console, SCENARIOS["cost"], Samples([Sample("cost", "", "nginx", 0, reading)]))
        assert isinstance(console.file, io.StringIO)
        assert ("Others used" in console.file.getvalue()) is said


def test_a_result_has_one_sample_a_line(tmp_path: Path) -> None:
    run(cost(spanway=[1.0, 2.0], nginx=[1.0, 2.0])).write(tmp_path / "run.json")
    lines = (tmp_path / "run.json").read_text().splitlines()
    assert sum('"variant"' in line for line in lines) == 4
    assert json.loads((tmp_path / "run.json").read_text())["format"] == store.FORMAT
