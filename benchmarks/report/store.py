"""A run as a file: JSON with every single sample, the machine, the versions and the bars."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final, Self

from benchmarks.measure.samples import Sample, Samples
from benchmarks.report.bars import Judged

DIRECTORY: Final = Path(__file__).resolve().parents[1] / "results"
FORMAT: Final = 1


class NoRun(Exception):
    """A file that is no run of this suite; the message says why."""


@dataclass(frozen=True, slots=True)
class Run:
    """What a run found. ``machine`` has its place, versions and arguments; ``left_out`` what could not be measured."""

    machine: Mapping[str, str]
    samples: Samples
    bars: Sequence[Mapping[str, Any]]
    left_out: Sequence[str]
    compiled: bool

    @classmethod
    def read(cls, path: Path) -> Self:
        """From a file; raises `NoRun`."""
        try:
            plain = json.loads(path.read_text(encoding="utf-8"))
            if plain.get("format") != FORMAT:
                raise NoRun(f"{path}: is not of format {FORMAT}; measure again")
            samples = Samples(Sample.of(each) for each in plain["samples"])
            return cls(plain["machine"], samples, plain["bars"], plain["left_out"], plain["compiled"])
        except (OSError, ValueError, KeyError, AttributeError, TypeError) as error:
            raise NoRun(f"{path}: is no result of ./dev bench: {error}") from error

    def write(self, path: Path) -> None:
        """To a file."""
        path.parent.mkdir(parents=True, exist_ok=True)
        head = {"format": FORMAT, "machine": dict(self.machine), "compiled": self.compiled}
        head |= {"left_out": list(self.left_out), "bars": list(self.bars)}
        # One sample a line: a diff of two curated results is then readable.
        samples = ",\n".join(json.dumps(each.plain()) for each in self.samples)
        path.write_text(json.dumps(head, indent=1)[:-2] + f',\n "samples": [\n{samples}\n]\n}}\n', encoding="utf-8")


def of(
    machine: Mapping[str, str], samples: Samples, judged: Sequence[Judged], left_out: Sequence[str], compiled: bool
) -> Run:
    """A run from its pieces."""
    return Run(machine, samples, [each.plain() for each in judged], left_out, compiled)
