"""Blind: faults are put in, and what the wire says of each request is held against what was done when and where.

What was done is logged by those who do it: the time at which a fault was turned on, the frames that a box has delayed,
dropped, or merely had in its hands for too long (`tests.real.wire_truth`). By that log a request is

    touched      the fault has cost it 5 ms or more (of a place that stood still: it overlaps with 10 ms or more of
                 that), and no other place had its frames for half as long: the verdict must be that fault's;
    untouched    the fault's place had its frames for less than 5 ms in all, and lost none: it must not be charged, that
                 is, the verdict must not be that place's with 5 ms or more beyond the usual, nor a loss there;
    between      all others: at the edge of a fault, or held up by a busy machine, at that place or at another;
    missing      not joined, so that nothing is said of it.
"""

from __future__ import annotations

import itertools
import time
from collections.abc import Callable, Collection, Iterator, Sequence
from pathlib import Path
from typing import Any, Final, NamedTuple

import psutil
import pytest

from proxy.demo.lab import faults
from proxy.demo.lab.faults import Fault
from proxy.demo.lab.faults import Truth as Episode
from proxy.demo.lab.lab import Lab
from tests.harness.collector import Span
from tests.harness.namespaces import laboratory
from tests.real.wire_truth import BACKEND, LINK_APP, LINK_PROXY, PROXY, SWITCH, Truth
from tests.real.wired import Answered, Wired

pytestmark = [pytest.mark.real, pytest.mark.alone, pytest.mark.slow, pytest.mark.timeout(300)]

MS: Final = 1_000_000
COUNT: Final = 900
CONNECTIONS: Final = 2  # boxes are programs, and would themselves be the fault of a busier path
CHARGED_NS: Final = 5 * MS
ALWAYS: Final = 1 << 62
UNREAD_NS: Final = 100 * MS  # as `wire_load` asks for
EACH: Final = 0.95  # of the touched requests of each fault are judged right
ALL: Final = 0.99  # of all of them
JOINED: Final = 0.99  # of the requests of each load
BOXES: Final = (("proxy", LINK_PROXY), ("switch", SWITCH), ("app", LINK_APP))
KINDS: Final = {"mixed": "", "bulk": ", large bodies", "downloads": ", large answers"}
_MARKS = itertools.count(1)


class Row(NamedTuple):
    """What became of one fault's requests."""

    fault: str
    touched: int
    right: int
    between: int
    untouched: int
    charged: int
    missing: int


FAULTS: Final = (
    *(f"delay at {place}" for _, place in BOXES),
    *(f"loss at {place}" for _, place in BOXES),
    "switch stopped",
    "switch stopped, large bodies",
    "proxy's loop stalled",
    "proxy's loop stalled, large answers",
    "backend's loop stalled",
    "backend's loop stalled, large bodies",
    "slow application",
    "backend does not read",
    "shaping before the proxy's tap",
    "shaping in the switch",
    "nothing, at each place",
)
TABLE: Final[list[Row]] = []


def summed(name: str, rows: Sequence[Row]) -> Row:
    return Row(name, *(sum(column) for column in zip(*(row[1:] for row in rows), strict=True)))


def way(lab: Lab) -> dict[str, Any]:
    """Four taps: both ends of each pod's link, whose middle is a box; a third box is within the switch."""
    proxy, app = lab.proxy, lab.backends["app"]
    assert proxy.boxed is not None
    assert app.boxed is not None
    return {
        "taps": [proxy.boxed[0], proxy.port, app.port, app.boxed[0]],
        "between": [LINK_PROXY, SWITCH, LINK_APP],
    }


def send_plainly(lab: Lab) -> None:
    """Both ends send what acknowledgements let them: Reno, which is in every kernel and free in every namespace.

    A congestion control that paces (BBR) waits at its own end for a narrow place further on, and that is where the wire
    finds the time.
    """
    for pod in (lab.proxy, lab.backends["app"]):
        with lab.within(pod):
            Path("/proc/sys/net/ipv4/tcp_congestion_control").write_text("reno", encoding="ascii")


@pytest.fixture(scope="module")
def wired(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Wired]:
    folder = tmp_path_factory.mktemp("faults")
    with laboratory("wflt", "ovs", boxes=("proxy", "switch", "backend"), log_all=True) as lab:
        send_plainly(lab)
        with Wired(lab, folder, places_of=way(lab)) as running:
            running.load(400, CONNECTIONS, "mixed", next(_MARKS))  # what is usual
            running.settled(400)
            yield running


class Seen(NamedTuple):
    """What the wire said of one request, and what the boxes know of all."""

    answered: Answered
    span: Span
    truth: Truth

    @property
    def number(self) -> int:
        return int(self.answered.trace[16:], 16)

    @property
    def port(self) -> int:
        return int(self.span.attributes["network.local.port"])

    @property
    def verdict(self) -> str:
        return str(self.span.attributes["spanway.wait.verdict"])

    @property
    def place(self) -> str:
        return str(self.span.attributes["spanway.wait.place"])

    @property
    def excess_ns(self) -> int:
        return int(self.span.attributes["spanway.wait.excess.us"]) * 1000

    def held_ns(self, place: str) -> int:
        return self.truth.held_ns(place, self.port, self.span.start, self.span.end)

    def lost_ns(self, place: str) -> int:
        return self.truth.lost_ns(place, self.port, self.span.start, self.span.end)

    def alone(self, cost_ns: int, places: Collection[str]) -> bool:
        """Whether, beside what a fault at one of these places cost it, no other can have been what it waited for."""
        others = (place for place in (LINK_PROXY, SWITCH, LINK_APP) if place not in places)
        return all(2 * self.held_ns(place) < cost_ns for place in others)

    def overlap_ns(self, episodes: Sequence[Episode]) -> int:
        return max((min(self.span.end, one.off_ns) - max(self.span.start, one.on_ns) for one in episodes), default=0)

    def within(self, episodes: Sequence[Episode]) -> bool:
        return any(one.on_ns <= self.span.start and self.span.end <= one.off_ns for one in episodes)

    def far_from(self, episodes: Sequence[Episode]) -> bool:
        return all(self.span.start > one.end_ns or self.span.end < one.begin_ns for one in episodes)

    def charged(self, places: Collection[str]) -> bool:
        """Whether the wire accuses one of these places of what is more than usual."""
        if self.verdict.startswith("loss at "):
            return self.place in places
        return self.place in places and self.excess_ns >= CHARGED_NS

    def __str__(self) -> str:
        held = {place: f"{self.held_ns(place) / MS:.1f}" for place in (PROXY, LINK_PROXY, SWITCH, LINK_APP, BACKEND)}
        return (
            f"request {self.number}: {self.verdict!r} at {self.place} by {self.excess_ns / MS:.1f} ms, "
            f"{self.span.attributes['spanway.wire.split']}; had by (ms): {held}"
        )


class Load(list[Seen]):
    """The requests of a load that were joined, and how many were not."""

    missing = 0


def observe(wired: Wired, inject: Callable[[], object], kind: str = "mixed", count: int = COUNT) -> Load:
    """What the wire said of a load during which something is done."""
    mark = next(_MARKS)
    for box in wired.lab.boxes.values():
        box.forget()
    before = wired.counts()
    received = before["records_received"]
    load = wired.begin_load(count, CONNECTIONS, kind, mark)
    wired.wire.until(lambda: wired.counts()["records_received"] > received, "to be told of the first request")
    inject()
    answered = wired.answers(load, mark)
    counts = wired.settled(int(received) + count)
    spans, _ = wired.spans(mark, int(counts["joined"] - before["joined"]))
    truth = Truth(wired.lab.boxes["proxy"].events(), wired.lab.boxes["app"].events())
    seen = Load(Seen(each, spans[each.trace], truth) for each in answered if each.trace in spans)
    seen.missing = count - len(seen)
    assert len(seen) >= JOINED * count, str(counts)
    return seen


def hold(
    fault: str,
    seen: Load,
    touched: Callable[[Seen], bool],
    right: Callable[[Seen], bool],
    spared: Callable[[Seen], bool],
    places: Collection[str],
    cost_ns: Callable[[Seen], int],
    least: int = 50,
    spare: int = 50,
) -> None:
    """Enter a row of the table, and hold it to what is asked of each fault. ``spared``: the fault was not on, or not
    for this one; ``places``: where the wire would charge it; ``cost_ns``: for how long it had one that it touched."""
    met = [each for each in seen if touched(each) and each.alone(cost_ns(each), places)]
    wrong = [each for each in met if not right(each)]
    untouched = [
        each
        for each in seen
        if not touched(each)
        and spared(each)
        and all(each.held_ns(place) < CHARGED_NS and not each.lost_ns(place) for place in places)
    ]
    charged = [each for each in untouched if each.charged(places)]
    between = len(seen) - len(met) - len(untouched)
    TABLE.append(Row(fault, len(met), len(met) - len(wrong), between, len(untouched), len(charged), seen.missing))
    assert len(met) >= least, f"only {len(met)} of {len(seen)} requests met the fault"
    assert len(untouched) >= spare, f"only {len(untouched)} of {len(seen)} requests did not meet the fault"
    text = "\n".join(map(str, wrong[:8]))
    assert len(wrong) <= (1 - EACH) * len(met), f"{len(wrong)} of {len(met)} are judged wrong:\n{text}"
    text = "\n".join(map(str, charged[:8]))
    assert not charged, f"{len(charged)} of {len(untouched)} are charged with what did not happen:\n{text}"


def lasting(fault: Fault, seconds: float = 1.2) -> Callable[[], None]:
    def inject() -> None:
        time.sleep(0.2)
        with fault:
            time.sleep(seconds)

    return inject


def blinking(fault: Fault, milliseconds: int, times: int = 24) -> Callable[[], None]:
    seconds = milliseconds / 1000
    return lambda: fault.episodes(times, lasting_s=(seconds, seconds * 1.5), apart_s=(0.03, 0.06), seed=1)


@pytest.mark.parametrize(("box", "place"), BOXES)
def test_a_delay(wired: Wired, box: str, place: str) -> None:
    fault = faults.delay(wired.lab, box, 5000)
    seen = observe(wired, lasting(fault))
    verdict = "switch" if place == SWITCH else "network"
    hold(
        f"delay at {place}",
        seen,
        lambda each: each.within(fault.truth),  # both ways: 5 ms each
        lambda each: (each.verdict, each.place) == (verdict, place),
        lambda each: each.far_from(fault.truth),
        {place},
        lambda each: each.held_ns(place),
    )


@pytest.mark.parametrize(("box", "place"), BOXES)
def test_loss(wired: Wired, box: str, place: str) -> None:
    fault = faults.loss(wired.lab, box, 0.08, seed=len(box))
    seen = observe(wired, lasting(fault, 8.0), count=2000)
    hold(
        f"loss at {place}",
        seen,
        lambda each: each.lost_ns(place) >= CHARGED_NS,  # until the bytes came once more
        lambda each: each.verdict == f"loss at {place}",
        lambda each: not each.lost_ns(place),
        {place},
        lambda each: each.lost_ns(place),
        25,
    )
    # However soon it was repaired, it is known where it was lost.
    met = [each for each in seen if each.lost_ns(place)]
    missed = [each for each in met if each.span.attributes.get("spanway.wire.lost.at") != place]
    assert len(missed) <= (1 - EACH) * len(met), "\n".join(map(str, missed[:8]))
    false = [
        each for each in seen if not each.lost_ns(place) and each.span.attributes.get("spanway.wire.lost.at") == place
    ]
    assert not false, "\n".join(map(str, false[:8]))


def stalled(
    wired: Wired, fault: Fault, name: str, kind: str, verdicts: Collection[str], places: Collection[str]
) -> None:
    mixed = kind == "mixed"
    # Of large bodies that meet a stop, many waited for another place too, and are not asked for (`Seen.alone`).
    seen = observe(wired, blinking(fault, 40, 24 if mixed else 40), kind, 2000 if mixed else 800)
    hold(
        name + KINDS[kind],
        seen,
        lambda each: each.overlap_ns(fault.truth) >= 2 * CHARGED_NS,  # of which 3 ms would have passed anyway
        lambda each: each.verdict in verdicts,
        lambda each: each.far_from(fault.truth),
        places,
        lambda each: max(each.held_ns(place) for place in places),
        20,
        50 if mixed else 0,  # a large body keeps the switch busy for 5 ms by itself
    )


@pytest.mark.parametrize("kind", ["mixed", "bulk"])
def test_a_switch_that_stands_still(wired: Wired, kind: str) -> None:
    fault = faults.switch_stall(wired.lab)
    stalled(wired, fault, "switch stopped", kind, {"switch"}, {SWITCH})


@pytest.mark.parametrize("kind", ["mixed", "downloads"])
def test_a_proxy_that_stands_still(wired: Wired, kind: str) -> None:
    workers = [child.pid for child in psutil.Process(wired.proxy.pid).children(recursive=True)]
    fault = faults.stall(workers, "proxy")
    stalled(wired, fault, "proxy's loop stalled", kind, {"proxy"}, {PROXY})


@pytest.mark.parametrize("kind", ["mixed", "bulk"])
def test_a_backend_that_stands_still(wired: Wired, kind: str) -> None:
    fault = faults.stall([wired.backend.pid], "backend")
    stalled(wired, fault, "backend's loop stalled", kind, {"application", "peer not reading"}, {BACKEND})


def test_an_application_that_is_slow(wired: Wired) -> None:
    seen = observe(wired, lambda: None, "slow")
    slow = lambda each: each.number % 10 == 0  # noqa: E731
    hold(
        "slow application",
        seen,
        slow,
        lambda each: each.verdict == "application" and each.excess_ns > 15 * MS,
        lambda each: not slow(each),
        {BACKEND},
        lambda each: each.held_ns(BACKEND),
    )


def test_a_backend_that_does_not_read(wired: Wired) -> None:
    wired.backend.stop()
    wired.start_backend(receive=16384)
    try:
        seen = observe(wired, lambda: None, "unread", 300)
    finally:
        wired.backend.stop()
        wired.start_backend()
    unread = lambda each: each.number % 4 == 0  # noqa: E731
    hold(
        "backend does not read",
        seen,
        unread,
        lambda each: each.verdict == "peer not reading",
        lambda each: not unread(each),
        {"backend receive"},
        lambda each: UNREAD_NS,
    )


@pytest.mark.parametrize("where", ["proxy", "switch"])
def test_shaping(wired: Wired, where: str) -> None:
    """The queue is before the tap of its interface: it is the sender's, or the switch's; what it has no room for is
    lost there."""
    lab = wired.lab
    interface, namespace = (lab.proxy.interface, lab.proxy.namespace) if where == "proxy" else (
        lab.backends["app"].port, None
    )  # fmt: skip
    fault = faults.shape(interface, namespace, where, 40)
    seen = observe(wired, lasting(fault, 3.0), "uploads", 600)
    place = PROXY if where == "proxy" else SWITCH
    right = {where, f"loss at {place}"}
    hold(
        "shaping before the proxy's tap" if where == "proxy" else "shaping in the switch",
        seen,
        # 100 kB take 17 ms at this rate, but for what the bucket holds.
        lambda each: each.number % 2 == 0 and each.within(fault.truth),
        lambda each: each.verdict in right,
        lambda each: each.far_from(fault.truth),
        {place},
        lambda each: ALWAYS,  # the next frames of a body are elsewhere while it waits for the last
    )


def test_nothing_is_charged_when_nothing_is_wrong(wired: Wired) -> None:
    seen = observe(wired, lambda: None)
    places = (PROXY, LINK_PROXY, SWITCH, LINK_APP, BACKEND)
    first = len(TABLE)
    for place in places:
        hold(
            "nothing, at each place",
            seen,
            lambda each: False,
            lambda each: True,
            lambda each: True,
            {place},
            lambda each: ALWAYS,
            0,
        )
    TABLE[first:] = [summed("nothing, at each place", TABLE[first:])]


def test_the_matrix_as_a_whole(capsys: pytest.CaptureFixture[str]) -> None:
    """The rows that the tests before have entered."""
    assert TABLE, "run the whole module"
    total = summed("all", TABLE)
    with capsys.disabled():
        print("\n" + f"{'fault':<32}" + "".join(f"{name:>11}" for name in Row._fields[1:]))
        for row in (*TABLE, total):
            print(f"{row.fault:<32}" + "".join(f"{number:>11}" for number in row[1:]))
    absent = set(FAULTS) - {row.fault for row in TABLE}
    assert not absent, f"run the whole module: nothing is known of {', '.join(sorted(absent))}"
    assert total.right >= ALL * total.touched
    assert total.charged == 0
