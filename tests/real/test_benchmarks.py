"""The benchmark's own arithmetic and words, on figures made by hand; its measurements are `python -m benchmarks`."""

from __future__ import annotations

import io
import json
from pathlib import Path

import pytest
from rich.console import Console

from benchmarks import __main__ as command
from benchmarks import bars, peers, report
from benchmarks.cost import Latency, Results, Sample
from benchmarks.lab import NGINX, TRACED, UNTRACED, VARIANTS
from benchmarks.machine import CpuTimes
from benchmarks.memory import BigBody, Growth, Idle
from tests.real import load

WRK = """Running 1s test @ http://127.0.0.1:1/
  1 threads and 1 connections

{"requests": 1000, "microseconds": 2000000, "bytes": 5, "p50": 150, "p90": 160, "p99": 170, "max": 900, """
TAIL = '"connect": 0, "read": 2, "write": 0, "timeout": 0, "status": 3}\n'


def sample(cpu: float, number: int = 0, spans: int | None = None, errors: dict[str, int] | None = None) -> Sample:
    return Sample(number, 100, cpu, 0.5, 5000.0, 0.9, 0.0, 0.0, spans, errors or {})


def latency(p50: int) -> Latency:
    return Latency(0, 100, p50, p50, p50, {})


def results(traced: list[float], nginx: list[float], untraced: list[float]) -> Results:
    cpu = {
        NGINX: [sample(cost) for cost in nginx],
        TRACED: [sample(cost, spans=200) for cost in traced],
        UNTRACED: [sample(cost) for cost in untraced],
    }
    return Results(cpu, {name: [latency(100) for _ in nginx] for name in cpu})


def kept(judged: list[bars.Bar]) -> dict[str, bool]:
    return {bar.text: bar.kept for bar in judged}


def test_wrks_report_is_read_exactly() -> None:
    read = load.parse(WRK + TAIL)
    assert (read.requests, read.rate, read.p50) == (1000, 500.0, 150)
    assert read.errors == {"read": 2, "status": 3}


def test_a_wrk_that_could_not_run_is_an_error() -> None:
    with pytest.raises(ValueError, match="unable to connect"):
        load.parse("unable to connect to 127.0.0.1:1 Connection refused\n")


def test_ratios_are_taken_round_by_round() -> None:
    # In the second round the machine was half as fast, for both.
    found = results(traced=[15.0, 30.0, 15.0], nginx=[10.0, 20.0, 10.0], untraced=[12.0, 24.0, 12.0])
    assert found.ratios(TRACED, NGINX) == [1.5, 1.5, 1.5]
    assert all(kept(bars.of_cost(found)).values())


@pytest.mark.parametrize(
    ("broken", "traced", "nginx", "untraced"),
    [("of nginx's", 19.0, 10.0, 16.0), ("without tracing", 15.0, 10.0, 11.9)],
)
def test_a_broken_promise_is_told(broken: str, traced: float, nginx: float, untraced: float) -> None:
    judged = bars.of_cost(results([traced], [nginx], [untraced]))
    missed = [bar.text for bar in judged if not bar.kept]
    assert len(missed) == 1
    assert missed[0].endswith(broken)


def test_failed_requests_and_lost_spans_break_promises() -> None:
    found = results([15.0], [10.0], [12.0])
    found.cpu[TRACED][0] = sample(15.0, spans=199, errors={"status": 2})
    judged = {bar.text: bar for bar in bars.of_cost(found)}
    assert judged["failed requests"].measured == 2
    assert judged["spans that did not arrive"].measured == 1
    assert not judged["failed requests"].kept


def test_a_traced_peer_without_any_span_breaks_the_promise() -> None:
    found = results([15.0], [10.0], [12.0])
    found.cpu[TRACED][0] = sample(15.0, spans=0)
    assert found.lost_spans() == {TRACED: 200}


def test_memorys_promises() -> None:
    mib = 1024 * 1024
    good = bars.of_memory(Idle(10, 6144.0), BigBody(2**31, mib, mib, 1.0, 1.0), Growth([(0, 5), (10, 5 + mib)]))
    assert all(kept(good).values())
    bad = bars.of_memory(Idle(10, 6145.0), BigBody(2**31, 3 * mib, 3 * mib, 1.0, 1.0), Growth([(0, 5), (9, 6 + mib)]))
    assert not any(kept(bad).values())
    assert bars.of_memory(None, None, None) == []


def test_every_figure_is_printed_and_saved(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(report, "DIRECTORY", tmp_path / "results")
    found = results([15.0, 16.5], [10.0, 10.0], [12.0, 12.0])
    judged = bars.of_cost(found)
    console = Console(file=io.StringIO(), width=160)
    report.print_cost(console, found, NGINX)
    report.print_memory(console, {NGINX: Idle(7, 2048.0)}, BigBody(2**31, 0, 0, 2.0, 2.0), Growth([(0, 1), (9, 1)]))
    report.print_bars(console, judged)
    report.print_machine(console, {"cpu": "a fast one"})
    assert isinstance(console.file, io.StringIO)
    printed = console.file.getvalue()
    for words in ("1.57", "15.8", "15.0 to 16.5", "2.00 KiB", "1,024 MiB/s", "kept", "a fast one", "after 9 requests"):
        assert words in printed, words
    saved = json.loads(report.save("cost", {"cpu": "x"}, judged, {"cost": found.plain()}).read_text())
    assert saved["cost"]["cpu"][NGINX][0]["cpu_us"] == 10.0
    assert saved["promises"][0]["kept"] is True


def test_a_cpu_that_did_nothing_was_not_busy() -> None:
    then = CpuTimes(busy=100, stolen=10, moment=5.0)
    assert CpuTimes(busy=150, stolen=10, moment=6.0).shares_since(then) == (0.5, 0.0)


@pytest.mark.parametrize(
    "arguments", [["cost", "--peers", "iis"], ["cost", "--seconds", "1"], ["cost", "--rounds", "0"]]
)
def test_arguments_that_measure_nothing_are_refused(arguments: list[str]) -> None:
    with pytest.raises(SystemExit) as caught:
        command.main(arguments)
    assert caught.value.code == 2


def test_configurations_have_all_their_values() -> None:
    assert "127.0.0.1:7" in peers.text("nginx.conf", port=7, upstream=8)
    assert "127.0.0.1:8" in peers.text("haproxy.cfg", port=7, upstream=8)
    assert "/there" in peers.text("upstream.conf", port=7, root="/there", answer="answer")
    assert next(iter(VARIANTS)) == NGINX
