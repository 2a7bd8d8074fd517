"""Blind: faults are put in, and what the wire says of each request is held against what was done when and where."""

from __future__ import annotations

import itertools
import time
from collections.abc import Callable, Iterator, Sequence
from typing import Any, Final, NamedTuple

import psutil
import pytest

from proxy.demo.lab import faults
from proxy.demo.lab.faults import Fault, Truth
from proxy.demo.lab.lab import Lab
from tests.harness.collector import Span
from tests.harness.namespaces import laboratory
from tests.real.wired import Answered, Wired

pytestmark = [pytest.mark.real, pytest.mark.alone, pytest.mark.slow, pytest.mark.timeout(300)]

MS: Final = 1_000_000
COUNT: Final = 900
CONNECTIONS: Final = 4  # boxes are programs, and would themselves be the fault of a busier path
CHARGED_US: Final = 5000  # beyond the usual, from which on somebody is accused
_MARKS = itertools.count(1)


def way(lab: Lab) -> dict[str, Any]:
    """Four taps: both ends of each pod's link, whose middle is a box; a third box is within the switch."""
    proxy, app = lab.proxy, lab.backends["app"]
    assert proxy.boxed is not None
    assert app.boxed is not None
    return {
        "taps": [proxy.boxed[0], proxy.port, app.port, app.boxed[0]],
        "between": ["link proxy", "ovs", "link app"],
    }


@pytest.fixture(scope="module")
def wired(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Wired]:
    folder = tmp_path_factory.mktemp("faults")
    with (
        laboratory("wflt", "ovs", boxes=("proxy", "switch", "backend")) as lab,
        Wired(lab, folder, places_of=way(lab)) as running,
    ):
        running.answers(running.begin_load(400, CONNECTIONS, "mixed", next(_MARKS)), 1)  # what is usual
        yield running


class Seen(NamedTuple):
    """What the wire said of one request."""

    answered: Answered
    span: Span

    @property
    def verdict(self) -> str:
        return str(self.span.attributes["spanway.wait.verdict"])

    @property
    def place(self) -> str:
        return str(self.span.attributes["spanway.wait.place"])

    @property
    def excess_us(self) -> int:
        return int(self.span.attributes["spanway.wait.excess.us"])

    def overlap_ns(self, truth: Sequence[Truth]) -> int:
        return max((min(self.span.end, one.off_ns) - max(self.span.start, one.on_ns) for one in truth), default=0)

    def near(self, truth: Sequence[Truth], tail_ns: int) -> bool:
        return any(self.span.start <= one.end_ns + tail_ns and self.span.end >= one.begin_ns for one in truth)


def observe(wired: Wired, inject: Callable[[], object], kind: str = "mixed", count: int = COUNT) -> list[Seen]:
    """What the wire said of a load during which something is done."""
    mark = next(_MARKS)
    received = wired.counts()["records_received"]
    load = wired.begin_load(count, CONNECTIONS, kind, mark)
    wired.wire.until(lambda: wired.counts()["records_received"] > received, "to be told of the first request")
    inject()
    answered = wired.answers(load, mark)
    joined = wired.settled(int(received) + count)
    spans, _ = wired.spans(mark, int(0.98 * count))
    seen = [Seen(each, spans[each.trace]) for each in answered if each.trace in spans]
    assert len(seen) >= 0.98 * count, joined
    return seen


def hold(
    seen: Sequence[Seen], touched: Sequence[Seen], right: Callable[[Seen], bool], least: int, share: float = 0.95
) -> None:
    """At least that ``share`` of the touched requests is judged right."""
    assert len(touched) >= least, f"only {len(touched)} of {len(seen)} requests met the fault"
    wrong = [each for each in touched if not right(each)]
    said = [(each.verdict, each.excess_us, each.span.attributes["spanway.wire.split"]) for each in wrong[:5]]
    assert len(wrong) <= (1 - share) * len(touched), f"{len(wrong)} of {len(touched)} are judged wrong: {said}"


def lasting(fault: Fault, seconds: float = 0.8) -> Callable[[], None]:
    def inject() -> None:
        with fault:
            time.sleep(seconds)

    return inject


def blinking(fault: Fault, milliseconds: int) -> Callable[[], None]:
    seconds = milliseconds / 1000
    return lambda: fault.episodes(12, lasting_s=(seconds, seconds * 1.5), apart_s=(0.03, 0.06), seed=1)


@pytest.mark.parametrize(
    ("box", "verdict", "place"),
    [("proxy", "network", "link proxy"), ("switch", "switch", "ovs"), ("app", "network", "link app")],
)
def test_a_delay(wired: Wired, box: str, verdict: str, place: str) -> None:
    fault = faults.delay(wired.lab, box, 5000)
    seen = observe(wired, lasting(fault))
    (truth,) = fault.truth
    # Both ways within the episode: a delay of 5 ms each.
    touched = [each for each in seen if truth.on_ns <= each.span.start and each.span.end <= truth.off_ns]
    hold(seen, touched, lambda each: (each.verdict, each.place) == (verdict, place), 50)
    untouched = [each for each in seen if not each.near(fault.truth, 50 * MS)]
    # A box is a program itself, and is late now and then where processors are few.
    charged = [each for each in untouched if each.place == place and each.excess_us > CHARGED_US]
    assert len(charged) <= 0.02 * len(untouched), charged[:3]


@pytest.mark.parametrize(("box", "place"), [("proxy", "link proxy"), ("switch", "ovs"), ("app", "link app")])
def test_loss(wired: Wired, box: str, place: str) -> None:
    fault = faults.loss(wired.lab, box, 0.02, seed=len(box))
    before = len(wired.lab.boxes[box].events())
    seen = observe(wired, lasting(fault, 1.2))
    lost: dict[int, list[int]] = {}
    for event in wired.lab.boxes[box].events()[before:]:
        for port in (event.source_port, event.destination_port):
            lost.setdefault(port, []).append(event.at_ns)
    touched: list[Seen] = []
    untouched: list[Seen] = []
    for each in seen:
        at = lost.get(each.span.attributes["network.local.port"], ())
        met = any(each.span.start <= ns <= each.span.end for ns in at)
        (touched if met else untouched).append(each)
    hold(seen, touched, lambda each: each.span.attributes.get("spanway.wire.lost.at") == place, 10)
    slow = [each for each in touched if each.excess_us > 150_000]
    assert all(each.verdict == f"loss at {place}" for each in slow)
    assert not [each for each in untouched if each.verdict == f"loss at {place}"]


def test_a_switch_that_stands_still(wired: Wired) -> None:
    fault = faults.switch_stall(wired.lab)
    seen = observe(wired, blinking(fault, 40), count=2000)
    touched = [each for each in seen if each.overlap_ns(fault.truth) > 20 * MS]
    hold(seen, touched, lambda each: each.verdict == "switch", 20)


def test_a_proxy_that_stands_still(wired: Wired) -> None:
    workers = [child.pid for child in psutil.Process(wired.proxy.pid).children(recursive=True)]
    fault = faults.stall(workers, "proxy")
    seen = observe(wired, blinking(fault, 40), count=2000)
    touched = [each for each in seen if each.overlap_ns(fault.truth) > 20 * MS]
    hold(seen, touched, lambda each: each.verdict == "proxy", 20)


def test_a_backend_that_stands_still(wired: Wired) -> None:
    fault = faults.stall([wired.backend.pid], "backend")
    seen = observe(wired, blinking(fault, 40), count=2000)
    touched = [each for each in seen if each.overlap_ns(fault.truth) > 20 * MS]
    hold(seen, touched, lambda each: each.verdict in ("application", "peer not reading"), 20)


def test_an_application_that_is_slow(wired: Wired) -> None:
    seen = observe(wired, lambda: None, "slow")
    touched = [each for each in seen if int(each.answered.trace[16:], 16) % 10 == 0]
    hold(seen, touched, lambda each: each.verdict == "application" and each.excess_us > 15_000, 50)


def test_a_backend_that_does_not_read(wired: Wired) -> None:
    wired.backend.stop()
    wired.start_backend(receive=16384)
    try:
        seen = observe(wired, lambda: None, "unread", 300)
    finally:
        wired.backend.stop()
        wired.start_backend()
    touched = [each for each in seen if int(each.answered.trace[16:], 16) % 4 == 0]
    hold(seen, touched, lambda each: each.verdict == "peer not reading", 50)


@pytest.mark.parametrize("where", ["proxy", "switch"])
def test_shaping(wired: Wired, where: str) -> None:
    """The queue is before the tap of its interface: it is the sender's, or the switch's."""
    lab = wired.lab
    interface, namespace = (lab.proxy.interface, lab.proxy.namespace) if where == "proxy" else (
        lab.backends["app"].port, None
    )  # fmt: skip
    fault = faults.shape(interface, namespace, where, 40)
    seen = observe(wired, lasting(fault, 1.0))
    (truth,) = fault.truth
    touched = [
        each
        for each in seen
        if truth.on_ns <= each.span.start
        and each.span.end <= truth.off_ns
        and each.span.attributes["spanway.wire.bytes"] > 0
        and each.span.end - each.span.start > 25 * MS
    ]
    # What its queue has no room for is lost there; then the sender's congestion control holds back what comes next on
    # the connection, rightly told as the sender's time.
    right = {"proxy": ("proxy", "loss at proxy"), "switch": ("switch", "loss at ovs")}[where]
    hold(seen, touched, lambda each: each.verdict in right, 10, 0.8)


def test_nothing_is_charged_when_nothing_is_wrong(wired: Wired) -> None:
    seen = observe(wired, lambda: None)
    for place in ("link proxy", "link app"):
        charged = [each for each in seen if each.place == place and each.excess_us > CHARGED_US]
        assert len(charged) <= 0.015 * len(seen), charged[:3]
    assert not [each for each in seen if each.verdict.startswith("loss at link")]
