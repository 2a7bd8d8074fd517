"""Beyond its rate the proxy shows rows of requests with rests between, and the wire sets its taps aside meanwhile."""

from __future__ import annotations

import time
from pathlib import Path

import pytest

from proxy.trace.allowance import BURST
from tests.harness.namespaces import laboratory
from tests.real.test_wire import check, missing
from tests.real.wired import Wired

pytestmark = [pytest.mark.real, pytest.mark.alone, pytest.mark.timeout(240)]

RATE = 50
REQUESTS = 10_000  # in one load, some two seconds
LOADS = 16  # at most
REST = 4.0  # seconds: none is longer, and what was shown before has come
RESTED = 3.0  # seconds in which taps were set aside, until it is enough
ASIDE = "88b5"  # the protocol of a packet socket that takes none


def protocols() -> list[str]:
    """Of every packet socket in this network namespace, as the kernel has them."""
    return [line.split()[3] for line in Path("/proc/net/packet").read_text().splitlines()[1:]]


def test_taps_are_set_aside_under_load_and_what_is_shown_is_joined(tmp_path: Path) -> None:
    before = protocols()
    with laboratory("wrest", "bridge") as lab, Wired(lab, tmp_path, rate=RATE) as wired:
        others = [protocol for protocol in before if protocol != ASIDE]
        aside, answered, counts = 0, [], wired.counts()
        for mark in range(1, LOADS):
            load = wired.begin_load(REQUESTS, 16, "small", mark)
            while load.running:
                aside += sorted(protocols()) == sorted([*others, ASIDE, ASIDE])
                time.sleep(0.02)
            answered.append(wired.answers(load, mark))
            counts = wired.counts()
            if counts["rested_seconds"] > RESTED:
                break
        assert counts["rested_seconds"] > RESTED, str(counts)
        assert aside
        time.sleep(REST)
        counts = wired.settled(BURST)
        wired.collector.wait(lambda span: span.name == "wire", int(counts["joined"]), "all that were joined")
        received = int(counts["records_received"])
        assert BURST < received < REQUESTS
        # The first rest ends late where thousands are joined meanwhile.
        assert counts["joined"] >= 0.8 * received, missing(counts)
        assert not missing(counts).keys() - {"missing/rested", "missing/no-anchor"}, missing(counts)
        windows = 0
        for mark, load_of_it in enumerate(answered, 1):
            wires, children = wired.spans(mark, 0)  # a short one may fall into a rest
            windows += check(load_of_it, wires, children)  # nothing that was seen in part is told as whole
        assert windows > received / 2
        # Afterwards there is time for everything, and nothing is set aside.
        later = wired.load(20, 2, "small", LOADS)
        after = wired.settled(received + len(later))
        assert after["joined"] == counts["joined"] + len(later), missing(after)
        assert ASIDE not in protocols()
        rested = wired.counts()["rested_seconds"]
        time.sleep(2.0)
        assert wired.counts()["rested_seconds"] == rested
