"""The metrics in docs/tracing.md: every family of `/metrics` with its type, unit, labels and meaning.

``python -m proxy.admin.reference docs/tracing.md`` renews them in place, as `./dev docs` does. A test keeps them
current.
"""

from __future__ import annotations

import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Final

from prometheus_client import Metric

from proxy.admin.cluster import ClusterSample, WatchSample
from proxy.admin.control import ControlSample
from proxy.admin.metrics import Moment, families
from proxy.admin.source import EndpointSample, WorkerSample
from proxy.route.spec import TableSpec
from proxy.route.stats import RouteStats
from proxy.trace import semconv
from proxy.trace.ledger import ExportCounters

SOURCE: Final = "proxy/admin/metrics.py"
NAME: Final = "metrics"  # in the page's markers
_SUFFIXES: Final = {"counter": "_total", "info": "_info"}  # of the name in both formats
_OF_FORMAT: Final = {"le"}  # a label that every histogram has


def example() -> Moment:
    """A moment in which every family and label occurs."""
    stats = RouteStats("namespace", "ingress", "host", "/")
    stats.observe(502, 1, 1, "connect_failed", bytes(16), recorded=False, end_ns=0)
    sample = WorkerSample(
        pid=1,
        started=0.0,
        generation=1,
        routes=(stats.snapshot(),),
        endpoints=(EndpointSample("namespace/service:80", "127.0.0.1", 80, latency=1.0),),
        export=ExportCounters(dropped={"queue_full": 1}, reachable=True),
    )
    watches = WatchSample(
        "Service", 1, 1, 1, events={"added": 1}, reconnects={"ended": 1}, faults={"403": 1}, unusable=1, age=1.0
    )
    return Moment(
        (sample,),
        0,
        TableSpec(1),
        (),
        ready=True,
        cluster=ClusterSample((watches,)),
        control=ControlSample(events=(("Ingress", "modified", 1),)),
    )


def table() -> str:
    """The metrics as Markdown."""
    lines = ["| metric | type | unit | labels | meaning |", "|---|---|---|---|---|"]
    lines += ["| " + " | ".join(_cells(family)) + " |" for family in families(example())]
    return "\n".join(lines)


def _cells(family: Metric) -> Iterator[str]:
    labels = dict.fromkeys(name for sample in family.samples for name in sample.labels if name not in _OF_FORMAT)
    yield f"`{family.name}{_SUFFIXES.get(family.type, '')}`"
    yield family.type
    yield family.unit
    yield ", ".join(f"`{name}`" for name in labels)
    yield family.documentation


def renew(page: str) -> str:
    """``page`` with its metrics as they should be now. Raises `ValueError` if it has no markers for them."""
    return semconv.renew(page, {NAME: semconv.section(NAME, SOURCE, table())})


def main(arguments: list[str]) -> None:
    """Print the table; with the path of a page, renew it in place."""
    if arguments:
        path = Path(arguments[0])
        path.write_text(renew(path.read_text("utf-8")), "utf-8")
    else:
        sys.stdout.write(f"{table()}\n")


if __name__ == "__main__":
    main(sys.argv[1:])
