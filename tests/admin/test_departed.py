from proxy.admin.departed import Departed, add_exports, merge_endpoints
from proxy.route.samples import merge
from proxy.trace.ledger import ExportCounters
from tests.admin.samples import endpoint, observe, route_stats, worker


def total(samples):
    return sum(route.requests for route in merge(r for sample in samples for r in sample.routes))


def test_a_dead_worker_keeps_counting():
    running = {1, 2}
    departed = Departed(running.__contains__)
    one, two = observe(route_stats(), times=5), observe(route_stats(), times=7)
    assert total(departed.complete([worker(1, stats=[one]), worker(2, stats=[two])])) == 12
    running -= {2}
    running |= {3}
    fresh = observe(route_stats(), times=1)
    after = departed.complete([worker(1, stats=[one]), worker(3, stats=[fresh])])
    assert total(after) == 13
    observe(fresh, times=2)
    assert total(departed.complete([worker(1, stats=[one]), worker(3, stats=[fresh])])) == 15


def test_two_dead_workers_add_up():
    running = {1, 2, 3}
    departed = Departed(running.__contains__)
    stats = [observe(route_stats(), times=n) for n in (1, 10, 100)]
    departed.complete([worker(pid, stats=[each]) for pid, each in zip((1, 2, 3), stats, strict=True)])
    running -= {2}
    departed.complete([worker(1, stats=[stats[0]]), worker(3, stats=[stats[2]])])
    running -= {3}
    assert total(departed.complete([worker(1, stats=[stats[0]])])) == 111


def test_a_worker_that_does_not_answer_in_time_is_not_dead():
    departed = Departed({1, 2}.__contains__)
    stats = observe(route_stats(), times=4)
    departed.complete([worker(1, stats=[stats]), worker(2, stats=[stats])])
    assert total(departed.complete([worker(1, stats=[stats])])) == 8
    assert total(departed.complete([worker(1, stats=[stats]), worker(2, stats=[stats])])) == 8


def test_nothing_of_a_dead_worker_is_open_or_pending():
    running = {1, 2}
    departed = Departed(running.__contains__)
    busy = worker(
        2,
        endpoints=[endpoint(requests=9, in_flight=3, connections=4, idle=1, ejected=True, ejections=2)],
        export=ExportCounters(recorded=20, acknowledged=12, pending=8, dropped={"queue_full": 0, "shutdown": 0}),
        connections_open=6,
        connections_total=60,
        requests_active=3,
        connections_refused=7,
        handshake_failures=8,
        access_log_lost=9,
        wire_listening=True,
        wire_sent=10,
        wire_full=11,
        wire_gone=12,
        wire_outside=13,
        wire_exhausted=14,
        wire_spared=15,
    )
    other = worker(1, endpoints=[endpoint(requests=1)])
    departed.complete([other, busy])
    running -= {2}
    living, gone = departed.complete([other])
    assert living == other
    assert (gone.connections_open, gone.connections_total, gone.requests_active) == (0, 60, 0)
    assert (gone.connections_refused, gone.handshake_failures, gone.access_log_lost) == (7, 8, 9)
    assert (gone.wire_listening, gone.wire_sent, gone.wire_full) == (False, 10, 11)
    assert (gone.wire_gone, gone.wire_outside) == (12, 13)
    assert (gone.wire_exhausted, gone.wire_spared) == (14, 15)
    (place,) = gone.endpoints
    assert (place.requests, place.ejections, place.in_flight, place.connections, place.ejected) == (9, 2, 0, 0, False)
    export = gone.export
    assert export.recorded == export.acknowledged + sum(export.dropped.values())
    assert export.dropped == {"queue_full": 0, "shutdown": 8}


def test_what_the_table_no_longer_has_is_forgotten():
    running = {1, 2}
    departed = Departed(running.__contains__)
    kept, dropped = observe(route_stats("/kept")), observe(route_stats("/dropped"))
    departed.complete([worker(1, stats=[kept, dropped]), worker(2, stats=[kept, dropped], endpoints=[endpoint()])])
    running -= {2}
    samples = departed.complete([worker(1, stats=[kept])])
    assert [route.path for sample in samples for route in sample.routes] == ["/kept", "/kept"]
    assert [place for sample in samples for place in sample.endpoints] == []


def test_endpoints_add_up_over_workers():
    (merged,) = merge_endpoints(
        [
            endpoint(requests=30, errors=1, in_flight=2, connections=3, idle=1, latency=0.010),
            endpoint(
                requests=10, errors=0, in_flight=1, connections=1, idle=0, latency=0.050, ejected=True, ejections=1
            ),
            endpoint(requests=0),
        ]
    )
    assert (merged.requests, merged.errors, merged.in_flight, merged.connections, merged.idle) == (40, 1, 3, 4, 1)
    assert merged.ejected
    assert abs(merged.latency - 0.020) < 1e-9


def test_exports_add_up_and_one_unreachable_collector_shows():
    merged = add_exports(
        [
            ExportCounters(recorded=5, dropped={"queue_full": 2}, reachable=True, endpoint="http://c:4317"),
            ExportCounters(
                recorded=7, dropped={"queue_full": 1, "refused": 4}, reachable=False, last_error="no", last_error_ns=9
            ),
            ExportCounters(recorded=1),
        ]
    )
    assert merged.recorded == 13
    assert merged.dropped == {"queue_full": 3, "refused": 4}
    assert merged.reachable is False
    assert (merged.last_error, merged.endpoint) == ("no", "http://c:4317")
    assert add_exports([ExportCounters()]).reachable is None
    assert add_exports([]).recorded == 0
