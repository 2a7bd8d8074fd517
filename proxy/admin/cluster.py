"""What `/metrics` and `/readyz` say of a controller: its watches, its leadership, what it writes."""

from __future__ import annotations

from collections.abc import Iterator

import msgspec
from prometheus_client import Metric
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily


class WatchSample(msgspec.Struct, frozen=True):
    """The watches of one kind; counts are since the start."""

    kind: str
    watches: int = 0  # how many there are: one, one per namespace, or one per Secret that is named
    synced: int = 0  # of these, those that have had their first whole list
    connected: int = 0  # of these, those that hear the API server now
    events: dict[str, int] = {}  # by type: added, modified, deleted, bookmark
    lists: int = 0  # whole lists taken in, the first included
    reconnects: dict[str, int] = {}  # by why the watch before had ended
    faults: dict[str, int] = {}  # calls that failed, by status code or "unreachable"
    unusable: int = 0  # objects that cannot be used now
    age: float = -1.0  # seconds since the last sign of life, bookmarks included; -1 before the first


class ClusterSample(msgspec.Struct, frozen=True):
    """A controller at one moment."""

    watches: tuple[WatchSample, ...] = ()
    leader: bool = False
    holder: str = ""  # who holds the Lease, as last seen
    transitions: int = 0  # times this replica has become the leader
    status_writes: int = 0
    status_faults: int = 0
    event_writes: int = 0
    event_faults: int = 0
    events_lost: int = 0  # Events not written, there having been too many at a time


def families(sample: ClusterSample) -> Iterator[Metric]:
    """The sample as metric families."""
    yield from _watches(sample.watches)
    yield GaugeMetricFamily("spanway_leader", "1 while this replica is the leader.", value=int(sample.leader))
    yield CounterMetricFamily(
        "spanway_leader_transitions", "Times this replica has become the leader.", value=sample.transitions
    )
    for name, text, number in (
        ("status_writes", "Writes of an Ingress's status.", sample.status_writes),
        ("status_faults", "Writes of an Ingress's status that failed.", sample.status_faults),
        ("events_written", "Kubernetes Events written.", sample.event_writes),
        ("event_faults", "Kubernetes Events that could not be written.", sample.event_faults),
        ("events_lost", "Kubernetes Events not written, as there were too many at a time.", sample.events_lost),
    ):
        yield CounterMetricFamily(f"spanway_{name}", text, value=number)


def _watches(watches: tuple[WatchSample, ...]) -> Iterator[Metric]:
    number = GaugeMetricFamily("spanway_watches", "Watches, by kind and state.", labels=("kind", "state"))
    events = CounterMetricFamily("spanway_watch_events", "Events of watches.", labels=("kind", "type"))
    lists = CounterMetricFamily("spanway_watch_lists", "Whole lists taken in, the first included.", labels=("kind",))
    reconnects = CounterMetricFamily(
        "spanway_watch_reconnects", "Watches opened anew, by why the one before ended.", labels=("kind", "reason")
    )
    faults = CounterMetricFamily(
        "spanway_watch_faults", "Lists and watches that failed, by status code.", labels=("kind", "code")
    )
    unusable = GaugeMetricFamily("spanway_watch_unusable_objects", "Objects that cannot be used.", labels=("kind",))
    age = GaugeMetricFamily(
        "spanway_watch_age_seconds",
        "Time since the watch that was silent for longest last said anything, bookmarks included.",
        labels=("kind",),
        unit="seconds",
    )
    for each in watches:
        for state, value in (("all", each.watches), ("synced", each.synced), ("connected", each.connected)):
            number.add_metric((each.kind, state), value)
        for family, counts in ((events, each.events), (reconnects, each.reconnects), (faults, each.faults)):
            for label, value in sorted(counts.items()):
                family.add_metric((each.kind, label), value)
        lists.add_metric((each.kind,), each.lists)
        unusable.add_metric((each.kind,), each.unusable)
        if each.age >= 0:
            age.add_metric((each.kind,), each.age)
    yield from (number, events, lists, reconnects, faults, unusable, age)
