"""The Prometheus text format, read: samples by name and labels."""

from __future__ import annotations

import re
from typing import NamedTuple

_SAMPLE = re.compile(r"([a-zA-Z_:][a-zA-Z0-9_:]*)(?:\{(.*?)\})? (\S+)(?: \S+)?(?: # .*)?\Z")
_LABEL = re.compile(r'([a-zA-Z_][a-zA-Z0-9_]*)="((?:[^"\\]|\\.)*)"')


class Sample(NamedTuple):
    """One line of an exposition."""

    name: str
    labels: dict[str, str]
    value: float


class Samples(list[Sample]):
    """An exposition."""

    def total(self, name: str, **labels: str) -> float:
        """Sum of the samples of ``name`` that carry all ``labels``; 0 without any."""
        return sum(
            sample.value
            for sample in self
            if sample.name == name and all(sample.labels.get(key) == value for key, value in labels.items())
        )


def parse(text: str) -> Samples:
    """Read an exposition (text or OpenMetrics); AssertionError for a line that is neither comment nor sample."""
    samples = Samples()
    for line in text.splitlines():
        if not line or line.startswith("#"):
            continue
        found = _SAMPLE.match(line)
        assert found, f"not a sample: {line!r}"
        labels = {key: value.replace(r"\"", '"') for key, value in _LABEL.findall(found[2] or "")}
        samples.append(Sample(found[1], labels, float(found[3])))
    return samples
