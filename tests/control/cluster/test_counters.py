from __future__ import annotations

import time

from proxy.control.cluster.counters import Counters
from proxy.control.cluster.faults import Forbidden, Unreachable


def test_a_sample_sums_up_the_watches_of_a_kind() -> None:
    counters = Counters("Secret")
    assert counters.sample().age == -1
    one, two = counters.join(), counters.join()
    one.synced = one.connected = True
    one.heard = time.monotonic() - 100
    two.heard = time.monotonic()
    two.unusable = 1
    counters.events["added"] += 1
    sample = counters.sample()
    assert (sample.watches, sample.synced, sample.connected, sample.unusable) == (2, 1, 1, 1)
    assert sample.age >= 100, "that of the watch that was silent for longest"
    counters.leave(one)
    assert counters.sample().age < 100
    assert counters.sample().events == {"added": 1}


def test_faults_are_counted_by_their_code() -> None:
    counters = Counters("Secret")
    for fault in (Forbidden("x", "no", 403), Unreachable("x", "gone"), Forbidden("x", "no", 403)):
        counters.fault(fault)
    assert counters.sample().faults == {"403": 2, "unreachable": 1}
