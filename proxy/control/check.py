"""`spanway check`: everything that is wrong with manifests, for people and for their pipelines."""

from __future__ import annotations

from itertools import groupby
from typing import TYPE_CHECKING, NamedTuple

from proxy.control.build import EVERYTHING, Choices, build
from proxy.control.manifests import load

if TYPE_CHECKING:
    from collections import Counter
    from collections.abc import Iterable, Iterator, Sequence
    from pathlib import Path

    from proxy.control.problem import Problem
    from proxy.route.spec import TableSpec
    from proxy.settings import Override


class Survey(NamedTuple):
    """What is in the manifests, and what is wrong with it, in the order of files and lines."""

    problems: list[Problem]
    table: TableSpec
    files: int
    others: Counter[str]  # objects of kinds that make no routes


def survey(paths: Sequence[Path], overrides: Sequence[Override] = (), choices: Choices = EVERYTHING) -> Survey:
    """Read and build, and tell everything. What is broken is left out of the table."""
    reading = load(paths)
    table, found = build(reading.objects, overrides, 1, choices)
    problems = sorted(reading.problems + found, key=lambda problem: (problem.file, problem.line))
    return Survey(problems, table, reading.files, reading.others)


def check(paths: Sequence[Path], overrides: Sequence[Override] = (), choices: Choices = EVERYTHING) -> list[Problem]:
    """Everything that is wrong with the manifests, in the order of files and lines."""
    return survey(paths, overrides, choices).problems


def exit_status(problems: Iterable[Problem]) -> int:
    """1 where there is an error, else 0; warnings do not stop a pipeline."""
    return int(any(problem.severity == "error" for problem in problems))


def render(found: Survey) -> str:
    """The survey as plain text: problems by file, and one line that sums up."""
    lines: list[str] = []
    for file, problems in groupby(found.problems, key=lambda problem: problem.file):
        lines += [file or "(command line)", *(line for problem in problems for line in _problem_lines(problem)), ""]
    errors = sum(problem.severity == "error" for problem in found.problems)
    counts = [
        _count(errors, "error"),
        _count(len(found.problems) - errors, "warning"),
        _count(found.files, "file"),
        _count(len(found.table.routes), "route"),
        _count(len(found.table.certificates), "certificate"),
    ]
    lines.append(", ".join(counts))
    if found.others:
        kinds = ", ".join(f"{count} {kind}" for kind, count in sorted(found.others.items()))
        lines.append(f"passed over, since they make no routes: {kinds}")
    return "\n".join(lines) + "\n"


def _problem_lines(problem: Problem) -> Iterator[str]:
    name = f"{problem.namespace}/{problem.name}" if problem.namespace else problem.name
    subject = " ".join(part for part in (problem.kind, name) if part)
    place = f"{problem.line:>6}" if problem.line else " " * 6
    head = ": ".join(part for part in (subject, problem.field, problem.message) if part)
    yield f"{place}  {problem.severity:<7}  {head}"
    if problem.hint:
        yield f"{'':<17}{problem.hint}"


def _count(number: int, noun: str) -> str:
    return f"{number} {noun}{'' if number == 1 else 's'}"
