"""The command line: choose, install what is missing, measure, print, save, judge."""

from __future__ import annotations

import argparse
import os
import sys
import tempfile
from collections.abc import Callable, Sequence
from datetime import datetime
from pathlib import Path
from typing import Final

from rich.console import Console
from rich.markup import escape
from rich.progress import BarColumn, Progress, TextColumn, TimeElapsedColumn

from benchmarks.lab import Lab
from benchmarks.measure import machine
from benchmarks.measure.machine import Unfit
from benchmarks.measure.samples import Samples
from benchmarks.peers import spanway
from benchmarks.peers.catalogue import DIRECT, NGINX, PURE, SPANWAY, UNTRACED, VARIANTS, unavailable
from benchmarks.report import bars, compare, page, pictures, store, terminal
from benchmarks.report.figures import duration
from benchmarks.report.store import DIRECTORY, NoRun, Run
from benchmarks.scenarios.base import ADDED, Level
from benchmarks.scenarios.catalogue import SCENARIOS, chosen
from benchmarks.session import Session
from tests.real import parts
from tests.real.install import InstallFailed, install

ROUNDS: Final = {Level.QUICK: 3, Level.NORMAL: 5, Level.FULL: 5}
MINOR: Final = {Level.QUICK: 3, Level.NORMAL: 3, Level.FULL: 5}  # of the scenarios that --quick leaves out
SECONDS: Final = {Level.QUICK: 3.0, Level.NORMAL: 5.0, Level.FULL: 5.0}
PEERS: Final = {
    Level.QUICK: (NGINX, SPANWAY, UNTRACED, DIRECT),
    Level.NORMAL: (
        NGINX, "haproxy", SPANWAY, "spanway-10", "spanway-1", UNTRACED, PURE, "spanway-pure-0",
        "envoy-traced", "traefik-traced", DIRECT,
    ),
    Level.FULL: tuple(name for name in VARIANTS if name != "nginx-again"),
}  # fmt: skip
TOOLS: Final = ("nginx", "wrk", "h2load", "openssl")  # what the bench itself is made of


def main(arguments: list[str] | None = None) -> int:
    """The command; 0, 1 when a bar is missed and --check was given, 2 when nothing can be measured."""
    console = Console(width=None if sys.stdout.isatty() else 160)
    options = _arguments(arguments)
    if options.list:
        _list(console)
        return 0
    if options.compare:
        return _compare(console, *options.compare)
    level = Level.FULL if options.full else Level.QUICK if options.quick else Level.NORMAL
    try:
        run = _measure(console, options, level)
    except Unfit as error:
        print(f"benchmarks: {error}", file=sys.stderr)
        return 2
    except KeyboardInterrupt:
        print("benchmarks: stopped; nothing was saved", file=sys.stderr)
        return 130
    missed = [each["name"] for each in run.bars if not each["kept"]]
    judged = [each for each in missed if options.check is not None and each in (options.check or missed)]
    if judged:
        console.print(f"[bold red]missed: {', '.join(judged)}[/]")
    return 1 if judged else 0


def _arguments(arguments: list[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        prog="./dev bench",
        description="What Spanway costs beside nginx and others, measured as benchmarks/README.md says.",
        epilog=f"scenarios: {', '.join(SCENARIOS)}. peers: {', '.join(VARIANTS)}.",
    )
    size = parser.add_mutually_exclusive_group()
    size.add_argument("--quick", action="store_true", help="the core scenarios, in about 4 minutes")
    size.add_argument("--full", action="store_true", help="every scenario, point and peer: hours")
    parser.add_argument("--only", action="append", default=[], metavar="NAME", help="this scenario only; repeatable")
    parser.add_argument(
        "--peers", type=_names, metavar="NAME,..", help="these peers; ratios are to nginx, or the first"
    )
    parser.add_argument(
        "--rounds", type=int, metavar="N", help="interleaved rounds (3; the core scenarios 5 unless quick)"
    )
    parser.add_argument("--seconds", type=float, metavar="S", help="of each load (3 when quick, else 5; least 1)")
    parser.add_argument("--answer", type=int, metavar="BYTES", help="size of the small answer (430)")
    parser.add_argument("--collector", choices=("sink", "jaeger"), default="sink", help="what receives the spans")
    words = f"exit with 1 when one of these bars, or any, is missed: {', '.join(bars.NAMES)}"
    parser.add_argument("--check", nargs="?", type=_names, const=(), metavar="BAR,..", help=words)
    parser.add_argument("--output", type=Path, metavar="FILE", help="the JSON (default benchmarks/results/DATE.json)")
    parser.add_argument("--no-install", action="store_true", help="leave out peers that are not installed")
    parser.add_argument("--compare", nargs=2, type=Path, metavar=("A.json", "B.json"), help="what B does worse than A")
    parser.add_argument("--list", action="store_true", help="the scenarios, the peers and the bars")
    options = parser.parse_args(arguments)
    _known(parser, "scenario", options.only, SCENARIOS)
    _known(parser, "peer", options.peers or (), VARIANTS)
    _known(parser, "bar", options.check or (), bars.NAMES)
    if (options.rounds is not None and options.rounds < 1) or (options.seconds is not None and options.seconds < 1):
        parser.error("a measurement needs at least 1 round of 1 second")
    return options


def _names(text: str) -> tuple[str, ...]:
    return tuple(name.strip() for name in text.split(",") if name.strip())


def _known(parser: argparse.ArgumentParser, what: str, names: Sequence[str], known: Sequence[str] | dict) -> None:
    unknown = [name for name in names if name not in known]
    if unknown:
        parser.error(f"no such {what}: {', '.join(unknown)}; there are {', '.join(known)}")


def _measure(console: Console, options: argparse.Namespace, level: Level) -> Run:
    rounds = options.rounds or ROUNDS[level]
    seconds = options.seconds or SECONDS[level]
    left_out: list[str] = []

    def leave_out(reason: str) -> None:
        left_out.append(reason)
        progress.console.print(f"[yellow]left out: {escape(reason)}[/]", highlight=False)

    columns = (
        BarColumn(),
        TextColumn("{task.percentage:3.0f} %"),
        TimeElapsedColumn(),
        TextColumn("{task.fields[left]}"),
    )
    progress = Progress(*columns, TextColumn("{task.description}"), console=console)
    names = _install(console, options.peers or PEERS[level], leave_out, may_install=not options.no_install)
    scenarios = chosen(level, options.only)
    samples = Samples()
    with tempfile.TemporaryDirectory(prefix="spanway-bench-") as folder, progress:
        task = progress.add_task("starting", total=1.0, left="")
        done = 0.0
        pending = 0.0

        def say(words: str, takes: float) -> None:
            nonlocal done, pending
            done, pending = done + pending, takes
            left = max(0.0, whole - done)
            progress.update(task, description=words, completed=done, left=f"about {duration(left)} left")
            if not console.is_terminal:
                console.print(f"[dim]{words} (about {duration(left)} left)[/]", highlight=False)

        minor = options.rounds or MINOR[level]
        session = Session(scenarios, names, level, rounds, minor, options.peers is not None, say, leave_out)
        whole = session.plan(seconds)
        progress.update(task, total=whole)
        lab_options = {"answer": options.answer} if options.answer else {}
        with Lab(Path(folder), seconds=seconds, jaeger=options.collector == "jaeger", **lab_options) as lab:
            described = machine.describe() | {
                "spanway": spanway.version(),
                "collector": lab.collector.name,
                "rounds": str(rounds),
                "seconds": f"{seconds:g}",
            }
            try:
                for sample in session.run(lab):
                    if sample.scenario not in samples.scenarios():
                        _print_last(progress.console, samples)
                    samples.add(sample)
            except KeyboardInterrupt:
                leave_out("stopped before the end: what had been measured is here")
            _print_last(progress.console, samples)
        progress.update(task, completed=whole, left="", description="done")
    return _finish(console, options.output, described, samples, left_out)


def _print_last(console: Console, samples: Samples) -> None:
    """Complete the scenario that has just been measured, and show its table."""
    for name in samples.scenarios()[-1:]:
        if any(metric.name == ADDED for metric in SCENARIOS[name].metrics):
            samples.subtract(name, "p50", DIRECT, ADDED)
        terminal.print_scenario(console, SCENARIOS[name], samples)


def _finish(
    console: Console, output: Path | None, described: dict[str, str], samples: Samples, left_out: list[str]
) -> Run:
    judged = bars.judge(samples, compiled=spanway.compiled())
    run = store.of(described, samples, judged, left_out, spanway.compiled())
    now = datetime.now().astimezone()
    path = output or DIRECTORY / f"{now:%Y%m%d-%H%M%S}.json"
    run.write(path)
    page.write(run, path.with_suffix(".html"), f"{now:%Y-%m-%d %H:%M}")
    drawn = pictures.draw(run, path.with_suffix(""))
    terminal.print_bars(console, judged)
    terminal.print_machine(console, described)
    console.print(f"saved: {path}, {path.with_suffix('.html').name}{drawn}", highlight=False)
    return run


def _install(
    console: Console, names: Sequence[str], leave_out: Callable[[str], None], *, may_install: bool
) -> list[str]:
    """Get what the peers (and the bench itself) need; those that can run."""
    wanted = dict.fromkeys([*TOOLS, *(VARIANTS[name].part for name in names if VARIANTS[name].part)])
    for part in wanted:
        if part is not None and parts.find(part) is None and may_install:
            console.print(f"installing {part}", highlight=False)
            try:
                install(parts.PARTS[part])
            except InstallFailed as error:
                console.print(f"[yellow]{part}: {escape(str(error))}[/]", highlight=False)
    can: list[str] = []
    for name in names:
        reason = unavailable(name)
        if reason:
            leave_out(reason)
        else:
            can.append(name)
    if not can:
        raise Unfit("none of the peers can run here")
    return can


def _compare(console: Console, before: Path, after: Path) -> int:
    try:
        found = compare.compare(Run.read(before), Run.read(after))
    except NoRun as error:
        print(f"benchmarks: {error}", file=sys.stderr)
        return 2
    compare.show(console, found, os.fspath(before), os.fspath(after))
    return 1 if any(each.verdict == "worse" for each in found) else 0


def _list(console: Console) -> None:
    for scenario in SCENARIOS.values():
        console.print(f"[bold]{scenario.name:12}[/] {scenario.title}. {scenario.what}", highlight=False)
    console.print()
    for variant in VARIANTS.values():
        console.print(
            f"[bold]{variant.name:16}[/] {variant.title}  [dim]{unavailable(variant.name)}[/]", highlight=False
        )
    console.print()
    for bar in bars.BARS:
        console.print(f"[bold]{bar.name:16}[/] {bar.text}: {bar.words}", highlight=False)
