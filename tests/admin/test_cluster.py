"""The controller's metrics."""

from proxy.admin.cluster import ClusterSample, WatchSample, families


def lines(sample):
    return {
        f"{each.name}{sorted(each.labels.items())}": each.value
        for family in families(sample)
        for each in family.samples
    }


def test_watches_are_counted_by_kind():
    watch = WatchSample(
        "Secret",
        watches=3,
        synced=2,
        connected=1,
        events={"added": 7, "bookmark": 9},
        lists=4,
        reconnects={"gone": 1},
        faults={"403": 2, "unreachable": 5},
        unusable=1,
        age=12.5,
    )
    found = lines(ClusterSample((watch, WatchSample("Ingress"))))
    assert found["spanway_watches[('kind', 'Secret'), ('state', 'connected')]"] == 1
    assert found["spanway_watch_events_total[('kind', 'Secret'), ('type', 'bookmark')]"] == 9
    assert found["spanway_watch_lists_total[('kind', 'Secret')]"] == 4
    assert found["spanway_watch_reconnects_total[('kind', 'Secret'), ('reason', 'gone')]"] == 1
    assert found["spanway_watch_faults_total[('code', '403'), ('kind', 'Secret')]"] == 2
    assert found["spanway_watch_unusable_objects[('kind', 'Secret')]"] == 1
    assert found["spanway_watch_age_seconds[('kind', 'Secret')]"] == 12.5
    assert "spanway_watch_age_seconds[('kind', 'Ingress')]" not in found, "nothing was heard yet"


def test_the_leader_and_what_it_writes():
    sample = ClusterSample(
        leader=True, transitions=2, status_writes=3, status_faults=4, event_writes=5, event_faults=6, events_lost=7
    )
    found = lines(sample)
    assert found["spanway_leader[]"] == 1
    assert found["spanway_leader_transitions_total[]"] == 2
    assert [found[f"spanway_{name}_total[]"] for name in ("status_writes", "status_faults")] == [3, 4]
    assert [found[f"spanway_{name}_total[]"] for name in ("events_written", "event_faults", "events_lost")] == [5, 6, 7]
