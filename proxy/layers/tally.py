"""What `spanway wire` counts, and its pages: a few numbers by name, as Prometheus reads them.

Every record that arrives ends in exactly one count: joined, or missing for a reason.
"""

from __future__ import annotations

import platform
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from itertools import groupby
from typing import Final, NamedTuple

from prometheus_client import Metric
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, InfoMetricFamily
from prometheus_client.exposition import CONTENT_TYPE_PLAIN_0_0_4, generate_latest
from prometheus_client.registry import Collector

from proxy import __version__
from proxy.layers.ipfix import Reader
from proxy.layers.joining import Frames
from proxy.layers.ovs.counters import Sample
from proxy.trace.ledger import ExportCounters
from proxy.trace.semconv_wire import LOSS_AT

VERDICTS: Final = 64
"""Verdicts that are told apart: a place may be named after pods' interfaces, which come and go."""
ELSEWHERE: Final = f"{LOSS_AT}another place"
CLOSED: Final = "(closed)"
"""The interface that stands for all that are not listened to any more."""


class Moment(NamedTuple):
    """What is so at the moment.

    ``ways`` are (interfaces, whether they are listened to); ``switch`` is what Open vSwitch counts, ``ipfix`` what it
    is heard by, None where it is not.
    """

    rings: int
    pending: int
    ready: bool
    ways: tuple[tuple[str, bool], ...] = ()
    frames: Frames = Frames()
    rested: float = 0.0  # seconds in which taps were set aside so far
    switch: Sequence[Sample] = ()
    ipfix: Reader | None = None


class Tally:
    """The counters of one process; all belong to its one thread."""

    def __init__(self) -> None:
        self.received = 0  # records
        self.malformed = 0  # datagrams that are no records of this version
        self.joined = 0
        self.proven = 0  # of those joined: Open vSwitch has reported packets of them
        self.incomplete = 0  # of those joined: a ring had drops meanwhile
        self.missing: Final[Counter[str]] = Counter()  # by reason
        self.verdicts: Final[Counter[str]] = Counter()
        self.spans = 0
        self.packets: Final[Counter[str]] = Counter()  # by interface
        self.drops: Final[Counter[str]] = Counter()
        self.join_ns = 0  # CPU time spent in joining

    def __repr__(self) -> str:
        return f"Tally({self.received} received, {self.joined} joined, {self.missing.total()} missing)"

    def judged(self, verdict: str) -> None:
        """Count an attempt by its verdict."""
        self.verdicts[verdict if verdict in self.verdicts or len(self.verdicts) < VERDICTS else ELSEWHERE] += 1

    def closed(self, interface: str) -> None:
        """What was counted of an interface goes to `CLOSED`: pods come and go, and leave nothing behind."""
        for counts in (self.packets, self.drops):
            if number := counts.pop(interface, 0):
                counts[CLOSED] += number

    def line(self, before: Mapping[str, int]) -> tuple[str, dict[str, int]]:
        """What has changed since ``before`` in one line ("" where nothing has), and what to compare with next time."""
        now = {
            "joined": self.joined,
            "packets": self.packets.total(),
            "packets lost by rings": self.drops.total(),
            "datagrams that were no records": self.malformed,
            **{f"missing ({reason})": number for reason, number in sorted(self.missing.items())},
        }
        changes = {name: number - before.get(name, 0) for name, number in now.items() if number != before.get(name, 0)}
        if not changes.keys() - {"packets"}:
            return "", now  # packets of requests that have not ended yet are no news
        return ", ".join(f"{number} {name}" for name, number in changes.items()), now


class _Families(Collector):
    """A moment as prometheus_client wants to read it."""

    def __init__(self, tally: Tally, export: ExportCounters, moment: Moment) -> None:
        self._tally = tally
        self._export = export
        self._moment = moment
        self._gauges = (
            ("spanway_wire_rings", "Interfaces that are listened to.", moment.rings),
            ("spanway_wire_records_pending", "Records that wait for their packets.", moment.pending),
            ("spanway_wire_ready", "Whether records are read and packets can be (/readyz).", int(moment.ready)),
        )

    def collect(self) -> Iterator[Metric]:
        """The metric families."""
        tally = self._tally
        for name, text, number in (
            ("records_received", "Records that a proxy has handed over.", tally.received),
            ("records_malformed", "Datagrams that were no records of this version.", tally.malformed),
            ("joined", "Attempts joined exactly with their packets.", tally.joined),
            ("incomplete", "Of those: while a ring dropped packets.", tally.incomplete),
            ("spans", "Spans given to the exporter.", tally.spans),
            ("packets_unread", "Packets that are no whole TCP header over IP.", self._moment.frames.unread),
            ("packets_unknown", "Packets of more connections than are kept.", self._moment.frames.unknown),
            ("blocks_torn", "Blocks of rings that end within a packet.", self._moment.frames.torn),
        ):
            yield CounterMetricFamily(f"spanway_wire_{name}", text, value=number)
        yield CounterMetricFamily(
            "spanway_wire_join_seconds", "CPU time spent in joining.", value=tally.join_ns / 1e9, unit="seconds"
        )
        yield CounterMetricFamily(
            "spanway_wire_rested_seconds",
            "Time in which taps were set aside, as the proxy showed nothing.",
            value=self._moment.rested,
            unit="seconds",
        )
        for name, text, label, counts in (
            ("missing", "Attempts that were not joined, by reason.", "reason", tally.missing),
            ("verdicts", "Attempts joined, by what their wait was spent on.", "verdict", tally.verdicts),
            ("packets", "Packets read from rings.", "interface", tally.packets),
            ("packets_dropped", "Packets that rings had no room for.", "interface", tally.drops),
        ):
            family = CounterMetricFamily(f"spanway_wire_{name}", text, labels=(label,))
            for value, number in sorted(counts.items()):
                family.add_metric((value,), number)
            yield family
        export = self._export
        yield CounterMetricFamily(
            "spanway_spans_acknowledged", "Spans the collector accepted.", value=export.acknowledged
        )
        dropped = CounterMetricFamily(
            "spanway_spans_dropped", "Spans lost before a collector had them.", labels=("reason",)
        )
        for reason, number in sorted(export.dropped.items()):
            dropped.add_metric((reason,), number)
        yield dropped
        for name, text, number in self._gauges:
            yield GaugeMetricFamily(name, text, value=number)
        ways = GaugeMetricFamily("spanway_wire_way_up", "Whether a way is listened to.", labels=("interfaces",))
        for name, works in self._moment.ways:
            ways.add_metric((name,), int(works))
        yield ways
        if self._moment.ipfix is not None:
            yield from _of_reader(self._moment.ipfix, tally.proven)
        yield from _of_switch(self._moment.switch)
        yield InfoMetricFamily(
            "spanway_build", "What runs.", value={"version": __version__, "python_version": platform.python_version()}
        )


def _of_reader(reader: Reader, proven: int) -> Iterator[Metric]:
    """What came by IPFIX."""
    for name, text, number in (
        ("proven", "Attempts joined of whose packets Open vSwitch has reported some.", proven),
        ("samples", "Samples of TCP packets.", reader.samples),
        ("lost", "Records that did not arrive, by the exporter's sequence numbers.", reader.lost),
        ("unread", "Sets of records without a template, or of another form than it says.", reader.unread),
        ("malformed", "Messages that are none.", reader.malformed),
    ):
        yield CounterMetricFamily(f"spanway_wire_ipfix_{name}", text, value=number)


def _of_switch(samples: Sequence[Sample]) -> Iterator[Metric]:
    """What Open vSwitch counts, under the names that `ovs.counters` gives."""
    for name, group in groupby(sorted(samples), key=lambda sample: sample.name):
        metric: Metric | None = None
        for sample in group:
            if metric is None:
                metric = Metric(name.removesuffix("_total"), "Open vSwitch's own account.", sample.kind)
            metric.add_sample(name, dict(sample.labels), sample.value)
        if metric is not None:
            yield metric


def expose(tally: Tally, export: ExportCounters, moment: Moment) -> tuple[bytes, str]:
    """The page /metrics, and its Content-Type."""
    return generate_latest(_Families(tally, export, moment)), CONTENT_TYPE_PLAIN_0_0_4
