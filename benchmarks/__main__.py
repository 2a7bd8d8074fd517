"""`python -m benchmarks cost|memory|all`: measure, print, save; with --check fail when a promise is broken."""

from __future__ import annotations

import argparse
import sys
import tempfile
from dataclasses import asdict
from pathlib import Path
from typing import Any, Final

from rich.console import Console

from benchmarks import bars, cost, machine, memory, report
from benchmarks.bars import Bar
from benchmarks.lab import ANSWER, NGINX, TRACED, UNTRACED, VARIANTS, Lab
from benchmarks.machine import Unfit

BODY: Final = 2 * 1024**3  # bytes


def main(arguments: list[str] | None = None) -> int:
    """The command; 0, 1 when a promise is broken and --check was given, 2 when nothing can be measured here."""
    chosen = _arguments(arguments)
    console = Console(width=None if sys.stdout.isatty() else 140)
    try:
        with tempfile.TemporaryDirectory(prefix="spanway-bench-") as folder:
            found, judged = _measure(chosen, Path(folder), console)
    except Unfit as error:
        print(f"benchmarks: {error}", file=sys.stderr)
        return 2
    described = machine.describe()
    console.print()
    report.print_bars(console, judged)
    report.print_machine(console, described)
    console.print(f"saved: {report.save(chosen.what, described, judged, found)}", highlight=False)
    return 1 if chosen.check and not all(bar.kept for bar in judged) else 0


def _arguments(arguments: list[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m benchmarks", description="What Spanway costs, beside nginx.")
    parser.add_argument("what", choices=("cost", "memory", "all"), help="what to measure")
    parser.add_argument("--rounds", type=int, default=5, help="interleaved rounds (default 5)")
    parser.add_argument("--seconds", type=float, default=5.0, help="of load in each measurement (default 5, least 3)")
    parser.add_argument(
        "--peers",
        default=f"{NGINX},{TRACED},{UNTRACED}",
        help=f"which to measure, the first is the reference: {', '.join(VARIANTS)}",
    )
    parser.add_argument("--answer", type=int, default=ANSWER, help=f"bytes in the upstream's answer (default {ANSWER})")
    parser.add_argument("--no-latency", action="store_true", help="leave out latency at one connection")
    parser.add_argument("--million", action="store_true", help="memory: also a million requests (about a minute)")
    parser.add_argument("--connections", type=int, default=2000, help="memory: idle connections (default 2000)")
    parser.add_argument("--collector", choices=("jaeger", "grpcio"), default="jaeger", help="what receives the spans")
    parser.add_argument("--check", action="store_true", help="exit with 1 when a promise is broken")
    chosen = parser.parse_args(arguments)
    chosen.peers = chosen.peers.split(",")
    unknown = [name for name in chosen.peers if name not in VARIANTS]
    if unknown:
        parser.error(f"no such peer: {', '.join(unknown)}; there are {', '.join(VARIANTS)}")
    if chosen.seconds < 3 or chosen.rounds < 1:
        parser.error("a measurement needs at least 1 round of 3 seconds")
    return chosen


def _measure(chosen: argparse.Namespace, folder: Path, console: Console) -> tuple[dict[str, Any], list[Bar]]:
    found: dict[str, Any] = {}
    judged: list[Bar] = []
    with (
        Lab(folder, answer=chosen.answer, prefer_jaeger=chosen.collector == "jaeger") as lab,
        console.status("starting") as status,
    ):
        found["collector"] = lab.collector.name
        if chosen.what in ("cost", "all"):
            latency = not chosen.no_latency
            results = cost.measure(lab, chosen.peers, chosen.rounds, chosen.seconds, status.update, latency=latency)
            report.print_cost(console, results, chosen.peers[0])
            judged += bars.of_cost(results)
            found["cost"] = results.plain()
        if chosen.what in ("memory", "all"):
            status.update("idle connections")
            idle = {name: memory.idle(lab, name, chosen.connections) for name in (NGINX, TRACED)}
            status.update("a big body each way")
            body = memory.big_body(lab, TRACED, BODY)
            growth = memory.growth(lab, TRACED, memory.MILLION, status.update) if chosen.million else None
            report.print_memory(console, idle, body, growth)
            judged += bars.of_memory(idle[TRACED], body, growth)
            found["memory"] = {
                "idle": {name: asdict(each) for name, each in idle.items()},
                "body": asdict(body),
                "growth": None if growth is None else asdict(growth),
            }
    return found, judged


if __name__ == "__main__":
    sys.exit(main())
