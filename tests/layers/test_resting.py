"""When taps may be set aside: only while every worker has said that it shows nothing."""

from __future__ import annotations

import asyncio
import contextlib
import time
from collections.abc import AsyncIterator, Callable, Sequence

import pytest
from hypothesis import given
from hypothesis import strategies as st

from proxy.layers import joining, resting
from proxy.layers.join import LATE_NS
from proxy.layers.resting import AFTER_NS, EARLIEST_NS, EARLY_NS, IDLE_NS, LONGEST_NS, SILENT_NS, WORTH_NS, Resting
from proxy.trace import allowance, handover
from proxy.trace.handover import Head

NOW = 1_790_000_000_000_000_000
REST = 1_000_000_000


def told(*rests: int) -> Resting:
    """Of workers that rest for so long from `NOW`, 0 for one that shows."""
    one = Resting()
    one._early_ns = EARLY_NS
    for number, rest in enumerate(rests):
        one.heard(Head(b"worker %d" % number, NOW + rest if rest else 0), True, NOW)
    return one


def test_its_bounds_are_those_of_the_proxy() -> None:
    assert LONGEST_NS == allowance.LONGEST_NS
    assert SILENT_NS > 2e9 * handover.LOOK
    assert AFTER_NS == LATE_NS
    assert LONGEST_NS < IDLE_NS < SILENT_NS
    assert allowance.KEPT_NS == joining.KEPT_NS < resting.KEPT_NS


def test_nobody_known_is_nobody_who_rests() -> None:
    assert Resting().until_ns(NOW) == 0


def test_the_first_time_there_is_more_of_it() -> None:
    one = Resting()
    one.heard(Head(b"worker 0", NOW + REST), True, NOW)
    assert one.until_ns(NOW + AFTER_NS) == NOW + REST - EARLIEST_NS


def test_one_that_rests() -> None:
    one = told(REST)
    assert one.until_ns(NOW) == 0  # what is on its way is waited for
    assert one.until_ns(NOW + AFTER_NS) == NOW + REST - EARLY_NS
    assert one.until_ns(NOW + REST - EARLY_NS - WORTH_NS) == NOW + REST - EARLY_NS
    assert one.until_ns(NOW + REST - EARLY_NS - WORTH_NS + 1) == 0
    assert one.until_ns(NOW + REST + 1) == 0


def test_what_is_said_again_does_not_put_it_off() -> None:
    one = told(REST)
    one.heard(Head(b"worker 0", NOW + REST), False, NOW + AFTER_NS)
    assert one.until_ns(NOW + AFTER_NS) == NOW + REST - EARLY_NS


def test_one_that_shows_is_enough() -> None:
    assert told(REST, 0, REST).until_ns(NOW + AFTER_NS) == 0
    assert told(REST, REST // 2, REST).until_ns(NOW + AFTER_NS) == NOW + REST // 2 - EARLY_NS


def test_a_worker_that_is_no_more_is_forgotten() -> None:
    one = told(0)
    one.heard(Head(b"another", 0), False, NOW + SILENT_NS)
    assert "2 workers" in repr(one)
    one.until_ns(NOW + SILENT_NS + 1)
    assert "1 workers" in repr(one)


def test_one_without_traffic_is_not_waited_for() -> None:
    one = told(0)  # it shows
    one.heard(Head(b"another", NOW + IDLE_NS + REST), True, NOW + IDLE_NS - AFTER_NS - 1)
    assert one.until_ns(NOW + IDLE_NS - 1) == 0
    assert one.until_ns(NOW + IDLE_NS) == NOW + IDLE_NS + REST - EARLY_NS
    one.heard(Head(b"worker 0", 0), False, NOW + IDLE_NS)  # it is still there
    assert one.until_ns(NOW + IDLE_NS) > 0
    one.heard(Head(b"worker 0", 0), True, NOW + IDLE_NS)
    assert one.until_ns(NOW + IDLE_NS) == 0
    assert told(0, 0).until_ns(NOW + IDLE_NS) == 0  # nobody rests


def test_a_rest_that_is_too_long_is_a_clock_that_was_set() -> None:
    assert told(LONGEST_NS + 1).until_ns(NOW) == 0
    assert told(REST).until_ns(NOW - 3600 * 10**9) == 0


def test_more_workers_than_there_can_be_are_not_kept() -> None:
    one = Resting()
    for number in range(5000):
        one.heard(Head(b"%08d" % number, NOW + REST), True, NOW)
    assert "4096 workers" in repr(one)
    assert one.until_ns(NOW + AFTER_NS) == 0  # of one it is not known


@given(st.lists(st.integers(0, 2 * LONGEST_NS), min_size=1, max_size=5), st.integers(0, LONGEST_NS))
def test_never_while_one_shows(rests: list[int], later: int) -> None:
    until = told(*rests).until_ns(NOW + later)
    if until:
        assert all(NOW + rest >= until + EARLY_NS for rest in rests)
        assert until >= NOW + later + WORTH_NS


class Taps:
    def __init__(self, takes: float = 0.0, fails: Sequence[int] = ()) -> None:
        self.said: list[bool] = []
        self._takes = takes
        self._fails = fails  # numbers of calls

    async def attend(self, attending: bool) -> None:
        self.said.append(attending)
        if len(self.said) in self._fails:
            raise OSError("no more")
        if attending:
            await asyncio.sleep(self._takes)


@contextlib.asynccontextmanager
async def kept(one: Resting, taps: Taps, behind: Callable[[], bool] = lambda: False) -> AsyncIterator[None]:
    task = asyncio.create_task(one.keep(taps.attend, behind))
    yield
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task


async def until(what: Callable[[], bool]) -> None:
    """Wait for it; the tests' own time limit ends what never comes."""
    while not what():
        await asyncio.sleep(0.01)


def resting_now(seconds: float) -> tuple[Resting, int]:
    one, now = Resting(), time.time_ns()
    one._early_ns = EARLY_NS
    one.heard(Head(b"worker 0", now + int(seconds * 1e9)), True, now - AFTER_NS)
    return one, now + int(seconds * 1e9)


async def test_taps_are_set_aside_and_put_back_in_time() -> None:
    one, then = resting_now(1.5)
    taps = Taps()
    async with kept(one, taps):
        await until(lambda: one.aside)
        assert one.covers(then, then)  # it is not known until when
        await until(lambda: not one.aside)
    assert taps.said[:2] == [False, True]
    since, back = one._times[0]
    assert then - 1_500_000_000 <= since < back
    assert one.seconds > 0
    assert one.covers(since - 2, since)
    assert one.covers(back, back)
    assert not one.covers(since - 2, since - 1)


async def test_a_worker_that_shows_something_again_has_them_put_back() -> None:
    one, then = resting_now(4.0)
    taps = Taps()
    async with kept(one, taps):
        await until(lambda: taps.said == [False])
        one.heard(Head(b"another", 0), True, time.time_ns())
        await until(lambda: not one.aside)
    assert taps.said == [False, True]
    assert one._times[-1][1] < then - 1_000_000_000


async def test_one_that_ends_its_rest_earlier_is_obeyed() -> None:
    one, then = resting_now(4.5)
    taps = Taps()
    async with kept(one, taps):
        await until(lambda: taps.said == [False])
        one.heard(Head(b"another", time.time_ns() + 300_000_000), True, time.time_ns())
        await until(lambda: not one.aside)
    assert one._times[0][1] < then - 1_000_000_000


async def test_they_are_put_back_early_where_much_comes_meanwhile() -> None:
    one, then = resting_now(4.0)
    taps, much = Taps(), [False]
    async with kept(one, taps, lambda: much[0]):
        await until(lambda: taps.said == [False])
        much[0] = True
        await until(lambda: not one.aside)
        await asyncio.sleep(0.2)
    assert taps.said == [False, True]
    assert one._times[-1][1] < then - 1_000_000_000


@pytest.mark.parametrize("busy", [True, False])
async def test_not_while_something_is_under_way_or_there_is_too_much_to_do(busy: bool) -> None:
    one, _ = resting_now(4.0)
    if busy:
        one.heard(Head(b"another", 0, busy=True), False, time.time_ns())
    taps = Taps()
    async with kept(one, taps, lambda: not busy):
        await asyncio.sleep(0.3)
    assert taps.said == []


async def test_they_are_put_back_where_it_ends() -> None:
    one, _ = resting_now(4.0)
    taps = Taps()
    async with kept(one, taps):
        await until(lambda: taps.said == [False])
    assert taps.said == [False, True]


@pytest.mark.parametrize(("fails", "said"), [([1], [False, True]), ([2], [False, True, True])])
async def test_what_fails_is_logged_and_taps_come_back(
    fails: Sequence[int], said: list[bool], monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(resting, "AGAIN", 0.1)
    one, _ = resting_now(0.4)
    taps = Taps(fails=fails)
    async with kept(one, taps):
        await until(lambda: len(taps.said) >= len(said))
        await until(lambda: not one.aside)
    assert taps.said[: len(said)] == said
    assert caplog.messages == ["taps cannot be set aside, or put back"]


async def test_a_tap_that_is_late_is_late_for_what_it_covers() -> None:
    one, _ = resting_now(0.5)
    taps = Taps(takes=1.0)
    async with kept(one, taps):
        await until(lambda: taps.said == [False, True])
        assert one.covers(time.time_ns(), time.time_ns())  # the kernel has not said so
        await until(lambda: not one.aside)
    assert one._times[-1][1] - one._times[-1][0] > 1_000_000_000
    assert one._early_ns == EARLIEST_NS


async def test_where_that_takes_long_it_is_begun_earlier() -> None:
    one, _ = resting_now(0.5)
    taps = Taps(takes=0.1)
    async with kept(one, taps):
        await until(lambda: len(one._times) > 0)
    assert 200_000_000 <= one._early_ns <= EARLIEST_NS


@pytest.mark.parametrize("ago_ns", [resting.KEPT_NS, -3_600_000_000_000], ids=["long past", "of a later clock"])
async def test_what_has_been_is_not_kept_for_ever(ago_ns: int) -> None:
    one, _ = resting_now(0.5)
    one._times.append((NOW, time.time_ns() - ago_ns))
    async with kept(one, Taps()):
        await until(lambda: bool(one._times) and one._times[0][0] != NOW)
    assert len(one._times) == 1
